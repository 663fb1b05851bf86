/**
 * Safetensors files: a header length, a JSON header, and the bytes of every tensor back to back.
 *
 * @module
 */

import type { Batch } from "../../batch/batch.ts";
import type { Column } from "../../batch/column.ts";
import { type DType, itemSize } from "../../batch/dtype.ts";
import { Tensor } from "../../batch/tensor.ts";
import { CorruptionError, SchemaError } from "../../errors.ts";
import { InputFile, type OutputFile } from "../files.ts";
import type { FieldSchema } from "../../transfer/field_schema.ts";
import { fitTensor } from "../schema.ts";
import { arrayPart, checkRank, type FileColumns, type Format } from "./format.ts";
import { objectKeys } from "./json_text.ts";

/** The format's names of the element types. */
const NAMES: Readonly<Record<DType, string>> = {
  bool: "BOOL",
  int8: "I8",
  int16: "I16",
  int32: "I32",
  int64: "I64",
  uint8: "U8",
  uint16: "U16",
  uint32: "U32",
  uint64: "U64",
  float16: "F16",
  float32: "F32",
  float64: "F64",
  bfloat16: "BF16",
  float8_e4m3fn: "F8_E4M3",
  float8_e5m2: "F8_E5M2",
};
const DTYPE_OF: ReadonlyMap<string, DType> = new Map(
  Object.entries(NAMES).map(([dtype, name]) => [name, dtype as DType]),
);

/** The longest header the format's own library accepts. */
const MAX_HEADER_BYTES = 100_000_000;

/** The format for `.safetensors`. */
export const safetensors: Format = { read, write };

interface Entry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Positions in the data, which begins after the header. */
  readonly begin: number;
  readonly end: number;
}

function read(path: string, schema: ReadonlyMap<string, FieldSchema>): FileColumns {
  using file = new InputFile(path);
  const { entries, dataOffset } = readHeader(file);
  const rows = commonRows(path, entries, dataOffset);
  const columns = new Map<string, Column>();
  for (const { name, dtype, shape, begin, end } of entries) {
    const tensor = new Tensor(dtype, shape, file.read(dataOffset + begin, end - begin));
    columns.set(name, fitTensor(path, name, tensor, schema.get(name)));
  }
  return { rows, columns };
}

/** The entries of the header, in its order; every number in them is checked against the file. */
function readHeader(file: InputFile): { entries: Entry[]; dataOffset: number } {
  const { path, size } = file;
  if (size < 8) {
    throw corrupt(path, 0, "the file is too short for a header length", "at least 8 bytes", size);
  }
  const length = file.read(0, 8);
  const headerBytes = new DataView(length.buffer).getBigUint64(0, true);
  if (headerBytes > BigInt(size - 8) || headerBytes > BigInt(MAX_HEADER_BYTES)) {
    throw corrupt(
      path,
      0,
      "the header is longer than the file",
      Math.min(size - 8, MAX_HEADER_BYTES),
      headerBytes,
    );
  }
  const dataOffset = 8 + Number(headerBytes);
  const header = parseHeader(path, file.read(8, Number(headerBytes)));
  const entries = header.map(([name, value]) => checkEntry(path, name, value, size - dataOffset));
  checkLayout(path, entries, dataOffset, size - dataOffset);
  return { entries, dataOffset };
}

/** Names and values of the tensors, in the order of the text. */
function parseHeader(path: string, bytes: Uint8Array): [string, unknown][] {
  let text: string;
  let header: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    header = JSON.parse(text);
  } catch (cause) {
    const why = cause instanceof SyntaxError ? "no JSON" : "no UTF-8";
    throw new CorruptionError(`${path}: the header at offset 8 is ${why}`, { cause });
  }
  if (!isObject(header)) {
    throw corrupt(path, 8, "the header is no JSON object", "an object", header);
  }
  const { keys, duplicate } = objectKeys(text);
  if (duplicate !== undefined) {
    const offset = 8 + new TextEncoder().encode(text.slice(0, duplicate.offset)).byteLength;
    throw corrupt(path, offset, `the header has the key ${JSON.stringify(duplicate.key)} twice`, 1, 2);
  }
  const metadata = header.__metadata__;
  if (Object.hasOwn(header, "__metadata__") && !isObject(metadata)) {
    throw corrupt(path, 8, "__metadata__ is no JSON object", "an object", metadata);
  }
  return keys.filter((key) => key !== "__metadata__").map((key) => [key, header[key]]);
}

