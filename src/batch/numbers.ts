/**
 * Numbers on their way into a column: what each dtype takes, checked element by element.
 *
 * @module
 */

import { SchemaError } from "../errors.ts";
import { describeInput } from "./check.ts";
import { bytesOf, type DType, dtypeOfArray, isBig, isFloat, type TypedArray } from "./dtype.ts";
import { encodeBFloat16, encodeFloat8 } from "./narrow.ts";

/** Where an element is, for messages: "at index 3", "at index 3 of row 7". */
export type Where = (index: number) => string;

/** The integers of up to 32 bits, with their smallest and largest value. */
const RANGES: Readonly<Record<string, readonly [min: number, max: number]>> = {
  int8: [-(2 ** 7), 2 ** 7 - 1],
  int16: [-(2 ** 15), 2 ** 15 - 1],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint8: [0, 2 ** 8 - 1],
  uint16: [0, 2 ** 16 - 1],
  uint32: [0, 2 ** 32 - 1],
};

/**
 * Writes `source` into `out` from `at` on.
 *
 * @param dtype of `out`; not bfloat16 or float8
 * @param source booleans (or 0 and 1) for bool, numbers for the others, numbers or bigints for 64-bit integers
 * @param nulls where given, `null` elements are taken, leave a zero, and are marked here
 * @throws {SchemaError} with the place of the first element the dtype cannot hold
 */
export function fillNumbers(
  dtype: DType,
  source: readonly unknown[],
  out: TypedArray,
  at: number,
  where: Where,
  nulls?: Uint8Array,
): void {
  if (isBig(dtype)) return fillBig(dtype, source, out as BigInt64Array, at, where, nulls);
  const target = out as Float64Array;
  const [min, max] = RANGES[dtype] ?? [0, 0];
  const anyNumber = isFloat(dtype);
  for (let i = 0; i < source.length; i++) {
    const value = source[i];
    if (typeof value === "number") {
      if (anyNumber || (value >= min && value <= max && value === Math.floor(value))) {
        target[at + i] = value;
        continue;
      }
      if (dtype === "bool" && (value === 0 || value === 1)) {
        target[at + i] = value;
        continue;
      }
    } else if (value === null && nulls !== undefined) {
      nulls[i] = 1;
      continue;
    } else if (dtype === "bool" && typeof value === "boolean") {
      target[at + i] = value ? 1 : 0;
      continue;
    }
    throw refused(dtype, value, where(i));
  }
}

const WORD = 2 ** 32;

/** Numbers go in as two words: a bigint for each would cost ten times as much. */
function fillBig(
  dtype: "int64" | "uint64",
  source: readonly unknown[],
  out: BigInt64Array,
  at: number,
  where: Where,
  nulls: Uint8Array | undefined,
): void {
  const words = new Int32Array(out.buffer, out.byteOffset + at * 8, source.length * 2);
  const signed = dtype === "int64";
  for (let i = 0; i < source.length; i++) {
    const value = source[i];
    if (typeof value === "number") {
      if (!Number.isSafeInteger(value) || (!signed && value < 0)) throw refused(dtype, value, where(i));
      words[2 * i] = value | 0;
      words[2 * i + 1] = Math.floor(value / WORD);
    } else if (typeof value === "bigint") {
      const fits = signed ? BigInt.asIntN(64, value) : BigInt.asUintN(64, value);
      if (fits !== value) throw refused(dtype, value, where(i));
      out[at + i] = value;
    } else if (value === null && nulls !== undefined) {
      nulls[i] = 1;
    } else throw refused(dtype, value, where(i));
  }
}

function refused(dtype: DType, value: unknown, place: string): SchemaError {
  const shown = typeof value === "number" || typeof value === "boolean"
    ? String(value)
    : describeInput(value);
  const unsafe = isBig(dtype) && typeof value === "number" && Number.isInteger(value) &&
    Math.abs(value) >= 2 ** 53;
  return new SchemaError(`${dtype} cannot hold ${typeof value === "bigint" ? `${value}n` : shown} ${place}`, {
    expected: dtype,
    actual: value,
    hint: unsafe
      ? "the number is not exact, use a bigint"
      : value === null
      ? "rows may be null, elements and rows of a tensor may not"
      : undefined,
  });
}

/**
 * The bits of numbers in bfloat16 or float8, rounded to nearest, ties to even.
 *
 * @throws {SchemaError} for what is no number
 */
export function encodeNarrow(
  dtype: "bfloat16" | "float8_e4m3fn" | "float8_e5m2",
  source: readonly unknown[],
  where: Where,
): Uint8Array {
  for (let i = 0; i < source.length; i++) {
    if (typeof source[i] !== "number") throw refused(dtype, source[i], where(i));
  }
  const numbers = source as readonly number[];
  return bytesOf(dtype === "bfloat16" ? encodeBFloat16(numbers) : encodeFloat8(dtype, numbers));
}

/**
 * The bytes of a typed array that holds elements of `dtype`; its own memory, no copy.
 *
 * @param place for messages: "", " in row 7"
 * @throws {SchemaError} where it is an array of another dtype, or of bools other than 0 and 1
 */
export function bytesAs(dtype: DType, array: ArrayBufferView<ArrayBufferLike>, place = ""): Uint8Array {
  const given = dtypeOfArray(array);
  const wanted = rawDType(dtype);
  const otherSign = isBig(wanted) && given !== undefined && isBig(given) && given !== wanted;
  if (given !== wanted && !otherSign) {
    throw new SchemaError(`${dtype} data cannot come from a ${array.constructor.name}${place}`, {
      expected: arrayName(dtype),
      actual: array.constructor.name,
      hint: dtype === "bfloat16"
        ? "encodeBFloat16 converts, and number[] is converted"
        : "convert it, or give a number[]",
    });
  }
  const bytes = bytesOf(array);
  if (dtype === "bool") checkBools(bytes, place);
  // the same bits in int64 and uint64 below 2^63
  if (otherSign) checkBelow63(array as BigInt64Array | BigUint64Array, dtype, place);
  return bytes;
}

/** The dtype whose array class holds `dtype`. */
function rawDType(dtype: DType): DType {
  if (dtype === "bfloat16") return "uint16";
  return dtype === "bool" || dtype.startsWith("float8") ? "uint8" : dtype;
}

function arrayName(dtype: DType): string {
  const raw = rawDType(dtype);
  const name = raw.replace("uint", "Uint").replace("int", "Int").replace("float", "Float");
  return `${isBig(raw) ? `Big${name}` : name}Array`.replace("UInt", "Uint");
}

function checkBools(bytes: Uint8Array, place: string): void {
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i]! > 1) throw refused("bool", bytes[i], `at index ${i}${place}`);
  }
}

function checkBelow63(array: BigInt64Array | BigUint64Array, dtype: DType, place: string): void {
  const words = new Int32Array(array.buffer, array.byteOffset, array.length * 2);
  for (let i = 0; i < array.length; i++) {
    if (words[2 * i + 1]! < 0) throw refused(dtype, array[i], `at index ${i}${place}`);
  }
}
