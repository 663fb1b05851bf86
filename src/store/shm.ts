/**
 * The shared-memory store: files under one folder of one host, read in place by any process of the same user.
 *
 * There is no server, and what was published survives every process. `shm/format.ts` describes the files for other
 * languages, `shm/names.ts` their names.
 *
 * @module
 */

import process from "node:process";
import { setImmediate } from "node:timers";
import { ENOENT, sys } from "../../ffi/libc.ts";
import { Deadline, DEFAULT_TIMEOUT_MS } from "../deadline.ts";
import { ClosedError, ConfigError, CorruptionError, SchemaError } from "../errors.ts";
import {
  checkBundle,
  checkKey,
  checkPrefix,
  checkSizes,
  droppedError,
  groupByObject,
  objectIdInUse,
  partsBytes,
} from "./checks.ts";
import { fullError, isFull, systemError } from "./shm/failures.ts";
import { ForeignPools } from "./shm/foreign.ts";
import { encodeHeader, type Extent, type Layout, layOut, placeAll, type Table } from "./shm/format.ts";
import { type Publisher, ShmBundleLease, ShmLease } from "./shm/lease.ts";
import type { Mapping } from "./shm/mapping.ts";
import { isBundleFile, locate, looseKey, splitObjectId, unescapeName } from "./shm/names.ts";
import { Owner, sweepDead } from "./shm/owner.ts";
import { Pool, type Slot } from "./shm/pool.ts";
import { Reader } from "./shm/reader.ts";
import { type Folder, join, namesIn, pathBuffer, Root } from "./shm/root.ts";
import {
  type BundleLease,
  type CallOptions,
  type Lease,
  type ObjectStore,
  type ReadRange,
  type StoreCapabilities,
  type StoreObject,
} from "./store.ts";

/** How `openShmStore` is told where and how much. */
export interface ShmOptions {
  /** The folder under which the store's own one is made; `/dev/shm` by default. */
  readonly directory?: string | undefined;
  /** The most memory kept for the next bundles; 256 MiB by default. */
  readonly poolBytes?: number | undefined;
  /** The limit of a call that brings none, in milliseconds. */
  readonly timeoutMs?: number | undefined;
}

const DEFAULT_DIRECTORY = "/dev/shm";
const DEFAULT_POOL_BYTES = 256 * 2 ** 20;
/** Room for the small rest of an allocated bundle: meta, side objects, manifest, table. */
const REST_BYTES = 16 * 1024;
const REST_BYTES_PER_PAYLOAD = 1024;
/** How many files a listing looks at before others get a turn. */
const LIST_BATCH = 256;

/**
 * Opens the store, and removes what dead processes left half-done in it.
 *
 * @throws {ConfigError} where the folder cannot be made, or belongs to somebody else
 */
// deno-lint-ignore require-await -- errors reach the caller as a rejection, as they do from every store
export async function openShmStore(options: ShmOptions = {}): Promise<ObjectStore> {
  const { directory = DEFAULT_DIRECTORY, poolBytes = DEFAULT_POOL_BYTES, timeoutMs = DEFAULT_TIMEOUT_MS } =
    options;
  if (!Number.isSafeInteger(poolBytes) || poolBytes < 0) {
    throw new ConfigError("poolBytes is a number of bytes, 0 or more", {
      field: "poolBytes",
      actual: poolBytes,
    });
  }
  const root = new Root(directory);
  root.make(root.owners);
  const owner = Owner.claim(root);
  sweepDead(root, owner.name);
  return new ShmStore(root, owner, poolBytes, timeoutMs);
}

// One listener for all stores: a program that ends or leaves by `process.exit` leaves no pool behind. Where it is killed,
// whoever opens the store next cleans up.
const open = new Set<{ closeNow(): void }>();

function closeAll(): void {
  for (const store of [...open]) store.closeNow();
}

function addOpen(store: { closeNow(): void }): void {
  if (open.size === 0) {
    process.on("exit", closeAll);
    globalThis.addEventListener?.("unload", closeAll); // what Deno.exit tells instead
  }
  open.add(store);
}

