/**
 * The peer stores: what a process puts stays in its own registered memory, and others READ exact ranges of it, one-sided,
 * while it does something else. There is no server; a bundle ends with the process that put it.
 *
 * A reader asks the writer once where a bundle lies, over TCP, and READs from then on. Behind its ranges it READs the
 * bundle's guard: where that has changed, the memory may be another bundle's by now, and the read is a DroppedError.
 *
 * @module
 */

import { trySteps } from "../attempts.ts";
import { Deadline } from "../deadline.ts";
import { ClosedError, CorruptionError, TimeoutError } from "../errors.ts";
import { checkKey, checkPrefix, checkSizes, droppedError, groupByObject } from "./checks.ts";
import { PeerMemory } from "./peer/memory.ts";
import { OwnObjects } from "./peer/own.ts";
import { Peers } from "./peer/peers.ts";
import type { Plane } from "./peer/plane.ts";
import { LandingPlace, readFromPeer } from "./peer/reading.ts";
import type { BundleTable } from "./peer/messages.ts";
import { isLost, type RemotePeer } from "./peer/remote.ts";
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

/** No object is longer. */
const MOST_OBJECT_BYTES = 2 ** 32;
/** Bundles that are read at the same time. */
const CONCURRENT_BUNDLES = 4;

/** Opens the store: listens, and announces itself. */
export async function openPeerStore(options: PeerOptions): Promise<ObjectStore> {
  const { plane } = options;
  let server: PeerServer | undefined;
  try {
    const secret = readSecret(options.secretFile);
    const memory = new PeerMemory(plane, options.memoryBytes);
    const own = new OwnObjects(memory);
    const peers = new Peers(plane, secret, options.group, options.peers);
    server = await PeerServer.listen(options.localHostname, options.port ?? 0, {
      plane,
      own,
      secret,
      peers: () => peers.addresses,
    });
    peers.announce(server.address);
    return new PeerStore({ options, memory, own, peers, server });
  } catch (error) {
    await server?.close();
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
  readonly #landing: LandingPlace;
  /** Who has a bundle, where a handle or an answer has told. */
  readonly #holders = new Map<string, string>();
  /** Calls under way. */
  readonly #running = new Map<AbortController, Promise<unknown>>();
  #closing: Promise<void> | undefined;

  constructor({ options, memory, own, peers, server }: Parts) {
    this.#options = options;
    this.#memory = memory;
    this.#own = own;
    this.#peers = peers;
    this.#server = server;
    this.#landing = new LandingPlace(options.plane, options.landingBytes);
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

  writeBundle(objectId: string, objects: readonly StoreObject[], options?: CallOptions): Promise<void> {
    return this.#call("writeBundle", options, (deadline) => this.#own.write(objectId, objects, deadline));
  }

  allocate(payloadBytes: readonly number[], options?: CallOptions): Promise<BundleLease> {
    return this.#call("allocate", options, (deadline) =>
      this.#own.allocate(
        checkSizes(payloadBytes),
        deadline,
        (publishOptions, publish) => this.#call("publish", publishOptions, publish),
      ));
  }

  put(key: string, value: Uint8Array, options?: CallOptions): Promise<void> {
    return this.#call("put", options, async (deadline) => {
      checkKey(key);
      const stamp = this.#own.put(key, value);
      // the newest one counts, whoever put one before; who cannot be told now has an older one
      await this.#peers.each((peer, within) => peer.ask({ op: "replaced", key, stamp }, within), deadline);
    });
  }

  read(ranges: readonly ReadRange[], options?: CallOptions): Promise<void> {
    return this.#call("read", options, async (deadline) => {
      const others = ranges.filter((range) => !this.#own.read(range));
      const waiting = [...groupByObject(others, ({ key }) => key)];
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
    });
  }

  size(key: string, options?: CallOptions): Promise<number | undefined> {
    return this.#call("size", options, async (deadline) => {
      const own = this.#own.size(key);
      if (own !== undefined) return own;
      const found = await this.#ask(key, deadline);
      return found === undefined ? undefined : "size" in found ? found.size : found.value.byteLength;
    });
  }

  get(key: string, options?: CallOptions): Promise<Uint8Array | undefined> {
    return this.#call("get", options, async (deadline) => {
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
    });
  }

  delete(keys: readonly string[], options?: CallOptions): Promise<void> {
    return this.#call("delete", options, async (deadline) => {
      this.#own.delete(keys);
      for (const key of keys) this.#forget(objectIdOf(key));
      const { failures } = await this.#peers.each(
        (peer, within) => peer.ask({ op: "delete", keys }, within),
        deadline,
      );
      if (failures.length > 0) throw failures[0];
    });
  }

  deletePrefix(prefix: string, options?: CallOptions): Promise<number> {
    return this.#call("deletePrefix", options, async (deadline) => {
      checkPrefix(prefix);
      let deleted = this.#own.deletePrefix(prefix);
      const { answers, failures } = await this.#peers.each(
        (peer, within) => peer.ask({ op: "deletePrefix", prefix }, within),
        deadline,
      );
      for (const count of answers) if (Number.isSafeInteger(count)) deleted += count as number;
      if (failures.length > 0) throw failures[0];
      return deleted;
    });
  }

  /** What peers have that are silent is left out, like what those have that nobody knows. */
  async *list(prefix: string): AsyncGenerator<string, void, undefined> {
    yield* await this.#call("list", undefined, async (deadline) => {
      const keys = new Set(this.#own.list(prefix));
      const { answers, failures } = await this.#peers.each(
        async (peer, within) => [peer, await peer.ask({ op: "list", prefix }, within)] as const,
        deadline,
      );
      const refused = failures.find((error) => !(error instanceof TimeoutError) && !isLost(error));
      if (refused !== undefined) throw refused;
      for (const [peer, theirs] of answers) {
        if (!Array.isArray(theirs)) continue;
        for (const key of theirs) {
          if (typeof key !== "string") continue;
          const objectId = objectIdOf(key);
          if (objectId !== undefined) this.#remember(objectId, peer.address);
          keys.add(key);
        }
      }
      return keys;
    });
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    const running = [...this.#running];
    for (const [stop] of running) stop.abort(new ClosedError("the store was closed"));
    await Promise.allSettled(running.map(([, acting]) => acting));
    const end = performance.now() + this.#options.lingerMs;
    while (this.#own.count > 0 && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await trySteps(
      () => this.#peers.close(),
      () => this.#server.close(),
      () => this.#own.close(),
      () => this.#landing.close(),
      () => this.#memory.close(),
      () => this.#options.plane.close(),
    );
  }

  /** A call with a deadline, which ends with the store. */
  async #call<T>(
    what: string,
    options: CallOptions | undefined,
    act: (deadline: Deadline) => Promise<T>,
  ): Promise<T> {
    if (this.#closing !== undefined) throw new ClosedError(`${what} was called on a closed store`);
    const stop = new AbortController();
    const signal = options?.signal;
    const abort = (): void => stop.abort(signal?.reason);
    if (signal?.aborted === true) abort();
    signal?.addEventListener("abort", abort);
    try {
      const deadline = new Deadline(what, { ...options, signal: stop.signal }, this.#options.timeoutMs);
      deadline.check();
      const acting = act(deadline);
      this.#running.set(stop, acting);
      return await acting;
    } catch (error) {
      if (this.#closing !== undefined && stop.signal.reason instanceof ClosedError) throw stop.signal.reason;
      throw error;
    } finally {
      this.#running.delete(stop);
      signal?.removeEventListener("abort", abort);
    }
  }

  async #readRemote(
    objectId: string | undefined,
    ranges: readonly ReadRange[],
    deadline: Deadline,
  ): Promise<void> {
    if (objectId === undefined) return await this.#readLoose(ranges, deadline);
    try {
      await this.#readBundle(objectId, ranges, deadline);
    } catch (error) {
      if (!isLost(error)) throw error;
      // the connection may have failed for another read's sake, or the memory be elsewhere by now: asked anew, once
      this.#forget(objectId, { holder: false });
      await this.#readBundle(objectId, ranges, deadline);
    }
  }

  async #readBundle(objectId: string, ranges: readonly ReadRange[], deadline: Deadline): Promise<void> {
    const found = await this.#table(objectId, deadline);
    if (found === undefined) {
      this.#forget(objectId);
      // a loose object may be named like a bundle's
      return await this.#readLoose(ranges, deadline);
    }
    const { peer, answer: table } = found;
    const [inBundle, loose] = [[], []] as [ReadRange[], ReadRange[]];
    for (const range of ranges) (table.objects.has(range.key) ? inBundle : loose).push(range);
    if (loose.length > 0) await this.#readLoose(loose, deadline);
    if (inBundle.length === 0) return;
    const landing = this.#landing.current;
    await readFromPeer(peer, table, objectId, inBundle, landing, this.#options.verify, deadline);
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

  /** Who has a bundle, and where it lies there. */
  async #table(objectId: string, deadline: Deadline): Promise<Found<BundleTable> | undefined> {
    return await this.#find(objectId, (peer, within) => peer.table(objectId, within), deadline);
  }

  /** What a peer says of an object: the value of a small loose one, the newest of several; the size of another. */
  async #ask(key: string, deadline: Deadline): Promise<Known | undefined> {
    const found = await this.#find(
      objectIdOf(key),
      async (peer, within) => knownOf(await peer.ask({ op: "get", key }, within)),
      deadline,
      (a, b) => "stamp" in a && "stamp" in b && a.stamp > b.stamp,
    );
    return found?.answer;
  }

  /**
   * The answer of who is said to have an object; else the best of all others', and of those whom they know.
   *
   * @throws BackendUnavailableError PEER_LOST where who is said to have it is gone, and nobody else has it; what a silent
   * one failed with, where it might have it
   */
  async #find<T>(
    objectId: string | undefined,
    ask: (peer: RemotePeer, deadline: Deadline) => Promise<T | undefined>,
    deadline: Deadline,
    isBetter: (a: T, b: T) => boolean = () => false,
  ): Promise<Found<T> | undefined> {
    const address = objectId === undefined ? undefined : this.#holders.get(objectId);
    const said = address === undefined ? undefined : this.#peers.at(address);
    const errors: unknown[] = [];
    if (said !== undefined) {
      try {
        const answer = await ask(said, deadline);
        if (answer !== undefined) return { peer: said, answer };
      } catch (error) {
        deadline.check();
        errors.push(error);
      }
    }
    const askOthers = async (): Promise<Found<T> | undefined> => {
      const { answers, failures } = await this.#peers.each(
        async (peer, within) => ({ peer, answer: peer === said ? undefined : await ask(peer, within) }),
        deadline,
      );
      errors.push(...failures);
      let best: Found<T> | undefined;
      for (const { peer, answer } of answers) {
        if (answer === undefined || (best !== undefined && !isBetter(answer, best.answer))) continue;
        best = { peer, answer };
      }
      return best;
    };
    const found = await askOthers() ?? (await this.#peers.ask(deadline) ? await askOthers() : undefined);
    if (found !== undefined && objectId !== undefined) this.#remember(objectId, found.peer.address);
    if (found === undefined && errors.length > 0) throw errors[0];
    return found;
  }

  #remember(objectId: string, address: string): void {
    this.#holders.delete(objectId);
    this.#holders.set(objectId, address);
    if (this.#holders.size > 100_000) this.#holders.delete(this.#holders.keys().next().value!);
  }

  /** Forgets where a bundle lies, and who has it. */
  #forget(objectId: string | undefined, { holder = true }: { readonly holder?: boolean } = {}): void {
    if (objectId === undefined) return;
    const address = this.#holders.get(objectId);
    if (holder) this.#holders.delete(objectId);
    if (address !== undefined) this.#peers.known(address)?.forget(objectId);
  }
}

/** What a peer knows of an object. */
type Known = { readonly value: Uint8Array; readonly stamp: string } | { readonly size: number };

/** An answer, and whose it is. */
interface Found<T> {
  readonly peer: RemotePeer;
  readonly answer: T;
}

function knownOf(answer: unknown): Known | undefined {
  const { value, stamp, size } = (answer ?? {}) as { value?: unknown; stamp?: unknown; size?: unknown };
  if (typeof value === "string" && typeof stamp === "string") return { value: bytesOf(value), stamp };
  if (size === undefined) return undefined;
  if (Number.isSafeInteger(size) && (size as number) >= 0 && (size as number) <= MOST_OBJECT_BYTES) {
    return { size: size as number };
  }
  throw new CorruptionError("a peer told a size that no object has", { actual: size });
}

function bytesOf(base64: string): Uint8Array {
  const bytes = Uint8Array.fromBase64(base64);
  const copy = new Uint8Array(new ArrayBuffer(bytes.byteLength));
  copy.set(bytes);
  return copy;
}
