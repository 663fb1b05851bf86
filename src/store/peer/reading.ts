/**
 * Reading ranges of another process's bundles: one-sided, into staging memory, and out of it once the guard has told that
 * nothing was taken back meanwhile.
 *
 * @module
 */

import { tryEach } from "../../attempts.ts";
import type { Deadline } from "../../deadline.ts";
import { ClosedError, CorruptionError, DroppedError } from "../../errors.ts";
import { checkRange, droppedError } from "../checks.ts";
import { copyWithCrc } from "../checksum.ts";
import { type MappedMemory, newMemory } from "../registered/memory.ts";
import { StagingPool, type StagingSlot } from "../registered/staging.ts";
import type { ReadRange } from "../store.ts";
import { type BundleTable, GUARD_BYTES, GUARD_MAGIC } from "./messages.ts";
import type { Link, Plane, ReadPiece, Registration } from "./plane.ts";
import type { RemotePeer } from "./remote.ts";

/** The bytes of one READ batch, and how many are under way at a time: while they come, the one before is copied and checked. */
const WINDOW_BYTES = 4 * 2 ** 20;
const WINDOWS = 4;
/** The most pieces of one batch. */
const WINDOW_PIECES = 1024;
/** Fewer bytes between two ranges are read along: a piece of its own costs more. */
const GAP_BYTES = 512;
const ALIGNMENT = 64;

/** Where READs land: when too much of it is kept by READs that never end, another piece takes its place. */
export class LandingPlace {
  readonly #plane: Plane;
  readonly #bytes: number;
  readonly #left = new Set<Landing>();
  #current: Landing;

  /** @param bytes how much memory READs may take at once */
  constructor(plane: Plane, bytes: number) {
    this.#plane = plane;
    this.#bytes = bytes;
    this.#current = new Landing(plane, bytes);
  }

