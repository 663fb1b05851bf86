/**
 * Row positions, held compactly: what selecting, slicing, masking, reordering and repeating rows work on.
 *
 * @module
 */

import { CorruptionError, SchemaError } from "../errors.ts";
import {
  endsOf,
  fillRun,
  MAX_ROW,
  maxRuns,
  type Packed,
  type Run,
  RunBuilder,
  runEnd,
  sameNumbers,
} from "./runs.ts";

export type { Run } from "./runs.ts";

/**
 * What `RowSet.toJSON` writes, a list of: a row; `[start, count]`; `[start, count, step]`;
 * `[start, count, step, times]`, where each row of the run comes `times` times in succession.
 */
export type RowSetJson = readonly (number | readonly number[])[];

/**
 * An immutable sequence of row positions, in any order, duplicates allowed.
 *
 * Ranges and few runs cost a few numbers however many rows they stand for; anything less regular is an array of
 * four bytes a row.
 *
 * @example
 * ```ts
 * const evens = RowSet.range(0, 500_000, 2);
 * const last = evens.slice(evens.length - 3, 3); // 999994, 999996, 999998
 * ```
 */
export class RowSet {
  /** How many rows, duplicates counted. */
  readonly length: number;
  readonly #runs: Packed | null;
  readonly #indices: Uint32Array | null;
  /** Position after the last row of each run; made at the first random access. */
  #ends: Float64Array | null = null;
  #bounds: readonly [min: number, max: number] | null = null;

  /** Internal: use the static constructors. */
  private constructor(length: number, runs: Packed | null, indices: Uint32Array | null) {
    this.length = length;
    this.#runs = runs;
    this.#indices = indices;
  }

  static readonly #empty = new RowSet(0, new Float64Array(0), null);

  /**
   * `count` rows from `start`.
   *
   * @param step distance between rows: 1 unless given, negative to go down, 0 to repeat `start`
   * @throws {SchemaError} where an argument is no integer or a row would be negative or beyond 2^32−2
   */
  static range(start: number, count: number, step = 1): RowSet {
    checkRun(start, count, step, MAX_ROW);
    if (count === 0) return RowSet.#empty;
    // + 0 turns −0 into 0
    return new RowSet(count, Float64Array.of(start + 0, count, count === 1 ? 1 : step + 0), null);
  }

  /** Rows 0 to `count − 1`. */
  static all(count: number): RowSet {
    return RowSet.range(0, count);
  }

  /**
   * The given rows in the given order, compressed to runs where that is smaller. The input is copied.
   *
   * @throws {SchemaError} where an index is no integer of 0 … 2^32−2
   */
  static of(indices: ArrayLike<number>): RowSet {
    for (let i = 0; i < indices.length; i++) {
      const row = indices[i]!;
      if (!(row >= 0 && row < MAX_ROW && row === Math.floor(row))) {
        throw new SchemaError(`row ${row} at position ${i} is not a whole number of 0 to 2^32-2`, {
          expected: "row positions",
          actual: row,
        });
      }
    }
    return RowSet.#compress(indices, false);
  }

