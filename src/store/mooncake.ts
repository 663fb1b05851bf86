/**
 * The store of a Mooncake cluster: objects in the memory of its clients, placed by its master.
 *
 * Objects are read and written whole, in batches, through registered staging memory: see `mooncake/reading.ts` and
 * `mooncake/writing.ts`. The client may live in this process or in the node agent (`mooncake/client.ts`).
 *
 * @module
 */

import { Deadline, DEFAULT_TIMEOUT_MS } from "../deadline.ts";
import { BackendUnavailableError, ClosedError, SchemaError, TimeoutError } from "../errors.ts";
import { checkBundle, checkKey, checkPrefix } from "./checks.ts";
import type { Keeping, MooncakeClient, TransportInUse } from "./mooncake/client.ts";
import { nativeFailure } from "./mooncake/failures.ts";
import { MasterPages } from "./mooncake/master.ts";
import { isAbsent, type ReadContext, readObject, readRanges } from "./mooncake/reading.ts";
import { removeObjects, type WriteContext, writeObjects } from "./mooncake/writing.ts";
import {
  type CallOptions,
  objectIdOf,
  type ObjectStore,
  type ReadRange,
  type StoreCapabilities,
  type StoreObject,
} from "./store.ts";

/** What the store is told besides its client. */
export interface MooncakeStoreOptions extends Keeping {
  readonly masterServerAddr: string;
  /** Where the master's HTTP pages are; port 9003 of the master's host where absent. */
  readonly masterMetricsAddr?: string | undefined;
  /** The size at which payloads are split. */
  readonly chunkBytes: number;
  /** Whether checksums are checked. */
  readonly verify: boolean;
  /** The limit of a call that brings none, in milliseconds. */
  readonly timeoutMs?: number | undefined;
  /** How long a put waits for room, in milliseconds. */
  readonly roomWaitMs?: number | undefined;
}

/** How long a put waits for room where nobody says otherwise. */
const ROOM_WAIT_MS = 5000;
/** How long opening waits for the master's HTTP pages. */
const PAGES_WAIT_MS = 2000;
/** The time that cleaning up after a failed put gets. */
const CLEANUP_MS = 10_000;

/**
 * Makes a store of a client.
 *
 * @param client closed with the store, also where this fails
 */
export async function openMooncakeStore(
  client: MooncakeClient,
  options: MooncakeStoreOptions,
): Promise<MooncakeStore> {
  try {
    const pages = new MasterPages(options.masterServerAddr, options.masterMetricsAddr);
    const listing = await pages.keys(AbortSignal.timeout(PAGES_WAIT_MS)).then(() => true, () => false);
    if (!listing && options.masterMetricsAddr !== undefined) throw pagesUnreachable(pages);
    return new MooncakeStore(client, pages, listing, options);
  } catch (error) {
    await client.close();
    throw error;
  }
}

/** See {@linkcode openMooncakeStore}. */
export class MooncakeStore implements ObjectStore {
  readonly uri: string;
  readonly capabilities: StoreCapabilities;
  /** Undefined where the master's HTTP pages cannot be reached. */
  readonly list?: (prefix: string) => AsyncIterable<string>;
  readonly #client: MooncakeClient;
  readonly #pages: MasterPages;
  readonly #reading: ReadContext;
  readonly #writing: WriteContext;
  readonly #timeoutMs: number;
  #closing: Promise<void> | undefined;

  constructor(client: MooncakeClient, pages: MasterPages, listing: boolean, options: MooncakeStoreOptions) {
    const { masterServerAddr, chunkBytes, verify, pin, replicas, roomWaitMs = ROOM_WAIT_MS } = options;
    this.uri = `mooncake://${masterServerAddr}`;
    this.capabilities = { rangeReads: false, list: listing, checksums: true, chunkBytes };
    this.#client = client;
    this.#pages = pages;
    this.#reading = { client, masterServerAddr, verify };
    this.#writing = { client, pages, masterServerAddr, keeping: { pin, replicas }, roomWaitMs };
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    if (listing) this.list = (prefix) => this.#list(prefix);
  }

  /** The transport that was asked for, and the one that moves the bytes. */
  get transport(): TransportInUse {
    return this.#client.transport;
  }

