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
import { type Block, type PeerMemory, SEGMENT_BYTES } from "./memory.ts";
import { type BundleTable, GUARD_BYTES, GUARD_MAGIC } from "./messages.ts";

/** When the last small object was put, in microseconds: the next one is later, whatever the clock says. */
let lastStamp = 0;
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

/** A small object that was put alone, and when: of two with one key the later counts. */
interface Loose {
  readonly value: Uint8Array;
  readonly stamp: string;
}

/** See the module. */
export class OwnObjects {
  readonly #memory: PeerMemory;
  readonly #bundles = new Map<string, Bundle>();
  readonly #loose = new Map<string, Loose>();
  readonly #leases = new Set<{ release(): void }>();
  #closed = false;

  constructor(memory: PeerMemory) {
    this.#memory = memory;
  }

  /** Bundles and loose objects. */
  get count(): number {
    return this.#bundles.size + this.#loose.size;
  }

  /** Writes all objects of a bundle, the manifest last: all or none. */
  async write(objectId: string, objects: readonly StoreObject[], deadline: Deadline): Promise<void> {
    this.#checkNew(objectId, objects.map(({ key }) => key));
    await this.#publish(objectId, [], [], objects, deadline);
  }

  /** Memory to write a bundle in place. */
  async allocate(
    sizes: readonly number[],
    deadline: Deadline,
    publish: (options: CallOptions | undefined, act: (deadline: Deadline) => Promise<void>) => Promise<void>,
  ): Promise<BundleLease> {
    const { blocks: blockSizes, places } = layOut(sizes, ALIGNMENT); // behind the guard
    const blocks = await this.#reserve(blockSizes, deadline);
    const lease = new OwnLease(blocks, places, sizes, {
      publish: (objectId, placed, objects, options) =>
        publish(options, (within) => {
          const kept = placed.filter(({ key }) => key !== "");
          this.#checkNew(objectId, [...kept, ...objects].map(({ key }) => key));
          const objectPlaces = placed.flatMap(({ key, bytes }, i): [string, Place][] =>
            key === "" ? [] : [[key, placeIn(blocks, places[i]!, bytes)]]
          );
          return this.#publish(objectId, blocks, objectPlaces, objects, within);
        }),
      ended: (ended) => this.#leases.delete(ended),
    });
    this.#leases.add(lease);
    return lease;
  }

  async #reserve(sizes: readonly number[], deadline: Deadline): Promise<Block[]> {
    const blocks = await this.#memory.reserve(sizes, deadline);
    if (!this.#closed) return blocks;
    for (const block of blocks) block.release();
    throw new ClosedError("the store was closed");
  }

