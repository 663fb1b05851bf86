/**
 * The normal form of a remote batch: every column is a list of pieces, each some rows of one field of one bundle.
 *
 * All operations on remote batches are operations on these lists; history leaves no trace in them.
 *
 * @module
 */

import type { Json } from "../batch/json.ts";
import { RowSet } from "../batch/rowset.ts";
import type { RowSource } from "./row_source.ts";
import type { StoredBundle } from "./stored_bundle.ts";

/** What pieces are cut from: a bundle, or rows by id that are looked up when they are read. */
export type Source = StoredBundle | RowSource;

/** Some rows of a source. */
export interface Piece<S extends Source = Source> {
  readonly bundle: S;
  readonly rows: RowSet;
}

/** Some rows of one field of a source. */
export interface FieldPiece<S extends Source = Source> extends Piece<S> {
  /** The field's name in the source; a batch may call it otherwise. */
  readonly field: string;
}

/** Some rows of one field of a bundle. */
export type StoredPiece = FieldPiece<StoredBundle>;

/** The rows of all pieces together. */
export function pieceRows(pieces: readonly Piece[]): number {
  let rows = 0;
  for (const piece of pieces) rows += piece.rows.length;
  return rows;
}

/** The same bundle and field, its rows after those of `a`. */
function joinable(a: Piece, b: Piece): boolean {
  return a.bundle === b.bundle && (a as FieldPiece).field === (b as FieldPiece).field;
}

/**
 * Pieces one after the other; neighbours of one bundle and field become one piece.
 *
 * Pieces without rows go where there are others: one that is alone tells the form of the column, and one of a bundle
 * that has no rows at all keeps it droppable.
 */
export function joinPieces<P extends Piece>(lists: readonly (readonly P[])[]): readonly P[] {
  const out: P[] = [];
  const rows = lists.some((list) => list.some((piece) => piece.rows.length > 0));
  let first = true;
  let group: P[] = [];
  const flush = () => {
    const [first] = group;
    if (first === undefined) return;
    out.push(
      group.length === 1 ? first : { ...first, rows: RowSet.concat(group.map((piece) => piece.rows)) },
    );
    group = [];
  };
  for (const list of lists) {
    for (const piece of list) {
      if (piece.rows.length === 0 && piece.bundle.rows > 0 && (rows || !first)) continue;
      first = false;
      const last = group.at(-1);
      if (last !== undefined && !joinable(last, piece)) flush();
      group.push(piece);
    }
  }
  flush();
  return out;
}

/** The pieces that a selection of rows of a batch leaves: row i of the result is row `rows.at(i)` of `pieces`. */
export function gatherPieces<P extends Piece>(pieces: readonly P[], rows: RowSet): readonly P[] {
  const [only] = pieces;
  if (only !== undefined && (pieces.length === 1 || rows.length === 0)) {
    return [{ ...only, rows: only.rows.select(rows) }];
  }
  const starts = new Float64Array(pieces.length + 1);
  pieces.forEach((piece, i) => starts[i + 1] = (starts[i] as number) + piece.rows.length);
  const out: P[] = [];
  let hint = 0;
  const find = (row: number): number => {
    if (row >= (starts[hint] as number) && row < (starts[hint + 1] as number)) return hint;
    let low = 0;
    let high = pieces.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((starts[middle] as number) <= row) low = middle;
      else high = middle - 1;
    }
    // empty pieces share their start with the next one; the last of them is the one with rows
    return hint = low;
  };
  if (hasManyRuns(rows, 2 * pieces.length + 16)) {
    return joinPieces([gatherScattered(pieces, starts, find, rows)]);
  }
  // rows are taken run by run, each run cut where it leaves a piece
  for (const run of rows.runs()) {
    let start = run.start;
    let left = run.count;
    while (left > 0) {
      const index = find(start);
      const from = starts[index] as number;
      const to = starts[index + 1] as number;
      const count = Math.min(
        left,
        run.step > 0
          ? Math.ceil((to - start) / run.step)
          : run.step < 0
          ? Math.floor((start - from) / -run.step) + 1
          : left,
      );
      const piece = pieces[index] as P;
      out.push({ ...piece, rows: piece.rows.select(RowSet.range(start - from, count, run.step)) });
      start += count * run.step;
      left -= count;
    }
  }
  return joinPieces([out]);
}

function hasManyRuns(rows: RowSet, limit: number): boolean {
  let runs = 0;
  for (const _ of rows.runs()) if (++runs > limit) return true;
  return false;
}

/** The same for rows without order: one piece for as long as the rows stay within one. */
function gatherScattered<P extends Piece>(
  pieces: readonly P[],
  starts: Float64Array,
  find: (row: number) => number,
  rows: RowSet,
): P[] {
  const asked = rows.toIndices();
  const out: P[] = [];
  for (let i = 0, end = 0; i < asked.length; i = end) {
    const index = find(asked[i] as number);
    const from = starts[index] as number;
    const to = starts[index + 1] as number;
    end = i + 1;
    while (end < asked.length && (asked[end] as number) >= from && (asked[end] as number) < to) end++;
    const piece = pieces[index] as P;
    const range = piece.rows.isRange();
    const [start, step] = range === null ? [0, 1] : [range.start, range.step];
    const local = new Uint32Array(end - i);
    for (let k = i; k < end; k++) local[k - i] = start + ((asked[k] as number) - from) * step;
    const set = RowSet.of(local);
    out.push({ ...piece, rows: range === null ? piece.rows.select(set) : set });
  }
  return out;
}

/** True if two lists name the same rows of the same bundles, whatever the pieces are cut into. */
export function samePieces(a: readonly Piece[], b: readonly Piece[]): boolean {
  const left = joinPieces([a.filter((piece) => piece.rows.length > 0)]);
  const right = joinPieces([b.filter((piece) => piece.rows.length > 0)]);
  return left.length === right.length &&
    left.every((piece, i) => {
      const other = right[i] as Piece;
      return piece.bundle === other.bundle && piece.rows.equals(other.rows);
    });
}

/** Pieces as `[manifest key, rows]` pairs. */
export function piecesToJson(pieces: readonly Piece<StoredBundle>[]): Json {
  return pieces.map((piece) => [piece.bundle.manifestKey, piece.rows.toJSON() as Json]);
}
