/**
 * Element types as NumPy and torch write them.
 *
 * @module
 */

import { type DType, isDType, isNumericDType, itemSize, type NumericDType } from "../batch/dtype.ts";

const NUMPY_CODES: Readonly<Record<NumericDType, string>> = {
  bool: "|b1",
  int8: "|i1",
  int16: "<i2",
  int32: "<i4",
  int64: "<i8",
  uint8: "|u1",
  uint16: "<u2",
  uint32: "<u4",
  uint64: "<u8",
  float16: "<f2",
  float32: "<f4",
  float64: "<f8",
};

const BY_CODE: ReadonlyMap<string, NumericDType> = new Map(
  Object.entries(NUMPY_CODES).map(([dtype, code]) => [code.slice(1), dtype as NumericDType]),
);

/** How stored elements are to be understood. */
export interface StoredType {
  readonly dtype: NumericDType;
  /** The bytes of each element are in big-endian order. */
  readonly swap: boolean;
}

/**
 * NumPy's array-protocol string of a dtype, such as `<f4`; undefined for bfloat16 and float8, which NumPy
 * lacks.
 */
export function numpyCode(dtype: DType): string | undefined {
  return isNumericDType(dtype) ? NUMPY_CODES[dtype] : undefined;
}

/** The dtype behind an array-protocol string; undefined for text, dates, complex numbers and the like. */
export function parseNumpyCode(code: string): StoredType | undefined {
  const dtype = BY_CODE.get(code.slice(1));
  if (dtype === undefined || !"<>|=".includes(code.charAt(0))) return undefined;
  return { dtype, swap: code.startsWith(">") && itemSize(dtype) > 1 };
}

/** The type behind a NumPy dtype's `str()`, as codec metadata has it: `int64`, or `>i8` for big-endian. */
export function parseNumpyName(name: string): StoredType | undefined {
  return isNumericDType(name) ? { dtype: name, swap: false } : parseNumpyCode(name);
}

/** The name torch gives a dtype, such as `torch.float32`. */
export function torchName(dtype: DType): string {
  return `torch.${dtype}`;
}

/** The dtype behind torch's name for it, or undefined. */
export function parseTorchName(name: string): DType | undefined {
  const short = name.startsWith("torch.") ? name.slice(6) : "";
  return isDType(short) ? short : undefined;
}

/** Turns elements of `width` bytes from big-endian to little-endian, in place. */
export function swapBytes(bytes: Uint8Array, width: number): void {
  for (let at = 0; at + width <= bytes.length; at += width) {
    for (let low = at, high = at + width - 1; low < high; low++, high--) {
      const byte = bytes[low]!;
      bytes[low] = bytes[high]!;
      bytes[high] = byte;
    }
  }
}
