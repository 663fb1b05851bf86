/**
 * The rows of a column as JavaScript values, decoded when they are asked for.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { CorruptionError, SchemaError } from "../errors.ts";
import type { Column, ColumnOf, Guard, RaggedColumn, ScalarsColumn, VarlenColumn } from "./column.ts";
import { arrayOver, bytesOf, itemSize, type TypedArray } from "./dtype.ts";
import { type Json, parseJson } from "./json.ts";
import { assertHeld, nest, type NestedNumbers, safeNumber, Tensor } from "./tensor.ts";

/**
 * A row of a ragged column: a typed array, or an array of numbers where the rows were given so. Rows of more than one
 * dimension are a Tensor, or nested arrays; those of none are a number.
 */
export type RaggedRow = TypedArray | Tensor | NestedNumbers;

/** A value of a scalars column. */
export type Scalar = number | bigint | boolean;

/**
 * The rows of one column. Nothing is decoded before it is asked for, and null rows are null.
 *
 * @example
 * ```ts
 * for (const prompt of batch.strings("prompt")) console.log(prompt);
 * batch.strings("prompt").at(-1);
 * ```
 */
export class ColumnRows<T> implements Iterable<T> {
  /** How many rows. */
  readonly length: number;
  readonly #guard: Guard | undefined;
  readonly #decode: (row: number) => T;

  /** Internal: batches make these. */
  constructor(length: number, guard: Guard | undefined, decode: (row: number) => T) {
    this.length = length;
    this.#guard = guard;
    this.#decode = decode;
  }

