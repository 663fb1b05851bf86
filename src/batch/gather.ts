/**
 * Selecting rows of a column, and putting columns one after another. Both give new memory.
 *
 * @module
 */

import { SchemaError } from "../errors.ts";
import type { Column, RaggedColumn, StoredAs, VarlenColumn } from "./column.ts";
import { bytesOf, itemSize } from "./dtype.ts";
import { RowSet } from "./rowset.ts";
import { assertHeld, MAX_PAYLOAD_BYTES, Tensor } from "./tensor.ts";

/** Offsets are 32 bits wide. */
const MAX_OFFSET = 2 ** 32 - 1;
/** From this many bytes a row on, `set` on a subarray is faster than a loop over elements. */
const WIDE_ROW = 96;

/**
 * The given rows of a column, as a new column of its own memory.
 *
 * @param column any column; a borrowed one must still be held
 * @param rows positions in any order, duplicates allowed
 * @throws {SchemaError} where a row is not in the column, or the result is more than 4 GiB
 * @throws {ClosedError} once borrowed memory is released
 *
 * @example
 * ```ts
 * gather(scores, RowSet.of([3, 1, 1]));
 * ```
 */
export function gather(column: Column, rows: RowSet): Column {
  assertHeld(column.guard);
  if (rows.max() >= column.rows) {
    throw new SchemaError(`row ${rows.max()} is not in a column of ${column.rows} rows`, {
      expected: column.rows === 0 ? "no rows" : `0 to ${column.rows - 1}`,
      actual: rows.max(),
    });
  }
  if (column.kind === "tensor") {
    const { dtype, shape } = column;
    const width = column.rows === 0 ? 0 : column.bytes.byteLength / column.rows;
    return new Tensor(dtype, [rows.length, ...shape.slice(1)], gatherFixed(column.bytes, width, rows));
  }
  const nulls = column.nulls === null ? null : anyNull(gatherFixed(column.nulls, 1, rows));
  const base = { rows: rows.length, nulls, ...storedAs(column) };
  switch (column.kind) {
    case "scalars": {
      const data = gatherFixed(column.data, itemSize(column.dtype), rows);
      return { kind: column.kind, dtype: column.dtype, ...base, data };
    }
    case "ragged": {
      const { kind, dtype, rowFormat } = column;
      const part = gatherVarlen(column.data, column.offsets, itemSize(dtype), rows);
      const shapes = column.shapes === null ? null : anyShape(pick(column.shapes, rows));
      return { kind, dtype, ...base, ...part, shapes, rowFormat };
    }
    case "records":
      return { kind: column.kind, ...base, values: pick(column.values, rows) };
    default:
      return { kind: column.kind, ...base, ...gatherVarlen(column.data, column.offsets, 1, rows) };
  }
}

/**
 * Selects rows of equal width.
 *
 * @param source the rows back to back
 * @param width bytes a row; may be 0
 * @param rows positions, all inside `source`
 * @throws {SchemaError} where the result is more than 4 GiB
 */
export function gatherFixed(source: Uint8Array, width: number, rows: RowSet): Uint8Array {
  const out = allocate(rows.length * width);
  if (out.byteLength === 0) return out;
  if (rows.isBlocks()) {
    let at = 0;
    for (const { start, count } of rows.runs()) {
      out.set(source.subarray(start * width, (start + count) * width), at);
      at += count * width;
    }
    return out;
  }
  const indices = rows.toIndices();
  const aligned = (size: number) => width % size === 0 && source.byteOffset % size === 0;
  if (width >= WIDE_ROW) {
    for (let i = 0; i < indices.length; i++) {
      const start = indices[i]! * width;
      out.set(source.subarray(start, start + width), i * width);
    }
  } else if (aligned(4)) {
    const from = new Uint32Array(source.buffer, source.byteOffset, source.byteLength >>> 2);
    copyRows(from, new Uint32Array(out.buffer), width / 4, indices);
  } else if (aligned(2)) {
    const from = new Uint16Array(source.buffer, source.byteOffset, source.byteLength >>> 1);
    copyRows(from, new Uint16Array(out.buffer), width / 2, indices);
  } else copyRows(source, out, width, indices);
  return out;
}

