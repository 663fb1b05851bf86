/**
 * Constructors of columns: from numbers, text, bytes and values to the form in which a column is held and stored.
 *
 * @module
 */

import { SchemaError } from "../errors.ts";
import { describeInput } from "./check.ts";
import type { RaggedColumn, RecordsColumn, ScalarsColumn, StoredAs, VarlenColumn } from "./column.ts";
import {
  bytesOf,
  type DType,
  dtypeOfArray,
  dtypeText,
  isDType,
  isNumericDType,
  itemSize,
  newArray,
  type NumericDType,
  type TypedArray,
} from "./dtype.ts";
import { isPlainObject, stringifyJson } from "./json.ts";
import { bytesAs, encodeNarrow, fillNumbers } from "./numbers.ts";
import { checkShape, MAX_DIMENSIONS, MAX_PAYLOAD_BYTES, Tensor } from "./tensor.ts";

/** Offsets are 32 bits wide. */
const MAX_OFFSET = 2 ** 32 - 1;

/** Numbers of one dtype: `number[]`, `bigint[]` for 64-bit integers, `boolean[]` for bool. */
export type NumberArray =
  | readonly number[]
  | readonly bigint[]
  | readonly (number | bigint)[]
  | readonly boolean[];

/** A ragged row given as arrays: one level for each dimension, all of one shape inside. */
export type NestedRow = NumberArray | readonly NestedRow[];

/**
 * A tensor: a dense array whose first dimension counts rows.
 *
 * @param dtype the element type
 * @param shape one to eight dimensions, rows first; any may be 0
 * @param data row-major elements. A typed array of the dtype's own class is not copied (it is when it is put):
 * Uint8Array for bool and float8, Uint16Array for bfloat16, both raw. Numbers are converted: bfloat16 and float8 are
 * rounded to nearest, ties to even, and overflow to infinity, float8_e4m3fn (which has none) to NaN, as in PyTorch;
 * 64-bit integers take bigints and safe integers
 * @throws {SchemaError} where the number of elements is not that of the shape, the array is of another class, an element
 * is not in the dtype's range, or there are more than 4 GiB
 *
 * @example
 * ```ts
 * tensor("int64", [2, 3], [1, 2, 3, 4, 5, 6]);
 * tensor("float32", [2, 2], new Float32Array(4));
 * ```
 */
export function tensor(dtype: DType, shape: readonly number[], data: TypedArray | NumberArray): Tensor {
  const elements = checkShape(dtype, shape);
  if (!ArrayBuffer.isView(data) && !Array.isArray(data)) throw notAnArray("tensor data", data);
  const given = data instanceof DataView ? data.byteLength : (data as ArrayLike<unknown>).length;
  if (given !== elements) {
    throw new SchemaError(`a tensor of shape [${shape}] has ${elements} elements, not ${given}`, {
      expected: elements,
      actual: given,
    });
  }
  if (ArrayBuffer.isView(data)) return new Tensor(dtype, shape, bytesAs(dtype, data));
  const where = (index: number) => `at index ${index}`;
  if (dtype === "bfloat16" || dtype === "float8_e4m3fn" || dtype === "float8_e5m2") {
    return new Tensor(dtype, shape, encodeNarrow(dtype, data, where));
  }
  const out = newArray(dtype, elements);
  fillNumbers(dtype, data, out, 0, where);
  return new Tensor(dtype, shape, bytesOf(out));
}

/**
 * One number a row, or null.
 *
 * @param dtype bool, an integer, or float16 to float64
 * @param rows numbers, bigints (64-bit integers), booleans (bool) and nulls; or a typed array, which is not copied
 * @throws {SchemaError} where a row is none of these, or not in the dtype's range
 *
 * @example
 * ```ts
 * scalars("float32", [0.5, null, 1]);
 * ```
 */
