/**
 * The second pass over a JSONL file: columns out of scanned values, their kind and dtype inferred.
 *
 * @module
 */

import type { Column, ScalarsColumn, VarlenColumn } from "../../batch/column.ts";
import { MAX_PAYLOAD_BYTES } from "../../batch/tensor.ts";
import { CorruptionError, SchemaError } from "../../errors.ts";
import { fromBase64 } from "./base64.ts";
import { isFloatToken } from "./json_text.ts";
import { KINDS, type ScannedColumn, type ScannedFile, SEEN, textOf } from "./jsonl_scan.ts";

/** Throws: a row is not what the schema says. */
export function failRow(file: ScannedFile, column: ScannedColumn, row: number, expected: string): never {
  const [start, end] = [column.starts[row]!, column.ends[row]!];
  const text = start === end ? "null" : textOf(file.bytes, start, Math.min(end, start + 60));
  throw new SchemaError(
    `${file.path}:${row + 1}: field ${JSON.stringify(column.name)}, row ${row} does not match its schema: ` +
      `expected ${expected}, found ${text.length < end - start ? `${text}…` : text}`,
    { field: column.name, rows: [String(row)], expected, actual: text },
  );
}

/** A column as its values say: one kind where all rows have it, else json. */
export function inferredColumn(file: ScannedFile, column: ScannedColumn): Column {
  switch (column.seen & KINDS) {
    case SEEN.string:
      return stringsColumn(file, column);
    case SEEN.boolean:
      return booleansColumn(file, column);
    case SEEN.bytes:
      return bytesColumn(file, column);
    case SEEN.number:
    case SEEN.list:
      // Numbers that no 64-bit number holds exactly stay text.
      return numbersColumn(file, column) ?? jsonColumn(file, column);
    default:
      return jsonColumn(file, column);
  }
}

/** One byte a row, 1 for null; null where no row is. */
export function nullsOf(file: ScannedFile, column: ScannedColumn): Uint8Array | null {
  const { starts, ends } = column;
  let nulls: Uint8Array | null = null;
  for (let row = 0; row < file.rows; row++) {
    if (starts[row] === ends[row]) (nulls ??= new Uint8Array(new ArrayBuffer(file.rows)))[row] = 1;
  }
  return nulls;
}

/**
 * A column of numbers or of flat lists of numbers: int64, uint64 if needed, float64 if any token is no integer.
 *
 * @returns undefined where some number would change
 */
export function numbersColumn(file: ScannedFile, column: ScannedColumn): Column | undefined {
  const { rows } = file;
  const isList = (column.seen & KINDS) === SEEN.list;
  const count = isList ? column.elements : rows;
  if (count * 8 > MAX_PAYLOAD_BYTES) {
    throw new SchemaError(
      `${file.path}: field ${JSON.stringify(column.name)} has more than 4 GiB of numbers`,
      {
        field: column.name,
        actual: count * 8,
        hint: "split the rows over several files",
      },
    );
  }
  const offsets = new Uint32Array(isList ? rows + 1 : 0);
  const numbers = column.seen & SEEN.float
    ? floats(file, column, count, offsets)
    : integers(file, column, count, offsets);
  if (numbers === undefined) return undefined;
  const { dtype, data } = numbers;
  const nulls = nullsOf(file, column);
  return isList
    ? { kind: "ragged", rows, nulls, dtype, data, offsets, shapes: null, rowFormat: "list" }
    : { kind: "scalars", rows, nulls, dtype, data };
}

interface Numbers {
  readonly dtype: "int64" | "uint64" | "float64";
  readonly data: Uint8Array;
}

const [ZERO, NINE, MINUS, QUOTE, BACKSLASH] = [0x30, 0x39, 0x2d, 0x22, 0x5c];
const WORD = 2 ** 32;
const [MIN_INT64, MAX_INT64, MAX_UINT64] = [-(2n ** 63n), 2n ** 63n - 1n, 2n ** 64n - 1n];