  #checkNew(objectId: string, keys: readonly string[]): void {
    checkBundle(objectId, keys);
    if (this.#bundles.has(objectId)) throw objectIdInUse(objectId);
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
    const before = objects.slice(0, -1);
    const sizes = before.map(({ parts }) => partsBytes(parts));
    try {
      if (before.length > 0 || given.length === 0) {
        const layout = layOut(sizes, given.length === 0 ? ALIGNMENT : 0);
        const reserved = await this.#reserve(layout.blocks, deadline);
        blocks.push(...reserved);
        for (const [i, object] of before.entries()) {
          placed.set(object.key, fill(object, placeIn(reserved, layout.places[i]!, sizes[i]!)));
          deadline.moved(sizes[i]!);
        }
      }
      if (last !== undefined) {
        // only now: a manifest has the checksums of what was written before it
        const bytes = partsBytes(last.parts);
        const reserved = await this.#reserve([Math.max(1, bytes)], deadline);
        blocks.push(...reserved);
        placed.set(last.key, fill(last, placeIn(reserved, { block: 0, offset: 0 }, bytes)));
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

  /** Puts a small loose object; gives its stamp. */
  put(key: string, value: Uint8Array): string {
    const copy = new Uint8Array(new ArrayBuffer(value.byteLength));
    copy.set(value);
    lastStamp = Math.max(Date.now() * 1000, lastStamp + 1);
    const stamp = `${lastStamp.toString(16).padStart(14, "0")}${randomBytes(8).toString("hex")}`;
    this.#loose.set(key, { value: copy, stamp });
    return stamp;
  }

  /** Told that a small object was put elsewhere: an older one goes. */
  replaced(key: string, stamp: string): void {
    const own = this.#loose.get(key);
    if (own !== undefined && own.stamp < stamp) this.#loose.delete(key);
  }

  /** Whether an object is here, and its size. */
  size(key: string): number | undefined {
    return this.#place(key)?.bytes ?? this.#loose.get(key)?.value.byteLength;
  }

  hasBundle(objectId: string): boolean {
    return this.#bundles.has(objectId);
  }

  loose(key: string): Loose | undefined {
    return this.#loose.get(key);
  }

  /** Copies a range; false where its object is not here. */
  read(range: ReadRange): boolean {
    const place = this.#place(range.key);
    const bytes = place === undefined
      ? this.#loose.get(range.key)?.value
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
    this.#closed = true;
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

/** Where something lies in a list of blocks, from the start of its block. */
interface Laid {
  readonly block: number;
  readonly offset: number;
}

/**
 * Lays objects out in blocks that fit segments: what is larger than one has a block of its own.
 *
 * @param head bytes that are kept free at the start of the first block
 */
function layOut(
  sizes: readonly number[],
  head: number,
): { readonly blocks: readonly number[]; readonly places: readonly Laid[] } {
  const blocks: number[] = [head];
  const places = sizes.map((bytes): Laid => {
    let block = blocks.length - 1;
    if (blocks[block]! > 0 && blocks[block]! + bytes > SEGMENT_BYTES) block = blocks.push(0) - 1;
    const offset = blocks[block]!;
    blocks[block] = aligned(offset + bytes);
    return { block, offset };
  });
  return { blocks: blocks.map((bytes) => Math.max(1, bytes)), places };
}

function placeIn(blocks: readonly Block[], { block, offset }: Laid, bytes: number): Place {
  const within = blocks[block]!;
  return { block: within, offset: within.offset + offset, bytes };
}

/** Copies an object to its place, and tells it its checksum where it wants to know. */
function fill(object: StoreObject, place: Place): Place {
  const { block, offset, bytes } = place;
  const to = block.segment.memory.bytes.subarray(offset, offset + bytes);
  let at = 0;
  let crc = 0;
  for (const part of object.parts) {
    if (object.written === undefined) to.set(part, at);
    else crc = copyWithCrc(part, to.subarray(at), crc);
    at += part.byteLength;
  }
  object.written?.(crc);
  return place;
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
  readonly #blocks: readonly Block[];
  readonly #sizes: readonly number[];
  readonly #host: LeaseHost;
  /** `publishing`: a release has to wait for what comes of it. */
  #state: "open" | "publishing" | "released" | "published" = "open";
  #releaseAfter = false;

  constructor(blocks: readonly Block[], places: readonly Laid[], sizes: readonly number[], host: LeaseHost) {
    this.#blocks = blocks;
    this.#sizes = sizes;
    this.#host = host;
    // views of their own: they are detached when the memory is no longer the caller's
    this.payloads = sizes.map((bytes, i) => {
      const { block, offset } = placeIn(blocks, places[i]!, bytes);
      const start = block.segment.memory.address + BigInt(offset);
      return new Uint8Array(bytes === 0 ? new ArrayBuffer(0) : native.view(start, bytes));
    });
  }

  async publish(
    objectId: string,
    placed: readonly Placed[],
    objects: readonly StoreObject[],
    options?: CallOptions,
  ): Promise<void> {
    if (this.#state !== "open") {
      throw new ClosedError(
        this.#state === "publishing"
          ? "this memory is being published"
          : `this memory was ${this.#state} before`,
        { key: objectId },
      );
    }
    checkPlaced(placed, this.#sizes);
    this.#state = "publishing";
    try {
      await this.#host.publish(objectId, placed, objects, options);
    } catch (error) {
      this.#state = "open";
      if (this.#releaseAfter) this.release();
      throw error;
    }
    this.#end("published");
  }

  release(): void {
    if (this.#state === "publishing") this.#releaseAfter = true;
    if (this.#state !== "open") return;
    this.#end("released");
    for (const block of this.#blocks) block.release();
  }

  [Symbol.dispose](): void {
    this.release();
  }

  #end(how: "released" | "published"): void {
    this.#state = how;
    for (const { buffer } of this.payloads) detach(buffer);
    this.#host.ended(this);
  }
}