export function scalars(
  dtype: NumericDType,
  rows: readonly (number | bigint | boolean | null)[] | TypedArray,
): ScalarsColumn {
  checkNumeric("scalars", dtype);
  if (ArrayBuffer.isView(rows)) {
    return { kind: "scalars", dtype, rows: rows.length, nulls: null, data: bytesAs(dtype, rows) };
  }
  checkRows("scalars", rows);
  checkBytes("scalars", rows.length * itemSize(dtype));
  const out = newArray(dtype, rows.length);
  const nulls = rows.includes(null) ? newNulls(rows.length) : null;
  fillNumbers(dtype, rows, out, 0, (row) => `in row ${row}`, nulls ?? undefined);
  return { kind: "scalars", dtype, rows: rows.length, nulls, data: bytesOf(out) };
}

/**
 * Rows of different lengths, or null.
 *
 * Rows come back as they were given: arrays of numbers as arrays, typed arrays as typed arrays, and rows of more than one
 * dimension as nested arrays or Tensors.
 *
 * @param dtype bool, an integer, or float16 to float64
 * @param rows all typed arrays of the dtype's class or Tensors of the dtype; or all arrays of numbers, nested ones for
 * more than one dimension. Either may have nulls
 * @param how `ragged_tensor` gives Python tensors instead of arrays, `jagged` one nested torch tensor (no nulls)
 * @throws {SchemaError} where both forms are mixed, a row is of another dtype or of uneven shape, an element is not in
 * the dtype's range, or there are more than 4 GiB
 *
 * @example
 * ```ts
 * ragged("int64", [[1, 2, 3], [], null]);
 * ragged("float32", [new Float32Array(3), tensor("float32", [2, 2], [1, 2, 3, 4])]);
 * ```
 */
export function ragged(
  dtype: NumericDType,
  rows: readonly (TypedArray | Tensor | NestedRow | null)[],
  how: { readonly storedAs?: "ragged_tensor" | "jagged" } = {},
): RaggedColumn {
  checkNumeric("ragged", dtype);
  checkRows("ragged", rows);
  const rowFormat = rowFormatOf(rows);
  const nulls = nullsOf(rows);
  const offsets = newOffsets(rows.length);
  let shapes: (readonly number[] | null)[] | null = null;
  let total = 0;
  for (let row = 0; row < rows.length; row++) {
    const given = rows[row]!;
    if (given !== null) {
      const shape = isFlat(given) ? null : shapeOf(given as Tensor | readonly unknown[], row);
      if (shape !== null && shape.length !== 1) {
        shapes ??= flatShapes(rows, row);
      }
      total += shape === null ? (given as ArrayLike<unknown>).length : product(shape);
      shapes?.push(shape ?? [(given as ArrayLike<unknown>).length]);
    } else shapes?.push(null);
    offsets[row + 1] = total;
  }
  if (total > MAX_OFFSET) throw tooLarge("ragged", total * itemSize(dtype));
  checkBytes("ragged", total * itemSize(dtype));
  const out = newArray(dtype, total);
  const data = bytesOf(out);
  for (let row = 0; row < rows.length; row++) {
    const given = rows[row]!;
    if (given === null) continue;
    const at = offsets[row]!;
    if (Array.isArray(given)) {
      const flat: readonly unknown[] = Array.isArray(given[0]) ? given.flat(MAX_DIMENSIONS) : given;
      fillNumbers(dtype, flat, out, at, (index) => `at index ${index} of row ${row}`);
    } else data.set(rowBytes(dtype, given as TypedArray | Tensor, row), at * itemSize(dtype));
  }
  return { kind: "ragged", dtype, rows: rows.length, nulls, data, offsets, shapes, rowFormat, ...how };
}

