/**
 * The floating-point formats JavaScript has no array for: bfloat16 and the two float8 formats.
 *
 * Encoding rounds a double once, to the nearest value, ties to even. Overflow is what PyTorch makes of it:
 * infinity in bfloat16 and float8_e5m2, NaN in float8_e4m3fn, which has no infinity (nothing saturates).
 *
 * @module
 */

/** A dtype that is stored as raw bits in `.data`. */
export type NarrowFloat = "bfloat16" | "float8_e4m3fn" | "float8_e5m2";

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/**
 * The bits of `value` as float32, rounded to odd: rounding these on to fewer bits gives what rounding the double
 * at once would have given.
 */
function oddFloatBits(value: number): number {
  float[0] = value;
  const rounded = float[0];
  let out = bits[0]!;
  if (rounded !== value && value === value) {
    if (Math.abs(rounded) > Math.abs(value)) out -= 1;
    out |= 1;
  }
  return out >>> 0;
}

/**
 * Encodes numbers as bfloat16.
 *
 * @param values any numbers, a Float32Array among others
 * @returns the raw bits, what `tensor("bfloat16", shape, …)` takes
 *
 * @example
 * ```ts
 * tensor("bfloat16", [2, 2], encodeBFloat16(new Float32Array([1, 2, 3, 4])));
 * ```
 */
export function encodeBFloat16(values: ArrayLike<number>): Uint16Array {
  const out = new Uint16Array(new ArrayBuffer(values.length * 2));
  for (let i = 0; i < out.length; i++) {
    const value = values[i]!;
    // one NaN for all, as PyTorch
    if (value !== value) {
      out[i] = 0x7fc0;
      continue;
    }
    const wide = oddFloatBits(value);
    out[i] = (wide + 0x7fff + ((wide >>> 16) & 1)) >>> 16;
  }
  return out;
}

/** Where the exponent and the mantissa end, and what lies beyond the largest number. */
interface Float8Format {
  readonly mantissaBits: number;
  readonly bias: number;
  /** What a magnitude that rounds past the largest finite one becomes. */
  readonly overflow: number;
}

const FLOAT8: Readonly<Record<"float8_e4m3fn" | "float8_e5m2", Float8Format>> = {
  float8_e4m3fn: { mantissaBits: 3, bias: 7, overflow: 0x7f },
  float8_e5m2: { mantissaBits: 2, bias: 15, overflow: 0x7c },
};

/**
 * Encodes numbers as float8.
 *
 * @param dtype which of the two formats
 * @param values any numbers
 * @returns the raw bits, what `tensor(dtype, shape, …)` takes
 */
export function encodeFloat8(
  dtype: "float8_e4m3fn" | "float8_e5m2",
  values: ArrayLike<number>,
): Uint8Array {
  const { mantissaBits, bias, overflow } = FLOAT8[dtype];
  const dropped = 23 - mantissaBits;
  const out = new Uint8Array(new ArrayBuffer(values.length));
  for (let i = 0; i < out.length; i++) {
    const wide = oddFloatBits(values[i]!);
    const sign = (wide >>> 24) & 0x80;
    const magnitude = wide & 0x7fffffff;
    const exponent = (magnitude >>> 23) - 127 + bias;
    let code: number;
    if (magnitude > 0x7f800000) {
      code = 0x7f;
    } else if (exponent >= 1) {
      code = Math.min(halfEven(magnitude - ((127 - bias) << 23), dropped), overflow);
    } else {
      // subnormal: the leading one is written out and moved down
      const shift = dropped + 1 - exponent;
      code = shift > 24 ? 0 : halfEven((magnitude & 0x7fffff) | 0x800000, shift);
    }
    out[i] = sign | code;
  }
  return out;
}

/** `value` without its lowest `shift` bits, rounded to nearest, ties to even. */
function halfEven(value: number, shift: number): number {
  return (value + (1 << (shift - 1)) - 1 + ((value >>> shift) & 1)) >>> shift;
}

/** Decodes bfloat16 bits; every value is exact. */
export function decodeBFloat16(raw: Uint16Array): Float32Array {
  const out = new Float32Array(raw.length);
  const wide = new Uint32Array(out.buffer);
  for (let i = 0; i < raw.length; i++) wide[i] = raw[i]! << 16;
  return out;
}

/** Decodes float8 bits; every value is exact. */
export function decodeFloat8(dtype: "float8_e4m3fn" | "float8_e5m2", raw: Uint8Array): Float32Array {
  const table = float8Values(dtype);
  const out = new Float32Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = table[raw[i]!]!;
  return out;
}

const tables = new Map<string, Float32Array>();

/** The 256 values of a float8 format. */
function float8Values(dtype: "float8_e4m3fn" | "float8_e5m2"): Float32Array {
  let table = tables.get(dtype);
  if (table === undefined) {
    table = Float32Array.from({ length: 256 }, (_, code) => float8Value(dtype, code));
    tables.set(dtype, table);
  }
  return table;
}

function float8Value(dtype: "float8_e4m3fn" | "float8_e5m2", code: number): number {
  const { mantissaBits, bias } = FLOAT8[dtype];
  const sign = code & 0x80 ? -1 : 1;
  const magnitude = code & 0x7f;
  if (dtype === "float8_e5m2" && magnitude >= 0x7c) return magnitude === 0x7c ? sign * Infinity : NaN;
  if (magnitude === 0x7f) return NaN;
  const exponent = magnitude >>> mantissaBits;
  const mantissa = magnitude & ((1 << mantissaBits) - 1);
  const scale = 2 ** (Math.max(exponent, 1) - bias - mantissaBits);
  return sign * scale * (exponent === 0 ? mantissa : mantissa + (1 << mantissaBits));
}
