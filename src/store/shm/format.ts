/**
 * The file format of the shared-memory store, for whoever reads or writes the folder in another language.
 *
 * One file holds the objects of one bundle, or one key put alone. All numbers are little-endian.
 *
 * ```
 * offset  bytes
 *      0      8   magic: "BFSHM", 0, 0, 1
 *      8      8   u64  used bytes: where the table ends; at most the size of the file, which may be larger
 *     16      8   u64  table offset, 128 or more
 *     24      8   u64  table bytes, at most 64 MiB
 *     32      4   u32  CRC-32 (zlib) of the table's bytes
 *     36      4   u32  0
 *     40     24   0
 *     64     64   owner tag: the OWNER who made the file, ASCII, padded with 0
 *    128          payloads; what lies between them means nothing
 *   table offset  the table: JSON in UTF-8, [[key, offset, bytes], …], without padding
 * ```
 *
 * The table names every object by its full key, once. `offset` counts from the start of the file, is 128 or more, and
 * `offset + bytes` is at most the table offset; an empty object may have any such offset. In a bundle the manifest is
 * the last entry. A file holds at least one object.
 *
 * A payload that begins with the 304-byte header of a tensor starts at 16 modulo 64, so that the numbers behind the
 * header are aligned to 64 bytes; any other starts at 0 modulo 64. (A bundle that was allocated before its kinds were
 * known has all payloads of 304 bytes and more at 16 modulo 64.) Readers go by the table and by nothing else.
 *
 * **Writing.** A file is written under `pool/OWNER/` and renamed to `live/…` when it is complete: nobody sees a part of
 * it. The owner holds `flock(LOCK_EX)` on `owners/OWNER` all the time; without that lock, whoever opens the store
 * removes `pool/OWNER`. Reserve with `posix_fallocate` (or `pwrite`) before writing through a mapping.
 *
 * **Reading a bundle.** Its inode may be filled anew for another bundle once it was deleted. So either: open, `pread`
 * all that is wanted, and then see that the path still names the opened inode; or: open, `flock(LOCK_SH | LOCK_NB)`,
 * see that the path still names the opened inode, `mmap`, close (the mapping keeps the lock). Anything else means that
 * the bundle was deleted. Files of keys put alone are never filled anew: open and read.
 *
 * **Deleting.** A key put alone: `unlink`. A bundle: `unlink`, always right; or, so that its memory can be used again,
 * rename it to `pool/OWNER/OBJECT-ID` with the OWNER of its tag, provided that that folder is there and does not hold
 * much already.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { CorruptionError, SchemaError } from "../../errors.ts";
import { partsBytes } from "../checks.ts";
import type { StoreObject } from "../store.ts";

/** Bytes before the first payload. */
export const HEADER_BYTES = 128;
/** The longest table that is read or written. */
export const MAX_TABLE_BYTES: number = 64 * 2 ** 20;
/** Where the owner tag starts, and its length. */
const OWNER_OFFSET = 64;
const OWNER_BYTES = 64;

const MAGIC = Uint8Array.of(0x42, 0x46, 0x53, 0x48, 0x4d, 0, 0, 1);
const ALIGNMENT = 64;
const TENSOR_HEADER_BYTES = 304;
/** The 304-byte header's magic, version 1 and header size. */
const TENSOR_MAGIC = Uint8Array.of(0x4e, 0x4f, 0x4f, 0x4d, 1, 0, 0x30, 0x01);

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Where an object lies in its file. */
export interface Extent {
  readonly offset: number;
  readonly bytes: number;
}

/** The objects of a file by key, in the order in which they were written. */
export type Table = ReadonlyMap<string, Extent>;

/** What a file will look like. */
export interface Layout {
  readonly table: Table;
  readonly tableJson: Uint8Array;
  readonly tableOffset: number;
  /** All of it. */
  readonly used: number;
}

/** The numbers of a header. */
export interface Header {
  readonly used: number;
  readonly tableOffset: number;
  readonly tableBytes: number;
  readonly tableCrc: number;
  readonly owner: string;
}

/** The first place at or behind `offset` where a payload may start. */
export function alignPayload(offset: number, tensor: boolean): number {
  return tensor ? alignUp(offset - 16) + 16 : alignUp(offset);
}

function alignUp(offset: number): number {
  return Math.ceil(offset / ALIGNMENT) * ALIGNMENT;
}

function isTensor(parts: readonly Uint8Array[]): boolean {
  const first = parts[0];
  if (first === undefined || first.length < TENSOR_HEADER_BYTES) return false;
  return first.length === TENSOR_HEADER_BYTES || TENSOR_MAGIC.every((byte, i) => first[i] === byte);
}

/** Places payloads of which only the sizes are known, as if all that are long enough were tensors. */
export function placeAll(payloadBytes: readonly number[]): { offsets: number[]; end: number } {
  let end = HEADER_BYTES;
  const offsets = payloadBytes.map((bytes) => {
    const offset = alignPayload(end, bytes >= TENSOR_HEADER_BYTES);
    end = offset + bytes;
    return offset;
  });
  return { offsets, end };
}

/**
 * Places objects in a file.
 *
 * @param objects the objects, in order
 * @param placed what already lies in the file, and where it ends
 * @throws {SchemaError} where their keys are too many or too long
 */
