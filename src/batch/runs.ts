/**
 * Runs of row positions, packed: the inside of a RowSet.
 *
 * @module
 */

/** `count` rows from `start`, each `step` after the one before; a step of 0 repeats one row. */
export interface Run {
  readonly start: number;
  readonly count: number;
  readonly step: number;
}

/** Rows are positions in a Uint32Array. */
export const MAX_ROW: number = 2 ** 32 - 1;
/** Three doubles a run (and one for its end) against four bytes a row: above rows / 8 runs indices are smaller. */
const ROWS_PER_RUN = 8;
const FEW_RUNS = 16;

/** Start, count, step of each run. */
export type Packed = Float64Array;

/** Collects runs, joins those that continue one another, and turns to indices once these are smaller. */
export class RunBuilder {
  /** How many rows will be added in all. */
  readonly length: number;
  /** The rows, once there were too many runs. */
  indices: Uint32Array | null = null;
  #packed: Packed;
  #used = 0;
  #filled = 0;
  readonly #most: number;

  constructor(length: number) {
    this.length = length;
    this.#most = maxRuns(length) * 3;
    this.#packed = new Float64Array(12);
  }

  /** What was added, where `indices` is null. */
  runs(): Packed {
    return this.#packed.slice(0, this.#used);
  }

  /** Adds rows one by one. */
  addIndices(rows: Uint32Array): void {
    for (let i = 0; i < rows.length;) {
      if (this.indices !== null) {
        this.indices.set(i === 0 ? rows : rows.subarray(i), this.#filled);
        this.#filled += rows.length - i;
        return;
      }
      const end = runEnd(rows, i, rows.length);
      this.add(rows[i]!, end - i, end - i === 1 ? 1 : rows[i + 1]! - rows[i]!);
      i = end;
    }
  }

  /** Adds a run of at least one row. */
  add(start: number, count: number, step: number): void {
    if (this.indices !== null) {
      fillRun(this.indices, this.#filled, start, count, step);
      this.#filled += count;
      return;
    }
    if (count === 1) step = 1;
    const packed = this.#packed;
    const last = this.#used - 3;
    if (last >= 0) {
      const lastStart = packed[last]!;
      const lastCount = packed[last + 1]!;
      const joint = lastCount === 1 ? (count === 1 ? start - lastStart : step) : packed[last + 2]!;
      if (start === lastStart + lastCount * joint && (count === 1 || step === joint)) {
        packed[last + 1] = lastCount + count;
        packed[last + 2] = joint;
        this.#filled += count;
        return;
      }
    }
    if (this.#used === this.#most) {
      this.#expand();
      return this.add(start, count, step);
    }
    if (this.#used === packed.length) {
      this.#packed = new Float64Array(Math.min(packed.length * 2, this.#most));
      this.#packed.set(packed);
    }
    this.#packed[this.#used] = start;
    this.#packed[this.#used + 1] = count;
    this.#packed[this.#used + 2] = step;
    this.#used += 3;
    this.#filled += count;
  }

  #expand(): void {
    const indices = new Uint32Array(this.length);
    let at = 0;
    for (let i = 0; i < this.#used; i += 3) {
      fillRun(indices, at, this.#packed[i]!, this.#packed[i + 1]!, this.#packed[i + 2]!);
      at += this.#packed[i + 1]!;
    }
    this.indices = indices;
  }
}

/** How many runs may stand for `length` rows before indices are smaller. */
export function maxRuns(length: number): number {
  return Math.max(FEW_RUNS, Math.floor(Math.min(length, MAX_ROW) / ROWS_PER_RUN));
}

/** The position after the run that begins at `i`. */
export function runEnd(indices: ArrayLike<number>, i: number, length: number): number {
  if (i + 1 >= length) return length;
  const step = indices[i + 1]! - indices[i]!;
  let end = i + 2;
  while (end < length && indices[end]! - indices[end - 1]! === step) end++;
  return end;
}

/** Writes the rows of a run into `out` from `at` on. */
export function fillRun(out: Uint32Array, at: number, start: number, count: number, step: number): void {
  if (step === 0) {
    out.fill(start, at, at + count);
    return;
  }
  for (let i = at, row = start; i < at + count; i++, row += step) out[i] = row;
}

/** The position after the last row of each run. */
export function endsOf(runs: Packed): Float64Array {
  const ends = new Float64Array(runs.length / 3);
  let end = 0;
  for (let i = 0; i < ends.length; i++) ends[i] = end += runs[i * 3 + 1]!;
  return ends;
}

/** True if both have the same elements. */
export function sameNumbers(a: Float64Array | Uint32Array, b: Float64Array | Uint32Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