  /** The landing to use now: one that was left is used again once its READs have ended. */
  get current(): Landing {
    const isCrowded = (landing: Landing): boolean => {
      const { total, quarantined } = landing.pool.use;
      return quarantined > total / 2;
    };
    if (!isCrowded(this.#current)) return this.#current;
    this.#left.add(this.#current);
    const again = this.#left.values().find((landing) => !isCrowded(landing));
    if (again !== undefined) this.#left.delete(again);
    return this.#current = again ?? new Landing(this.#plane, this.#bytes);
  }

  /** Gives the memory back. */
  close(): Promise<void> {
    return tryEach([...this.#left, this.#current], (landing) => landing.close());
  }
}

/** Registered memory that READs land in, made at the first of them. */
export class Landing {
  readonly #plane: Plane;
  readonly #bytes: number;
  #open: Promise<{ memory: MappedMemory; registration: Registration }> | undefined;
  #closed = false;
  readonly pool: StagingPool;

  constructor(plane: Plane, bytes: number) {
    this.#plane = plane;
    this.#bytes = Math.ceil(Math.max(bytes, WINDOWS * 4096) / 4096) * 4096;
    this.pool = new StagingPool(this.#bytes);
  }

  /** The most bytes of one window. */
  get windowBytes(): number {
    return Math.min(WINDOW_BYTES, Math.floor(this.#bytes / WINDOWS / 4096) * 4096);
  }

  open(): Promise<{ memory: MappedMemory; registration: Registration }> {
    return this.#open ??= this.#make().catch((error) => {
      this.#open = undefined;
      throw error;
    });
  }

  async #make(): Promise<{ memory: MappedMemory; registration: Registration }> {
    if (this.#closed) throw new ClosedError("the store was closed");
    const memory = newMemory(this.#bytes);
    try {
      await memory.populate();
      return { memory, registration: await this.#plane.register(memory.address, this.#bytes) };
    } catch (error) {
      memory.close();
      throw error;
    }
  }

  /** Gives the memory back; leaks it where a READ that was given up may still write to it. */
  async close(): Promise<void> {
    this.#closed = true;
    this.pool.close();
    const open = await this.#open?.catch(() => undefined);
    if (open === undefined) return;
    await open.registration.close();
    const { slots, quarantined } = this.pool.use;
    if (slots === 0 && quarantined === 0) open.memory.close();
  }
}

/** The checksum of an object that is read whole, as its parts arrive in order. */
interface Check {
  readonly range: ReadRange;
  crc: number;
}

/** A part of a range, no longer than a window. */
interface Part {
  readonly segment: number;
  /** From the start of the segment. */
  readonly offset: number;
  readonly into: Uint8Array;
  readonly check: Check | undefined;
}

/** Bytes that come by one READ, and where they go. */
interface Extent {
  readonly offset: number;
  bytes: number;
  readonly parts: Part[];
}

interface Window {
  readonly segment: number;
  readonly extents: { readonly extent: Extent; readonly at: number }[];
  bytes: number;
}

/**
 * Reads ranges of one bundle of a peer's.
 *
 * @throws DroppedError where the bundle is not there (any more), CorruptionError for wrong bytes or ranges beyond an
 * object, BackendUnavailableError PEER_LOST, TimeoutError
 */
export async function readFromPeer(
  peer: RemotePeer,
  table: BundleTable,
  objectId: string,
  ranges: readonly ReadRange[],
  landing: Landing,
  verify: boolean,
  deadline: Deadline,
): Promise<void> {
  const checks = new Map<ReadRange, Check>();
  if (verify) { for (const range of ranges) if (isWhole(range)) checks.set(range, { range, crc: 0 }); }
  const windows = windowsOf(partsOf(table, ranges, checks, landing.windowBytes), landing.windowBytes);
  const { memory, registration } = await landing.open();
  const link = await peer.link(deadline);
  const underWay: Promise<void>[] = [];
  try {
    let before: Promise<void> = Promise.resolve();
    for (const window of windows) {
      if (underWay.length >= WINDOWS) await underWay.shift();
      deadline.check();
      const slot = await landing.pool.reserve(window.bytes, deadline);
      const remote = table.segments.get(window.segment)!.remote;
      const pieces = window.extents.map(({ extent, at }): ReadPiece => ({
        localOffset: slot.offset + at,
        remoteOffset: extent.offset,
        bytes: extent.bytes,
      }));
      const inTurn = before;
      const landed = (async () => {
        try {
          await read(link, registration, remote, pieces, slot, deadline);
          await inTurn; // checksums are of bytes in their order
          let moved = 0;
          for (const { extent, at } of window.extents) {
            moved += scatter(extent, memory.bytes, slot.offset + at);
          }
          deadline.moved(moved);
        } finally {
          slot.release();
        }
      })();
      landed.catch(() => {}); // awaited in a later round, or below
      underWay.push(before = landed);
    }
    await Promise.all(underWay);
  } finally {
    await Promise.allSettled(underWay);
  }
  await checkGuard(peer, link, table, objectId, landing, deadline);
  for (const check of checks.values()) checkSum(check);
}

function read(
  link: Link,
  local: Registration,
  remote: Parameters<Link["read"]>[1],
  pieces: readonly ReadPiece[],
  slot: StagingSlot,
  deadline: Deadline,
): Promise<void> {
  return link.read(local, remote, pieces, deadline, (ended) => slot.hold(ended));
}

/** Whether the memory was still the bundle's when the last range had come. */
async function checkGuard(
  peer: RemotePeer,
  link: Link,
  table: BundleTable,
  objectId: string,
  landing: Landing,
  deadline: Deadline,
): Promise<void> {
  const { memory, registration } = await landing.open();
  const [segment, offset] = table.guard;
  const slot = await landing.pool.reserve(GUARD_BYTES, deadline);
  try {
    const piece = { localOffset: slot.offset, remoteOffset: offset, bytes: GUARD_BYTES };
    await read(link, registration, table.segments.get(segment)!.remote, [piece], slot, deadline);
    const { buffer, byteOffset } = memory.bytes;
    const [magic, generation] = new BigUint64Array(buffer, byteOffset + slot.offset, GUARD_BYTES / 8);
    if (magic === GUARD_MAGIC && generation === table.generation) return;
  } finally {
    slot.release();
  }
  peer.forget(objectId);
  throw new DroppedError(`bundle ${objectId} was deleted while it was read`, { key: objectId });
}

/** Whether a range is an object whose checksum is known, all of it. */
function isWhole({ offset, into, object }: ReadRange): boolean {
  return object?.crc32 !== undefined && offset === 0 && into.byteLength === object.bytes;
}

function checkSum({ range: { key, object }, crc }: Check): void {
  if (crc === object!.crc32) return;
  throw new CorruptionError(`${key} does not have the checksum its manifest says`, {
    key,
    expected: object!.crc32,
    actual: crc,
  });
}

function partsOf(
  table: BundleTable,
  ranges: readonly ReadRange[],
  checks: ReadonlyMap<ReadRange, Check>,
  most: number,
): Part[] {
  const parts: Part[] = [];
  for (const range of ranges) {
    const place = table.objects.get(range.key);
    if (place === undefined) throw droppedError(range.key);
    checkRange(range, place.bytes);
    const check = checks.get(range);
    for (let at = 0; at < range.into.byteLength; at += most) {
      parts.push({
        segment: place.segment,
        offset: place.offset + range.offset + at,
        into: range.into.subarray(at, at + most),
        check,
      });
    }
  }
  return parts.sort((a, b) => a.segment - b.segment || a.offset - b.offset);
}

/** Joins what lies close together, and cuts the rest into batches. */
function windowsOf(parts: readonly Part[], most: number): Window[] {
  const windows: Window[] = [];
  let window: Window | undefined;
  let extent: Extent | undefined;
  for (const part of parts) {
    const end = part.offset + part.into.byteLength;
    if (window !== undefined && extent !== undefined && window.segment === part.segment) {
      const gap = part.offset - (extent.offset + extent.bytes);
      const grown = Math.max(extent.bytes, end - extent.offset);
      if (gap <= GAP_BYTES && window.bytes - extent.bytes + grown <= most) {
        window.bytes += grown - extent.bytes;
        extent.bytes = grown;
        extent.parts.push(part);
        continue;
      }
    }
    const at = window === undefined ? 0 : Math.ceil(window.bytes / ALIGNMENT) * ALIGNMENT;
    extent = { offset: part.offset, bytes: part.into.byteLength, parts: [part] };
    if (
      window === undefined || window.segment !== part.segment || window.extents.length >= WINDOW_PIECES ||
      at + extent.bytes > most
    ) {
      windows.push(window = { segment: part.segment, extents: [{ extent, at: 0 }], bytes: extent.bytes });
    } else {
      window.extents.push({ extent, at });
      window.bytes = at + extent.bytes;
    }
  }
  return windows;
}

/** Copies what has come to where it was asked for; gives how many bytes. */
function scatter(extent: Extent, memory: Uint8Array, at: number): number {
  let moved = 0;
  for (const { offset, into, check } of extent.parts) {
    const start = at + offset - extent.offset;
    const from = memory.subarray(start, start + into.byteLength);
    if (check === undefined) into.set(from);
    else check.crc = copyWithCrc(from, into, check.crc);
    moved += into.byteLength;
  }
  return moved;
}
