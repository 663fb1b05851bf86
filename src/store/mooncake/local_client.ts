/**
 * The Mooncake client of one process, with staging memory of its own.
 *
 * @module
 */

import { Deadline } from "../../deadline.ts";
import type {
  ClientSetup,
  Keeping,
  MooncakeClient,
  StagedObject,
  Staging,
  TransportInUse,
} from "./client.ts";
import { type MappedMemory, newMemory } from "../registered/memory.ts";
import { type NativeClient, openNativeClient } from "./native_client.ts";
import { StagingPool } from "../registered/staging.ts";

/** How long a client that gave no memory waits for the next opener: taking one down takes two seconds. */
const LINGER_MS = 10_000;

/** One client that all stores of a process with the same setup share. */
interface Shared {
  readonly client: Promise<PooledClient>;
  users: number;
  timer: ReturnType<typeof setTimeout> | undefined;
}

const clients = new Map<string, Shared>();

/**
 * The client of this process for `setup`: stores that agree in all of it share one.
 *
 * The last `close` takes a client down that gave memory, so that its objects go at a moment that is known. One that
 * gave none is kept for a while, and goes with the process.
 *
 * @throws what `openNativeClient` throws
 */
export async function openLocalClient(setup: ClientSetup, deadline: Deadline): Promise<MooncakeClient> {
  const key = JSON.stringify(setup);
  let shared = clients.get(key);
  if (shared === undefined) {
    shared = { client: PooledClient.open(setup, deadline), users: 0, timer: undefined };
    clients.set(key, shared);
    const opened = shared;
    shared.client.catch(() => forget(key, opened));
  }
  const { client } = shared;
  shared.users++;
  clearTimeout(shared.timer);
  try {
    return new SharedClient(await client, () => leave(key, shared, setup.globalSegmentSize > 0));
  } catch (error) {
    shared.users--;
    throw error;
  }
}

function forget(key: string, shared: Shared): void {
  if (clients.get(key) === shared) clients.delete(key);
}

async function leave(key: string, shared: Shared, gaveMemory: boolean): Promise<void> {
  if (--shared.users > 0) return;
  const client = await shared.client;
  if (gaveMemory) {
    forget(key, shared);
    await client.close();
    return;
  }
  shared.timer = setTimeout(() => {
    if (shared.users > 0) return;
    forget(key, shared);
    void client.close();
  }, LINGER_MS);
  // does not keep the process
  (shared.timer as { unref?: () => void }).unref?.();
}

/** One user's hold on a shared client. */
class SharedClient implements MooncakeClient {
  readonly #client: PooledClient;
  readonly #leave: () => Promise<void>;
  #closing: Promise<void> | undefined;

  constructor(client: PooledClient, leave: () => Promise<void>) {
    this.#client = client;
    this.#leave = leave;
  }

  get hostname(): string {
    return this.#client.native.hostname;
  }

  get transport(): TransportInUse {
    return this.#client.native.transport;
  }

  get poolBytes(): number {
    return this.#client.memory.bytes.byteLength;
  }

  reserve(bytes: number, deadline: Deadline): Promise<Staging> {
    return this.#client.reserve(bytes, deadline);
  }

  put(
    staging: Staging,
    objects: readonly StagedObject[],
    keeping: Keeping,
    deadline: Deadline,
  ): Promise<readonly number[]> {
    const { address, hold } = staging as LocalStaging;
    return this.#client.native.put(address, objects, keeping, deadline, hold);
  }

  get(staging: Staging, objects: readonly StagedObject[], deadline: Deadline): Promise<readonly number[]> {
    const { address, hold } = staging as LocalStaging;
    return this.#client.native.get(address, objects, deadline, hold);
  }

  size(key: string, deadline: Deadline): Promise<number> {
    return this.#client.native.size(key, deadline);
  }

  remove(keys: readonly string[], deadline: Deadline): Promise<readonly number[]> {
    return this.#client.native.remove(keys, deadline);
  }

  removeByRegex(pattern: string, deadline: Deadline): Promise<number> {
    return this.#client.native.removeByRegex(pattern, deadline);
  }

  close(): Promise<void> {
    return this.#closing ??= this.#leave();
  }
}

/** Staging memory with its address in this process. */
interface LocalStaging extends Staging {
  readonly address: bigint;
  readonly hold: (ended: Promise<unknown>) => void;
}

/** A native client with registered memory. */
export class PooledClient {
  readonly native: NativeClient;
  readonly memory: MappedMemory;
  readonly #pool: StagingPool;

  private constructor(client: NativeClient, memory: MappedMemory) {
    this.native = client;
    this.memory = memory;
    this.#pool = new StagingPool(memory.bytes.byteLength);
  }

  /** Sets up a client and registers its memory. */
  static async open(setup: ClientSetup, deadline: Deadline): Promise<PooledClient> {
    const memory = newMemory(setup.localBufferSize);
    let client: NativeClient | undefined;
    try {
      client = await openNativeClient(setup, deadline);
      await client.register(memory.address, memory.bytes.byteLength, deadline);
      return new PooledClient(client, memory);
    } catch (error) {
      await client?.destroy();
      memory.close();
      throw error;
    }
  }

  /** See {@linkcode MooncakeClient.reserve}. */
  async reserve(bytes: number, deadline: Deadline): Promise<LocalStaging> {
    if (!this.#pool.fits(bytes)) return await this.#ownMemory(bytes, deadline);
    const slot = await this.#pool.reserve(bytes, deadline);
    return {
      bytes: this.memory.bytes.subarray(slot.offset, slot.offset + bytes),
      address: this.memory.address + BigInt(slot.offset),
      hold: slot.hold,
      release: slot.release,
    };
  }

  /** Memory for one request that is larger than the pool. */
  async #ownMemory(bytes: number, deadline: Deadline): Promise<LocalStaging> {
    const memory = newMemory(bytes);
    try {
      await this.native.register(memory.address, bytes, deadline);
    } catch (error) {
      memory.close();
      throw error;
    }
    const running: Promise<unknown>[] = [];
    let released = false;
    return {
      bytes: memory.bytes,
      address: memory.address,
      hold: (ended) => void running.push(ended),
      release: () => {
        if (released) return;
        released = true;
        void Promise.allSettled(running).then(() => this.native.unregister(memory.address)).finally(() =>
          memory.close()
        );
      },
    };
  }

  async close(): Promise<void> {
    this.#pool.close();
    await this.native.destroy();
    this.memory.close();
  }
}
