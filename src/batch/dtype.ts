/**
 * Element types: names, sizes, and the typed array each one has in JavaScript.
 *
 * @module
 */

/** Every element type a tensor may have. All are stored little-endian. */
export const DTYPES = [
  "bool",
  "int8",
  "int16",
  "int32",
  "int64",
  "uint8",
  "uint16",
  "uint32",
  "uint64",
  "float16",
  "float32",
  "float64",
  "bfloat16",
  "float8_e4m3fn",
  "float8_e5m2",
] as const;

/** An element type by name. */
export type DType = (typeof DTYPES)[number];

/** The element types of scalars and ragged rows: those NumPy has. */
export type NumericDType = Exclude<DType, "bfloat16" | "float8_e4m3fn" | "float8_e5m2">;

/** A JavaScript array of fixed-width numbers. */
export type TypedArray =
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | Float16Array
  | Float32Array
  | Float64Array;

type TypedArrayClass = {
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): TypedArray;
  readonly BYTES_PER_ELEMENT: number;
};

/** The array class of each dtype; raw bits where JavaScript has no such number. */
const ARRAYS: Readonly<Record<DType, TypedArrayClass>> = {
  bool: Uint8Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  float16: Float16Array,
  float32: Float32Array,
  float64: Float64Array,
  bfloat16: Uint16Array,
  float8_e4m3fn: Uint8Array,
  float8_e5m2: Uint8Array,
};

/** True if `name` is an element type. */
export function isDType(name: unknown): name is DType {
  return typeof name === "string" && Object.hasOwn(ARRAYS, name);
}

/** True if `name` may be the element type of scalars and ragged rows. */
export function isNumericDType(name: unknown): name is NumericDType {
  return isDType(name) && name !== "bfloat16" && !name.startsWith("float8");
}

/** What `name`, which may be anything, is called in a message: a list or an object is not written out. */
export function dtypeText(name: unknown): string {
  if (typeof name !== "object" || name === null) return String(name);
  return Array.isArray(name) ? "a list" : "an object";
}

/** Bytes of one element. */
export function itemSize(dtype: DType): number {
  return ARRAYS[dtype].BYTES_PER_ELEMENT;
}

/** True for the dtypes whose elements are bigint in JavaScript. */
export function isBig(dtype: DType): dtype is "int64" | "uint64" {
  return dtype === "int64" || dtype === "uint64";
}

/** True for dtypes with a fraction. */
export function isFloat(dtype: DType): boolean {
  return dtype.includes("float");
}

/** The dtype a typed array stands for, by its class; undefined for Uint8ClampedArray and DataView. */
export function dtypeOfArray(array: ArrayBufferView<ArrayBufferLike>): DType | undefined {
  switch (array.constructor.name) {
    case "Int8Array":
      return "int8";
    case "Int16Array":
      return "int16";
    case "Int32Array":
      return "int32";
    case "BigInt64Array":
      return "int64";
    case "Uint8Array":
    case "Buffer":
      return "uint8";
    case "Uint16Array":
      return "uint16";
    case "Uint32Array":
      return "uint32";
    case "BigUint64Array":
      return "uint64";
    case "Float16Array":
      return "float16";
    case "Float32Array":
      return "float32";
    case "Float64Array":
      return "float64";
    default:
      return undefined;
  }
}

/** The bytes of any view, without a copy. */
export function bytesOf(view: ArrayBufferView<ArrayBufferLike>): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/**
 * The typed array of `dtype` over `bytes`: a view where the bytes are aligned for it, else over a copy.
 *
 * `bytes.byteLength` must be a multiple of the element size.
 */
export function arrayOver(dtype: DType, bytes: Uint8Array): TypedArray {
  const size = itemSize(dtype);
  const aligned = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);
  return new ARRAYS[dtype](aligned.buffer, aligned.byteOffset, aligned.byteLength / size);
}

/** A new zeroed typed array of `dtype`. Its buffer exists first: short arrays made by length move in Bun. */
export function newArray(dtype: DType, length: number): TypedArray {
  return new ARRAYS[dtype](new ArrayBuffer(length * itemSize(dtype)), 0, length);
}
