/**
 * JSONL files written: compact, keys in column order, and such that reading and writing again gives the same bytes.
 *
 * @module
 */

import type { Batch } from "../../batch/batch.ts";
import type { Column, RaggedColumn, ScalarsColumn, VarlenColumn } from "../../batch/column.ts";
import {
  arrayOver,
  bytesOf,
  type DType,
  dtypeOfArray,
  isFloat,
  itemSize,
  type TypedArray,
} from "../../batch/dtype.ts";
import { Tensor } from "../../batch/tensor.ts";
import { SchemaError } from "../../errors.ts";
import type { OutputFile } from "../files.ts";
import { toBase64 } from "./base64.ts";
import { canonicalJson, floatToken, isFloatToken } from "./json_text.ts";
import { survivesAsFloat } from "./jsonl_columns.ts";
import { KINDS, scanValue, SEEN } from "./jsonl_scan.ts";

/** Lines are collected to about this many characters before they are written. */
const BLOCK = 2 ** 20;

/** The JSON text of one row. */
type Cell = (row: number) => string;

/** Writes all rows of a batch. */
export async function write(file: OutputFile, batch: Batch): Promise<void> {
  const cells = batch.fields.map((name, i): [prefix: string, cell: Cell] => [
    `${i === 0 ? "{" : ","}${JSON.stringify(name)}:`,
    cellsOf(name, batch.column(name)),
  ]);
  const encoder = new TextEncoder();
  let block = "";
  for (let row = 0; row < batch.rows; row++) {
    if (cells.length === 0) block += "{";
    for (const [prefix, cell] of cells) block += prefix + cell(row);
    block += "}\n";
    if (block.length >= BLOCK) {
      await file.write(encoder.encode(block));
      block = "";
    }
  }
  await file.write(encoder.encode(block));
}

function cellsOf(field: string, column: Column): Cell {
  const { nulls } = column;
  const cell = presentCells(field, column);
  return nulls === null ? cell : (row) => nulls[row] ? "null" : cell(row);
}

/** Cells of the rows that are not null. */
function presentCells(field: string, column: Column): Cell {
  switch (column.kind) {
    case "tensor":
      return tensorCells(field, column);
    case "scalars":
      return scalarCells(field, column);
    case "ragged":
      return raggedCells(field, column);
    case "strings": {
      const text = rowTexts(column);
      return (row) => JSON.stringify(text(row));
    }
    case "bytes": {
      const { data, offsets } = column;
      return (row) => `{"$bytes":"${toBase64(data.subarray(offsets[row], offsets[row + 1]))}"}`;
    }
    case "json":
      return jsonCells(field, column);
    case "records": {
      const { values } = column;
      return uniform(column, (row) => inRow(field, row, () => valueText(values[row])));
    }
  }
}

/** Runs `make`, with field and row in what it throws. */
function inRow(field: string, row: number, make: () => string): string {
  try {
    return make();
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof SchemaError) failCell(field, row, error.message);
    throw error;
  }
}

function failCell(field: string, row: number, why: string): never {
  throw new SchemaError(`field ${JSON.stringify(field)}, row ${row} cannot be written as JSON: ${why}`, {
    field,
    rows: [String(row)],
  });
}

/** The text of the elements of an array: of one, and of some as a list. */
interface ElementTexts {
  readonly one: (i: number) => string;
  readonly list: (start: number, count: number) => string;
}

function elementTexts(dtype: DType, values: TypedArray): ElementTexts {
  if (values instanceof BigInt64Array || values instanceof BigUint64Array) return wideTexts(values);
  if (dtype === "bool") return byOne((i) => values[i] ? "true" : "false");
  if (isFloat(dtype)) {
    return byOne((i) => {
      const value = values[i]!;
      if (!Number.isFinite(value)) throw new SchemaError(`${value} is no JSON`);
      return floatToken(value);
    });
  }
  return {
    one: (i) => String(values[i]),
    list: (start, count) => `[${values.subarray(start, start + count).join(",")}]`,
  };
}

function byOne(one: (i: number) => string): ElementTexts {
  const list = (start: number, count: number): string => {
    const texts = new Array<string>(count);
    for (let i = 0; i < count; i++) texts[i] = one(start + i);
    return `[${texts.join(",")}]`;
  };
  return { one, list };
}

/** Integers of 64 bits: by halves and as numbers where that is exact, as bigints take many times as long. */
function wideTexts(values: BigInt64Array | BigUint64Array): ElementTexts {
  const Halves = values instanceof BigInt64Array ? Int32Array : Uint32Array;
  const halves = new Halves(values.buffer as ArrayBuffer, values.byteOffset, values.length * 2);
  const slow = byOne((i) => String(values[i]));
  const list = (start: number, count: number): string => {
    const numbers = new Array<number>(count);
    for (let i = 0; i < count; i++) {
      const at = 2 * (start + i);
      const high = halves[at + 1]!;
      if (high >= 2 ** 21 || high < -(2 ** 21)) return slow.list(start, count);
      numbers[i] = high * 2 ** 32 + (halves[at]! >>> 0);
    }
    return JSON.stringify(numbers);
  };
  return { one: slow.one, list };
}

