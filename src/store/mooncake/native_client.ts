/**
 * One client of Mooncake's C library, in this process: calls over registered memory.
 *
 * @module
 */

import {
  encodeReplicateConfig,
  loadMooncakeStore,
  mooncakeCodeName,
  type MooncakeStoreLibrary,
} from "../../../ffi/mooncake_store.ts";
import { cstring } from "../../../ffi/libc.ts";
import { native, withDeadline } from "../../../ffi/native.ts";
import { Deadline } from "../../deadline.ts";
import { BackendUnavailableError, ClosedError, NativeError, TimeoutError } from "../../errors.ts";
import type { ClientSetup, Keeping, StagedObject, TransportInUse } from "./client.ts";
import { isMasterCode, masterUnreachable, nativeDetails } from "./failures.ts";
import { listens } from "../addresses.ts";
import { chooseTransport, holdsRdmaDevice, transportUnavailable } from "../transport.ts";

/** Mooncake's own buffer, which only calls use that stage for themselves: we make none of them. */
const OWN_BUFFER_BYTES = 16n << 20n;
/** How long the master gets to accept a connection, in milliseconds. */
const CONNECT_MS = 3000;
/** A call that takes this long is suspicious: is the master still there? In milliseconds. */
const SUSPICIOUS_MS = 1000;
/** Removals under way at a time. */
const REMOVALS = 4;

/**
 * Sets up a client.
 *
 * @throws BackendUnavailableError LIBRARY_MISSING, VERSION_MISMATCH, MASTER_UNREACHABLE, TRANSPORT_UNAVAILABLE; each
 * as soon as it is known, for Mooncake's own set-up tries for a minute and a half
 */
export async function openNativeClient(setup: ClientSetup, deadline: Deadline): Promise<NativeClient> {
  const transport = chooseTransport(setup.protocol, setup.deviceName);
  const library = loadMooncakeStore(setup.libraryPath);
  if (!await listens(setup.masterServerAddr, Math.min(CONNECT_MS, deadline.remainingMs))) {
    throw masterUnreachable(setup.masterServerAddr);
  }
  deadline.check();
  const { symbols } = library;
  const store = symbols.mooncake_store_create();
  if (store === 0n) throw new NativeError("mooncake_store_create gave no client");
  const text = new Texts();
  const call = symbols.mooncake_store_setup(
    store,
    text.add(setup.localHostname),
    text.add(setup.metadataServer),
    BigInt(setup.globalSegmentSize),
    OWN_BUFFER_BYTES,
    text.add(transport),
    text.add(transport === "rdma" ? setup.deviceName : ""),
    text.add(setup.masterServerAddr),
  );
  const ended = call.catch(() => {}).finally(() => text.done());
  const code = await give(call, "setting up the Mooncake client", setup.masterServerAddr, deadline).catch(
    (error) => {
      // it cannot be stopped, only taken down once it has come back
      void ended.then(() => symbols.mooncake_store_destroy(store));
      throw error;
    },
  );
  const client = new NativeClient(library, store, setup, transport);
  try {
    if (code !== 0) throw setupFailed(code, setup);
    if (transport === "rdma" && setup.protocol === "rdma" && !holdsRdmaDevice()) {
      throw transportUnavailable(
        "Mooncake set itself up without opening an RDMA device",
        "look at its log on standard error (MC_LOG_LEVEL=INFO), and at the GID index (MC_GID_INDEX)",
      );
    }
    return client;
  } catch (error) {
    await client.destroy();
    throw error;
  }
}

function setupFailed(code: number, setup: ClientSetup): Error {
  if (isMasterCode(code)) return masterUnreachable(setup.masterServerAddr, nativeDetails(code));
  return new BackendUnavailableError(
    setup.protocol === "rdma" ? "TRANSPORT_UNAVAILABLE" : "MASTER_UNREACHABLE",
    `the Mooncake client could not be set up: ${mooncakeCodeName(code)} (${code})`,
    {
      ...nativeDetails(code),
      hint:
        `check that ${setup.localHostname} is an address of this host that others reach, that the metadata server ` +
        `is ${setup.metadataServer}, and that there are ${setup.globalSegmentSize} bytes of free memory`,
    },
  );
}

/** C strings that stay where they are until a call has ended. */
class Texts {
  #kept: Uint8Array[] = [];

  add(text: string): bigint {
    const bytes = cstring(text);
    this.#kept.push(bytes);
    return native.addressOf(bytes);
  }

  done(): void {
    this.#kept = [];
  }
}

