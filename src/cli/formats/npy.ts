/**
 * NumPy files: a magic string, a version, a header that is a Python dictionary, and the bytes of one array.
 *
 * @module
 */

import { basename } from "node:path";
import type { Batch } from "../../batch/batch.ts";
import { type DType, itemSize } from "../../batch/dtype.ts";
import { Tensor } from "../../batch/tensor.ts";
import { CorruptionError, SchemaError } from "../../errors.ts";
import { InputFile, type OutputFile } from "../files.ts";
import type { FieldSchema } from "../../transfer/field_schema.ts";
import { fitTensor } from "../schema.ts";
import { arrayPart, checkRank, type FileColumns, type Format } from "./format.ts";
import { type PythonValue, readLiteral } from "./python_literal.ts";

/** NumPy's type codes without the byte order. */
const CODES: Readonly<Partial<Record<DType, string>>> = {
  bool: "b1",
  int8: "i1",
  int16: "i2",
  int32: "i4",
  int64: "i8",
  uint8: "u1",
  uint16: "u2",
  uint32: "u4",
  uint64: "u8",
  float16: "f2",
  float32: "f4",
  float64: "f8",
};
const DTYPE_OF: ReadonlyMap<string, DType> = new Map(
  Object.entries(CODES).map(([dtype, code]) => [code, dtype as DType]),
);

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];

/** NumPy leaves room in the header for the first extent to grow to this many digits. */
const GROWTH_DIGITS = 21;

/** The format for `.npy`. */
export const npy: Format = { read, checkFields, write };

function read(path: string, schema: ReadonlyMap<string, FieldSchema>): FileColumns {
  using file = new InputFile(path);
  const name = basename(path).replace(/\.npy$/i, "");
  const { descr, fortran, shape, dataOffset } = readHeader(file);
  const { dtype, swap } = elementType(path, name, descr);
  const size = itemSize(dtype);
  let bytes = size;
  for (const extent of shape) bytes *= extent;
  if (!(bytes === file.size - dataOffset)) {
    throw new CorruptionError(
      `${path}: the data at offset ${dataOffset} has ${
        file.size - dataOffset
      } bytes, shape and dtype say ${bytes}`,
      { field: name, expected: bytes, actual: file.size - dataOffset },
    );
  }
  checkRank(path, name, shape, dataOffset);
  let data: Uint8Array<ArrayBuffer> = file.read(dataOffset, bytes);
  if (swap) swapBytes(data, size);
  if (fortran && shape.length > 1) data = toRowMajor(data, size, shape);
  const tensor = new Tensor(dtype, shape, data);
  return { rows: tensor.rows, columns: new Map([[name, fitTensor(path, name, tensor, schema.get(name))]]) };
}

interface Header {
  readonly descr: string;
  readonly fortran: boolean;
  readonly shape: number[];
  readonly dataOffset: number;
}

function readHeader(file: InputFile): Header {
  const { path } = file;
  const start = file.read(0, Math.min(12, file.size));
  if (start.byteLength < 10 || MAGIC.some((byte, i) => start[i] !== byte)) {
    throw new CorruptionError(`${path}: no NumPy file: the magic string at offset 0 is missing`);
  }
  const [major, minor] = [start[6]!, start[7]!];
  if (major < 1 || major > 3 || minor !== 0) {
    throw new SchemaError(`${path}: version ${major}.${minor} at offset 6 is none of 1.0, 2.0, 3.0`);
  }
  const at = major === 1 ? 10 : 12;
  if (start.byteLength < at) {
    throw new CorruptionError(`${path}: the file ends in the header length at offset 8`);
  }
  const view = new DataView(start.buffer);
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  const bytes = file.read(at, length);
  let header: PythonValue;
  try {
    // Versions 1 and 2 are latin-1; what differs from UTF-8 there can only be in names of fields of structured types.
    header = readLiteral(new TextDecoder(major === 3 ? "utf-8" : "latin1", { fatal: true }).decode(bytes));
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new CorruptionError(`${path}: the header at offset ${at} is no Python literal: ${why}`, { cause });
  }
  if (!(header instanceof Map)) {
    throw new CorruptionError(`${path}: the header at offset ${at} is no dictionary`);
  }
  const [descr, fortran, shape] = ["descr", "fortran_order", "shape"].map((key) => header.get(key));
  if (header.size !== 3 || descr === undefined || typeof fortran !== "boolean" || !isShape(shape)) {
    throw new CorruptionError(
      `${path}: the header at offset ${at} is not one of descr, fortran_order and shape`,
      { expected: ["descr", "fortran_order", "shape"], actual: [...header.keys()] },
    );
  }
  if (typeof descr !== "string") {
    throw new SchemaError(
      `${path}: the array has a structured type (offset ${at}); only plain numbers can be read`,
    );
  }
  return { descr, fortran, shape, dataOffset: at + length };
}