  /**
   * One row.
   *
   * @param row its position; a negative one counts from the end
   * @throws {SchemaError} where there is no such row
   * @throws {ClosedError} once borrowed memory is released
   */
  at(row: number): T {
    assertHeld(this.#guard);
    return this.#decode(position(row, this.length));
  }

  /** The rows in order. */
  *[Symbol.iterator](): Generator<T, void, undefined> {
    for (let row = 0; row < this.length; row++) {
      assertHeld(this.#guard);
      yield this.#decode(row);
    }
  }

  /** All rows. */
  toArray(): T[] {
    assertHeld(this.#guard);
    const out: T[] = [];
    for (let row = 0; row < this.length; row++) out.push(this.#decode(row));
    return out;
  }
}

/**
 * Checks a row number and counts negative ones from the end.
 *
 * @throws {SchemaError} where there is no such row
 */
export function position(row: number, rows: number): number {
  const found = row < 0 ? row + rows : row;
  if (!Number.isInteger(found) || found < 0 || found >= rows) {
    throw new SchemaError(`there is no row ${row} among ${rows}`, {
      expected: rows === 0 ? "no rows" : `${-rows} to ${rows - 1}`,
      actual: row,
    });
  }
  return found + 0;
}

/** The values of any column; those of a tensor are numbers for shape `[rows]`, else Tensors. */
export function rowsOf(column: Column): ColumnRows<unknown> {
  switch (column.kind) {
    case "tensor":
      return tensorRows(column);
    case "scalars":
      return scalarRows(column);
    case "ragged":
      return raggedRows(column);
    case "strings":
      return stringRows(column as ColumnOf<"strings">);
    case "bytes":
      return bytesRows(column as ColumnOf<"bytes">);
    case "json":
      return jsonRows(column as ColumnOf<"json">);
    case "records":
      return new ColumnRows(column.rows, column.guard, (row) => column.values[row] ?? null);
  }
}

function tensorRows(column: Tensor): ColumnRows<unknown> {
  const { dtype, shape, guard } = column;
  if (shape.length === 1) {
    const one = (row: number) => {
      const size = itemSize(dtype);
      // through Tensor, which knows how to decode one of any dtype
      const value = new Tensor(dtype, [1], column.bytes.subarray(row * size, (row + 1) * size))
        .toNested()[0]!;
      return value;
    };
    const isPlain = dtype !== "bool" && dtype !== "bfloat16" && !dtype.startsWith("float8");
    const plain = (row: number) => {
      const value = column.data[row]!;
      return typeof value === "bigint" ? safeNumber(value) : value;
    };
    return new ColumnRows(column.rows, guard, isPlain ? plain : one);
  }
  return new ColumnRows(column.rows, guard, (row) => {
    const width = column.bytes.byteLength / column.rows;
    return new Tensor(dtype, shape.slice(1), column.bytes.subarray(row * width, (row + 1) * width), guard);
  });
}

/** The rows of a scalars column. */
export function scalarRows(column: ScalarsColumn): ColumnRows<Scalar | null> {
  const { nulls, guard, dtype, rows } = column;
  let data: TypedArray | null = null;
  return new ColumnRows(rows, guard, (row) => {
    if (nulls !== null && nulls[row] === 1) return null;
    data ??= arrayOver(dtype, column.data);
    const value = data[row]!;
    if (typeof value === "bigint") return safeNumber(value);
    return dtype === "bool" ? value !== 0 : value;
  });
}

/** The rows of a ragged column. Typed arrays and tensors share the column's memory. */
export function raggedRows(column: RaggedColumn): ColumnRows<RaggedRow | null> {
  const { nulls, guard, dtype, rows, offsets, shapes, rowFormat } = column;
  // one array over all rows, made when the first one is asked for: rows are parts of it, not copies
  let all: TypedArray | undefined;
  return new ColumnRows(rows, guard, (row) => {
    if (nulls !== null && nulls[row] === 1) return null;
    all ??= arrayOver(dtype, column.data);
    const values = all.subarray(offsets[row]!, offsets[row + 1]!);
    const shape = shapes?.[row] ?? null;
    if (rowFormat === "ndarray" && (shape === null || shape.length === 1)) return values;
    const bytes = bytesOf(values);
    const tensor = new Tensor(dtype, [values.length], bytes);
    // 0-dimensional rows, which Python can write, are numbers in either format
    if (rowFormat === "list" || shape!.length === 0) return nest(tensor.toNested(), shape ?? tensor.shape);
    return new Tensor(dtype, shape!, bytes);
  });
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Decodes rows of UTF-8; a Buffer does it three to eight times faster than a TextDecoder. */
function textDecoder(column: VarlenColumn): (row: number) => string {
  const { offsets } = column;
  let buffer: Buffer | null = null;
  return (row) => {
    buffer ??= Buffer.from(column.data.buffer, column.data.byteOffset, column.data.byteLength);
    const text = buffer.toString("utf8", offsets[row]!, offsets[row + 1]!);
    // what is no UTF-8 becomes U+FFFD, which may also have been there
    if (!text.includes("\ufffd")) return text;
    try {
      return strict.decode(column.data.subarray(offsets[row]!, offsets[row + 1]!));
    } catch (cause) {
      throw new CorruptionError(`row ${row} of a ${column.kind} column is not UTF-8`, { cause });
    }
  };
}

/** The rows of a strings column. */
export function stringRows(column: ColumnOf<"strings">): ColumnRows<string | null> {
  const { nulls, guard, rows } = column;
  const decode = textDecoder(column);
  return new ColumnRows(rows, guard, (row) => nulls !== null && nulls[row] === 1 ? null : decode(row));
}

/** The rows of a bytes column; they share its memory. */
export function bytesRows(column: ColumnOf<"bytes">): ColumnRows<Uint8Array | null> {
  const { nulls, guard, rows, offsets } = column;
  return new ColumnRows(rows, guard, (row) => {
    if (nulls !== null && nulls[row] === 1) return null;
    return column.data.subarray(offsets[row]!, offsets[row + 1]!);
  });
}

/** The rows of a json column, each parsed once. */
export function jsonRows(column: ColumnOf<"json">): ColumnRows<Json> {
  const { nulls, guard, rows } = column;
  const decode = textDecoder(column);
  const parsed: (Json | undefined)[] = [];
  return new ColumnRows(rows, guard, (row) => {
    if (nulls !== null && nulls[row] === 1) return null;
    const known = parsed[row];
    if (known !== undefined) return known;
    const text = decode(row);
    try {
      return parsed[row] = parseJson(text) as Json;
    } catch (cause) {
      throw new CorruptionError(`row ${row} of a json column is not JSON`, { cause });
    }
  });
}
