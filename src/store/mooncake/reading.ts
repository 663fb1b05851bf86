/**
 * Reading objects whole and handing out the parts that were asked for.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import {
  INVALID_PARAMS,
  LEASE_EXPIRED,
  OBJECT_NOT_FOUND,
  REPLICA_IS_GONE,
  REPLICA_IS_NOT_READY,
  TRANSFER_FAIL,
} from "../../../ffi/mooncake_store.ts";
import type { Deadline } from "../../deadline.ts";
import { type BatchferryError, CorruptionError, DataLostError } from "../../errors.ts";
import { checkRange, droppedError } from "../checks.ts";
import type { ReadRange } from "../store.ts";
import { copyWithCrc } from "../checksum.ts";
import type { MooncakeClient, Staging } from "./client.ts";
import { nativeDetails, nativeFailure, transferFailed } from "./failures.ts";
import { type Window, windowsOf } from "./windows.ts";

/** What reading needs to know of the store. */
export interface ReadContext {
  readonly client: MooncakeClient;
  readonly masterServerAddr: string;
  /** Whether checksums are checked. */
  readonly verify: boolean;
}

/** Room for an object whose size nobody knows. Handles, manifests and row ids are rarely larger. */
const GUESS_BYTES = 64 * 1024;
/** How often an object is fetched whose lease expires, or whose checksum is wrong, while it is read. */
const ATTEMPTS = 2;

/** One object, and everything that is wanted of it. */
interface Wanted {
  readonly key: string;
  /** The object's size where `known`, else the room it gets. */
  readonly bytes: number;
  readonly known: boolean;
  readonly crc32: number | undefined;
  readonly ranges: readonly ReadRange[];
}

/** Whether a code says that there is no such object (any more, or yet). */
export function isAbsent(code: number): boolean {
  return code === OBJECT_NOT_FOUND || code === REPLICA_IS_GONE || code === REPLICA_IS_NOT_READY;
}

/**
 * Reads ranges, every object once however many of its ranges are wanted.
 *
 * @throws DroppedError, CorruptionError, DataLostError
 */
export async function readRanges(
  context: ReadContext,
  ranges: readonly ReadRange[],
  deadline: Deadline,
): Promise<void> {
  let wanted: readonly Wanted[] = wantedObjects(ranges);
  for (let attempt = 1; wanted.length > 0; attempt++) {
    wanted = await fetchOnce(context, wanted, attempt === ATTEMPTS, deadline);
  }
}

/**
 * One object whole.
 *
 * @returns undefined where it is absent
 */
export async function readObject(
  context: ReadContext,
  key: string,
  deadline: Deadline,
): Promise<Uint8Array | undefined> {
  const { client, masterServerAddr } = context;
  let room = GUESS_BYTES;
  for (let attempt = 1;;) {
    deadline.check();
    const staging = await client.reserve(room, deadline);
    let code: number;
    try {
      [code = -1] = await client.get(staging, [{ key, offset: 0, bytes: room }], deadline);
      // buffers start as ArrayBuffers: short arrays made by length move in Bun
      if (code >= 0) return copyOf(staging.bytes.subarray(0, code));
    } finally {
      staging.release();
    }
    if (isAbsent(code)) return undefined;
    if (code === LEASE_EXPIRED && attempt++ < ATTEMPTS) continue;
    if (code !== INVALID_PARAMS) throw readFailure(key, code, masterServerAddr);
    const bytes = await client.size(key, deadline);
    if (isAbsent(bytes)) return undefined;
    if (bytes <= room) throw readFailure(key, bytes < 0 ? bytes : code, masterServerAddr);
    room = bytes;
  }
}

function copyOf(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(new ArrayBuffer(bytes.byteLength));
  copy.set(bytes);
  return copy;
}

/** Ranges by object. */
function wantedObjects(ranges: readonly ReadRange[]): Wanted[] {
  const byKey = new Map<string, ReadRange[]>();
  let last: ReadRange[] = [];
  let lastKey: string | undefined;
  for (const range of ranges) {
    if (range.into.byteLength === 0) continue;
    // thousands of ranges of one object come one after the other
    if (range.key !== lastKey) {
      lastKey = range.key;
      const known = byKey.get(range.key);
      if (known === undefined) byKey.set(range.key, last = []);
      else last = known;
    }
    last.push(range);
  }
  return [...byKey].map(([key, ranges]) => {
    const object = ranges.find((range) => range.object !== undefined)?.object;
    if (object !== undefined) return { key, bytes: object.bytes, known: true, crc32: object.crc32, ranges };
    const end = ranges.reduce((most, { offset, into }) => Math.max(most, offset + into.byteLength), 0);
    return { key, bytes: Math.max(end, GUESS_BYTES), known: false, crc32: undefined, ranges };
  });
}