function scalarCells(field: string, { dtype, data }: ScalarsColumn): Cell {
  const text = elementTexts(dtype, arrayOver(dtype, data));
  return (row) => inRow(field, row, () => text.one(row));
}

function tensorCells(field: string, tensor: Tensor): Cell {
  const { dtype, shape } = tensor;
  const rowShape = shape.slice(1);
  const length = product(rowShape);
  if (dtype === "bfloat16" || dtype.startsWith("float8")) {
    // Decoded row by row: JavaScript has no such array.
    const rowBytes = length * itemSize(dtype);
    return (row) => {
      const bytes = tensor.bytes.subarray(row * rowBytes, (row + 1) * rowBytes);
      const text = elementTexts("float32", new Tensor(dtype, [length], bytes).toFloat32());
      return inRow(field, row, () => nestedText(text, 0, rowShape));
    };
  }
  const text = elementTexts(dtype, tensor.data);
  return (row) => inRow(field, row, () => nestedText(text, row * length, rowShape));
}

function raggedCells(field: string, { dtype, data, offsets, shapes }: RaggedColumn): Cell {
  const text = elementTexts(dtype, arrayOver(dtype, data));
  return (row) => {
    const shape = shapes?.[row] ?? [offsets[row + 1]! - offsets[row]!];
    return inRow(field, row, () => nestedText(text, offsets[row]!, shape));
  };
}

/** The elements from `start` on as nested arrays of a shape; a single element for no dimensions. */
function nestedText(text: ElementTexts, start: number, shape: readonly number[]): string {
  if (shape.length === 0) return text.one(start);
  const [count, ...inner] = shape as [number, ...number[]];
  if (inner.length === 0) return text.list(start, count);
  const length = product(inner);
  return `[${
    Array.from({ length: count }, (_, i) => nestedText(text, start + i * length, inner)).join(",")
  }]`;
}

function product(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

function rowTexts({ data, offsets }: VarlenColumn): Cell {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return (row) => decoder.decode(data.subarray(offsets[row], offsets[row + 1]));
}

function jsonCells(field: string, column: VarlenColumn): Cell {
  const text = rowTexts(column);
  return uniform(column, (row) => inRow(field, row, () => canonicalJson(text(row))));
}

/**
 * Cells of any JSON as they must be to come out the same after reading: a column of nothing but numbers, or lists of
 * numbers, that has a float will be read as floats, so its integers are written as such.
 */
function uniform({ rows, nulls }: Column, cell: Cell): Cell {
  let seen = 0;
  let [hasInteger, survives] = [false, true];
  const encoder = new TextEncoder();
  for (let row = 0; row < rows; row++) {
    if (nulls?.[row]) continue;
    const text = cell(row);
    seen |= scanValue(encoder.encode(text)).seen;
    const kinds = seen & KINDS;
    if (kinds !== 0 && kinds !== SEEN.number && kinds !== SEEN.list) return cell;
    for (const token of text.match(NUMBERS) ?? []) {
      if (!isFloatToken(token)) hasInteger = true;
      survives &&= survivesAsFloat(token) && Number.isFinite(Number(token));
    }
  }
  if (!hasInteger || !(seen & SEEN.float) || !survives) return cell;
  return (row) => cell(row).replace(NUMBERS, (token) => floatToken(Number(token)));
}

const NUMBERS = /-?\d[\d.eE+-]*/g;

/** A record as JSON: bytes as `{"$bytes": base64}`, tensors and typed arrays as arrays. */
function valueText(value: unknown): string {
  switch (typeof value) {
    case "number":
      if (!Number.isFinite(value)) throw new SchemaError(`${value} is no JSON`);
      return Object.is(value, -0) ? "-0.0" : String(value);
    case "bigint":
    case "boolean":
      return String(value);
    case "string":
      return JSON.stringify(value);
    case "object":
      break;
    default:
      throw new SchemaError(`${typeof value} is no JSON`);
  }
  if (value === null) return "null";
  if (Array.isArray(value)) return `[${value.map(valueText).join(",")}]`;
  if (value instanceof Tensor) {
    return `[${Array.from({ length: value.rows }, (_, row) => tensorCells("", value)(row)).join(",")}]`;
  }
  if (value instanceof Uint8Array) return `{"$bytes":"${toBase64(value)}"}`;
  if (ArrayBuffer.isView(value)) {
    const dtype = dtypeOfArray(value);
    if (dtype === undefined) throw new SchemaError(`${value.constructor.name} is no JSON`);
    const values = arrayOver(dtype, bytesOf(value));
    return nestedText(elementTexts(dtype, values), 0, [values.length]);
  }
  const entries = Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}:${valueText(item)}`);
  return `{${entries.join(",")}}`;
}