/** Rows of `width` words; no 64-bit words, whose bigints (or NaNs) would cost (or change) something. */
function copyRows<A extends Uint8Array | Uint16Array | Uint32Array>(
  from: A,
  to: A,
  width: number,
  indices: Uint32Array,
): void {
  if (width === 1) {
    for (let i = 0; i < indices.length; i++) to[i] = from[indices[i]!]!;
  } else if (width === 2) {
    for (let i = 0, at = 0; i < indices.length; i++) {
      const start = indices[i]! * 2;
      to[at++] = from[start]!;
      to[at++] = from[start + 1]!;
    }
  } else {
    for (let i = 0, at = 0; i < indices.length; i++) {
      const start = indices[i]! * width;
      for (let word = start; word < start + width; word++) to[at++] = from[word]!;
    }
  }
}

/**
 * Selects rows of different lengths.
 *
 * @param source the elements of all rows back to back
 * @param offsets one more than there are rows, in elements
 * @param size bytes of an element
 * @param rows positions, all inside `offsets`
 * @throws {SchemaError} where the result is more than 4 GiB
 */
export function gatherVarlen(
  source: Uint8Array,
  offsets: Uint32Array,
  size: number,
  rows: RowSet,
): { readonly data: Uint8Array; readonly offsets: Uint32Array } {
  const outOffsets = new Uint32Array(new ArrayBuffer((rows.length + 1) * 4));
  let total = 0;
  if (rows.isBlocks()) {
    let row = 1;
    for (const { start, count } of rows.runs()) {
      const shift = total - offsets[start]!;
      for (let i = start + 1; i <= start + count; i++) outOffsets[row++] = offsets[i]! + shift;
      total += offsets[start + count]! - offsets[start]!;
    }
    const data = allocateElements(total, size);
    let at = 0;
    for (const { start, count } of rows.runs()) {
      const part = source.subarray(offsets[start]! * size, offsets[start + count]! * size);
      data.set(part, at);
      at += part.byteLength;
    }
    return { data, offsets: outOffsets };
  }
  const indices = rows.toIndices();
  for (let i = 0; i < indices.length; i++) {
    total += offsets[indices[i]! + 1]! - offsets[indices[i]!]!;
    outOffsets[i + 1] = total;
  }
  const data = allocateElements(total, size);
  let at = 0;
  for (let i = 0; i < indices.length; i++) {
    const start = offsets[indices[i]!]! * size;
    const end = offsets[indices[i]! + 1]! * size;
    if (end - start < 24) { for (let byte = start; byte < end; byte++) data[at++] = source[byte]!; }
    else {
      data.set(source.subarray(start, end), at);
      at += end - start;
    }
  }
  return { data, offsets: outOffsets };
}

/**
 * All rows of the first column, then all of the second, and so on.
 *
 * @param columns at least one; all of one kind, dtype and row shape. Of different row formats, "list" wins
 * @returns new memory, except that a single column which is not borrowed is returned as it is
 * @throws {SchemaError} where they differ, or the result is more than 4 GiB
 * @throws {ClosedError} once borrowed memory is released
 */
export function concatColumns(columns: readonly Column[]): Column {
  const [first] = columns;
  if (first === undefined) throw new SchemaError("there is no column to concatenate");
  for (const column of columns) {
    assertHeld(column.guard);
    if (describe(column) !== describe(first)) {
      throw new SchemaError(`${describe(column)} cannot follow ${describe(first)}`, {
        expected: describe(first),
        actual: describe(column),
      });
    }
  }
  if (columns.length === 1) return first.guard === undefined ? first : gather(first, RowSet.all(first.rows));
  let rows = 0;
  for (const column of columns) rows += column.rows;
  if (first.kind === "tensor") {
    const all = columns as readonly Tensor[];
    const bytes = concatBytes(all.map((column) => column.bytes));
    return new Tensor(first.dtype, [rows, ...first.shape.slice(1)], bytes);
  }
  const same = columns.every((column) => column.kind !== "tensor" && column.storedAs === first.storedAs);
  const base = { rows, nulls: concatNulls(columns, rows), ...(same ? storedAs(first) : {}) };
  switch (first.kind) {
    case "scalars": {
      const all = columns as readonly (typeof first)[];
      return {
        kind: first.kind,
        dtype: first.dtype,
        ...base,
        data: concatBytes(all.map((column) => column.data)),
      };
    }
    case "ragged": {
      const all = columns as readonly RaggedColumn[];
      const { kind, dtype } = first;
      const rowFormat = all.some((column) => column.rowFormat === "list") ? "list" : "ndarray";
      return { kind, dtype, ...base, ...concatVarlen(all, rows), shapes: concatShapes(all), rowFormat };
    }
    case "records": {
      const values = (columns as readonly (typeof first)[]).flatMap((column) => column.values);
      return { kind: first.kind, ...base, values };
    }
    default:
      return { kind: first.kind, ...base, ...concatVarlen(columns as readonly VarlenColumn[], rows) };
  }
}