/** Waits for a native call; a slow one is given up early where the master does not listen any more. */
async function give<T>(call: Promise<T>, what: string, master: string, deadline: Deadline): Promise<T> {
  const { signal, timeoutMs } = deadline.options;
  const lost = new AbortController();
  const signals = signal === undefined ? lost.signal : AbortSignal.any([signal, lost.signal]);
  let probe = setTimeout(look, SUSPICIOUS_MS);
  let over = false;
  async function look(): Promise<void> {
    const there = await listens(master, CONNECT_MS);
    if (over) return;
    if (there) probe = setTimeout(look, SUSPICIOUS_MS);
    else lost.abort();
  }
  try {
    return await withDeadline(call, { what, timeoutMs, signal: signals });
  } catch (error) {
    if (error instanceof TimeoutError && lost.signal.aborted && signal?.aborted !== true) {
      throw masterUnreachable(master, { cause: error });
    }
    throw error;
  } finally {
    over = true;
    clearTimeout(probe);
  }
}

/** Arguments of a batched call in one block of memory: pointers, sizes, results, configuration, keys. */
class BatchArguments {
  readonly count: bigint;
  readonly keys: bigint;
  readonly buffers: bigint;
  readonly sizes: bigint;
  readonly results: bigint;
  readonly config: bigint;
  readonly #results: DataView;

  constructor(base: bigint, objects: readonly StagedObject[], config: Uint8Array | undefined) {
    const n = objects.length;
    const encoder = new TextEncoder();
    let room = 0;
    for (const { key } of objects) room += key.length * 3 + 1;
    const fixed = n * 32;
    const block = new Uint8Array(new ArrayBuffer(fixed + 32 + room));
    const view = new DataView(block.buffer);
    const address = native.addressOf(block);
    let at = fixed + 32;
    objects.forEach(({ key, offset, bytes }, i) => {
      view.setBigUint64(i * 8, address + BigInt(at), true);
      view.setBigUint64((n + i) * 8, base + BigInt(offset), true);
      view.setBigUint64((2 * n + i) * 8, BigInt(bytes), true);
      at += encoder.encodeInto(key, block.subarray(at)).written + 1; // the block is zero behind it
    });
    if (config !== undefined) block.set(config, fixed);
    this.count = BigInt(n);
    this.keys = address;
    this.buffers = address + BigInt(n * 8);
    this.sizes = address + BigInt(n * 16);
    this.results = address + BigInt(n * 24);
    this.config = config === undefined ? 0n : address + BigInt(fixed);
    this.#results = new DataView(block.buffer, n * 24, n * 8);
  }

