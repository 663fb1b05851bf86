/**
 * Columns of a JSONL file whose form a schema says.
 *
 * @module
 */

import type { Column } from "../../batch/column.ts";
import { bytesOf, type DType, isBig, isFloat, newArray, type NumericDType } from "../../batch/dtype.ts";
import { parseJson } from "../../batch/json.ts";
import { encodeBFloat16, encodeFloat8 } from "../../batch/narrow.ts";
import { Tensor } from "../../batch/tensor.ts";
import type { FieldSchema } from "../../transfer/field_schema.ts";
import { fromBase64 } from "./base64.ts";
import {
  bytesColumn,
  failRow,
  inferredColumn,
  jsonColumn,
  nullsOf,
  numbersColumn,
  stringsColumn,
} from "./jsonl_columns.ts";
import {
  isBytes,
  KINDS,
  type ScannedColumn,
  type ScannedFile,
  scanValue,
  SEEN,
  textOf,
} from "./jsonl_scan.ts";

/**
 * A column in its declared form.
 *
 * @throws {SchemaError} with the line of the first row that does not fit
 */
export function declaredColumn(file: ScannedFile, column: ScannedColumn, schema: FieldSchema): Column {
  const { kind, dtype } = schema;
  switch (kind) {
    case "strings":
      requireKind(file, column, SEEN.string, "a string");
      return stringsColumn(file, column);
    case "bytes":
      requireKind(file, column, SEEN.bytes, '{"$bytes": base64}');
      return bytesColumn(file, column);
    case "json":
      return jsonColumn(file, column);
    case "records":
      return recordsColumn(file, column);
    case "scalars": {
      const isBool = dtype === "bool" || (dtype === undefined && (column.seen & KINDS) === SEEN.boolean);
      if (isBool) {
        requireKind(file, column, SEEN.boolean, "true or false");
        // An all-null column has no kind of its own.
        if ((column.seen & KINDS) === SEEN.boolean) return inferredColumn(file, column);
      } else requireKind(file, column, SEEN.number, `a number (${dtype ?? "scalars"})`);
      return numericColumn(file, column, kind, dtype);
    }
    case "ragged":
      return numericColumn(file, column, kind, dtype);
    case "tensor":
      return tensorColumn(file, column, schema);
    default:
      return inferredColumn(file, column);
  }
}

/** All values must be of one kind. */
function requireKind(file: ScannedFile, column: ScannedColumn, kind: number, expected: string): void {
  if ((column.seen & KINDS & ~kind) === 0) return;
  for (let row = 0; row < file.rows; row++) {
    const [start, end] = [column.starts[row]!, column.ends[row]!];
    if (start !== end && (scanValue(file.bytes.subarray(start, end)).seen & kind) === 0) {
      failRow(file, column, row, expected);
    }
  }
}

function recordsColumn(file: ScannedFile, column: ScannedColumn): Column {
  const values: unknown[] = [];
  for (let row = 0; row < file.rows; row++) values.push(revive(valueOf(file, column, row)));
  return { kind: "records", rows: file.rows, nulls: nullsOf(file, column), values };
}

/** A parsed value with `{"$bytes": …}` leaves as bytes. */
function revive(value: unknown): unknown {
  if (isBytes(value)) return fromBase64(value.$bytes) ?? value;
  if (Array.isArray(value)) return value.map(revive);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, revive(item)]));
}

/** The exact value of a row; null where it is null or absent. */
function valueOf(file: ScannedFile, column: ScannedColumn, row: number): unknown {
  const [start, end] = [column.starts[row]!, column.ends[row]!];
  return start === end ? null : parseJson(textOf(file.bytes, start, end));
}

/** What a nested array of numbers holds. */
interface Nested {
  readonly shape: readonly number[];
  readonly values: (number | bigint | boolean)[];
}

/** The shape and elements of a number or of rectangular nested arrays; undefined for anything else. */
function flatten(value: unknown): Nested | undefined {
  const shape: number[] = [];
  for (let inner = value; Array.isArray(inner); inner = inner[0]) shape.push(inner.length);
  const values: Nested["values"] = [];
  const walk = (item: unknown, depth: number): boolean => {
    if (depth < shape.length) {
      return Array.isArray(item) && item.length === shape[depth] &&
        item.every((inner) => walk(inner, depth + 1));
    }
    if (typeof item !== "number" && typeof item !== "bigint" && typeof item !== "boolean") return false;
    values.push(item);
    return true;
  };
  return walk(value, 0) ? { shape, values } : undefined;
}