  async writeBundle(objectId: string, objects: readonly StoreObject[], options?: CallOptions): Promise<void> {
    const deadline = this.#begin("writeBundle", options);
    checkBundle(objectId, objects.map(({ key }) => key));
    try {
      await writeObjects(this.#writing, objects.slice(0, -1), deadline);
      // asked for its bytes only now: they have the checksums of the others in them
      await writeObjects(this.#writing, objects.slice(-1), deadline);
    } catch (error) {
      await this.#undo(objects.map(({ key }) => key));
      throw error;
    }
  }

  /** Removes what a failed put may have left. */
  async #undo(keys: readonly string[]): Promise<void> {
    try {
      const deadline = new Deadline("cleaning up after a failed put", { timeoutMs: CLEANUP_MS });
      await removeObjects(this.#writing, keys, deadline);
    } catch {
      // the put's own error says more; `gc` finds what is left
    }
  }

  async put(key: string, value: Uint8Array, options?: CallOptions): Promise<void> {
    const deadline = this.#begin("put", options);
    checkKey(key);
    if (value.byteLength === 0) {
      throw new SchemaError(`${key} has no bytes, and Mooncake keeps no empty objects`, { key });
    }
    // a put over an object that is there succeeds and changes nothing
    await removeObjects(this.#writing, [key], deadline);
    await writeObjects(this.#writing, [{ key, parts: [value] }], deadline);
  }

  async read(ranges: readonly ReadRange[], options?: CallOptions): Promise<void> {
    await readRanges(this.#reading, ranges, this.#begin("read", options));
  }

  get(key: string, options?: CallOptions): Promise<Uint8Array | undefined> {
    return Promise.try(() => readObject(this.#reading, key, this.#begin("get", options)));
  }

  async size(key: string, options?: CallOptions): Promise<number | undefined> {
    const code = await this.#client.size(key, this.#begin("size", options));
    if (code >= 0) return code;
    if (isAbsent(code)) return undefined;
    throw nativeFailure("get_size", code, this.#reading.masterServerAddr, key);
  }

  async delete(keys: readonly string[], options?: CallOptions): Promise<void> {
    const deadline = this.#begin("delete", options);
    // as Python does it: a bundle whose payloads could not all be removed keeps its manifest, and can be deleted again
    await removeObjects(this.#writing, keys.filter((key) => !key.endsWith("/manifest")), deadline);
    await removeObjects(this.#writing, keys.filter((key) => key.endsWith("/manifest")), deadline);
  }

  /** The number is that of objects where the master's pages cannot be reached. */
  async deletePrefix(prefix: string, options?: CallOptions): Promise<number> {
    const deadline = this.#begin("deletePrefix", options);
    checkPrefix(prefix);
    let listed: number | undefined;
    if (this.list !== undefined) {
      listed = 0;
      for await (const _ of this.list(prefix)) listed++;
    }
    const code = await this.#client.removeByRegex(prefixPattern(prefix), deadline);
    if (code < 0) throw nativeFailure("remove_by_regex", code, this.#reading.masterServerAddr, prefix);
    return listed ?? code;
  }

  async *#list(prefix: string): AsyncGenerator<string> {
    for (const key of await this.#keys(prefix)) if (!isPart(key)) yield key;
  }

  /** A put that was cut off leaves objects without a manifest, and so does one that is not over. */
  async leftovers(prefix: string): Promise<string[]> {
    const found = new Set<string>();
    const whole = new Set<string>();
    for (const key of this.list === undefined ? [] : await this.#keys(prefix)) {
      const objectId = objectIdOf(key);
      if (objectId === undefined) continue;
      if (key === `${objectId}/manifest`) whole.add(objectId);
      else found.add(objectId);
    }
    return [...found.difference(whole)];
  }

  async #keys(prefix: string): Promise<string[]> {
    if (this.#closing !== undefined) throw closed();
    try {
      const keys = await this.#pages.keys(AbortSignal.timeout(this.#timeoutMs));
      return keys.filter((key) => key.startsWith(prefix));
    } catch (cause) {
      if ((cause as Error).name === "TimeoutError") {
        throw new TimeoutError("listing the store took too long", { cause });
      }
      throw pagesUnreachable(this.#pages, cause);
    }
  }

  close(): Promise<void> {
    return this.#closing ??= this.#client.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #begin(what: string, options: CallOptions | undefined): Deadline {
    if (this.#closing !== undefined) throw closed();
    const deadline = new Deadline(what, options, this.#timeoutMs);
    deadline.check();
    return deadline;
  }
}

/** A part of a bundle, which its manifest speaks for. */
function isPart(key: string): boolean {
  const objectId = objectIdOf(key);
  if (objectId === undefined) return false;
  const [first = ""] = key.slice(objectId.length + 1).split("/");
  return first === "meta" || first === "buffer" || first === "rowids";
}

/** The pattern of all keys below a prefix, whatever characters it has. */
export function prefixPattern(prefix: string): string {
  return `^${prefix.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")}`;
}

function closed(): ClosedError {
  return new ClosedError("the Mooncake store is closed");
}

function pagesUnreachable({ address }: MasterPages, cause?: unknown): BackendUnavailableError {
  return new BackendUnavailableError(
    "MASTER_UNREACHABLE",
    `the Mooncake master's pages at ${address} cannot be reached`,
    {
      expected: address,
      hint: "set masterMetricsAddr to the host and the --metrics_port of mooncake_master",
      ...(cause === undefined ? {} : { cause }),
    },
  );
}