function checkEntry(path: string, name: string, value: unknown, dataBytes: number): Entry {
  const what = `tensor ${JSON.stringify(name)}`;
  if (!isObject(value)) {
    throw corrupt(path, 8, `${what} has no description`, "an object", value);
  }
  const { dtype: dtypeName, shape, data_offsets: offsets } = value;
  if (typeof dtypeName !== "string") {
    throw corrupt(path, 8, `${what} has no dtype`, "a name", dtypeName);
  }
  const dtype = DTYPE_OF.get(dtypeName);
  if (dtype === undefined) {
    throw new SchemaError(`${path}: ${what} has the dtype ${dtypeName}, which has no counterpart`, {
      field: name,
      expected: [...DTYPE_OF.keys()],
      actual: dtypeName,
    });
  }
  if (!isSizes(shape)) {
    throw corrupt(path, 8, `${what} has no proper shape`, "a list of sizes", shape);
  }
  if (!isSizes(offsets) || offsets.length !== 2) {
    throw corrupt(path, 8, `${what} has no proper data_offsets`, "[begin, end]", offsets);
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end || end > dataBytes) {
    throw corrupt(path, 8, `${what} lies outside the file`, `within ${dataBytes} bytes of data`, offsets);
  }
  const bytes = byteCount(shape, itemSize(dtype));
  if (bytes !== end - begin) {
    throw corrupt(
      path,
      8,
      `${what} has data_offsets that do not match its dtype and shape`,
      bytes,
      end - begin,
    );
  }
  return { name, dtype, shape, begin, end };
}

/** Bytes of a shape, or Infinity beyond what a number counts exactly. */
function byteCount(shape: readonly number[], size: number): number {
  if (shape.includes(0)) return 0;
  let bytes = size;
  for (const extent of shape) {
    bytes *= extent;
    if (bytes > Number.MAX_SAFE_INTEGER) return Infinity;
  }
  return bytes;
}

/** The tensors must cover the data without holes and overlaps. */
function checkLayout(path: string, entries: readonly Entry[], dataOffset: number, dataBytes: number): void {
  const inPlace = [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end);
  let position = 0;
  for (const { name, begin, end } of inPlace) {
    if (begin !== position) {
      const what = begin < position ? "overlaps the tensor before it" : "leaves a hole before it";
      throw corrupt(path, dataOffset + begin, `tensor ${JSON.stringify(name)} ${what}`, position, begin);
    }
    position = end;
  }
  if (position !== dataBytes) {
    throw corrupt(path, dataOffset + position, "the file goes on after its last tensor", position, dataBytes);
  }
}

function commonRows(path: string, entries: readonly Entry[], dataOffset: number): number {
  const [first] = entries;
  if (first === undefined) return 0;
  for (const { name, shape, begin } of entries) {
    checkRank(path, name, shape, dataOffset + begin);
    if (shape[0] !== first.shape[0]) {
      throw new SchemaError(
        `${path}: tensors ${JSON.stringify(first.name)} and ${JSON.stringify(name)} have unequal rows ` +
          `(${first.shape[0]} and ${shape[0]})`,
        { field: name, expected: first.shape[0], actual: shape[0] },
      );
    }
  }
  return first.shape[0]!;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

function corrupt(
  path: string,
  offset: number,
  what: string,
  expected: unknown,
  actual: unknown,
): CorruptionError {
  return new CorruptionError(`${path}: ${what} (offset ${offset})`, { expected, actual });
}

async function write(file: OutputFile, batch: Batch): Promise<void> {
  const entries: string[] = [];
  const parts: Uint8Array[] = [];
  let position = 0;
  for (const name of batch.fields) {
    if (name === "__metadata__") {
      throw new SchemaError(`field "__metadata__": safetensors files use this name themselves`, {
        field: name,
      });
    }
    const { dtype, shape, bytes } = arrayPart(name, batch.column(name), "safetensors");
    const end = position + bytes.byteLength;
    const entry = { dtype: NAMES[dtype], shape, data_offsets: [position, end] };
    // One by one: an object would move names like "7" to the front.
    entries.push(`${JSON.stringify(name)}:${JSON.stringify(entry)}`);
    parts.push(bytes);
    position = end;
  }
  let header = new TextEncoder().encode(`{${entries.join(",")}}`);
  const padding = -header.byteLength & 7;
  if (padding > 0) header = new TextEncoder().encode(`{${entries.join(",")}}${" ".repeat(padding)}`);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(header.byteLength), true);
  await file.write(length);
  await file.write(header);
  for (const part of parts) await file.write(part);
}