function integers(
  file: ScannedFile,
  column: ScannedColumn,
  count: number,
  offsets: Uint32Array,
): Numbers | undefined {
  const { bytes, rows } = file;
  const { starts, ends } = column;
  const isList = offsets.length > 0;
  const data = new Uint8Array(new ArrayBuffer(count * 8));
  // Halves, because a bigint for every element would take many times as long.
  const halves = new Int32Array(data.buffer);
  const wholes = new BigInt64Array(data.buffer);
  let [negative, unsigned] = [false, false];
  let element = 0;
  for (let row = 0; row < rows; row++) {
    if (isList) offsets[row] = element;
    else element = row;
    const end = ends[row]!;
    for (let at = starts[row]!; at < end;) {
      let byte = bytes[at++]!;
      const minus = byte === MINUS;
      if (minus) byte = bytes[at++]!;
      if (byte < ZERO || byte > NINE) continue;
      const first = at - 1;
      let value = byte - ZERO;
      while (at < end && (byte = bytes[at]!) >= ZERO && byte <= NINE) {
        value = value * 10 + byte - ZERO;
        at++;
      }
      if (at - first > 15) {
        const exact = BigInt(textOf(bytes, minus ? first - 1 : first, at));
        if (exact > MAX_UINT64 || exact < MIN_INT64) return undefined;
        if (exact > MAX_INT64) unsigned = true;
        if (exact < 0n) negative = true;
        wholes[element++] = BigInt.asIntN(64, exact);
        continue;
      }
      if (minus && value > 0) {
        negative = true;
        value = -value;
      }
      halves[2 * element] = value;
      halves[2 * element + 1] = Math.floor(value / WORD);
      element++;
    }
  }
  if (isList) offsets[rows] = element;
  if (unsigned && negative) return undefined;
  return { dtype: unsigned ? "uint64" : "int64", data };
}

function floats(
  file: ScannedFile,
  column: ScannedColumn,
  count: number,
  offsets: Uint32Array,
): Numbers | undefined {
  const { bytes, rows } = file;
  const { starts, ends } = column;
  const isList = offsets.length > 0;
  const data = new Float64Array(new ArrayBuffer(count * 8));
  const checkLong = (column.seen & SEEN.long) !== 0;
  let element = 0;
  for (let row = 0; row < rows; row++) {
    if (isList) offsets[row] = element;
    else element = row;
    if (starts[row] === ends[row]) continue;
    const text = textOf(bytes, starts[row]!, ends[row]!);
    if (checkLong && !(text.match(/-?\d[\d.eE+-]*/g) ?? []).every(survivesAsFloat)) return undefined;
    for (const value of isList ? JSON.parse(text) as number[] : [Number(text)]) {
      if (!Number.isFinite(value)) return undefined;
      data[element++] = value;
    }
  }
  if (isList) offsets[rows] = element;
  return { dtype: "float64", data: new Uint8Array(data.buffer) };
}

/** True if a number token means the same as float64: floats, and integers that come out with their digits. */
export function survivesAsFloat(token: string): boolean {
  if (isFloatToken(token) || token.length < 16) return true;
  const value = Number(token);
  return Number.isFinite(value) && (String(value) === token || BigInt(value) === BigInt(token));
}

function booleansColumn(file: ScannedFile, column: ScannedColumn): ScalarsColumn {
  const { bytes, rows } = file;
  const data = new Uint8Array(new ArrayBuffer(rows));
  // A null begins where it ends, so behind the word.
  for (let row = 0; row < rows; row++) {
    const start = column.starts[row]!;
    if (start !== column.ends[row] && bytes[start] === 0x74) data[row] = 1;
  }
  return { kind: "scalars", dtype: "bool", rows, nulls: nullsOf(file, column), data };
}

