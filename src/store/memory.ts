// deno-lint-ignore-file require-await -- errors reach the caller as a rejection, as they do from every store
/**
 * The memory store: the bundles of one process, under the rules of every store. Writes, reads and leases copy.
 *
 * @module
 */

import { Deadline, DEFAULT_TIMEOUT_MS } from "../deadline.ts";
import { ClosedError } from "../errors.ts";
import {
  checkBundle,
  checkKey,
  checkPlaced,
  checkPrefix,
  checkRange,
  checkSizes,
  droppedError,
  groupByObject,
  objectIdInUse,
  partsBytes,
  type Placed,
} from "./checks.ts";
import {
  type BundleLease,
  type CallOptions,
  type Lease,
  objectIdOf,
  type ObjectStore,
  type ReadRange,
  type StoreCapabilities,
  type StoreObject,
} from "./store.ts";

/** How `openMemoryStore` is told what it should be. */
export interface MemoryOptions {
  /** The limit of a call that brings none, in milliseconds. */
  readonly timeoutMs?: number | undefined;
}

/** Opens an empty store. */
export function openMemoryStore(options: MemoryOptions = {}): Promise<ObjectStore> {
  return Promise.resolve(new MemoryStore(options.timeoutMs ?? DEFAULT_TIMEOUT_MS));
}

type Objects = ReadonlyMap<string, Uint8Array>;

