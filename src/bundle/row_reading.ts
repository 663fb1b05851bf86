/**
 * Reading rows of equal length to any places, each row once.
 *
 * @module
 */

import type { RowSet, Run } from "../batch/rowset.ts";
import { ByteGather } from "./byte_gather.ts";
import { allocate, type Reading } from "./ranges.ts";
import { orderRows } from "./spans.ts";

/** Rows of a member's payload. */
export interface RowSource {
  readonly member: string;
  /** Where the first row begins. */
  readonly offset: number;
  readonly rowBytes: number;
}

/** Pieces at least this long are read straight to where they belong. */
const WIDE = 512;

/**
 * Reads rows into `out`: row i of `rows` becomes row `positions.at(i)` there.
 *
 * Long runs and wide rows go straight to `out`. Narrow rows in no order are read in ascending order and
 * copied on.
 */
export function* readRows(
  source: RowSource,
  rows: RowSet,
  out: Uint8Array,
  positions: RowSet,
): Reading<void> {
  const { rowBytes } = source;
  if (rowBytes === 0 || rows.length === 0) return;
  const target = positions.isRange();
  if (target !== null && (target.step === 1 || target.count === 1) && rows.isIncreasing()) {
    return yield* readAscending(source, rows, out.subarray(target.start * rowBytes));
  }
  const pieces = longPieces(rows, positions, Math.floor(rows.length * rowBytes / WIDE));
  if (pieces !== null) return yield* readPieces(source, pieces, out);
  const targets = positions.toIndices();
  const { unique, ranks } = orderRows(rows);
  if (rowBytes >= WIDE) return yield* readWide(source, unique, ranks, out, targets);
  const ascending = allocate(unique.length * rowBytes, source.member);
  yield* readAscending(source, unique, ascending);
  copyRows(ascending, ranks, out, targets, rowBytes);
}

/** Reads ascending rows back to back. */
function* readAscending(source: RowSource, rows: RowSet, out: Uint8Array): Reading<void> {
  const { member, offset, rowBytes } = source;
  const gather = new ByteGather(member, out);
  let at = 0;
  for (const { start, count, step } of rows.runs()) {
    if (step === 1) {
      gather.add(offset + start * rowBytes, count * rowBytes, at * rowBytes);
    } else {
      for (let i = 0; i < count; i++) {
        gather.add(offset + (start + i * step) * rowBytes, rowBytes, (at + i) * rowBytes);
      }
    }
    at += count;
  }
  yield* finish(gather);
}

function* finish(gather: ByteGather): Reading<void> {
  const ranges = gather.ranges();
  if (ranges.length > 0) yield ranges;
  gather.scatter();
}

/** Consecutive rows that go to consecutive places. */
interface Piece {
  readonly row: number;
  readonly count: number;
  readonly position: number;
}

/**
 * The selection as pieces in ascending order; null where there are more than `most`, or where a row is asked
 * for twice.
 */
function longPieces(rows: RowSet, positions: RowSet, most: number): readonly Piece[] | null {
  const pieces: Piece[] = [];
  const places = new RunCursor(positions);
  for (const { start, count, step } of rows.runs()) {
    for (let done = 0; done < count;) {
      if (pieces.length >= most) return null;
      const position = places.row;
      const length = step === 1 ? places.takeConsecutive(count - done) : places.takeConsecutive(1);
      pieces.push({ row: start + done * step, count: length, position });
      done += length;
    }
  }
  pieces.sort((a, b) => a.row - b.row);
  return pieces.some(({ row }, i) => i > 0 && row < pieces[i - 1]!.row + pieces[i - 1]!.count)
    ? null
    : pieces;
}

/** Walks over the rows of a set, as many at a time as are consecutive. */
class RunCursor {
  readonly #runs: Iterator<Run>;
  #run: Run | undefined;
  #used = 0;

  constructor(rows: RowSet) {
    this.#runs = rows.runs()[Symbol.iterator]();
    this.#run = this.#runs.next().value;
  }

  /** The next row. */
  get row(): number {
    return this.#run!.start + this.#used * this.#run!.step;
  }

  /** Steps over at most `limit` consecutive rows; gives how many. */
  takeConsecutive(limit: number): number {
    const { count, step } = this.#run!;
    const taken = step === 1 ? Math.min(limit, count - this.#used) : 1;
    this.#used += taken;
    if (this.#used === count) {
      this.#run = this.#runs.next().value;
      this.#used = 0;
    }
    return taken;
  }
}

function* readPieces(source: RowSource, pieces: readonly Piece[], out: Uint8Array): Reading<void> {
  const { member, offset, rowBytes } = source;
  const gather = new ByteGather(member, out);
  for (const { row, count, position } of pieces) {
    gather.add(offset + row * rowBytes, count * rowBytes, position * rowBytes);
  }
  yield* finish(gather);
}

/** Reads each distinct row to its first place, and copies it to the others. */
function* readWide(
  source: RowSource,
  unique: RowSet,
  ranks: Uint32Array | null,
  out: Uint8Array,
  targets: Uint32Array,
): Reading<void> {
  const { member, offset, rowBytes } = source;
  const first = ranks === null ? targets : firstTargets(unique.length, ranks, targets);
  const gather = new ByteGather(member, out);
  unique.toIndices().forEach((row, rank) =>
    gather.add(offset + row * rowBytes, rowBytes, first[rank]! * rowBytes)
  );
  yield* finish(gather);
  ranks?.forEach((rank, i) => {
    const from = first[rank]! * rowBytes;
    if (first[rank] !== targets[i]) out.copyWithin(targets[i]! * rowBytes, from, from + rowBytes);
  });
}

function firstTargets(count: number, ranks: Uint32Array, targets: Uint32Array): Uint32Array {
  const first = new Uint32Array(count);
  for (let i = ranks.length - 1; i >= 0; i--) first[ranks[i]!] = targets[i]!;
  return first;
}

/** Copies row `ranks[i]` (row i where there are no ranks) of `from` to row `targets[i]` of `to`. */
function copyRows(
  from: Uint8Array,
  ranks: Uint32Array | null,
  to: Uint8Array,
  targets: Uint32Array,
  rowBytes: number,
): void {
  if (rowBytes % 4 === 0 && to.byteOffset % 4 === 0) {
    const words = new Uint32Array(to.buffer, to.byteOffset, to.byteLength >>> 2);
    copyWords(new Uint32Array(from.buffer), ranks, words, targets, rowBytes / 4);
  } else copyWords(from, ranks, to, targets, rowBytes);
}

/** From this many words on, `set` is faster than a loop. */
const MANY_WORDS = 32;

function copyWords<Words extends Uint8Array | Uint32Array>(
  from: Words,
  ranks: Uint32Array | null,
  to: Words,
  targets: Uint32Array,
  width: number,
): void {
  for (let i = 0; i < targets.length; i++) {
    const source = (ranks === null ? i : ranks[i]!) * width;
    const target = targets[i]! * width;
    if (width >= MANY_WORDS) {
      to.set(from.subarray(source, source + width), target);
    } else {
      for (let word = 0; word < width; word++) to[target + word] = from[source + word]!;
    }
  }
}
