/**
 * Values as exact JSON, the same form that `neutral.py` makes.
 *
 * A dense array is `{ dtype, shape, hex }` with little-endian elements. A row is null, a boolean, text, a safe integer, or
 * one of: `{ $i: digits }`, `{ $f: big-endian float64 in hex }`, `{ $b: hex }`, `{ $a: dtype, shape, hex }`, a list,
 * `{ $d: [[key, value], …] }` sorted by UTF-16 units. A float that is a safe integer counts as one: JavaScript has no other.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { Batch } from "../../../src/batch/batch.ts";
import { bytes, json, ragged, records, scalars, strings } from "../../../src/batch/build.ts";
import type { Column } from "../../../src/batch/column.ts";
import {
  arrayOver,
  bytesOf,
  type DType,
  dtypeOfArray,
  itemSize,
  type NumericDType,
  type TypedArray,
} from "../../../src/batch/dtype.ts";
import { Tensor } from "../../../src/batch/tensor.ts";

/** A dense array. */
export interface ArrayValue {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly hex: string;
}

/** One row of a column that is not dense. */
export type Row =
  | null
  | boolean
  | string
  | number
  | readonly Row[]
  | { readonly $i: string }
  | { readonly $f: string }
  | { readonly $b: string }
  | { readonly $a: DType; readonly shape: readonly number[]; readonly hex: string }
  | { readonly $d: readonly (readonly [string, Row])[] };

/** A column of either sort. */
export type Values = { readonly array: ArrayValue } | { readonly rows: readonly Row[] };

/** The neutral form of a number. */
export function numberOut(value: number | bigint): Row {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : { $i: String(value) };
  }
  if (Number.isSafeInteger(value) && !Object.is(value, -0)) return value;
  if (Number.isNaN(value)) return { $f: "7ff8000000000000" };
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  return { $f: hexOf(new Uint8Array(view.buffer)) };
}

/** Hexadecimal digits of bytes. */
export function hexOf(value: Uint8Array): string {
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("hex");
}

/** Bytes in memory of their own, aligned for any element. */
export function bytesOfHex(hex: string): Uint8Array {
  const out = new Uint8Array(new ArrayBuffer(hex.length / 2));
  out.set(Buffer.from(hex, "hex"));
  return out;
}

function tensorOut(tensor: Tensor): ArrayValue {
  return { dtype: tensor.dtype, shape: tensor.shape, hex: hexOf(tensor.bytes) };
}

/** The neutral form of a row; `dtype` is that of arrays whose class does not tell it. */
function rowOut(value: unknown, dtype?: DType): Row {
  switch (typeof value) {
    case "boolean":
    case "string":
      return value;
    case "number":
    case "bigint":
      return numberOut(value);
  }
  if (value === null) return null;
  if (Array.isArray(value)) return value.map((item) => rowOut(item));
  if (value instanceof Tensor) {
    const { dtype: $a, shape, hex } = tensorOut(value);
    return { $a, shape, hex };
  }
  if (value instanceof Uint8Array && dtype === undefined) return { $b: hexOf(value) };
  if (ArrayBuffer.isView(value)) {
    const array = value as TypedArray;
    const $a = dtype ?? dtypeOfArray(array) as DType;
    return { $a, shape: [array.length], hex: hexOf(bytesOf(array)) };
  }
  const entries = Object.entries(value as object).sort(([a], [b]) => a < b ? -1 : 1);
  return { $d: entries.map(([key, item]) => [key, rowOut(item)]) };
}

/** The neutral form of a column of a batch, by the public accessors. */
export function columnOut(batch: Batch, field: string): Values {
  const column = batch.column(field);
  switch (column.kind) {
    case "tensor":
      return { array: tensorOut(batch.tensor(field)) };
    case "ragged":
      return { rows: batch.ragged(field).toArray().map((row) => rowOut(row, column.dtype)) };
    case "json":
      return { rows: batch.json(field).toArray().map((row) => rowOut(row)) };
    default:
      return { rows: batch[column.kind](field).toArray().map((row: unknown) => rowOut(row)) };
  }
}

/** A JavaScript value for a row; arrays of bytes and bits, and those of several dimensions, are Tensors. */
function rowIn(row: Row): unknown {
  if (row === null || typeof row !== "object") return row;
  if (Array.isArray(row)) return row.map(rowIn);
  if ("$i" in row) return BigInt(row.$i);
  if ("$f" in row) return new DataView(bytesOfHex(row.$f).buffer as ArrayBuffer).getFloat64(0);
  if ("$b" in row) return bytesOfHex(row.$b);
  if ("$a" in row) {
    const data = bytesOfHex(row.hex);
    return row.shape.length === 1 && row.$a !== "bool" && row.$a !== "uint8"
      ? arrayOver(row.$a, data)
      : new Tensor(row.$a, row.shape, data);
  }
  // fromEntries makes own properties of all names, __proto__ too
  if ("$d" in row) return Object.fromEntries(row.$d.map(([key, item]) => [key, rowIn(item)]));
  throw new Error(`no row: ${JSON.stringify(row)}`);
}

/** A column to put. */
export function columnIn(kind: Column["kind"], dtype: DType | undefined, values: Values): Column {
  if ("array" in values) {
    return new Tensor(values.array.dtype, values.array.shape, bytesOfHex(values.array.hex));
  }
  const rows = values.rows.map(rowIn);
  switch (kind) {
    case "scalars":
      return scalars(dtype as NumericDType, rows as (number | null)[]);
    case "ragged":
      return ragged(dtype as NumericDType, rows as (number[] | null)[]);
    case "strings":
      return strings(rows as (string | null)[]);
    case "bytes":
      return bytes(rows as (Uint8Array | null)[]);
    case "json":
      return json(rows);
    default:
      return records(rows);
  }
}

/** Rows of a column. */
export function select(values: Values, rows: readonly number[]): Values {
  if ("rows" in values) return { rows: rows.map((row) => values.rows[row] as Row) };
  const { dtype, shape, hex } = values.array;
  const width = 2 * shape.slice(1).reduce((size, n) => size * n, itemSize(dtype));
  return {
    array: {
      dtype,
      shape: [rows.length, ...shape.slice(1)],
      hex: rows.map((row) => hex.slice(row * width, (row + 1) * width)).join(""),
    },
  };
}