function numericColumn(
  file: ScannedFile,
  column: ScannedColumn,
  kind: "scalars" | "ragged",
  dtype: DType | undefined,
): Column {
  const { rows } = file;
  const isFlat = (column.seen & KINDS) === (kind === "scalars" ? SEEN.number : SEEN.list);
  const plain = isFlat && (dtype === undefined || isBig(dtype) || dtype === "float64")
    ? numbersColumn(file, column)
    : undefined;
  if (plain !== undefined && (dtype === undefined || (plain as { dtype: DType }).dtype === dtype)) {
    return plain;
  }
  const all: Nested["values"] = [];
  const offsets = new Uint32Array(rows + 1);
  const shapes: (readonly number[] | null)[] = [];
  const type = dtype ?? inferDType(file, column);
  const holds = range(type);
  for (let row = 0; row < rows; row++) {
    const value = valueOf(file, column, row);
    let shape: readonly number[] | null = null;
    if (value !== null) {
      const nested = flatten(value);
      if (nested === undefined || (kind === "ragged") !== (nested.shape.length > 0)) {
        failRow(file, column, row, kind === "scalars" ? "a number" : "an array of numbers");
      }
      if (!nested.values.every(holds)) failRow(file, column, row, `${kind} of ${type}`);
      shape = nested.shape;
      for (const item of nested.values) all.push(item);
    } else if (kind === "scalars") all.push(type === "bool" ? false : 0);
    shapes.push(shape);
    offsets[row + 1] = all.length;
  }
  const data = encode(type, all);
  const common = { rows, nulls: nullsOf(file, column), dtype: type as NumericDType, data };
  if (kind === "scalars") return { kind, ...common };
  const oneDimension = shapes.every((shape) => shape === null || shape.length === 1);
  return { kind, ...common, offsets, shapes: oneDimension ? null : shapes, rowFormat: "list" };
}

function tensorColumn(file: ScannedFile, column: ScannedColumn, schema: FieldSchema): Column {
  const { rows } = file;
  const type = schema.dtype ?? inferDType(file, column);
  const holds = range(type);
  let shape = schema.shape;
  const all: Nested["values"] = [];
  for (let row = 0; row < rows; row++) {
    const nested = flatten(valueOf(file, column, row));
    if (nested === undefined) failRow(file, column, row, "numbers (a tensor has no null rows)");
    shape ??= nested.shape;
    if (nested.shape.join() !== shape.join()) failRow(file, column, row, `a row of shape [${shape}]`);
    if (!nested.values.every(holds)) failRow(file, column, row, `a tensor of ${type}`);
    for (const item of nested.values) all.push(item);
  }
  return new Tensor(type, [rows, ...shape ?? []], encode(type, all));
}

/** The dtype of a column of numbers that no schema says. */
function inferDType(file: ScannedFile, column: ScannedColumn): DType {
  let type: DType = "int64";
  for (let row = 0; row < file.rows; row++) {
    const text = textOf(file.bytes, column.starts[row]!, column.ends[row]!);
    if (/[tf]/.test(text)) return "bool";
    if (/[.eE]/.test(text)) return "float64";
    if (text.match(/\d{19,}/g)?.some((token) => BigInt(token) >= 2n ** 63n)) type = "uint64";
  }
  return type;
}

/** Whether an element of `dtype` can be a value: rounded for floats, but never infinite. */
function range(dtype: DType): (value: number | bigint | boolean) => boolean {
  if (dtype === "bool") return (value) => typeof value === "boolean";
  if (isFloat(dtype)) {
    const rounded = rounding(dtype);
    return (value) => typeof value !== "boolean" && Number.isFinite(rounded(Number(value)));
  }
  const bits = Number(dtype.replace(/\D/g, ""));
  const [min, max] = dtype.startsWith("u")
    ? [0n, 2n ** BigInt(bits) - 1n]
    : [-(2n ** BigInt(bits - 1)), 2n ** BigInt(bits - 1) - 1n];
  return (value) =>
    typeof value !== "boolean" && (typeof value === "bigint" || Number.isInteger(value)) && value >= min &&
    value <= max;
}

function rounding(dtype: DType): (value: number) => number {
  switch (dtype) {
    case "float64":
      return (value) => value;
    case "float32":
      return Math.fround;
    case "float16":
      return Math.f16round;
    default:
      return (value) => new Tensor(dtype, [1], encode(dtype, [value])).toNumbers()[0] as number;
  }
}

function encode(dtype: DType, values: readonly (number | bigint | boolean)[]): Uint8Array {
  if (dtype === "bfloat16") return bytesOf(encodeBFloat16(values.map(Number)));
  if (dtype === "float8_e4m3fn" || dtype === "float8_e5m2") return encodeFloat8(dtype, values.map(Number));
  const array = newArray(dtype, values.length);
  if (array instanceof BigInt64Array || array instanceof BigUint64Array) {
    values.forEach((value, i) => array[i] = BigInt(value));
  } else values.forEach((value, i) => array[i] = Number(value));
  return bytesOf(array);
}