class MemoryStore implements ObjectStore {
  readonly uri = "memory:";
  readonly capabilities: StoreCapabilities = {
    rangeReads: true,
    list: true,
    checksums: false,
    chunkBytes: null,
  };
  readonly #bundles = new Map<string, Objects>();
  readonly #loose = new Map<string, Uint8Array>();
  readonly #leases = new Set<{ release(): void }>();
  readonly #timeoutMs: number;
  #closed = false;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  async writeBundle(objectId: string, objects: readonly StoreObject[], options?: CallOptions): Promise<void> {
    this.#begin("writeBundle", options);
    this.#publish(objectId, [], objects);
  }

  async allocate(payloadBytes: readonly number[], options?: CallOptions): Promise<BundleLease> {
    this.#begin("allocate", options);
    const lease = new MemoryBundleLease(
      checkSizes(payloadBytes),
      (objectId, placed, objects, publishOptions) => {
        this.#begin("publish", publishOptions);
        this.#publish(objectId, placed, objects);
      },
      (ended) => this.#leases.delete(ended),
    );
    this.#leases.add(lease);
    return lease;
  }

  async put(key: string, value: Uint8Array, options?: CallOptions): Promise<void> {
    this.#begin("put", options);
    checkKey(key);
    this.#loose.set(key, copyOf([value]));
  }

  async read(ranges: readonly ReadRange[], options?: CallOptions): Promise<void> {
    this.#begin("read", options);
    for (const range of ranges) {
      const bytes = this.#find(range.key);
      if (bytes === undefined) throw droppedError(range.key);
      checkRange(range, bytes.byteLength);
      range.into.set(bytes.subarray(range.offset, range.offset + range.into.byteLength));
    }
  }

  async size(key: string, options?: CallOptions): Promise<number | undefined> {
    this.#begin("size", options);
    return this.#find(key)?.byteLength;
  }

  view(objectId: string, keys: readonly string[]): Lease {
    this.#begin("view");
    const bundle = this.#bundles.get(objectId);
    const payloads = new Map<string, ArrayBuffer>();
    for (const key of keys) {
      const bytes = bundle?.get(key) ?? this.#loose.get(key);
      if (bytes === undefined) throw droppedError(key);
      payloads.set(key, copyOf([bytes]).buffer);
    }
    const lease = new MemoryLease(payloads, (released) => this.#leases.delete(released));
    this.#leases.add(lease);
    return lease;
  }

  async delete(keys: readonly string[], options?: CallOptions): Promise<void> {
    this.#begin("delete", options);
    for (const [objectId, group] of groupByObject(keys, (key) => key)) {
      const bundle = objectId === undefined ? undefined : this.#bundles.get(objectId);
      for (const key of group) {
        if (bundle?.has(key)) this.#bundles.delete(objectId!);
        else this.#loose.delete(key);
      }
    }
  }

  async deletePrefix(prefix: string, options?: CallOptions): Promise<number> {
    this.#begin("deletePrefix", options);
    checkPrefix(prefix);
    let deleted = 0;
    for (const [objectId, objects] of this.#bundles) {
      if (!objects.keys().some((key) => key.startsWith(prefix))) continue;
      this.#bundles.delete(objectId);
      deleted++;
    }
    for (const key of this.#loose.keys()) {
      if (!key.startsWith(prefix)) continue;
      this.#loose.delete(key);
      deleted++;
    }
    return deleted;
  }

  async *list(prefix: string): AsyncGenerator<string, void, undefined> {
    this.#begin("list");
    const manifests = this.#bundles.values().map((objects) => [...objects.keys()].at(-1)!);
    const keys = [...manifests, ...this.#loose.keys()];
    for (const key of keys) if (key.startsWith(prefix)) yield key;
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const lease of [...this.#leases]) lease.release();
    this.#bundles.clear();
    this.#loose.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #begin(what: string, options?: CallOptions): void {
    if (this.#closed) throw new ClosedError(`${what} was called on a closed store`);
    new Deadline(what, options, this.#timeoutMs).check();
  }

  #find(key: string): Uint8Array | undefined {
    const objectId = objectIdOf(key);
    return (objectId === undefined ? undefined : this.#bundles.get(objectId)?.get(key)) ??
      this.#loose.get(key);
  }

  #publish(objectId: string, placed: readonly Taken[], objects: readonly StoreObject[]): void {
    checkBundle(objectId, [...placed, ...objects].map(({ key }) => key));
    if (this.#bundles.has(objectId)) throw objectIdInUse(objectId);
    const bundle = new Map<string, Uint8Array>();
    for (const { key, take } of placed) bundle.set(key, take());
    for (const { key, parts } of objects) bundle.set(key, copyOf(parts));
    this.#bundles.set(objectId, bundle);
  }
}

class MemoryLease implements Lease {
  readonly payloads: ReadonlyMap<string, ArrayBuffer>;
  readonly copiedBytes: number;
  readonly #onRelease: (lease: MemoryLease) => void;
  #released = false;

  constructor(payloads: ReadonlyMap<string, ArrayBuffer>, onRelease: (lease: MemoryLease) => void) {
    this.payloads = payloads;
    this.copiedBytes = payloads.values().reduce((sum, { byteLength }) => sum + byteLength, 0);
    this.#onRelease = onRelease;
  }

  get released(): boolean {
    return this.#released;
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    for (const buffer of this.payloads.values()) buffer.transfer(0);
    this.#onRelease(this);
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** A payload that the store takes over instead of copying it. */
interface Taken {
  readonly key: string;
  take(): Uint8Array;
}

type Publish = (
  objectId: string,
  placed: readonly Taken[],
  objects: readonly StoreObject[],
  options: CallOptions | undefined,
) => void;

class MemoryBundleLease implements BundleLease {
  readonly payloads: readonly Uint8Array<ArrayBuffer>[];
  readonly #publish: Publish;
  readonly #onEnd: (lease: MemoryBundleLease) => void;
  readonly #sizes: readonly number[];
  #ended: "released" | "published" | undefined;

  constructor(sizes: readonly number[], publish: Publish, onEnd: (lease: MemoryBundleLease) => void) {
    this.#sizes = sizes;
    this.payloads = sizes.map((bytes) => new Uint8Array(new ArrayBuffer(bytes)));
    this.#publish = publish;
    this.#onEnd = onEnd;
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
    const taken = placed.map(({ key, bytes }, i) => ({
      key,
      // whatever the caller still holds has length 0 from here on
      take: () => new Uint8Array(this.payloads[i]!.buffer.transfer(), 0, bytes),
    }));
    this.#publish(objectId, taken.filter(({ key }) => key !== ""), objects, options);
    this.#end("published");
  }

  release(): void {
    if (this.#ended === undefined) this.#end("released");
  }

  [Symbol.dispose](): void {
    this.release();
  }

  #end(how: "released" | "published"): void {
    this.#ended = how;
    for (const { buffer } of this.payloads) if (!buffer.detached) buffer.transfer(0);
    this.#onEnd(this);
  }
}

/** Owned bytes. */
function copyOf(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(partsBytes(parts));
  let at = 0;
  for (const part of parts) {
    copy.set(part, at);
    at += part.byteLength;
  }
  return copy;
}