  /** All rows of the first set, then all of the second, and so on. */
  static concat(sets: readonly RowSet[]): RowSet {
    let length = 0;
    let listed = 0;
    for (const set of sets) {
      length += set.length;
      if (set.#indices !== null) listed += set.length;
    }
    if (listed * 2 > length && length <= MAX_ROW) {
      const indices = new Uint32Array(length);
      let at = 0;
      for (const set of sets) {
        indices.set(set.#indices ?? set.toIndices(), at);
        at += set.length;
      }
      return RowSet.#compress(indices, true);
    }
    const out = new RunBuilder(length);
    for (const set of sets) {
      if (set.#indices !== null) out.addIndices(set.#indices);
      else for (const { start, count, step } of set.runs()) out.add(start, count, step);
    }
    return RowSet.#build(out);
  }

  /**
   * Reads what `toJSON` wrote. Nothing is allocated by the counts in the text: the rows of a long run stay a run.
   *
   * @param value parsed JSON
   * @param limit every row must be smaller, and there may be at most 2^32−1 rows
   * @throws {CorruptionError} for anything else
   */
  static fromJSON(value: unknown, limit: number): RowSet {
    if (!Array.isArray(value)) throw corrupt("is no array", value);
    const bound = Math.min(limit, MAX_ROW);
    let length = 0;
    let repeated = 0;
    for (const item of value as unknown[]) {
      if (typeof item === "number" && Number.isInteger(item) && item >= 0 && item < bound) {
        length++;
        continue;
      }
      const run: readonly unknown[] = Array.isArray(item) ? item : [item, 1];
      if (run.length < 2 || run.length > 4 || !run.every((n) => Number.isSafeInteger(n))) {
        throw corrupt("has an entry that is neither a row nor [start, count, step, times]", item);
      }
      const [start, count, step = 1, times = 1] = run as number[];
      if (start! < 0 || count! < 1 || times < 1 || start! >= bound) {
        throw corrupt(`has a run outside its ${limit} rows`, item);
      }
      const last = start! + (count! - 1) * step;
      if (!(last >= 0 && last < bound)) throw corrupt(`has a run outside its ${limit} rows`, item);
      length += count! * times;
      if (times > 1) repeated += count!;
      if (length > MAX_ROW) throw corrupt("has more than 2^32-1 rows", item);
    }
    // the one form that is many runs in memory (32 bytes each at most), so that a short text could ask for much
    if (repeated > 2 * Math.max(2 ** 20, limit)) throw corrupt("repeats too many rows", repeated);
    const out = new RunBuilder(length);
    for (const item of value as (number | number[])[]) {
      if (typeof item === "number") {
        out.add(item, 1, 1);
        continue;
      }
      const [start, count, step = 1, times = 1] = item;
      if (times === 1) out.add(start!, count!, step);
      else for (let i = 0; i < count!; i++) out.add(start! + i * step, times, 0);
    }
    return RowSet.#build(out);
  }

  static #build(builder: RunBuilder): RowSet {
    if (builder.length === 0) return RowSet.#empty;
    const indices = builder.indices;
    if (indices !== null) return new RowSet(builder.length, null, indices);
    return new RowSet(builder.length, builder.runs(), null);
  }

  /** Runs where they are smaller, else `indices` itself (if the caller gives it away) or a copy. */
  static #compress(indices: ArrayLike<number>, owned: boolean): RowSet {
    const length = indices.length;
    if (length === 0) return RowSet.#empty;
    const most = maxRuns(length);
    let runs = 0;
    for (let i = 0; i < length && runs <= most; runs++) i = runEnd(indices, i, length);
    if (runs > most) {
      const kept = owned && indices instanceof Uint32Array ? indices : Uint32Array.from(indices);
      return new RowSet(length, null, kept);
    }
    const packed = new Float64Array(runs * 3);
    for (let i = 0, at = 0; i < length; at += 3) {
      const end = runEnd(indices, i, length);
      packed[at] = indices[i]! + 0;
      packed[at + 1] = end - i;
      packed[at + 2] = end - i === 1 ? 1 : indices[i + 1]! - indices[i]!;
      i = end;
    }
    return new RowSet(length, packed, null);
  }

  /**
   * The row at position `i`.
   *
   * @throws {SchemaError} where there is no such position
   */
  at(i: number): number {
    if (!(i >= 0 && i < this.length && i === Math.floor(i))) {
      throw new SchemaError(`position ${i} is not in a selection of ${this.length} rows`, {
        expected: `0 to ${this.length - 1}`,
        actual: i,
      });
    }
    if (this.#indices !== null) return this.#indices[i]!;
    const runs = this.#runs!;
    const run = runs.length === 3 ? 0 : this.#runAt(i);
    const first = run === 0 ? 0 : this.#ends![run - 1]!;
    return runs[run * 3]! + (i - first) * runs[run * 3 + 2]!;
  }

  /** The run that holds position `i`. */
  #runAt(i: number): number {
    const ends = this.#ends ??= endsOf(this.#runs!);
    let low = 0;
    let high = ends.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (ends[middle]! > i) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** All rows, as a new array. */
  toIndices(): Uint32Array {
    if (this.length > MAX_ROW) throw new SchemaError(`${this.length} rows are too many to list`);
    if (this.#indices !== null) return this.#indices.slice();
    const out = new Uint32Array(this.length);
    let at = 0;
    for (const { start, count, step } of this.runs()) {
      fillRun(out, at, start, count, step);
      at += count;
    }
    return out;
  }

  /** The rows in order. */
  *[Symbol.iterator](): Generator<number, void, undefined> {
    if (this.#indices !== null) {
      yield* this.#indices;
      return;
    }
    for (const { start, count, step } of this.runs()) {
      for (let i = 0, row = start; i < count; i++, row += step) yield row;
    }
  }

  /**
   * The rows of this set at the positions `other`: row i of the result is `this.at(other.at(i))`.
   *
   * @throws {SchemaError} where a position is beyond this set
   */
  select(other: RowSet): RowSet {
    if (other.length === 0) return RowSet.#empty;
    if (other.max() >= this.length) {
      throw new SchemaError(`position ${other.max()} is not in a selection of ${this.length} rows`, {
        expected: `0 to ${this.length - 1}`,
        actual: other.max(),
      });
    }
    const range = this.isRange();
    if (range !== null && range.start === 0 && range.step === 1) return other;
    if (other.#isAll(this.length)) return this;
    if (this.#indices !== null) return this.#selectIndices(this.#indices, other);
    if (other.#indices !== null) return this.#selectFromRuns(other.#indices);
    const out = new RunBuilder(other.length);
    for (const { start, count, step } of other.runs()) this.#selectRun(out, start, count, step);
    return RowSet.#build(out);
  }

  #isAll(length: number): boolean {
    const range = this.isRange();
    return range !== null && range.start === 0 && range.count === length &&
      (range.step === 1 || length === 1);
  }

  #selectIndices(indices: Uint32Array, other: RowSet): RowSet {
    const range = other.isRange();
    if (range !== null && range.step === 1) {
      return RowSet.#compress(indices.subarray(range.start, range.start + range.count), true);
    }
    const positions = other.#indices ?? other.toIndices();
    const out = new Uint32Array(positions.length);
    for (let i = 0; i < out.length; i++) out[i] = indices[positions[i]!]!;
    return RowSet.#compress(out, true);
  }

  #selectFromRuns(positions: Uint32Array): RowSet {
    const runs = this.#runs!;
    const out = new Uint32Array(positions.length);
    let first = 0;
    let end = 0;
    let start = 0;
    let step = 0;
    for (let i = 0; i < out.length; i++) {
      const position = positions[i]!;
      if (position < first || position >= end) {
        const run = this.#runAt(position);
        first = run === 0 ? 0 : this.#ends![run - 1]!;
        end = this.#ends![run]!;
        start = runs[run * 3]!;
        step = runs[run * 3 + 2]!;
      }
      out[i] = start + (position - first) * step;
    }
    return RowSet.#compress(out, true);
  }

  /** Adds `this.at(start + i * step)` for i below `count`, run by run. */
  #selectRun(out: RunBuilder, start: number, count: number, step: number): void {
    const runs = this.#runs!;
    let run = this.#runAt(start);
    const ends = this.#ends!;
    for (let position = start, left = count; left > 0;) {
      const first = run === 0 ? 0 : ends[run - 1]!;
      const end = ends[run]!;
      const inside = step > 0
        ? Math.ceil((end - position) / step)
        : step < 0
        ? Math.floor((position - first) / -step) + 1
        : left;
      const taken = Math.min(left, inside);
      const runStep = runs[run * 3 + 2]!;
      out.add(runs[run * 3]! + (position - first) * runStep, taken, runStep * step);
      left -= taken;
      position += taken * step;
      if (left === 0) return;
      const next = step > 0 ? run + 1 : run - 1;
      const nextFirst = next === 0 ? 0 : ends[next - 1]!;
      run = position >= nextFirst && position < ends[next]! ? next : this.#runAt(position);
    }
  }

  /**
   * `count` rows of this set from position `start`, every `step`-th.
   *
   * @throws {SchemaError} where a position is beyond this set
   */
  slice(start: number, count: number, step = 1): RowSet {
    return this.select(RowSet.range(start, count, step));
  }

  /** The rows as runs, in order. Rows without a pattern come in runs of one or two. */
  *runs(): Generator<Run, void, undefined> {
    const indices = this.#indices;
    if (indices !== null) {
      for (let i = 0; i < indices.length;) {
        const end = runEnd(indices, i, indices.length);
        yield { start: indices[i]!, count: end - i, step: end - i === 1 ? 1 : indices[i + 1]! - indices[i]! };
        i = end;
      }
      return;
    }
    const runs = this.#runs!;
    for (let at = 0; at < runs.length; at += 3) {
      yield { start: runs[at]!, count: runs[at + 1]!, step: runs[at + 2]! };
    }
  }

  /** As `runs`, without an object for each. */
  #eachRun(visit: (start: number, count: number, step: number) => void): void {
    const indices = this.#indices;
    if (indices !== null) {
      for (let i = 0; i < indices.length;) {
        const end = runEnd(indices, i, indices.length);
        visit(indices[i]!, end - i, end - i === 1 ? 1 : indices[i + 1]! - indices[i]!);
        i = end;
      }
      return;
    }
    const runs = this.#runs!;
    for (let at = 0; at < runs.length; at += 3) visit(runs[at]!, runs[at + 1]!, runs[at + 2]!);
  }

  /** This set as one run, or null where it is not one. An empty set is `{ start: 0, count: 0, step: 1 }`. */
  isRange(): Run | null {
    const runs = this.#runs;
    if (this.length === 0) return { start: 0, count: 0, step: 1 };
    if (runs === null || runs.length !== 3) return null;
    return { start: runs[0]!, count: runs[1]!, step: runs[2]! };
  }

  /** True if the rows are few enough blocks, each going up by 1, that copying block by block pays. */
  isBlocks(): boolean {
    const runs = this.#runs;
    if (runs === null) return false;
    for (let at = 2; at < runs.length; at += 3) if (runs[at] !== 1) return false;
    return this.length >= (runs.length / 3) * 2 || runs.length === 3;
  }

  /** True if both hold the same rows in the same order. */
  equals(other: RowSet): boolean {
    if (this === other) return true;
    if (this.length !== other.length) return false;
    if (this.#runs !== null && other.#runs !== null) {
      if (sameNumbers(this.#runs, other.#runs)) return true;
      // one run is always found as one, so two different single runs are two different sets
      if (this.#runs.length === 3 || other.#runs.length === 3) return false;
    }
    return sameNumbers(this.#indices ?? this.toIndices(), other.#indices ?? other.toIndices());
  }

  /** The smallest row; 0 where there is none. */
  min(): number {
    return this.#extent()[0];
  }

  /** The largest row; −1 where there is none, so that `max() + 1` rows always cover the set. */
  max(): number {
    return this.#extent()[1];
  }

  #extent(): readonly [min: number, max: number] {
    if (this.#bounds !== null) return this.#bounds;
    if (this.length === 0) return this.#bounds = [0, -1];
    let min = Infinity;
    let max = -1;
    if (this.#indices !== null) {
      for (const row of this.#indices) {
        if (row < min) min = row;
        if (row > max) max = row;
      }
    } else {
      const runs = this.#runs!;
      for (let at = 0; at < runs.length; at += 3) {
        const first = runs[at]!;
        const last = first + (runs[at + 1]! - 1) * runs[at + 2]!;
        min = Math.min(min, first, last);
        max = Math.max(max, first, last);
      }
    }
    return this.#bounds = [min, max];
  }

  /** True if every row is larger than the one before it. */
  isIncreasing(): boolean {
    let last = -1;
    if (this.#indices !== null) {
      for (const row of this.#indices) {
        if (row <= last) return false;
        last = row;
      }
      return true;
    }
    const runs = this.#runs!;
    for (let at = 0; at < runs.length; at += 3) {
      const count = runs[at + 1]!;
      const step = runs[at + 2]!;
      if (runs[at]! <= last || (count > 1 && step <= 0)) return false;
      last = runs[at]! + (count - 1) * step;
    }
    return true;
  }

  /** Compact JSON; see {@linkcode RowSetJson}. */
  toJSON(): RowSetJson {
    const out: (number | number[])[] = [];
    /** Runs of one repeated row each, whose rows have one distance: `[start, count, step, times]`. */
    let repeats: [start: number, count: number, step: number, times: number] | null = null;
    const flush = () => {
      if (repeats === null) return;
      const [start, count, step, times] = repeats;
      out.push(count === 1 ? [start, times, 0] : [start, count, step, times]);
      repeats = null;
    };
    this.#eachRun((start, count, step) => {
      if (step === 0 && count > 1) {
        if (repeats !== null && repeats[3] === count) {
          if (repeats[1] === 1) repeats[2] = start - repeats[0];
          if (start === repeats[0] + repeats[1] * repeats[2]) {
            repeats[1]++;
            return;
          }
        }
        flush();
        repeats = [start, 1, 0, count];
        return;
      }
      flush();
      if (count === 1) out.push(start);
      else if (count === 2 && step !== 1) out.push(start, start + step);
      else out.push(step === 1 ? [start, count] : [start, count, step]);
    });
    flush();
    return out;
  }
}

function checkRun(start: number, count: number, step: number, limit: number): void {
  for (const [name, value] of [["start", start], ["count", count], ["step", step]] as const) {
    if (!Number.isSafeInteger(value)) {
      throw new SchemaError(`the ${name} of a range of rows is no integer`, { actual: value });
    }
  }
  const last = start + (count - 1) * step;
  if (count < 0 || start < 0 || (count > 0 && !(start < limit && last >= 0 && last < limit))) {
    throw new SchemaError(`${count} rows from ${start} by ${step} are not row positions`, {
      expected: `0 to ${limit - 1}`,
      actual: [start, count, step],
    });
  }
}

function corrupt(what: string, actual: unknown): CorruptionError {
  return new CorruptionError(`a stored row selection ${what}`, { actual });
}

/**
 * The rows a Python slice `[start:end:step]` of `length` rows stands for: negative bounds count from the end, bounds
 * outside are clamped, a negative step goes down.
 *
 * @throws {SchemaError} for a step of 0 and for anything that is no integer
 *
 * @example
 * ```ts
 * [...normalizeSlice(undefined, undefined, -1, 4)]; // [3, 2, 1, 0]
 * ```
 */
export function normalizeSlice(
  start: number | null | undefined,
  end: number | null | undefined,
  step: number | null | undefined,
  length: number,
): RowSet {
  const by = step ?? 1;
  for (const [name, value] of [["start", start], ["end", end], ["step", by]] as const) {
    if (value !== undefined && value !== null && !Number.isSafeInteger(value)) {
      throw new SchemaError(`the ${name} of a slice is no integer`, {
        expected: "an integer",
        actual: value,
      });
    }
  }
  if (by === 0) {
    throw new SchemaError("the step of a slice is 0", { expected: "a step of 1, -1, …", actual: 0 });
  }
  const down = by < 0;
  const lowest = down ? -1 : 0;
  const highest = down ? length - 1 : length;
  const clamp = (value: number) => Math.min(Math.max(value < 0 ? value + length : value, lowest), highest);
  const first = start === undefined || start === null ? (down ? highest : lowest) : clamp(start);
  const stop = end === undefined || end === null ? (down ? lowest : highest) : clamp(end);
  const count = Math.max(0, Math.ceil((stop - first) / by));
  return count === 0 ? RowSet.all(0) : RowSet.range(first, count, by);
}

/**
 * The rows a caller names by positions (negative ones count from the end) or by a mask of booleans.
 *
 * @param rows positions in any order, duplicates allowed; or one boolean for each of the `length` rows
 * @throws {SchemaError} at once for positions out of range, anything that is no integer, and masks of the wrong length
 */
export function normalizeRows(
  rows: readonly number[] | Uint32Array | readonly boolean[],
  length: number,
): RowSet {
  if (!Array.isArray(rows) && !(rows instanceof Uint32Array)) {
    throw new SchemaError("rows are neither an array nor a Uint32Array", {
      expected: "number[], Uint32Array or a boolean[] mask",
      actual: nameOf(rows),
    });
  }
  if (typeof rows[0] === "boolean") return maskRows(rows as readonly unknown[], length);
  const out = new Uint32Array(rows.length);
  for (let i = 0; i < out.length; i++) {
    const given: unknown = rows[i];
    if (typeof given !== "number" || !Number.isInteger(given)) {
      throw new SchemaError(`the row at position ${i} is no integer`, {
        expected: "integers, or booleans throughout",
        actual: given,
      });
    }
    const row = given < 0 ? given + length : given;
    if (row < 0 || row >= length) {
      throw new SchemaError(`row ${given} at position ${i} is out of range for ${length} rows`, {
        expected: length === 0 ? "no rows" : `${-length} to ${length - 1}`,
        actual: given,
      });
    }
    out[i] = row;
  }
  return RowSet.of(out);
}

function maskRows(mask: readonly unknown[], length: number): RowSet {
  if (mask.length !== length) {
    throw new SchemaError(`a mask of ${mask.length} rows does not fit ${length} rows`, {
      expected: length,
      actual: mask.length,
    });
  }
  const out = new Uint32Array(length);
  let count = 0;
  for (let i = 0; i < length; i++) {
    const keep = mask[i];
    if (typeof keep !== "boolean") {
      throw new SchemaError(`position ${i} of a mask is no boolean`, { expected: "boolean", actual: keep });
    }
    if (keep) out[count++] = i;
  }
  return RowSet.of(out.subarray(0, count));
}

function nameOf(value: unknown): string {
  return typeof value === "object" && value !== null ? value.constructor?.name ?? "object" : typeof value;
}
