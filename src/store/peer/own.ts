/**
 * What this process has itself: bundles in registered memory, and small loose objects.
 *
 * @module
 */

import { randomBytes } from "node:crypto";
import { detach, native } from "../../../ffi/native.ts";
import type { Deadline } from "../../deadline.ts";
import { ClosedError } from "../../errors.ts";
import { checkBundle, checkPlaced, checkRange, objectIdInUse, partsBytes, type Placed } from "../checks.ts";
import { copyWithCrc } from "../checksum.ts";
import {
  type BundleLease,
  type CallOptions,
  objectIdOf,
  type ReadRange,
  type StoreObject,
} from "../store.ts";
import type { Block, PeerMemory } from "./memory.ts";
import { type BundleTable, GUARD_BYTES, GUARD_MAGIC } from "./messages.ts";

/** Objects begin at multiples of it. */
const ALIGNMENT = 64;

/** Where an object lies. */
interface Place {
  readonly block: Block;
  /** From the start of the block's segment. */
  readonly offset: number;
  readonly bytes: number;
}

interface Bundle {
  readonly generation: bigint;
  readonly blocks: readonly Block[];
  readonly objects: ReadonlyMap<string, Place>;
}

/** See the module. */
export class OwnObjects {
  readonly #memory: PeerMemory;
  readonly #bundles = new Map<string, Bundle>();
  readonly #loose = new Map<string, Uint8Array>();
  readonly #leases = new Set<{ release(): void }>();

  constructor(memory: PeerMemory) {
    this.#memory = memory;
  }

  /** Bundles and loose objects. */
  get count(): number {
    return this.#bundles.size + this.#loose.size;
  }