export function layOut(
  objects: readonly StoreObject[],
  placed: { readonly table: Table; readonly end: number } = { table: new Map(), end: HEADER_BYTES },
): Layout {
  const table = new Map(placed.table);
  let end = placed.end;
  for (const { key, parts } of objects) {
    const bytes = partsBytes(parts);
    const offset = alignPayload(end, isTensor(parts));
    end = offset + bytes;
    table.set(key, { offset, bytes });
  }
  const rows: [string, number, number][] = [];
  for (const [key, { offset, bytes }] of table) rows.push([key, offset, bytes]);
  const tableJson = encode(JSON.stringify(rows));
  if (tableJson.length > MAX_TABLE_BYTES) {
    throw new SchemaError(`a bundle of ${table.size} objects has too long a key table`, {
      expected: MAX_TABLE_BYTES,
      actual: tableJson.length,
      hint: "put fewer columns, or shorter names",
    });
  }
  return { table, tableJson, tableOffset: end, used: end + tableJson.length };
}

// Into a buffer that is there, and a copy: in Deno a third of the time of `encode`, and most bundles are small.
const jsonScratch = new Uint8Array(new ArrayBuffer(6144));

function encode(json: string): Uint8Array {
  // no character takes more than three bytes
  if (json.length * 3 > jsonScratch.length) return encoder.encode(json);
  return jsonScratch.slice(0, encoder.encodeInto(json, jsonScratch).written);
}

const headerBytes = new Uint8Array(new ArrayBuffer(HEADER_BYTES));
const headerView = new DataView(headerBytes.buffer);

/** The header of a file; overwritten by the next call. */
export function encodeHeader(layout: Layout, owner: string): Uint8Array {
  headerBytes.fill(0);
  headerBytes.set(MAGIC);
  headerView.setBigUint64(8, BigInt(layout.used), true);
  headerView.setBigUint64(16, BigInt(layout.tableOffset), true);
  headerView.setBigUint64(24, BigInt(layout.tableJson.length), true);
  headerView.setUint32(32, crc32(layout.tableJson), true);
  for (let i = 0; i < owner.length; i++) headerBytes[OWNER_OFFSET + i] = owner.charCodeAt(i);
  return headerBytes;
}

/**
 * Reads and checks a header.
 *
 * @param bytes the start of the file
 * @param fileBytes the size of the file
 * @param where names the file in errors
 * @throws {CorruptionError} where it is no header, or contradicts itself or the size of the file
 */
export function decodeHeader(bytes: Uint8Array, fileBytes: number, where: string): Header {
  if (bytes.length < HEADER_BYTES || fileBytes < HEADER_BYTES) {
    throw damaged(where, "shorter than a header", HEADER_BYTES, Math.min(bytes.length, fileBytes));
  }
  if (!MAGIC.every((byte, i) => bytes[i] === byte)) {
    throw damaged(
      where,
      "no shared-memory bundle, or of another version",
      hex(MAGIC),
      hex(bytes.subarray(0, 8)),
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  // as numbers these may round, but only far beyond any size a file can have, where the comparisons below fail
  const used = Number(view.getBigUint64(8, true));
  const tableOffset = Number(view.getBigUint64(16, true));
  const tableBytes = Number(view.getBigUint64(24, true));
  if (used > fileBytes) throw damaged(where, "used bytes exceed the file", fileBytes, used);
  if (tableBytes > MAX_TABLE_BYTES) throw damaged(where, "too long a key table", MAX_TABLE_BYTES, tableBytes);
  if (tableOffset < HEADER_BYTES || tableOffset + tableBytes > used) {
    throw damaged(where, "the key table is out of bounds", used, tableOffset + tableBytes);
  }
  let owner = "";
  for (let i = OWNER_OFFSET; i < OWNER_OFFSET + OWNER_BYTES && bytes[i] !== 0; i++) {
    owner += String.fromCharCode(bytes[i]!);
  }
  return { used, tableOffset, tableBytes, tableCrc: view.getUint32(32, true), owner };
}

/**
 * Reads and checks a key table.
 *
 * @param json its bytes
 * @param header the header of the same file
 * @param where names the file in errors
 * @throws {CorruptionError} where the checksum, the JSON or an offset is wrong
 */
export function decodeTable(json: Uint8Array, header: Header, where: string): Table {
  if (json.length !== header.tableBytes) {
    throw damaged(where, "the key table is cut short", header.tableBytes, json.length);
  }
  const crc = crc32(json);
  if (crc !== header.tableCrc) {
    throw damaged(where, "the key table's checksum is wrong", header.tableCrc, crc);
  }
  let rows: unknown;
  try {
    rows = JSON.parse(decoder.decode(json));
  } catch (cause) {
    throw new CorruptionError(`${where}: the key table is no JSON`, { cause });
  }
  if (!Array.isArray(rows) || rows.length === 0) {
    throw damaged(where, "the key table is empty", "[[key, offset, bytes], …]", rows);
  }
  const table = new Map<string, Extent>();
  for (const row of rows as unknown[]) {
    if (!isRow(row)) throw damaged(where, "a bad entry in the key table", "[key, offset, bytes]", row);
    const [key, offset, bytes] = row;
    if (offset < HEADER_BYTES || offset + bytes > header.tableOffset) {
      throw damaged(
        where,
        `object ${JSON.stringify(key)} is out of bounds`,
        header.tableOffset,
        offset + bytes,
      );
    }
    if (table.has(key)) throw damaged(where, `key ${JSON.stringify(key)} stands twice`, 1, 2);
    table.set(key, { offset, bytes });
  }
  return table;
}

function isRow(row: unknown): row is [string, number, number] {
  return Array.isArray(row) && row.length === 3 && typeof row[0] === "string" &&
    Number.isSafeInteger(row[1]) && Number.isSafeInteger(row[2]) && row[2] >= 0;
}

/** The last key of a table: in a bundle, its manifest's. */
export function lastKey(table: Table): string {
  let last = "";
  for (const key of table.keys()) last = key;
  return last;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function damaged(where: string, what: string, expected: unknown, actual: unknown): CorruptionError {
  return new CorruptionError(`${where}: ${what}`, { expected, actual });
}
