/**
 * The 304-byte header in front of a stored torch tensor.
 *
 * @module
 */

import { type DType, itemSize } from "../batch/dtype.ts";
import { CorruptionError } from "../errors.ts";

/** Bytes of the header. */
export const TENSOR_HEADER_BYTES = 304;

const MAGIC = 0x4d4f4f4e;
const VERSION = 1;
const MAX_DIMS = 8;
const MAX_AXES = 4;
const DATA_OFFSET_AT = 24;
const DATA_BYTES_AT = 32;
const GLOBAL_SHAPE_AT = 40;
const LOCAL_SHAPE_AT = 104;
const AXIS_COUNT_AT = 168;

/** The position of a dtype is its code. */
const CODES: readonly DType[] = [
  "float32",
  "float64",
  "int8",
  "uint8",
  "int16",
  "uint16",
  "int32",
  "uint32",
  "int64",
  "uint64",
  "bool",
  "float16",
  "bfloat16",
  "float8_e4m3fn",
  "float8_e5m2",
];

/** What a header says. */
export interface TensorHeader {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Where the data begins, counted from the header's first byte. */
  readonly dataOffset: number;
  readonly dataBytes: number;
}

/** The number of elements of a shape, or undefined where it is beyond 2^53 − 1. */
export function elementCount(shape: readonly number[]): number | undefined {
  if (shape.includes(0)) return 0;
  let count = 1;
  for (const size of shape) count *= size;
  return Number.isSafeInteger(count) ? count : undefined;
}

/** The header of a whole tensor of at most eight dimensions. */
export function writeTensorHeader(dtype: DType, shape: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(TENSOR_HEADER_BYTES));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint16(4, VERSION, true);
  view.setUint16(6, TENSOR_HEADER_BYTES, true);
  view.setInt32(8, CODES.indexOf(dtype), true);
  view.setInt32(12, shape.length, true);
  view.setBigUint64(DATA_OFFSET_AT, BigInt(TENSOR_HEADER_BYTES), true);
  view.setBigUint64(DATA_BYTES_AT, BigInt((elementCount(shape) ?? 0) * itemSize(dtype)), true);
  for (let i = 0; i < MAX_DIMS; i++) {
    const size = BigInt(shape[i] ?? -1);
    view.setBigInt64(GLOBAL_SHAPE_AT + 8 * i, size, true);
    view.setBigInt64(LOCAL_SHAPE_AT + 8 * i, size, true);
  }
  return bytes;
}

/**
 * Reads and checks a header.
 *
 * @param bytes At least the first 304 bytes of the payload.
 * @param payloadBytes The length of the whole payload.
 * @param key The key to name in errors.
 * @throws CorruptionError for a header that Mooncake itself would refuse.
 */
export function parseTensorHeader(bytes: Uint8Array, payloadBytes: number, key: string): TensorHeader {
  const refuse = (what: string, expected: unknown, actual: unknown): never => {
    throw new CorruptionError(
      `the tensor header of ${key} has a wrong ${what}: ${actual}, expected ${expected}`,
      {
        key,
        expected,
        actual,
      },
    );
  };
  if (bytes.length < TENSOR_HEADER_BYTES || payloadBytes < TENSOR_HEADER_BYTES) {
    refuse("length", TENSOR_HEADER_BYTES, Math.min(bytes.length, payloadBytes));
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const expect = (what: string, expected: number, actual: number): void => {
    if (actual !== expected) refuse(what, expected, actual);
  };
  expect("magic", MAGIC, view.getUint32(0, true));
  expect("version", VERSION, view.getUint16(4, true));
  expect("header size", TENSOR_HEADER_BYTES, view.getUint16(6, true));
  const code = view.getInt32(8, true);
  const dtype = CODES[code] ?? refuse("dtype code", `0…${CODES.length - 1}`, code);
  const dims = view.getInt32(12, true);
  if (dims < 0 || dims > MAX_DIMS) refuse("number of dimensions", `0…${MAX_DIMS}`, dims);
  const layout = view.getUint32(16, true);
  if (layout > 1) refuse("layout", "0 or 1", layout);
  const axes = view.getUint32(AXIS_COUNT_AT, true);
  if (axes > MAX_AXES) refuse("axis count", `0…${MAX_AXES}`, axes);
  const dataOffset = Number(view.getBigUint64(DATA_OFFSET_AT, true));
  if (dataOffset < TENSOR_HEADER_BYTES || dataOffset > payloadBytes) {
    refuse("data offset", `${TENSOR_HEADER_BYTES}…${payloadBytes}`, dataOffset);
  }
  const dataBytes = Number(view.getBigUint64(DATA_BYTES_AT, true));
  expect("data length", payloadBytes - dataOffset, dataBytes);
  const shape: number[] = [];
  for (let i = 0; i < MAX_DIMS; i++) {
    const size = Number(view.getBigInt64(LOCAL_SHAPE_AT + 8 * i, true));
    if (i >= dims) expect(`size of the unused dimension ${i}`, -1, size);
    else if (Number.isSafeInteger(size) && size >= 0) shape.push(size);
    else refuse(`size of dimension ${i}`, "0 or more", size);
  }
  const count = elementCount(shape);
  if (count === undefined || count * itemSize(dtype) !== dataBytes) {
    refuse("shape", `${dataBytes} bytes of ${dtype}`, `[${shape}]`);
  }
  return { dtype, shape, dataOffset, dataBytes };
}