  /** Writes all objects of a bundle, the manifest last: all or none. */
  async write(objectId: string, objects: readonly StoreObject[], deadline: Deadline): Promise<void> {
    checkBundle(objectId, objects.map(({ key }) => key));
    if (this.#bundles.has(objectId)) throw objectIdInUse(objectId);
    await this.#publish(objectId, [], [], objects, deadline);
  }

  /** Memory to write a bundle in place. */
  async allocate(
    sizes: readonly number[],
    deadline: Deadline,
    begin: (options?: CallOptions) => Deadline,
  ): Promise<BundleLease> {
    let bytes = ALIGNMENT; // the guard
    const offsets = sizes.map((size) => {
      const at = bytes;
      bytes = aligned(at + size);
      return at;
    });
    const block = await this.#memory.reserve(bytes, deadline);
    const lease = new OwnLease(block, offsets, sizes, {
      publish: (objectId, placed, objects, options) => {
        const within = begin(options);
        const kept = placed.filter(({ key }) => key !== "");
        checkBundle(objectId, [...kept, ...objects].map(({ key }) => key));
        if (this.#bundles.has(objectId)) throw objectIdInUse(objectId);
        const places = placed.flatMap(({ key, bytes }, i): [string, Place][] =>
          key === "" ? [] : [[key, { block, offset: block.offset + offsets[i]!, bytes }]]
        );
        return this.#publish(objectId, [block], places, objects, within);
      },
      ended: (ended) => this.#leases.delete(ended),
    });
    this.#leases.add(lease);
    return lease;
  }

  async #publish(
    objectId: string,
    given: readonly Block[],
    places: readonly (readonly [string, Place])[],
    objects: readonly StoreObject[],
    deadline: Deadline,
  ): Promise<void> {
    const blocks = [...given];
    const placed = new Map(places);
    const last = objects.at(-1);
    const before = objects.slice(0, -1).map((object) => ({ object, bytes: partsBytes(object.parts) }));
    try {
      const total = before.reduce(
        (sum, { bytes }) => sum + aligned(bytes),
        given.length === 0 ? ALIGNMENT : 0,
      );
      if (total > 0) {
        const block = await this.#memory.reserve(total, deadline);
        blocks.push(block);
        let at = block.offset + (given.length === 0 ? ALIGNMENT : 0);
        for (const { object, bytes } of before) {
          placed.set(object.key, fill(object, block, at, bytes));
          at += aligned(bytes);
          deadline.moved(bytes);
        }
      }
      if (last !== undefined) {
        // only now: a manifest has the checksums of what was written before it
        const bytes = partsBytes(last.parts);
        const block = await this.#memory.reserve(Math.max(1, bytes), deadline);
        blocks.push(block);
        placed.set(last.key, fill(last, block, block.offset, bytes));
      }
      deadline.check();
      if (this.#bundles.has(objectId)) throw objectIdInUse(objectId);
    } catch (error) {
      for (const block of blocks) if (!given.includes(block)) block.release();
      throw error;
    }
    const generation = newGeneration();
    const guard = guardOf(blocks[0]!);
    guard[1] = generation;
    guard[2] = BigInt(blocks.reduce((sum, block) => sum + block.bytes, 0));
    Atomics.store(guard, 0, GUARD_MAGIC);
    this.#bundles.set(objectId, { generation, blocks, objects: placed });
  }

  /** Puts a small loose object. */
  put(key: string, value: Uint8Array): void {
    this.#loose.set(key, new Uint8Array(new ArrayBuffer(value.byteLength)));
    this.#loose.get(key)!.set(value);
  }

  /** Whether an object is here, and its size. */
  size(key: string): number | undefined {
    return this.#place(key)?.bytes ?? this.#loose.get(key)?.byteLength;
  }

  hasBundle(objectId: string): boolean {
    return this.#bundles.has(objectId);
  }

  loose(key: string): Uint8Array | undefined {
    return this.#loose.get(key);
  }

  /** Copies a range; false where its object is not here. */
  read(range: ReadRange): boolean {
    const place = this.#place(range.key);
    const bytes = place === undefined
      ? this.#loose.get(range.key)
      : place.block.segment.memory.bytes.subarray(place.offset, place.offset + place.bytes);
    if (bytes === undefined) return false;
    checkRange(range, bytes.byteLength);
    range.into.set(bytes.subarray(range.offset, range.offset + range.into.byteLength));
    return true;
  }

  /** Where a bundle's objects lie, for a reader. */
  table(objectId: string): BundleTable | undefined {
    const bundle = this.#bundles.get(objectId);
    if (bundle === undefined) return undefined;
    const [first] = bundle.blocks;
    return {
      generation: bundle.generation,
      guard: [first!.segment.id, first!.offset],
      segments: new Map(
        bundle.blocks.map(({ segment: { id, memory, registration } }) =>
          [id, { bytes: memory.bytes.byteLength, remote: registration.remote }] as const
        ),
      ),
      objects: new Map(
        [...bundle.objects].map(([key, { block, offset, bytes }]) =>
          [key, { segment: block.segment.id, offset, bytes }] as const
        ),
      ),
    };
  }

  /** Deletes whole bundles of which a key is named, and loose objects. */
  delete(keys: readonly string[]): void {
    for (const key of keys) {
      const objectId = objectIdOf(key);
      if (objectId !== undefined && this.#bundles.get(objectId)?.objects.has(key)) this.#remove(objectId);
      else this.#loose.delete(key);
    }
  }

  /** Deletes what is below a prefix; gives how many bundles and loose objects. */
  deletePrefix(prefix: string): number {
    let deleted = 0;
    for (const [objectId, { objects }] of this.#bundles) {
      if (!objects.keys().some((key) => key.startsWith(prefix))) continue;
      this.#remove(objectId);
      deleted++;
    }
    for (const key of this.#loose.keys()) if (key.startsWith(prefix) && this.#loose.delete(key)) deleted++;
    return deleted;
  }

  /** Manifest keys and loose keys below a prefix. */
  list(prefix: string): string[] {
    const manifests = this.#bundles.values().map(({ objects }) => [...objects.keys()].at(-1)!);
    return [...manifests, ...this.#loose.keys()].filter((key) => key.startsWith(prefix));
  }

  /** Forgets everything; leases end. */
  close(): void {
    for (const lease of [...this.#leases]) lease.release();
    for (const objectId of [...this.#bundles.keys()]) this.#remove(objectId);
    this.#loose.clear();
  }

  #place(key: string): Place | undefined {
    const objectId = objectIdOf(key);
    return objectId === undefined ? undefined : this.#bundles.get(objectId)?.objects.get(key);
  }

  #remove(objectId: string): void {
    const bundle = this.#bundles.get(objectId);
    if (bundle === undefined) return;
    this.#bundles.delete(objectId);
    // before the memory can be used again: who is reading it now finds out
    Atomics.store(guardOf(bundle.blocks[0]!), 1, 0n);
    for (const block of bundle.blocks) block.release();
  }
}

/** Copies an object to its place, and tells it its checksum where it wants to know. */
function fill(object: StoreObject, block: Block, offset: number, bytes: number): Place {
  const to = block.segment.memory.bytes.subarray(offset, offset + bytes);
  let at = 0;
  let crc = 0;
  for (const part of object.parts) {
    if (object.written === undefined) to.set(part, at);
    else crc = copyWithCrc(part, to.subarray(at), crc);
    at += part.byteLength;
  }
  object.written?.(crc);
  return { block, offset, bytes };
}

function guardOf({ segment, offset }: Block): BigUint64Array {
  const { buffer, byteOffset } = segment.memory.bytes;
  return new BigUint64Array(buffer, byteOffset + offset, GUARD_BYTES / 8);
}

/** Never 0, which is no generation. */
function newGeneration(): bigint {
  return randomBytes(8).readBigUInt64LE() | 1n;
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

interface LeaseHost {
  publish(
    objectId: string,
    placed: readonly Placed[],
    objects: readonly StoreObject[],
    options: CallOptions | undefined,
  ): Promise<void>;
  ended(lease: OwnLease): void;
}

class OwnLease implements BundleLease {
  readonly payloads: readonly Uint8Array<ArrayBuffer>[];
  readonly #block: Block;
  readonly #sizes: readonly number[];
  readonly #host: LeaseHost;
  #ended: "released" | "published" | undefined;

  constructor(block: Block, offsets: readonly number[], sizes: readonly number[], host: LeaseHost) {
    this.#block = block;
    this.#sizes = sizes;
    this.#host = host;
    const start = block.segment.memory.address + BigInt(block.offset);
    // views of their own: they are detached when the memory is no longer the caller's
    this.payloads = sizes.map((bytes, i) =>
      new Uint8Array(bytes === 0 ? new ArrayBuffer(0) : native.view(start + BigInt(offsets[i]!), bytes))
    );
  }

  async publish(
    objectId: string,
    placed: readonly Placed[],
    objects: readonly StoreObject[],
    options?: CallOptions,
  ): Promise<void> {
    if (this.#ended !== undefined) {
      throw new ClosedError(`this memory was ${this.#ended} before`, { key: objectId });
    }
    checkPlaced(placed, this.#sizes);
    await this.#host.publish(objectId, placed, objects, options);
    this.#end("published");
  }

  release(): void {
    if (this.#ended !== undefined) return;
    this.#end("released");
    this.#block.release();
  }

  [Symbol.dispose](): void {
    this.release();
  }

  #end(how: "released" | "published"): void {
    this.#ended = how;
    for (const { buffer } of this.payloads) detach(buffer);
    this.#host.ended(this);
  }
}
