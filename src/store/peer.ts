/**
 * The peer stores: what a process puts stays in its own registered memory, and others READ exact ranges of it, one-sided,
 * while it does something else. There is no server; a bundle ends with the process that put it.
 *
 * A reader asks the writer once where a bundle lies, over TCP, and READs from then on. Behind its ranges it READs the
 * bundle's guard: where that has changed, the memory may be another bundle's by now, and the read is a DroppedError.
 *
 * @module
 */

import { Deadline } from "../deadline.ts";
import { BackendUnavailableError, ClosedError } from "../errors.ts";
import { checkKey, checkPrefix, checkSizes, droppedError, groupByObject } from "./checks.ts";
import { PeerMemory } from "./peer/memory.ts";
import { OwnObjects } from "./peer/own.ts";
import { Peers } from "./peer/peers.ts";
import type { Plane } from "./peer/plane.ts";
import { Landing, readFromPeer } from "./peer/reading.ts";
import { peerLost, type RemotePeer } from "./peer/remote.ts";
import { readSecret } from "./peer/secret.ts";
import { PeerServer } from "./peer/server.ts";
import {
  type BundleLease,
  type CallOptions,
  objectIdOf,
  type ObjectStore,
  type ReadRange,
  type StoreCapabilities,
  type StoreObject,
} from "./store.ts";

/** How `openPeerStore` is told what it should be. */
export interface PeerOptions {
  readonly plane: Plane;
  /** The address that others reach this process by; loopback where there is no secret file. */
  readonly localHostname: string;
  /** The port to listen at; any where absent. */
  readonly port?: number | undefined;
  /** What both ends must have; this user's own where absent. */
  readonly secretFile: string | undefined;
  /** `HOST:PORT` of processes of other hosts. */
  readonly peers: readonly string[];
  /** Processes of one group find each other. */
  readonly group: string;
  /** The most bytes that this process's bundles may take. */
  readonly memoryBytes: number;
  /** Registered memory that READs pass through. */
  readonly landingBytes: number;
  readonly verify: boolean;
  readonly timeoutMs: number;
  /** How long `close` waits for others to drop what this process has put. */
  readonly lingerMs: number;
}

/** Bundles that are read at the same time. */
const CONCURRENT_BUNDLES = 4;

/** Opens the store: listens, and announces itself. */
export async function openPeerStore(options: PeerOptions): Promise<ObjectStore> {
  const { plane } = options;
  try {
    const secret = readSecret(options.secretFile);
    const memory = new PeerMemory(plane, options.memoryBytes);
    const own = new OwnObjects(memory);
    const peers = new Peers(plane, secret, options.group);
    for (const address of options.peers) peers.at(address);
    const server = await PeerServer.listen(options.localHostname, options.port ?? 0, {
      plane,
      own,
      secret,
      peers: () => peers.addresses,
    });
    peers.announce(server.address);
    return new PeerStore({ options, memory, own, peers, server });
  } catch (error) {
    await plane.close();
    throw error;
  }
}

interface Parts {
  readonly options: PeerOptions;
  readonly memory: PeerMemory;
  readonly own: OwnObjects;
  readonly peers: Peers;
  readonly server: PeerServer;
}

class PeerStore implements ObjectStore {
  readonly uri: string;
  readonly capabilities: StoreCapabilities = {
    rangeReads: true,
    list: true,
    checksums: true,
    chunkBytes: null,
  };
  readonly transport: { readonly asked: string; readonly effective: string };
  readonly #options: PeerOptions;
  readonly #memory: PeerMemory;
  readonly #own: OwnObjects;
  readonly #peers: Peers;
  readonly #server: PeerServer;
  readonly #landing: Landing;
  /** Who has a bundle, where a handle or an answer has told. */
  readonly #holders = new Map<string, string>();
  #closing: Promise<void> | undefined;

  constructor({ options, memory, own, peers, server }: Parts) {
    this.#options = options;
    this.#memory = memory;
    this.#own = own;
    this.#peers = peers;
    this.#server = server;
    this.#landing = new Landing(options.plane, options.landingBytes);
    this.uri = `${options.plane.kind}://${server.address}`;
    this.transport = options.plane.transport;
  }

  get peers(): readonly string[] {
    return this.#peers.addresses;
  }