function rowFormatOf(rows: readonly unknown[]): "list" | "ndarray" {
  let first: "list" | "ndarray" | undefined;
  for (let row = 0; row < rows.length; row++) {
    const given = rows[row];
    if (given === null) continue;
    if (!Array.isArray(given) && !ArrayBuffer.isView(given) && !(given instanceof Tensor)) {
      throw wrongRow("ragged", row, given, "typed arrays, Tensors, arrays of numbers, or null");
    }
    const format = Array.isArray(given) ? "list" : "ndarray";
    if (first !== undefined && format !== first) {
      throw new SchemaError(
        `row ${row} of a ragged column is ${describeInput(given)}, unlike the rows before it`,
        {
          expected: first === "list" ? "arrays of numbers throughout" : "typed arrays or Tensors throughout",
          actual: describeInput(given),
          hint: "choose one: arrays of numbers, or typed arrays and Tensors",
        },
      );
    }
    first = format;
  }
  return first ?? "ndarray";
}

/** True for rows of one dimension that need no look at their shape. */
function isFlat(row: unknown): row is readonly unknown[] | TypedArray {
  return Array.isArray(row) ? !Array.isArray(row[0]) : ArrayBuffer.isView(row);
}

function shapeOf(row: Tensor | readonly unknown[], at: number): readonly number[] {
  if (row instanceof Tensor) return row.shape;
  const shape: number[] = [];
  for (let inner: unknown = row; Array.isArray(inner); inner = inner[0]) shape.push(inner.length);
  const isEven = (value: unknown, depth: number): boolean => {
    if (depth === shape.length) return !Array.isArray(value);
    if (!Array.isArray(value) || value.length !== shape[depth]) return false;
    return value.every((item) => isEven(item, depth + 1));
  };
  if (shape.length > MAX_DIMENSIONS || !isEven(row, 0)) {
    throw new SchemaError(`row ${at} of a ragged column is not an array of one shape`, {
      expected: `nested arrays of equal lengths, at most ${MAX_DIMENSIONS} levels`,
      actual: `about [${shape.slice(0, MAX_DIMENSIONS)}]`,
    });
  }
  return shape;
}

/** The shapes of the rows before the first that has other than one dimension. */
function flatShapes(rows: readonly unknown[], end: number): (readonly number[] | null)[] {
  return rows.slice(0, end).map((row) =>
    row === null ? null : row instanceof Tensor ? row.shape : [(row as ArrayLike<unknown>).length]
  );
}

function rowBytes(dtype: NumericDType, row: TypedArray | Tensor, at: number): Uint8Array {
  if (!(row instanceof Tensor)) return bytesAs(dtype, row, ` in row ${at}`);
  if (row.dtype === dtype) return row.bytes;
  throw new SchemaError(`row ${at} of a ${dtype} column is a ${row.dtype} tensor`, {
    expected: dtype,
    actual: row.dtype,
  });
}

/**
 * Text, or null.
 *
 * @param rows well-formed strings and nulls
 * @throws {SchemaError} where a row is none of these or has a lone surrogate, or there are more than 4 GiB of UTF-8
 *
 * @example
 * ```ts
 * strings(["What is 2 + 2?", null]);
 * ```
 */
export function strings(rows: readonly (string | null)[]): VarlenColumn & { readonly kind: "strings" } {
  checkRows("strings", rows);
  for (let row = 0; row < rows.length; row++) {
    const text: unknown = rows[row];
    if (text === null) continue;
    if (typeof text !== "string") throw wrongRow("strings", row, text, "strings or null");
    if (!text.isWellFormed()) {
      throw new SchemaError(`row ${row} of a strings column has a lone surrogate, which UTF-8 cannot hold`, {
        expected: "well-formed strings",
        actual: row,
        hint: "use toWellFormed() where a replacement character will do",
      });
    }
  }
  return { kind: "strings", rows: rows.length, nulls: nullsOf(rows), ...encodeTexts("strings", rows) };
}

const encoder = new TextEncoder();