/** Bytes of all rows, filled row by row. */
class VarlenBuilder {
  readonly #data: Uint8Array;
  readonly #offsets: Uint32Array;
  #used = 0;
  #row = 0;

  constructor(rows: number, capacity: number) {
    this.#data = new Uint8Array(new ArrayBuffer(capacity));
    this.#offsets = new Uint32Array(rows + 1);
  }

  /** Where a row may write itself; it says by `end` how far. */
  get data(): Uint8Array {
    return this.#data;
  }

  get position(): number {
    return this.#used;
  }

  end(position: number): void {
    this.#used = position;
    this.#offsets[++this.#row] = position;
  }

  append(bytes: Uint8Array): void {
    this.#data.set(bytes, this.#used);
    this.end(this.#used + bytes.byteLength);
  }

  finish(kind: VarlenColumn["kind"], nulls: Uint8Array | null): VarlenColumn {
    const data = this.#data.subarray(0, this.#used);
    return { kind, rows: this.#row, nulls, data, offsets: this.#offsets };
  }
}

/** The bytes that all values of a column take in the file: as much as any form of them needs. */
function spanBytes(file: ScannedFile, column: ScannedColumn): number {
  let total = 0;
  for (let row = 0; row < file.rows; row++) total += column.ends[row]! - column.starts[row]!;
  return total;
}

/** A column of strings; every value must be one. */
export function stringsColumn(file: ScannedFile, column: ScannedColumn): VarlenColumn {
  const { bytes, rows } = file;
  const builder = new VarlenBuilder(rows, spanBytes(file, column));
  const { data } = builder;
  for (let row = 0; row < rows; row++) {
    const [start, end] = [column.starts[row]!, column.ends[row]!];
    if (start === end) {
      builder.end(builder.position);
      continue;
    }
    // UTF-8 on both sides: what has no escape is copied as it is.
    let position = builder.position;
    let at = start + 1;
    while (at < end - 1 && bytes[at] !== BACKSLASH) data[position++] = bytes[at++]!;
    if (at === end - 1) builder.end(position);
    else builder.append(new TextEncoder().encode(JSON.parse(textOf(bytes, start, end)) as string));
  }
  return builder.finish("strings", nullsOf(file, column));
}

/** A column of `{"$bytes": base64}`; every value must be one. */
export function bytesColumn(file: ScannedFile, column: ScannedColumn): VarlenColumn {
  const builder = new VarlenBuilder(file.rows, spanBytes(file, column));
  for (let row = 0; row < file.rows; row++) {
    const [start, end] = [column.starts[row]!, column.ends[row]!];
    if (start === end) {
      builder.end(builder.position);
      continue;
    }
    const bytes = fromBase64((JSON.parse(textOf(file.bytes, start, end)) as { $bytes: string }).$bytes);
    if (bytes === undefined) {
      throw new CorruptionError(`${file.path}:${row + 1}: the file changed while it was read`);
    }
    builder.append(bytes);
  }
  return builder.finish("bytes", nullsOf(file, column));
}

/** A column of any values: their text as it stands, without space, so every number keeps its digits. */
export function jsonColumn(file: ScannedFile, column: ScannedColumn): VarlenColumn {
  const { bytes, rows } = file;
  const builder = new VarlenBuilder(rows, spanBytes(file, column));
  const { data } = builder;
  for (let row = 0; row < rows; row++) {
    let position = builder.position;
    const end = column.ends[row]!;
    let inString = false;
    for (let at = column.starts[row]!; at < end; at++) {
      const byte = bytes[at]!;
      if (inString) {
        if (byte === BACKSLASH) {
          data[position++] = byte;
          data[position++] = bytes[++at]!;
          continue;
        }
        if (byte === QUOTE) inString = false;
      } else if (byte === QUOTE) inString = true;
      else if (byte <= 0x20) continue;
      data[position++] = byte;
    }
    builder.end(position);
  }
  return builder.finish("json", nullsOf(file, column));
}