  learn(uri: string, keys: readonly string[]): void {
    const address = /^[a-z-]+:\/\/([^/]+)$/.exec(uri)?.[1];
    if (address === undefined || !uri.startsWith(`${this.#options.plane.kind}://`)) return;
    if (this.#peers.at(address) === undefined) return;
    for (const key of keys) {
      const objectId = objectIdOf(key);
      if (objectId !== undefined && !this.#own.hasBundle(objectId)) this.#remember(objectId, address);
    }
  }

  uriOf(keys: readonly string[]): string {
    const addresses = new Set(keys.map((key) => {
      const objectId = objectIdOf(key);
      return objectId === undefined || this.#own.hasBundle(objectId)
        ? undefined
        : this.#holders.get(objectId);
    }));
    const [only] = addresses;
    // of several, this one is asked, and tells who the others are
    return addresses.size === 1 && only !== undefined ? `${this.#options.plane.kind}://${only}` : this.uri;
  }

  async writeBundle(objectId: string, objects: readonly StoreObject[], options?: CallOptions): Promise<void> {
    await this.#own.write(objectId, objects, this.#begin("writeBundle", options));
  }

  async allocate(payloadBytes: readonly number[], options?: CallOptions): Promise<BundleLease> {
    const deadline = this.#begin("allocate", options);
    return await this.#own.allocate(
      checkSizes(payloadBytes),
      deadline,
      (publishOptions) => this.#begin("publish", publishOptions),
    );
  }

  async put(key: string, value: Uint8Array, options?: CallOptions): Promise<void> {
    const deadline = this.#begin("put", options);
    checkKey(key);
    this.#own.put(key, value);
    // the newest one counts, whoever had put it before
    await this.#peers.each((peer) => peer.ask({ op: "delete", keys: [key] }, deadline));
  }

  async read(ranges: readonly ReadRange[], options?: CallOptions): Promise<void> {
    const deadline = this.#begin("read", options);
    const groups = groupByObject(ranges.filter((range) => !this.#own.read(range)), ({ key }) => key);
    const waiting = [...groups];
    const work = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        try {
          await this.#readRemote(next[0], next[1], deadline);
        } catch (error) {
          waiting.length = 0;
          throw error;
        }
      }
    };
    const workers = Array.from({ length: Math.min(CONCURRENT_BUNDLES, waiting.length) }, work);
    const failed = (await Promise.allSettled(workers)).find(({ status }) => status === "rejected");
    if (failed !== undefined) throw (failed as PromiseRejectedResult).reason;
  }

  async size(key: string, options?: CallOptions): Promise<number | undefined> {
    const deadline = this.#begin("size", options);
    const own = this.#own.size(key);
    if (own !== undefined) return own;
    const found = await this.#ask(key, deadline);
    return found === undefined ? undefined : "size" in found ? found.size : found.value.byteLength;
  }

  async get(key: string, options?: CallOptions): Promise<Uint8Array | undefined> {
    const deadline = this.#begin("get", options);
    const size = this.#own.size(key);
    if (size !== undefined) {
      const into = new Uint8Array(new ArrayBuffer(size));
      this.#own.read({ key, offset: 0, into });
      return into;
    }
    const found = await this.#ask(key, deadline);
    if (found === undefined) return undefined;
    if ("value" in found) return found.value;
    const into = new Uint8Array(new ArrayBuffer(found.size));
    await this.#readRemote(objectIdOf(key), [{ key, offset: 0, into }], deadline);
    return into;
  }

  async delete(keys: readonly string[], options?: CallOptions): Promise<void> {
    const deadline = this.#begin("delete", options);
    this.#own.delete(keys);
    await this.#peers.each((peer) => peer.ask({ op: "delete", keys }, deadline));
    for (const key of keys) this.#forget(objectIdOf(key));
  }

  async deletePrefix(prefix: string, options?: CallOptions): Promise<number> {
    const deadline = this.#begin("deletePrefix", options);
    checkPrefix(prefix);
    const counts = await this.#peers.each((peer) => peer.ask({ op: "deletePrefix", prefix }, deadline));
    let deleted = this.#own.deletePrefix(prefix);
    for (const count of counts) if (Number.isSafeInteger(count)) deleted += count as number;
    return deleted;
  }

  async *list(prefix: string): AsyncGenerator<string, void, undefined> {
    const deadline = this.#begin("list");
    const own = this.#own.list(prefix);
    const others = await this.#peers.each(async (peer) =>
      [peer, await peer.ask({ op: "list", prefix }, deadline)] as const
    );
    const seen = new Set(own);
    for (const [peer, keys] of others) {
      if (!Array.isArray(keys)) continue;
      for (const key of keys) {
        if (typeof key !== "string") continue;
        const objectId = objectIdOf(key);
        if (objectId !== undefined) this.#remember(objectId, peer.address);
        seen.add(key);
      }
    }
    yield* seen;
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    const end = performance.now() + this.#options.lingerMs;
    while (this.#own.count > 0 && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await this.#peers.close();
    await this.#server.close();
    this.#own.close();
    await this.#landing.close();
    await this.#memory.close();
    await this.#options.plane.close();
  }

  #begin(what: string, options?: CallOptions): Deadline {
    if (this.#closing !== undefined) throw new ClosedError(`${what} was called on a closed store`);
    const deadline = new Deadline(what, options, this.#options.timeoutMs);
    deadline.check();
    return deadline;
  }

  async #readRemote(
    objectId: string | undefined,
    ranges: readonly ReadRange[],
    deadline: Deadline,
  ): Promise<void> {
    if (objectId === undefined) return await this.#readLoose(ranges, deadline);
    const peer = await this.#holder(objectId, deadline);
    const table = await peer?.table(objectId, deadline);
    if (peer === undefined || table === undefined) {
      this.#forget(objectId);
      // a loose object may be named like a bundle's
      return await this.#readLoose(ranges, deadline);
    }
    const [inBundle, loose] = [[], []] as [ReadRange[], ReadRange[]];
    for (const range of ranges) (table.objects.has(range.key) ? inBundle : loose).push(range);
    if (loose.length > 0) await this.#readLoose(loose, deadline);
    if (inBundle.length === 0) return;
    await readFromPeer(peer, table, objectId, inBundle, this.#landing, this.#options.verify, deadline);
  }

  /** Ranges of small objects, which come over TCP. */
  async #readLoose(ranges: readonly ReadRange[], deadline: Deadline): Promise<void> {
    const values = new Map<string, Uint8Array>();
    for (const { key, offset, into } of ranges) {
      let value = values.get(key);
      if (value === undefined) {
        const found = await this.#ask(key, deadline);
        if (found === undefined || !("value" in found)) throw droppedError(key);
        values.set(key, value = found.value);
      }
      if (offset + into.byteLength > value.byteLength) throw droppedError(key);
      into.set(value.subarray(offset, offset + into.byteLength));
    }
  }

  /** Who has a bundle: who is said to, or who answers for it. */
  async #holder(objectId: string, deadline: Deadline): Promise<RemotePeer | undefined> {
    const address = this.#holders.get(objectId);
    const said = address === undefined ? undefined : this.#peers.at(address);
    let lost: unknown;
    if (said !== undefined) {
      try {
        if (await said.table(objectId, deadline) !== undefined) return said;
      } catch (error) {
        if (!(error instanceof BackendUnavailableError)) throw error;
        lost = error;
      }
    }
    const find = async (): Promise<RemotePeer | undefined> => {
      const found = await this.#peers.each(async (peer) =>
        await peer.table(objectId, deadline) === undefined ? undefined : peer
      );
      return found.find((peer) => peer !== undefined);
    };
    const peer = await find() ?? (await this.#peers.ask(deadline) ? await find() : undefined);
    if (peer !== undefined) this.#remember(objectId, peer.address);
    else if (lost !== undefined) throw address === undefined ? lost : peerLost(address, lost);
    return peer;
  }