/** UTF-8 of all texts back to back; a null is empty. */
function encodeTexts(
  kind: "strings" | "json",
  texts: readonly (string | null)[],
): { readonly data: Uint8Array; readonly offsets: Uint32Array } {
  const offsets = newOffsets(texts.length);
  // in UTF-16 units: as many bytes if all is ASCII, never more than three times as many
  let left = 0;
  for (const text of texts) if (text !== null) left += text.length;
  if (left > MAX_OFFSET) throw tooLarge(kind, left);
  let data = new Uint8Array(new ArrayBuffer(left));
  let at = 0;
  for (let row = 0; row < texts.length; row++) {
    const text = texts[row];
    if (text !== null && text !== undefined && text !== "") {
      let { read, written } = encoder.encodeInto(text, data.subarray(at));
      if (read < text.length) {
        const size = Math.min(at + left * 3, MAX_OFFSET);
        if (size > data.byteLength) {
          const larger = new Uint8Array(new ArrayBuffer(size));
          larger.set(data.subarray(0, at));
          data = larger;
        }
        ({ read, written } = encoder.encodeInto(text, data.subarray(at)));
        if (read < text.length) throw tooLarge(kind, size);
      }
      left -= text.length;
      at += written;
    }
    offsets[row + 1] = at;
  }
  return { data: data.subarray(0, at), offsets };
}

/**
 * Bytes, or null.
 *
 * @param rows Uint8Arrays (Buffers too) and nulls; copied
 * @throws {SchemaError} where a row is neither, or there are more than 4 GiB
 *
 * @example
 * ```ts
 * bytes([new Uint8Array([0xff, 0xd8]), null]);
 * ```
 */
export function bytes(
  rows: readonly (Uint8Array | null)[],
  how: { readonly storedAs?: "media_bytes" } = {},
): VarlenColumn & { readonly kind: "bytes" } {
  checkRows("bytes", rows);
  const offsets = newOffsets(rows.length);
  let total = 0;
  for (let row = 0; row < rows.length; row++) {
    const given: unknown = rows[row];
    if (given instanceof Uint8Array) total += given.byteLength;
    else if (given !== null) throw wrongRow("bytes", row, given, "Uint8Arrays or null");
    offsets[row + 1] = total;
  }
  if (total > MAX_OFFSET) throw tooLarge("bytes", total);
  const data = new Uint8Array(new ArrayBuffer(total));
  for (let row = 0; row < rows.length; row++) {
    const given = rows[row]!;
    if (given !== null) data.set(given, offsets[row]!);
  }
  return { kind: "bytes", rows: rows.length, nulls: nullsOf(rows), data, offsets, ...how };
}

/**
 * A JSON value a row. A JSON null and a null row are the same.
 *
 * @param rows null, booleans, finite numbers, bigints, strings, arrays and plain objects
 * @throws {SchemaError} with the row and the path of what JSON cannot hold: undefined, functions, NaN and infinities, lone
 * surrogates, instances of classes, cycles
 *
 * @example
 * ```ts
 * json([{ role: "user", turns: 3 }, ["a", 1n << 60n], null]);
 * ```
 */
export function json(
  rows: readonly unknown[],
  how: { readonly storedAs?: "msgpack_ragged" } = {},
): VarlenColumn & { readonly kind: "json" } {
  checkRows("json", rows);
  const texts: (string | null)[] = [];
  for (let row = 0; row < rows.length; row++) {
    const value = rows[row];
    try {
      texts.push(value === null ? null : stringifyJson(value));
    } catch (error) {
      if (!(error instanceof SchemaError)) throw error;
      throw new SchemaError(`row ${row}: ${error.message}`, {
        ...error.details,
        actual: error.details.actual,
      });
    }
  }
  return { kind: "json", rows: rows.length, nulls: nullsOf(rows), ...encodeTexts("json", texts), ...how };
}

