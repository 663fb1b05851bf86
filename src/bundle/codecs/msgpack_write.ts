/**
 * Writing `msgpack_ragged`: one MessagePack value a row, in the smallest form, as Python's packer has it.
 *
 * @module
 */

import type { RecordsColumn, VarlenColumn } from "../../batch/column.ts";
import { MAX_JSON_DEPTH } from "../../batch/json.ts";
import { SchemaError } from "../../errors.ts";
import type { EncodedColumn } from "./codec.ts";
import { bytesPart, int64Part, maskPart } from "./common.ts";

/** Python reads a whole column through a buffer of this size, and fails for more. */
const MOST_BYTES = 100 * 2 ** 20;

/** A number that was written as a fraction (`1.0`), which Python must get as a float. */
class Fraction {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/**
 * The stored form of json rows or records as MessagePack.
 *
 * In json rows `1.0` stays a float and `1` an integer; in records an integral number is an integer, for JavaScript has one
 * kind of number.
 *
 * @throws SchemaError for values that MessagePack has no form for, and for more bytes than Python reads
 */
export function encodeMsgpack(field: string, column: RecordsColumn | VarlenColumn): EncodedColumn {
  const { rows, nulls } = column;
  const writer = new Writer(field);
  const offsets = new Uint32Array(new ArrayBuffer((rows + 1) * 4));
  for (let row = 0; row < rows; row++) {
    if (nulls === null || nulls[row] !== 1) writer.row(row, valueOf(column, row));
    offsets[row + 1] = writer.length;
  }
  return {
    codec: "msgpack_ragged",
    metadata: {},
    parts: [
      bytesPart("data", writer.bytes()),
      int64Part("offsets", offsets, [rows + 1]),
      maskPart("nulls", nulls, rows),
    ],
  };
}

const UTF8 = new TextDecoder("utf-8", { ignoreBOM: true });

function valueOf(column: RecordsColumn | VarlenColumn, row: number): unknown {
  if (column.kind === "records") return column.values[row];
  return parseExact(UTF8.decode(column.data.subarray(column.offsets[row]!, column.offsets[row + 1]!)));
}

/** A JSON text with its integers and its fractions told apart. The text has been checked when the column was made. */
function parseExact(text: string): unknown {
  let at = 0;
  const skip = (): void => {
    while (/\s/.test(text[at] ?? "")) at++;
  };
  const string = (): string => {
    const start = at++;
    while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
    return JSON.parse(text.slice(start, ++at)) as string;
  };
  const list = <T>(end: string, item: () => T): T[] => {
    const items: T[] = [];
    at++;
    for (skip(); text[at] !== end; skip()) {
      if (text[at] === ",") at++;
      items.push(item());
    }
    at++;
    return items;
  };
  const value = (): unknown => {
    skip();
    const first = text[at];
    if (first === '"') return string();
    if (first === "[") return list("]", value);
    if (first === "{") {
      return new Map(list("}", () => {
        skip();
        const key = string();
        skip();
        at++; // the colon
        return [key, value()];
      }));
    }
    const token = /^[^\s,\]}]+/.exec(text.slice(at, at + 400))?.[0] ?? "";
    at += token.length;
    if (token === "null") return null;
    if (token === "true" || token === "false") return token === "true";
    if (/^-?\d+$/.test(token)) return BigInt(token);
    return new Fraction(Number(token));
  };
  return value();
}

const ENCODER = new TextEncoder();

class Writer {
  readonly #field: string;
  #row = 0;
  #bytes = new Uint8Array(new ArrayBuffer(1024));
  #view = new DataView(this.#bytes.buffer);
  length = 0;