/** A batched call that has ended, its bytes still in the staging. */
interface Landed {
  readonly window: Window<Wanted>;
  readonly staging: Staging;
  readonly codes: readonly number[];
}

/** Fetches all objects; gives those that have to be fetched again. While one window is on its way, another is copied. */
async function fetchOnce(
  context: ReadContext,
  wanted: readonly Wanted[],
  last: boolean,
  deadline: Deadline,
): Promise<Wanted[]> {
  const { client } = context;
  const again: Wanted[] = [];
  let landed: Landed | undefined;
  const handOut = async (): Promise<void> => {
    if (landed === undefined) return;
    const { window, staging, codes } = landed;
    landed = undefined;
    try {
      for (const [i, { item, offset }] of window.placed.entries()) {
        const code = codes[i] ?? -1;
        const retry = code >= 0
          ? scatter(context, item, staging.bytes.subarray(offset, offset + code), last)
          : await judge(context, item, code, last, deadline);
        if (retry !== undefined) again.push(retry);
      }
    } finally {
      staging.release();
    }
  };
  try {
    // the last time each by itself: the shorter a transfer, the better its chance to end within its lease
    for (const window of windowsOf(wanted, ({ bytes }) => bytes, last ? 1 : undefined)) {
      deadline.check();
      const staging = await client.reserve(window.bytes, deadline);
      try {
        const objects = window.placed.map(({ item, offset, bytes }) => ({ key: item.key, offset, bytes }));
        const call = client.get(staging, objects, deadline);
        call.catch(() => {}); // awaited below, also where handing out fails first
        await handOut();
        landed = { window, staging, codes: await call };
        deadline.moved(window.bytes);
      } finally {
        if (landed?.staging !== staging) staging.release();
      }
    }
    await handOut();
  } finally {
    landed?.staging.release();
  }
  return again;
}

/** Copies the wanted parts of an object that has come. */
function scatter(
  { verify }: ReadContext,
  wanted: Wanted,
  bytes: Uint8Array,
  last: boolean,
): Wanted | undefined {
  const { key, known } = wanted;
  if (known && bytes.byteLength !== wanted.bytes) {
    throw new CorruptionError(`${key} has not the size its manifest says`, {
      key,
      expected: wanted.bytes,
      actual: bytes.byteLength,
    });
  }
  const [first] = wanted.ranges;
  // what is wanted whole is copied while it is checked; where the check fails nobody is told that it has come
  const whole = wanted.ranges.length === 1 && first !== undefined &&
    first.into.byteLength === bytes.byteLength;
  if (verify && wanted.crc32 !== undefined) {
    const actual = whole ? copyWithCrc(bytes, first.into) : crc32(bytes);
    if (actual === wanted.crc32 && whole) return undefined;
    if (actual !== wanted.crc32) {
      if (!last) return wanted; // perhaps its memory was given to another object while it was read
      throw new CorruptionError(`${key} does not have the checksum its manifest says`, {
        key,
        expected: wanted.crc32,
        actual,
      });
    }
  }
  for (const range of wanted.ranges) {
    checkRange(range, bytes.byteLength);
    range.into.set(bytes.subarray(range.offset, range.offset + range.into.byteLength));
  }
  return undefined;
}

/** What to do about an object that has not come: it as it is to be fetched again, or an error. */
async function judge(
  { client, masterServerAddr }: ReadContext,
  wanted: Wanted,
  code: number,
  last: boolean,
  deadline: Deadline,
): Promise<Wanted> {
  const { key, known } = wanted;
  if (isAbsent(code)) throw droppedError(key);
  if (code === LEASE_EXPIRED && !last) return wanted;
  if (code !== INVALID_PARAMS) throw readFailure(key, code, masterServerAddr);
  // the room was too small
  const bytes = await client.size(key, deadline);
  if (isAbsent(bytes)) throw droppedError(key);
  if (bytes < 0) throw readFailure(key, bytes, masterServerAddr);
  if (known || last) {
    throw new CorruptionError(`${key} has not the size its manifest says`, {
      key,
      expected: wanted.bytes,
      actual: bytes,
    });
  }
  return { ...wanted, bytes, known: true };
}

/** The error of a read that failed for good. */
export function readFailure(key: string, code: number, masterServerAddr: string): BatchferryError {
  if (code === TRANSFER_FAIL) return transferFailed(key, code);
  if (code === LEASE_EXPIRED) {
    return new DataLostError(`the lease on ${key} expired while it was read, more than once`, {
      key,
      ...nativeDetails(code),
      hint: "raise the master's default_kv_lease_ttl, or put smaller chunks (chunkBytes)",
    }, "LEASE_EXPIRED");
  }
  return nativeFailure("get", code, masterServerAddr, key);
}