/**
 * Nested values with numbers, text, typed arrays, Tensors or bytes as leaves; a column for what no other kind takes.
 *
 * @param rows plain objects, arrays, Tensors, typed arrays, strings, numbers, bigints, booleans and nulls. The values are
 * kept, not copied, and what is inside them is checked when they are put
 * @param how another way to store them: `msgpack_ragged` for values without arrays, `ragged_tensor_dict` for dicts of
 * arrays, `jagged` for Tensors of one dtype; `media_bytes` and `media_list_ragged` are chosen where rows are images
 * (`{ mode, size, format, data }`) or lists of images and bytes
 * @throws {SchemaError} where a row is none of these
 *
 * @example
 * ```ts
 * records([{ pixels: tensor("uint8", [2, 2], [1, 2, 3, 4]), label: "cat" }, null]);
 * ```
 */
export function records(
  rows: readonly unknown[],
  how: { readonly storedAs?: Exclude<StoredAs, "ragged_tensor"> } = {},
): RecordsColumn {
  checkRows("records", rows);
  for (let row = 0; row < rows.length; row++) {
    const value = rows[row];
    const isValue = typeof value === "object"
      ? value === null || isPlainObject(value) || Array.isArray(value) || value instanceof Tensor ||
        (ArrayBuffer.isView(value) && dtypeOfArray(value) !== undefined)
      : typeof value === "string" || typeof value === "number" || typeof value === "bigint" ||
        typeof value === "boolean";
    if (!isValue) {
      throw wrongRow(
        "records",
        row,
        value,
        "plain objects, arrays, Tensors, typed arrays, primitives or null",
      );
    }
  }
  return { kind: "records", rows: rows.length, nulls: nullsOf(rows), values: [...rows], ...how };
}

function checkNumeric(kind: "scalars" | "ragged", dtype: NumericDType): void {
  if (isNumericDType(dtype)) return;
  throw new SchemaError(`a ${kind} column cannot be of dtype ${dtypeText(dtype)}`, {
    expected: "bool, int8 to int64, uint8 to uint64, float16, float32 or float64",
    actual: dtype,
    hint: isDType(dtype) ? `only a tensor can be ${dtype}` : undefined,
  });
}

function checkRows(kind: string, rows: unknown): asserts rows is readonly unknown[] {
  if (!Array.isArray(rows)) throw notAnArray(`the rows of a ${kind} column`, rows);
}

function notAnArray(what: string, given: unknown): SchemaError {
  return new SchemaError(`${what}: no array but ${describeInput(given)}`, {
    expected: "an array",
    actual: describeInput(given),
  });
}

function wrongRow(kind: string, row: number, given: unknown, expected: string): SchemaError {
  return new SchemaError(`row ${row} of a ${kind} column is ${describeInput(given)}`, {
    expected,
    actual: describeInput(given),
    hint: given === undefined ? "a row without a value is null" : `expected ${expected}`,
  });
}

function checkBytes(kind: string, size: number): void {
  if (size > MAX_PAYLOAD_BYTES) throw tooLarge(kind, size);
}

function tooLarge(kind: string, size: number): SchemaError {
  return new SchemaError(`the rows of a ${kind} column are more than 4 GiB`, {
    expected: `at most ${MAX_PAYLOAD_BYTES} bytes`,
    actual: size,
    hint: "put them in several batches",
  });
}

function newNulls(rows: number): Uint8Array {
  return new Uint8Array(new ArrayBuffer(rows));
}

function newOffsets(rows: number): Uint32Array {
  return new Uint32Array(new ArrayBuffer((rows + 1) * 4));
}

function nullsOf(rows: readonly unknown[]): Uint8Array | null {
  let nulls: Uint8Array | null = null;
  for (let row = 0; row < rows.length; row++) {
    if (rows[row] !== null) continue;
    nulls ??= newNulls(rows.length);
    nulls[row] = 1;
  }
  return nulls;
}

function product(shape: readonly number[]): number {
  return shape.reduce((size, dimension) => size * dimension, 1);
}