  constructor(field: string) {
    this.#field = field;
  }

  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }

  row(row: number, value: unknown): void {
    this.#row = row;
    this.#value(value, 0);
    if (this.length > MOST_BYTES) {
      throw this.#refuse(
        `has more than ${MOST_BYTES} bytes as MessagePack, which Python does not read`,
        "store it as json_ragged",
      );
    }
  }

  #value(value: unknown, depth: number): void {
    if (depth > MAX_JSON_DEPTH) throw this.#refuse(`nests deeper than ${MAX_JSON_DEPTH} levels`);
    switch (typeof value) {
      case "boolean":
        return this.#byte(value ? 0xc3 : 0xc2);
      case "string":
        return this.#text(value);
      case "bigint":
        return this.#integer(value);
      case "number":
        if (Number.isSafeInteger(value) && !Object.is(value, -0)) return this.#integer(BigInt(value));
        return this.#float(value);
      case "object":
        if (value === null) return this.#byte(0xc0);
        if (value instanceof Fraction) return this.#float(value.value);
        if (value instanceof Uint8Array) return this.#binary(value);
        if (Array.isArray(value)) {
          this.#head(value.length, 0x90, 15, 0xdc);
          for (const item of value) this.#value(item, depth + 1);
          return;
        }
        if (value instanceof Map || isPlain(value)) {
          const entries = value instanceof Map ? [...value] : Object.entries(value);
          this.#head(entries.length, 0x80, 15, 0xde);
          for (const [key, item] of entries) {
            this.#text(key);
            this.#value(item, depth + 1);
          }
          return;
        }
    }
    const type = (value as object | undefined)?.constructor?.name ?? typeof value;
    throw this.#refuse(
      `has a value of the type ${type}, which MessagePack has no form for`,
      "store it as structured_recursive",
    );
  }

  /** A count in the smallest form: in the type's own byte, in two bytes, in four. */
  #head(count: number, fixed: number, most: number, wide: number): void {
    if (count <= most) this.#byte(fixed | count);
    else if (count < 2 ** 16) this.#number(wide, 2, (at) => this.#view.setUint16(at, count));
    else this.#number(wide + 1, 4, (at) => this.#view.setUint32(at, count));
  }

  #text(text: string): void {
    if (!text.isWellFormed()) throw this.#refuse("has half a surrogate pair");
    const bytes = ENCODER.encode(text);
    if (bytes.length > 31 && bytes.length < 256) {
      this.#number(0xd9, 1, (at) => this.#view.setUint8(at, bytes.length));
    } else this.#head(bytes.length, 0xa0, 31, 0xda);
    this.#append(bytes);
  }

  #binary(bytes: Uint8Array): void {
    if (bytes.length < 256) this.#number(0xc4, 1, (at) => this.#view.setUint8(at, bytes.length));
    else this.#head(bytes.length, 0, -1, 0xc5);
    this.#append(bytes);
  }

  #integer(value: bigint): void {
    if (value >= -(2n ** 31n) && value < 2n ** 32n) return this.#small(Number(value));
    if (value >= 0n && value < 2n ** 64n) {
      return this.#number(0xcf, 8, (at) => this.#view.setBigUint64(at, value));
    }
    if (value < 0n && value >= -(2n ** 63n)) {
      return this.#number(0xd3, 8, (at) => this.#view.setBigInt64(at, value));
    }
    throw this.#refuse(`has the integer ${value}, which has more than 64 bits`);
  }

  #small(value: number): void {
    if (value >= 0) {
      if (value < 0x80) this.#byte(value);
      else if (value < 2 ** 8) this.#number(0xcc, 1, (at) => this.#view.setUint8(at, value));
      else if (value < 2 ** 16) this.#number(0xcd, 2, (at) => this.#view.setUint16(at, value));
      else this.#number(0xce, 4, (at) => this.#view.setUint32(at, value));
    } else if (value >= -32) this.#byte(value + 0x100);
    else if (value >= -(2 ** 7)) this.#number(0xd0, 1, (at) => this.#view.setInt8(at, value));
    else if (value >= -(2 ** 15)) this.#number(0xd1, 2, (at) => this.#view.setInt16(at, value));
    else this.#number(0xd2, 4, (at) => this.#view.setInt32(at, value));
  }

  #float(value: number): void {
    this.#number(0xcb, 8, (at) => this.#view.setFloat64(at, value));
  }

  #number(type: number, width: number, write: (at: number) => void): void {
    this.#byte(type);
    this.#grow(width);
    write(this.length);
    this.length += width;
  }

  #byte(byte: number): void {
    this.#grow(1);
    this.#bytes[this.length++] = byte;
  }

  #append(bytes: Uint8Array): void {
    this.#grow(bytes.length);
    this.#bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  #grow(more: number): void {
    if (this.length + more <= this.#bytes.length) return;
    const larger = new Uint8Array(new ArrayBuffer(Math.max(this.#bytes.length * 2, this.length + more)));
    larger.set(this.#bytes);
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }

  #refuse(problem: string, hint?: string): SchemaError {
    return new SchemaError(`field ${JSON.stringify(this.#field)}: row ${this.#row} ${problem}`, {
      field: this.#field,
      actual: this.#row,
      hint,
    });
  }
}

function isPlain(value: object): value is Record<string, unknown> {
  const prototype = Object.getPrototypeOf(value) as unknown;
  return prototype === Object.prototype || prototype === null;
}
