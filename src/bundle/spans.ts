/**
 * Spans of consecutive rows or elements.
 *
 * @module
 */

import { RowSet } from "../batch/rowset.ts";

/** Disjoint spans `[starts[i], ends[i])` in ascending order; no span is empty and no two touch. */
export class Spans {
  readonly starts: number[] = [];
  readonly ends: number[] = [];
  #total = 0;

  /** The elements 0 to `count`. */
  static all(count: number): Spans {
    const spans = new Spans();
    spans.add(0, count);
    return spans;
  }

  /** The spans of a strictly increasing selection. */
  static ofRows(rows: RowSet): Spans {
    const spans = new Spans();
    for (const { start, count, step } of rows.runs()) {
      if (step === 1) spans.add(start, start + count);
      else for (let i = 0, row = start; i < count; i++, row += step) spans.add(row, row + 1);
    }
    return spans;
  }

  /** Adds a span at the end. */
  add(start: number, end: number): void {
    if (end === start) return;
    this.#total += end - start;
    const last = this.ends.length - 1;
    if (last >= 0 && this.ends[last] === start) {
      this.ends[last] = end;
      return;
    }
    this.starts.push(start);
    this.ends.push(end);
  }

  /** How many elements. */
  get total(): number {
    return this.#total;
  }

  /** Calls `visit` with every element in order. */
  forEach(visit: (element: number) => void): void {
    this.starts.forEach((start, i) => {
      for (let element = start; element < this.ends[i]!; element++) visit(element);
    });
  }

  /** The end of the last span, 0 where there is none. */
  get end(): number {
    return this.ends.at(-1) ?? 0;
  }
}

/** A selection as its distinct rows in ascending order, and where each asked row is among them. */
export interface RowOrder {
  readonly unique: RowSet;
  /** Position in `unique` of each asked row; null where the selection is ascending and distinct already. */
  readonly ranks: Uint32Array | null;
}

/** Sorts a selection and drops duplicates. */
export function orderRows(rows: RowSet): RowOrder {
  if (rows.isIncreasing()) return { unique: rows, ranks: null };
  const asked = rows.toIndices();
  const min = rows.min();
  const width = rows.max() - min + 1;
  return width <= asked.length * 8 + 1024 ? rankByTable(asked, min, width) : rankBySort(asked);
}

/** For dense selections: one table over the whole width. */
function rankByTable(asked: Uint32Array, min: number, width: number): RowOrder {
  const table = new Uint32Array(width);
  let count = 0;
  for (const row of asked) {
    if (table[row - min] === 0) {
      table[row - min] = 1;
      count++;
    }
  }
  const unique = new Uint32Array(count);
  for (let i = 0, rank = 0; i < width; i++) {
    if (table[i] === 0) continue;
    unique[rank] = i + min;
    table[i] = rank++;
  }
  return { unique: RowSet.of(unique), ranks: asked.map((row) => table[row - min]!) };
}

/** For scattered selections of a large bundle. */
function rankBySort(asked: Uint32Array): RowOrder {
  const sorted = asked.slice().sort();
  let count = 0;
  for (let i = 0; i < sorted.length; i++) {
    if (i === 0 || sorted[i] !== sorted[i - 1]) sorted[count++] = sorted[i]!;
  }
  const unique = sorted.subarray(0, count);
  const rank = (row: number): number => {
    let low = 0;
    let high = count - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (unique[middle]! < row) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  return { unique: RowSet.of(unique), ranks: asked.map(rank) };
}