  /** What a peer says of an object: the value of a small loose one, the size of another. */
  async #ask(
    key: string,
    deadline: Deadline,
  ): Promise<{ readonly value: Uint8Array } | { readonly size: number } | undefined> {
    return await this.#askOnce(key, deadline) ??
      (await this.#peers.ask(deadline) ? await this.#askOnce(key, deadline) : undefined);
  }

  async #askOnce(
    key: string,
    deadline: Deadline,
  ): Promise<{ readonly value: Uint8Array } | { readonly size: number } | undefined> {
    const objectId = objectIdOf(key);
    const answers = await this.#peers.each(async (peer) =>
      [peer, await peer.ask({ op: "get", key }, deadline)] as const
    );
    for (const [peer, answer] of answers) {
      const { value, size } = (answer ?? {}) as { value?: unknown; size?: unknown };
      if (typeof value === "string") return { value: bytesOf(value) };
      if (!Number.isSafeInteger(size)) continue;
      if (objectId !== undefined) this.#remember(objectId, peer.address);
      return { size: size as number };
    }
    return undefined;
  }

  #remember(objectId: string, address: string): void {
    this.#holders.delete(objectId);
    this.#holders.set(objectId, address);
    if (this.#holders.size > 100_000) this.#holders.delete(this.#holders.keys().next().value!);
  }

  #forget(objectId: string | undefined): void {
    if (objectId === undefined) return;
    const address = this.#holders.get(objectId);
    this.#holders.delete(objectId);
    if (address !== undefined) this.#peers.at(address)?.forget(objectId);
  }
}

function bytesOf(base64: string): Uint8Array {
  const bytes = Uint8Array.fromBase64(base64);
  const copy = new Uint8Array(new ArrayBuffer(bytes.byteLength));
  copy.set(bytes);
  return copy;
}