function isShape(value: PythonValue | undefined): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && (size as number) >= 0);
}

function elementType(path: string, field: string, descr: string): { dtype: DType; swap: boolean } {
  const dtype = DTYPE_OF.get(descr.slice(1));
  if (dtype === undefined || !"<>|=".includes(descr[0]!)) {
    throw new SchemaError(`${path}: the type ${JSON.stringify(descr)} cannot be read`, {
      field,
      expected: [...DTYPE_OF.keys()],
      actual: descr,
      hint: descr.endsWith("O") ? "arrays of Python objects are pickled, which is never loaded" : undefined,
    });
  }
  return { dtype, swap: descr[0] === ">" && itemSize(dtype) > 1 };
}

/** Reverses the bytes of every element, in place. */
function swapBytes(data: Uint8Array<ArrayBuffer>, size: number): void {
  const view = new DataView(data.buffer);
  if (size === 2) {
    for (let i = 0; i < data.byteLength; i += 2) view.setUint16(i, view.getUint16(i), true);
  } else if (size === 4) {
    for (let i = 0; i < data.byteLength; i += 4) view.setUint32(i, view.getUint32(i), true);
  } else {
    for (let i = 0; i < data.byteLength; i += 8) view.setBigUint64(i, view.getBigUint64(i), true);
  }
}

/** Column-major elements in row-major order. */
function toRowMajor(
  data: Uint8Array<ArrayBuffer>,
  size: number,
  shape: readonly number[],
): Uint8Array<ArrayBuffer> {
  const into = new Uint8Array(new ArrayBuffer(data.byteLength));
  // Eight bytes as two words: moved as a float64, a NaN may lose bits.
  const Words = size === 1 ? Uint8Array : size === 2 ? Uint16Array : Uint32Array;
  permute(new Words(data.buffer), new Words(into.buffer), shape, size === 8 ? 2 : 1);
  return into;
}

function permute(
  from: Uint8Array | Uint16Array | Uint32Array,
  to: Uint8Array | Uint16Array | Uint32Array,
  shape: readonly number[],
  words: number,
): void {
  const last = shape.length - 1;
  const strides: number[] = [];
  let stride = words;
  for (const extent of shape) {
    strides.push(stride);
    stride *= extent;
  }
  const [lastExtent, lastStride] = [shape[last]!, strides[last]!];
  const index = new Array<number>(last).fill(0);
  let base = 0;
  for (let out = 0; out < to.length;) {
    for (let i = 0, at = base; i < lastExtent; i++, at += lastStride) {
      for (let word = 0; word < words; word++) to[out++] = from[at + word]!;
    }
    for (let axis = last - 1; axis >= 0; axis--) {
      base += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      base -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
}

function checkFields(path: string, fields: readonly string[]): void {
  if (fields.length === 1) return;
  throw new SchemaError(`${path}: a .npy file holds one field, not ${fields.length}`, {
    expected: 1,
    actual: fields,
    hint: fields.length === 0 ? undefined : `choose one of ${fields.join(", ")} with --fields`,
  });
}

async function write(file: OutputFile, batch: Batch): Promise<void> {
  checkFields(file.path, batch.fields);
  const name = batch.fields[0]!;
  const { dtype, shape, bytes } = arrayPart(name, batch.column(name), "npy");
  const code = CODES[dtype];
  if (code === undefined) {
    throw new SchemaError(`field ${JSON.stringify(name)}: NumPy has no ${dtype}`, {
      field: name,
      actual: dtype,
      hint: "write a .safetensors file",
    });
  }
  const order = itemSize(dtype) === 1 ? "|" : "<";
  const extents = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  let header = `{'descr': '${order}${code}', 'fortran_order': False, 'shape': (${extents}), }`;
  header += " ".repeat(GROWTH_DIGITS - String(shape[0]).length);
  header += " ".repeat(64 - (10 + header.length + 1) % 64) + "\n";
  const start = new Uint8Array(10);
  start.set([...MAGIC, 1, 0]);
  new DataView(start.buffer).setUint16(8, header.length, true);
  await file.write(start);
  await file.write(new TextEncoder().encode(header));
  await file.write(bytes);
}