  /** Codes of 32 bits. */
  codes32(): number[] {
    return Array.from({ length: Number(this.count) }, (_, i) => this.#results.getInt32(i * 4, true));
  }

  /** Sizes or codes of 64 bits. */
  codes64(): number[] {
    return Array.from(
      { length: Number(this.count) },
      (_, i) => Number(this.#results.getBigInt64(i * 8, true)),
    );
  }
}

/** Called with a promise that settles when a native call has really ended, given up or not. */
export type Started = (ended: Promise<unknown>) => void;

/** See {@linkcode openNativeClient}. Codes are Mooncake's; memory must be registered and stay until the calls end. */
export class NativeClient {
  /** The client's name among the master's segments: `HOST:PORT`. */
  readonly hostname: string;
  readonly transport: TransportInUse;
  readonly #symbols: MooncakeStoreLibrary["symbols"];
  readonly #store: bigint;
  readonly #master: string;
  /** Native calls that have not ended: the client is not destroyed under them. */
  readonly #running = new Set<Promise<unknown>>();
  #destroying: Promise<void> | undefined;

  constructor(library: MooncakeStoreLibrary, store: bigint, setup: ClientSetup, effective: "tcp" | "rdma") {
    this.#symbols = library.symbols;
    this.#store = store;
    this.#master = setup.masterServerAddr;
    this.transport = { asked: setup.protocol, effective };
    const name = new Uint8Array(new ArrayBuffer(256));
    const code = this.#symbols.mooncake_store_get_hostname(store, name, 256n);
    this.hostname = code === 0
      ? new TextDecoder().decode(name.subarray(0, name.indexOf(0)))
      : setup.localHostname;
  }

  /** Registers memory for calls over it. */
  async register(address: bigint, bytes: number, deadline: Deadline): Promise<void> {
    const call = this.#symbols.mooncake_store_register_buffer(this.#begin(), address, BigInt(bytes));
    const code = await this.#give(call, "registering memory", deadline);
    if (code === 0) return;
    throw new NativeError(
      `${bytes} bytes of memory cannot be registered: ${mooncakeCodeName(code)} (${code})`,
      {
        ...nativeDetails(code),
        expected: bytes,
        hint:
          "with RDMA, raise the limit of locked memory (`ulimit -l unlimited`) or set a smaller localBufferSize",
      },
    );
  }

  /** Must come before the memory goes away. */
  async unregister(address: bigint): Promise<void> {
    if (this.#destroying !== undefined) return;
    const call = this.#symbols.mooncake_store_unregister_buffer(this.#store, address);
    await this.#give(call, "unregistering memory", new Deadline("unregistering memory", {}));
  }

  /** `batch_put_from` over memory at `base`: a code for every object. */
  async put(
    base: bigint,
    objects: readonly StagedObject[],
    { pin, replicas }: Keeping,
    deadline: Deadline,
    started?: Started,
  ): Promise<number[]> {
    const config = encodeReplicateConfig({ replicas, softPin: pin === "soft", hardPin: pin === "hard" });
    const batch = new BatchArguments(base, objects, config);
    const call = this.#symbols.mooncake_store_batch_put_from(
      this.#begin(),
      batch.keys,
      batch.buffers,
      batch.sizes,
      batch.count,
      batch.config,
      batch.results,
    );
    const code = await this.#give(call, "put", deadline, started, batch);
    const codes: number[] = batch.codes32();
    return code !== 0 && !codes.some(Boolean) ? codes.fill(code) : codes;
  }

  /** `batch_get_into` to memory at `base`: a size or a code for every object. */
  async get(
    base: bigint,
    objects: readonly StagedObject[],
    deadline: Deadline,
    started?: Started,
  ): Promise<number[]> {
    const batch = new BatchArguments(base, objects, undefined);
    const call = this.#symbols.mooncake_store_batch_get_into(
      this.#begin(),
      batch.keys,
      batch.buffers,
      batch.sizes,
      batch.count,
      batch.results,
    );
    const code = await this.#give(call, "get", deadline, started, batch);
    const codes: number[] = batch.codes64();
    return code !== 0 && !codes.some(Boolean) ? codes.fill(code) : codes;
  }

  /** `get_size`: bytes, or a code. */
  async size(key: string, deadline: Deadline): Promise<number> {
    const text = cstring(key);
    const call = this.#symbols.mooncake_store_get_size(this.#begin(), native.addressOf(text));
    return Number(await this.#give(call, "get_size", deadline, undefined, text));
  }

  /** `remove`, forced, several at a time: a code for every key. */
  async remove(keys: readonly string[], deadline: Deadline): Promise<number[]> {
    const codes = new Array<number>(keys.length).fill(0);
    let next = 0;
    const work = async (): Promise<void> => {
      while (next < keys.length) {
        const i = next++;
        const text = cstring(keys[i]!);
        const call = this.#symbols.mooncake_store_remove(this.#begin(), native.addressOf(text), 1);
        codes[i] = await this.#give(call, "remove", deadline, undefined, text);
      }
    };
    await Promise.all(Array.from({ length: Math.min(REMOVALS, keys.length) }, work));
    return codes;
  }

  /** `remove_by_regex`, forced: how many were removed, or a code. */
  async removeByRegex(pattern: string, deadline: Deadline): Promise<number> {
    const text = cstring(pattern);
    const call = this.#symbols.mooncake_store_remove_by_regex(this.#begin(), native.addressOf(text), 1);
    return Number(await this.#give(call, "remove_by_regex", deadline, undefined, text));
  }

  /** Takes the client down, with the memory it gave, once all its calls have ended. Takes two seconds. */
  destroy(): Promise<void> {
    return this.#destroying ??= (async () => {
      await Promise.allSettled(this.#running);
      await this.#symbols.mooncake_store_destroy(this.#store);
    })();
  }

  #begin(): bigint {
    if (this.#destroying !== undefined) throw new ClosedError("the Mooncake client is closed");
    return this.#store;
  }

  /** Waits for a native call. `kept` is memory that it uses. */
  #give<T>(
    call: Promise<T>,
    what: string,
    deadline: Deadline,
    started?: Started,
    kept?: unknown,
  ): Promise<T> {
    const ended = call.then(() => void kept, () => void kept).then(() => void this.#running.delete(ended));
    this.#running.add(ended);
    started?.(ended);
    return give(call, what, this.#master, deadline);
  }
}
