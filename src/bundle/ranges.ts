/**
 * Byte ranges: what a reader asks for, mapped onto the stored objects that hold it.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { MAX_PAYLOAD_BYTES } from "../batch/tensor.ts";
import { CorruptionError, SchemaError } from "../errors.ts";
import type { ReadRange } from "../store/store.ts";
import type { ChunkSpec, PayloadSpec } from "./manifest.ts";

/** `into.byteLength` bytes of a member's payload, from `offset`. */
export interface PayloadRange {
  readonly member: string;
  readonly offset: number;
  readonly into: Uint8Array;
}

/**
 * A reading that says in rounds what it needs; each round has to be read before the next one is asked for.
 */
export type Reading<Result> = Generator<readonly PayloadRange[], Result, void>;

/** A range of one stored object, of which the manifest knows the size. */
export interface ChunkRange extends ReadRange {
  readonly object: ChunkSpec;
}

/**
 * Maps ranges of one payload onto its chunks, splitting `into` where a range spans several.
 *
 * @throws CorruptionError if a range reaches beyond the payload.
 */
export function payloadToChunks(payload: PayloadSpec, ranges: readonly PayloadRange[]): ChunkRange[] {
  const { chunks } = payload;
  const out: ChunkRange[] = [];
  const starts = chunks.length > 1 ? chunkStarts(payload) : undefined;
  for (const { offset, into } of ranges) {
    if (offset < 0 || offset + into.byteLength > payload.bytes) {
      throw new CorruptionError(
        `bytes ${offset} to ${
          offset + into.byteLength
        } lie beyond the ${payload.bytes} bytes of ${payload.key}`,
        { key: payload.key, expected: payload.bytes, actual: offset + into.byteLength },
      );
    }
    let index = starts === undefined ? 0 : chunkAt(starts, offset);
    for (let done = 0; done < into.byteLength; index++) {
      const chunk = chunks[index]!;
      const inside = offset + done - (starts?.[index] ?? 0);
      const length = Math.min(chunk.bytes - inside, into.byteLength - done);
      if (length === 0) continue;
      out.push({
        key: chunk.key,
        offset: inside,
        into: length === into.byteLength ? into : into.subarray(done, done + length),
        object: chunk,
      });
      done += length;
    }
  }
  return out;
}

/** Chunk starts are asked for again and again while one payload is read. */
const startsOf = new WeakMap<PayloadSpec, Float64Array>();

function chunkStarts(payload: PayloadSpec): Float64Array {
  let starts = startsOf.get(payload);
  if (starts === undefined) {
    starts = new Float64Array(payload.chunks.length);
    for (let i = 1; i < starts.length; i++) starts[i] = starts[i - 1]! + payload.chunks[i - 1]!.bytes;
    startsOf.set(payload, starts);
  }
  return starts;
}

/** The last chunk that starts at or before `offset`. */
function chunkAt(starts: Float64Array, offset: number): number {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (starts[middle]! <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** What has to be read for a whole payload, and the memory it goes to. */
export function wholePayloadReads(payload: PayloadSpec): { bytes: Uint8Array; ranges: ChunkRange[] } {
  const bytes = allocate(payload.bytes, payload.key);
  return { bytes, ranges: payloadToChunks(payload, [{ member: "", offset: 0, into: bytes }]) };
}

/**
 * Checks the checksums of ranges that were read and are whole objects.
 *
 * @throws CorruptionError for the first one that differs.
 */
export function verifyRanges(ranges: readonly ReadRange[]): void {
  for (const range of ranges) {
    const expected = range.object?.crc32;
    if (expected === undefined || range.into.byteLength !== range.object?.bytes) continue;
    const actual = crc32(range.into);
    if (actual !== expected) {
      throw new CorruptionError(`${range.key} does not have the checksum its manifest says`, {
        key: range.key,
        expected,
        actual,
      });
    }
  }
}

/**
 * New memory for `bytes` bytes of `what`. Its buffer exists first: short arrays made by length move in Bun.
 *
 * @throws SchemaError for more than one payload may have.
 */
export function allocate(bytes: number, what: string): Uint8Array {
  if (bytes > MAX_PAYLOAD_BYTES) {
    throw new SchemaError(`${bytes} bytes of ${what} are more than one array can hold`, {
      expected: `at most ${MAX_PAYLOAD_BYTES}`,
      actual: bytes,
      hint: "read fewer rows at a time",
    });
  }
  return new Uint8Array(new ArrayBuffer(bytes));
}