/**
 * A column without rows, of the kind, dtype and row shape of the given one.
 */
export function emptyLike(column: Column): Column {
  const none = new Uint8Array(0);
  const base = { rows: 0, nulls: null, ...(column.kind === "tensor" ? {} : storedAs(column)) };
  switch (column.kind) {
    case "tensor":
      return new Tensor(column.dtype, [0, ...column.shape.slice(1)], none);
    case "scalars":
      return { kind: column.kind, dtype: column.dtype, ...base, data: none };
    case "ragged": {
      const { kind, dtype, rowFormat } = column;
      return { kind, dtype, ...base, data: none, offsets: new Uint32Array(1), shapes: null, rowFormat };
    }
    case "records":
      return { kind: column.kind, ...base, values: [] };
    default:
      return { kind: column.kind, ...base, data: none, offsets: new Uint32Array(1) };
  }
}

/** How a column is stored, where it says so. */
function storedAs(column: Exclude<Column, Tensor>): { storedAs?: StoredAs } {
  return column.storedAs === undefined ? {} : { storedAs: column.storedAs };
}

/** What two columns must have in common to be one. */
function describe(column: Column): string {
  switch (column.kind) {
    case "tensor":
      return `a ${column.dtype} tensor of rows of shape [${column.shape.slice(1)}]`;
    case "scalars":
    case "ragged":
      return `a ${column.dtype} ${column.kind} column`;
    default:
      return `a ${column.kind} column`;
  }
}

function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  let total = 0;
  for (const part of parts) total += part.byteLength;
  const out = allocate(total);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.byteLength;
  }
  return out;
}

function concatVarlen(
  columns: readonly (RaggedColumn | VarlenColumn)[],
  rows: number,
): { data: Uint8Array; offsets: Uint32Array } {
  const data = concatBytes(columns.map((column) => column.data));
  const offsets = new Uint32Array(new ArrayBuffer((rows + 1) * 4));
  let row = 1;
  let base = 0;
  for (const column of columns) {
    const from = column.offsets;
    if (base === 0) offsets.set(from.subarray(1, column.rows + 1), row);
    else for (let i = 1; i <= column.rows; i++) offsets[row + i - 1] = from[i]! + base;
    row += column.rows;
    base += from[column.rows]!;
    if (base > MAX_OFFSET) throw tooLarge(base);
  }
  return { data, offsets };
}

function concatShapes(columns: readonly RaggedColumn[]): readonly (readonly number[] | null)[] | null {
  if (columns.every((column) => column.shapes === null)) return null;
  return columns.flatMap((column) => {
    if (column.shapes !== null) return column.shapes;
    return Array.from(
      { length: column.rows },
      (_, row) => column.nulls?.[row] === 1 ? null : [column.offsets[row + 1]! - column.offsets[row]!],
    );
  });
}

function concatNulls(columns: readonly Column[], rows: number): Uint8Array | null {
  if (columns.every((column) => column.nulls === null)) return null;
  const out = bytesOf(new Uint8Array(new ArrayBuffer(rows)));
  let at = 0;
  for (const column of columns) {
    if (column.nulls !== null) out.set(column.nulls, at);
    at += column.rows;
  }
  return anyNull(out);
}

function pick<T>(values: readonly T[], rows: RowSet): T[] {
  const range = rows.isRange();
  if (range !== null && range.step === 1) return values.slice(range.start, range.start + range.count);
  return Array.from(rows.toIndices(), (row) => values[row]!);
}

function anyNull(nulls: Uint8Array): Uint8Array | null {
  return nulls.includes(1) ? nulls : null;
}

function anyShape(shapes: (readonly number[] | null)[]): (readonly number[] | null)[] | null {
  return shapes.some((shape) => shape !== null && shape.length !== 1) ? shapes : null;
}

function allocateElements(count: number, size: number): Uint8Array {
  if (count > MAX_OFFSET) throw tooLarge(count * size);
  return allocate(count * size);
}

function allocate(bytes: number): Uint8Array {
  if (!(bytes <= MAX_PAYLOAD_BYTES)) throw tooLarge(bytes);
  return new Uint8Array(new ArrayBuffer(bytes));
}

function tooLarge(bytes: number): SchemaError {
  return new SchemaError("the selected rows of a column are more than 4 GiB", {
    expected: `at most ${MAX_PAYLOAD_BYTES} bytes`,
    actual: bytes,
    hint: "read them in parts",
  });
}