function removeOpen(store: { closeNow(): void }): void {
  open.delete(store);
  if (open.size > 0) return;
  process.off("exit", closeAll);
  globalThis.removeEventListener?.("unload", closeAll);
}

const path = pathBuffer();

class ShmStore implements ObjectStore {
  readonly uri: string;
  readonly capabilities: StoreCapabilities = {
    rangeReads: true,
    list: true,
    checksums: false,
    chunkBytes: null,
  };
  readonly #root: Root;
  readonly #owner: Owner;
  readonly #pool: Pool;
  readonly #foreign: ForeignPools;
  readonly #reader: Reader;
  readonly #timeoutMs: number;
  readonly #leases = new Set<{ release(): void }>();
  readonly #publisher: Publisher;
  #closed = false;

  constructor(root: Root, owner: Owner, poolBytes: number, timeoutMs: number) {
    this.uri = `shm:${root.directory}`;
    this.#root = root;
    this.#owner = owner;
    this.#pool = new Pool(root, owner, poolBytes);
    this.#foreign = new ForeignPools(root, poolBytes);
    this.#reader = new Reader(root);
    this.#timeoutMs = timeoutMs;
    this.#publisher = {
      publish: (objectId, slot, placed, objects, options) => {
        const deadline = this.#begin("publish", options);
        this.#publishPlaced(objectId, slot, placed, objects, deadline);
      },
      giveBack: (slot) => this.#pool.giveBack(slot),
      forget: (lease) => this.#leases.delete(lease),
    };
    addOpen(this);
  }

  async writeBundle(objectId: string, objects: readonly StoreObject[], options?: CallOptions): Promise<void> {
    const deadline = this.#begin("writeBundle", options);
    checkBundle(objectId, objects.map(({ key }) => key));
    const layout = layOut(objects);
    const slot = this.#pool.take(layout.used) ?? await this.#pool.make(layout.used, deadline);
    try {
      const { mapping } = slot.file;
      fill(objects, layout, (offset, bytes) => mapping.write(offset, bytes));
      mapping.write(0, encodeHeader(layout, this.#owner.name));
      this.#publish(objectId, slot, layout.table, deadline);
    } catch (error) {
      this.#pool.giveBack(slot);
      throw error;
    }
  }

  async allocate(payloadBytes: readonly number[], options?: CallOptions): Promise<BundleLease> {
    const deadline = this.#begin("allocate", options);
    const sizes = checkSizes(payloadBytes);
    const { offsets, end } = placeAll(sizes);
    const bytes = end + REST_BYTES + REST_BYTES_PER_PAYLOAD * sizes.length;
    const slot = this.#pool.take(bytes) ?? await this.#pool.make(bytes, deadline);
    try {
      const lease = new ShmBundleLease(slot, { offsets, sizes }, this.#publisher);
      this.#leases.add(lease);
      return lease;
    } catch (error) {
      this.#pool.giveBack(slot);
      throw error;
    }
  }

  // deno-lint-ignore require-await -- errors reach the caller as a rejection
  async put(key: string, value: Uint8Array, options?: CallOptions): Promise<void> {
    const deadline = this.#begin("put", options);
    checkKey(key);
    const { dir, loose } = locate(key);
    const layout = layOut([{ key, parts: [value] }]);
    // always a new file: its name may have been used before, and a reader of the old one goes on undisturbed
    const { name, fd } = this.#pool.createFile();
    try {
      try {
        this.#writeFile(fd, 0, encodeHeader(layout, this.#owner.name), layout.used);
        fill(
          [{ key, parts: [value] }],
          layout,
          (offset, bytes) => this.#writeFile(fd, offset, bytes, layout.used),
        );
      } finally {
        sys.close(fd);
      }
      deadline.check();
      this.#pool.renameToLive(name, this.#root.liveFolder(dir), loose);
    } catch (error) {
      this.#pool.unlinkFile(name);
      throw error;
    }
  }

  // deno-lint-ignore require-await -- errors reach the caller as a rejection
  async read(ranges: readonly ReadRange[], options?: CallOptions): Promise<void> {
    const deadline = this.#begin("read", options);
    const groups = groupByObject(ranges, ({ key }) => key);
    let rest: readonly ReadRange[] = groups.get(undefined) ?? [];
    for (const [objectId, group] of groups) {
      if (objectId === undefined) continue;
      deadline.check();
      const { dir, id } = splitObjectId(objectId);
      rest = rest.concat(this.#reader.read(this.#root.liveFolder(dir), id, group));
    }
    for (const range of rest) {
      deadline.check();
      const { dir, loose } = locate(range.key);
      const missing = this.#reader.read(this.#root.liveFolder(dir), loose, [range]);
      if (missing.length > 0) throw droppedError(range.key);
    }
  }

  // deno-lint-ignore require-await -- errors reach the caller as a rejection
  async size(key: string, options?: CallOptions): Promise<number | undefined> {
    this.#begin("size", options);
    const { dir, bundle, loose } = locate(key);
    const folder = this.#root.liveFolder(dir);
    const extent = bundle === undefined ? undefined : this.#reader.inspect(folder, bundle)?.table.get(key);
    return (extent ?? this.#reader.inspect(folder, loose)?.table.get(key))?.bytes;
  }

  view(objectId: string, keys: readonly string[]): Lease {
    this.#begin("view");
    const { dir, id } = splitObjectId(objectId);
    const folder = this.#root.liveFolder(dir);
    const mappings: Mapping[] = [];
    const map = (name: string): { readonly mapping: Mapping; readonly table: Table } | undefined => {
      const mapped = this.#reader.map(folder, name);
      if (mapped !== undefined) mappings.push(mapped.mapping);
      return mapped;
    };
    try {
      const bundle = map(id);
      const payloads = new Map<string, ArrayBuffer>();
      for (const key of keys) {
        if (payloads.has(key)) continue;
        const found = bundle?.table.has(key) ? bundle : map(locate(key).loose);
        const extent = found?.table.get(key);
        if (found === undefined || extent === undefined) throw droppedError(key);
        payloads.set(key, found.mapping.view(extent.offset, extent.bytes));
      }
      const lease = new ShmLease(payloads, mappings, (released) => this.#leases.delete(released));
      this.#leases.add(lease);
      return lease;
    } catch (error) {
      for (const mapping of mappings) mapping.close();
      throw error;
    }
  }

  // deno-lint-ignore require-await -- errors reach the caller as a rejection
  async delete(keys: readonly string[], options?: CallOptions): Promise<void> {
    const deadline = this.#begin("delete", options);
    const groups = groupByObject(keys, (key) => key);
    const loose = groups.get(undefined) ?? [];
    groups.delete(undefined);
    const attempts = new Attempts();
    for (const [objectId, group] of groups) {
      deadline.check();
      attempts.run(() => {
        const { dir, id } = splitObjectId(objectId!);
        const folder = this.#root.liveFolder(dir);
        const table = this.#tableOf(folder, id);
        // a damaged file is nobody's bundle any more: naming anything of it deletes it
        const named = table === "damaged" || group.some((key) => table?.has(key));
        if (named) this.#deleteBundle(folder, id);
        for (const key of group) if (table === "damaged" || !table?.has(key)) loose.push(key);
      });
    }
    for (const key of loose) {
      deadline.check();
      attempts.run(() => {
        const { dir, loose: name } = locate(key);
        this.#unlink(this.#root.liveFolder(dir), name);
      });
    }
    attempts.finish();
  }

  // deno-lint-ignore require-await -- errors reach the caller as a rejection
  async deletePrefix(prefix: string, options?: CallOptions): Promise<number> {
    const deadline = this.#begin("deletePrefix", options);
    checkPrefix(prefix);
    const attempts = new Attempts();
    let deleted = 0;
    for (const { folder, dir } of this.#foldersFor(prefix)) {
      for (const name of namesIn(folder)) {
        deadline.check();
        attempts.run(() => {
          if (!this.#isBelow(prefix, folder, dir, name)) return;
          const done = isBundleFile(name) ? this.#deleteBundle(folder, name) : this.#unlink(folder, name);
          if (done) deleted++;
        });
      }
      sys.rmdir(folder.cpath); // where it is empty now
    }
    attempts.finish();
    return deleted;
  }

  async *list(prefix: string): AsyncGenerator<string, void, undefined> {
    this.#begin("list");
    let looked = 0;
    for (const { folder, dir } of this.#foldersFor(prefix)) {
      for (const name of namesIn(folder)) {
        if (++looked % LIST_BATCH === 0) {
          await new Promise((resolve) => setImmediate(resolve));
          this.#begin("list");
        }
        if (dir !== undefined && !mayHold(prefix, dir, name)) continue;
        const key = this.#keyOf(folder, name);
        if (key?.startsWith(prefix)) yield key;
      }
    }
  }

  // deno-lint-ignore require-await -- there is nothing to wait for, but a network store has
  async close(): Promise<void> {
    this.closeNow();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** `close` without a promise, for the end of the process. */
  closeNow(): void {
    if (this.#closed) return;
    this.#closed = true;
    removeOpen(this);
    for (const lease of [...this.#leases]) lease.release();
    this.#pool.close();
    this.#owner.release();
    this.#root.tidy();
  }

  #begin(what: string, options?: CallOptions): Deadline {
    if (this.#closed) throw new ClosedError(`${what} was called on a closed store`);
    const deadline = new Deadline(what, options, this.#timeoutMs);
    deadline.check();
    return deadline;
  }

  #publish(objectId: string, slot: Slot, table: Table, deadline: Deadline): void {
    if (this.#closed) throw new ClosedError("the store was closed during a write");
    deadline.check();
    const { dir, id } = splitObjectId(objectId);
    const folder = this.#root.liveFolder(dir);
    // Only as far as it costs nothing: asking the file system takes a fifth of the time of a small put.
    if (this.#pool.liveFile(folder, id) !== undefined) throw objectIdInUse(objectId);
    this.#pool.publish(slot, folder, id, table);
  }

  #publishPlaced(
    objectId: string,
    slot: Slot,
    placed: readonly (readonly [key: string, extent: Extent])[],
    objects: readonly StoreObject[],
    deadline: Deadline,
  ): void {
    checkBundle(objectId, [...placed.map(([key]) => key), ...objects.map(({ key }) => key)]);
    const { file, fd } = slot;
    const table = new Map(placed);
    if (table.size < placed.length) {
      throw new SchemaError(`two payloads of ${objectId} have one key`, { key: objectId });
    }
    const end = placed.reduce((end, [, { offset, bytes }]) => Math.max(end, offset + bytes), 0);
    const layout = layOut(objects, { table, end: Math.max(end, placeAll([]).end) });
    if (layout.used > file.bytes) {
      // a long list of row ids, or the like: the file may grow, its mapping may not
      file.keepable = false;
      fill(objects, layout, (offset, bytes) => this.#writeFile(fd, offset, bytes, layout.used));
    } else {
      fill(objects, layout, (offset, bytes) => file.mapping.write(offset, bytes));
    }
    file.mapping.write(0, encodeHeader(layout, this.#owner.name));
    this.#publish(objectId, slot, layout.table, deadline);
  }

  /** Writes all of `bytes` through a descriptor; `needed` is said in the error of a full file system. */
  #writeFile(fd: number, offset: number, bytes: Uint8Array, needed: number): void {
    let written = 0;
    let retried = false;
    while (written < bytes.byteLength) {
      const count = sys.pwrite(fd, written === 0 ? bytes : bytes.subarray(written), offset + written);
      if (count > 0) written += count;
      else if (count < 0 && !isFull(count)) throw systemError("write to", this.#owner.pool.path, count);
      else if (retried) throw fullError(this.#root.directory, needed, count);
      else {
        retried = true;
        this.#pool.freeMemory();
      }
    }
  }

  /** Deletes a bundle; whether it was there. */
  #deleteBundle(folder: Folder, id: string): boolean {
    this.#reader.forget(folder, id);
    const own = this.#pool.liveFile(folder, id);
    if (own !== undefined) return this.#pool.drop(own);
    const tag = this.#reader.ownerOf(folder, id);
    if (tag === undefined) return false;
    if (tag.owner === this.#owner.name) {
      this.#pool.unlinkedOwn();
      return this.#unlink(folder, id);
    }
    return this.#foreign.take(folder, id, tag.owner, tag.bytes) || this.#unlink(folder, id);
  }

  #unlink(folder: Folder, name: string): boolean {
    const status = sys.unlink(join(path, folder, name));
    if (status < 0 && status !== -ENOENT) throw systemError("delete", `${folder.path}/${name}`, status);
    return status === 0;
  }

  #tableOf(folder: Folder, id: string): Table | "damaged" | undefined {
    try {
      return this.#pool.liveFile(folder, id)?.table ?? this.#reader.inspect(folder, id)?.table;
    } catch (error) {
      if (error instanceof CorruptionError) return "damaged";
      throw error;
    }
  }

  /** The live folders that may hold keys below a prefix, with the front part of their keys where the name tells it. */
  *#foldersFor(prefix: string): Generator<{ readonly folder: Folder; readonly dir: string | undefined }> {
    for (const name of namesIn(this.#root.live)) {
      const dir = unescapeName(name);
      const front = dir === undefined || dir === "" ? "" : `${dir}/`;
      if (front.startsWith(prefix) || prefix.startsWith(front)) {
        yield { folder: this.#root.folderIn(this.#root.live, name), dir };
      }
    }
  }

  /** Whether deleting below `prefix` deletes this file. */
  #isBelow(prefix: string, folder: Folder, dir: string | undefined, name: string): boolean {
    if (dir !== undefined) {
      if (dir !== "" && `${dir}/`.startsWith(prefix)) return true;
      if (!mayHold(prefix, dir, name)) return false;
    }
    const loose = isBundleFile(name) ? undefined : looseKey(folder.name, name);
    if (loose !== undefined) return loose.startsWith(prefix);
    const table = isBundleFile(name)
      ? this.#tableOf(folder, name)
      : this.#reader.inspect(folder, name)?.table;
    if (table === undefined || table === "damaged") return false;
    return table.keys().some((key) => key.startsWith(prefix));
  }

  /** The key a file is listed under, or undefined where it is gone or damaged. */
  #keyOf(folder: Folder, name: string): string | undefined {
    if (!isBundleFile(name)) {
      const key = looseKey(folder.name, name);
      if (key !== undefined) return key;
    }
    try {
      return this.#reader.knownLastKey(folder, name) ?? this.#reader.inspect(folder, name)?.lastKey;
    } catch (error) {
      // one damaged file must not hide all others
      if (error instanceof CorruptionError) return undefined;
      throw error;
    }
  }
}

/** Writes objects and table to where the layout says. */
function fill(
  objects: readonly StoreObject[],
  { table, tableJson, tableOffset }: Layout,
  write: (offset: number, bytes: Uint8Array) => void,
): void {
  for (const { key, parts } of objects) {
    const { offset, bytes } = table.get(key)!;
    if (partsBytes(parts) !== bytes) {
      throw new SchemaError(`the memory of ${key} was given back while it was being written`, {
        key,
        expected: bytes,
        actual: partsBytes(parts),
      });
    }
    let at = offset;
    for (const part of parts) {
      write(at, part);
      at += part.byteLength;
    }
  }
  write(tableOffset, tableJson);
}

/** Whether a bundle or a key of that file may be below the prefix; `dir` is that of its folder. */
function mayHold(prefix: string, dir: string, name: string): boolean {
  const front = dir === "" ? "" : `${dir}/`;
  if (front.startsWith(prefix)) return true;
  const id = /^[0-9a-f]{32}/.exec(name)?.[0];
  if (id === undefined) return true; // its key is known from its name, or only by looking
  return `${front}${id}/`.startsWith(prefix) || prefix.startsWith(`${front}${id}/`);
}

/** Tries everything, and throws the first error at the end. */
class Attempts {
  #first: { readonly error: unknown } | undefined;

  run(attempt: () => void): void {
    try {
      attempt();
    } catch (error) {
      this.#first ??= { error };
    }
  }

  finish(): void {
    if (this.#first !== undefined) throw this.#first.error;
  }
}
