/**
 * `msgpack_ragged`: one MessagePack value a row. `msgpack_write.ts` writes it.
 *
 * @module
 */

import type { Guard, RecordsColumn } from "../../batch/column.ts";
import { MAX_JSON_DEPTH } from "../../batch/json.ts";
import type { PartSource } from "../part_source.ts";
import type { Parts } from "../parts.ts";
import type { Codec } from "./codec.ts";
import { recordsColumn, setKey } from "./values.ts";
import { varlenLayout, varlenParts } from "./varlen.ts";

/** Any MessagePack values, dicts mostly. */
export const msgpackRagged: Codec = {
  info: () => ({ kind: "records" }),
  layout: varlenLayout,
  decode: (source: PartSource, _rows, parts: Parts, _guard?: Guard): RecordsColumn => {
    const { rows, nulls, data, offsets } = varlenParts(source, parts);
    const values: unknown[] = [];
    for (let row = 0; row < rows; row++) {
      if (nulls !== null && nulls[row] === 1) {
        values.push(null);
        continue;
      }
      try {
        values.push(decodeMsgpack(data.subarray(offsets[row]!, offsets[row + 1]!)));
      } catch (cause) {
        if (!(cause instanceof SyntaxError)) throw cause;
        throw source.corruption(`has a row that is not MessagePack: ${cause.message}`, {
          actual: row,
          cause,
        });
      }
    }
    return recordsColumn(values, "msgpack_ragged");
  },
};

/**
 * Decodes the one value that `bytes` have to be.
 *
 * Integers beyond ±(2^53 − 1) are bigint; binary is a Uint8Array of its own. Nothing is allocated by a length
 * in the data before as many bytes are known to be there.
 *
 * @throws SyntaxError for anything else, extension types and map keys other than text among it.
 */
export function decodeMsgpack(bytes: Uint8Array): unknown {
  const decoder = new Decoder(bytes);
  const value = decoder.value(0);
  decoder.end();
  return value;
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

class Decoder {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  end(): void {
    if (this.#at !== this.#bytes.length) {
      throw new SyntaxError(`${this.#bytes.length - this.#at} bytes too many`);
    }
  }

  value(depth: number): unknown {
    if (depth > MAX_JSON_DEPTH) throw new SyntaxError(`more than ${MAX_JSON_DEPTH} levels`);
    const type = this.#bytes[this.#skip(1)]!;
    if (type < 0x80) return type;
    if (type >= 0xe0) return type - 0x100;
    if (type < 0x90) return this.#map(type & 0x0f, depth);
    if (type < 0xa0) return this.#array(type & 0x0f, depth);
    if (type < 0xc0) return this.#text(type & 0x1f);
    switch (type) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#binary(this.#unsigned(1 << (type - 0xc4)));
      case 0xca:
        return this.#view.getFloat32(this.#skip(4));
      case 0xcb:
        return this.#view.getFloat64(this.#skip(8));
      case 0xcc:
      case 0xcd:
      case 0xce:
        return this.#unsigned(1 << (type - 0xcc));
      case 0xcf:
        return exact(this.#view.getBigUint64(this.#skip(8)));
      case 0xd0:
        return this.#view.getInt8(this.#skip(1));
      case 0xd1:
        return this.#view.getInt16(this.#skip(2));
      case 0xd2:
        return this.#view.getInt32(this.#skip(4));
      case 0xd3:
        return exact(this.#view.getBigInt64(this.#skip(8)));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#text(this.#unsigned(1 << (type - 0xd9)));
      case 0xdc:
      case 0xdd:
        return this.#array(this.#unsigned(2 << (type - 0xdc)), depth);
      case 0xde:
      case 0xdf:
        return this.#map(this.#unsigned(2 << (type - 0xde)), depth);
      default:
        throw new SyntaxError(`the type 0x${type.toString(16)} is not supported`);
    }
  }

  /** Steps over `length` bytes that must be there; gives where they begin. */
  #skip(length: number): number {
    const at = this.#at;
    if (length > this.#bytes.length - at) throw new SyntaxError("it ends too early");
    this.#at = at + length;
    return at;
  }

  #unsigned(width: number): number {
    const at = this.#skip(width);
    return width === 1 ? this.#bytes[at]! : width === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }

  #binary(length: number): Uint8Array {
    const at = this.#skip(length);
    const out = new Uint8Array(new ArrayBuffer(length));
    out.set(this.#bytes.subarray(at, at + length));
    return out;
  }

  #text(length: number): string {
    const at = this.#skip(length);
    try {
      return UTF8.decode(this.#bytes.subarray(at, at + length));
    } catch {
      throw new SyntaxError("text is not UTF-8");
    }
  }

  /** Grows as elements are read: a claimed count costs nothing. */
  #array(count: number, depth: number): unknown[] {
    const out: unknown[] = [];
    for (let i = 0; i < count; i++) out.push(this.value(depth + 1));
    return out;
  }

  #map(count: number, depth: number): Record<string, unknown> {
    const out: Record<string, unknown> = {};
    for (let i = 0; i < count; i++) {
      const key = this.value(depth + 1);
      if (typeof key !== "string") throw new SyntaxError("a map key is not text");
      setKey(out, key, this.value(depth + 1));
    }
    return out;
  }
}

function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
