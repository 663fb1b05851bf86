/**
 * The node agent: one Mooncake client and one pool of registered memory for all processes of a host.
 *
 * @module
 */

import { chmodSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import process from "node:process";
import { Deadline } from "../../deadline.ts";
import {
  BackendUnavailableError,
  ClosedError,
  ConfigError,
  SchemaError,
  TimeoutError,
} from "../../errors.ts";
import type { ClientSetup, Keeping, StagedObject, TransportInUse } from "../../store/mooncake/client.ts";
import { type MappedMemory, newMemory } from "../../store/registered/memory.ts";
import { StagingPool, type StagingSlot } from "../../store/registered/staging.ts";
import { receive, send, toWire } from "../../store/wire.ts";
import { type FileLock, tryLock } from "../../store/runtime_folder.ts";
import type { AgentPlace } from "./place.ts";
import {
  type Frame,
  PROTOCOL_VERSION,
  type Request,
  type Reserved,
  type Welcome,
  type WireObject,
} from "./protocol.ts";

/** What the agent needs of a native client. */
export interface AgentClient {
  readonly hostname: string;
  readonly transport: TransportInUse;
  register(address: bigint, bytes: number, deadline: Deadline): Promise<void>;
  unregister(address: bigint): Promise<void>;
  put(
    base: bigint,
    objects: readonly StagedObject[],
    keeping: Keeping,
    deadline: Deadline,
    started: (ended: Promise<unknown>) => void,
  ): Promise<readonly number[]>;
  get(
    base: bigint,
    objects: readonly StagedObject[],
    deadline: Deadline,
    started: (ended: Promise<unknown>) => void,
  ): Promise<readonly number[]>;
  size(key: string, deadline: Deadline): Promise<number>;
  remove(keys: readonly string[], deadline: Deadline): Promise<readonly number[]>;
  removeByRegex(pattern: string, deadline: Deadline): Promise<number>;
  destroy(): Promise<void>;
}

/** How an agent is run. */
export interface AgentOptions {
  readonly setup: ClientSetup;
  readonly place: AgentPlace;
  /** Opens the client. */
  readonly open: (setup: ClientSetup, deadline: Deadline) => Promise<AgentClient>;
  /** How long an agent that gives no memory stays without workers, in milliseconds. */
  readonly idleMs?: number;
  /** The limit of its own set-up, in milliseconds. */
  readonly timeoutMs?: number;
}

/** What an agent is doing. Sizes in bytes. */
export interface AgentStatus {
  readonly pid: number;
  readonly hostname: string;
  readonly master: string;
  readonly transport: TransportInUse;
  readonly uptimeMs: number;
  /** Memory given to the cluster. */
  readonly segmentBytes: number;
  /** Process ids of the attached workers. */
  readonly clients: readonly number[];
  /** Slots of the pool that workers hold. */
  readonly leases: number;
  readonly pool: {
    readonly bytes: number;
    readonly free: number;
    readonly quarantined: number;
    readonly waiting: number;
  };
  /** Since the agent started. */
  readonly total: {
    readonly clients: number;
    readonly puts: number;
    readonly gets: number;
    readonly bytesPut: number;
    readonly bytesGot: number;
    readonly errors: number;
  };
}

const IDLE_MS = 30_000;
const SETUP_MS = 60_000;

/**
 * Starts serving.
 *
 * @throws BackendUnavailableError what the client's set-up throws; CONFIG where an agent runs already
 */
export async function serveAgent(options: AgentOptions): Promise<Agent> {
  const { setup, place, timeoutMs = SETUP_MS } = options;
  const lock = tryLock(place.liveLock);
  if (lock === undefined) {
    throw new ConfigError(`an agent for ${setup.masterServerAddr} runs already`, {
      expected: place.socket,
      hint: "`batchferry agent --status` shows it, `batchferry agent --stop` ends it",
    });
  }
  let memory: MappedMemory | undefined;
  let client: AgentClient | undefined;
  try {
    const deadline = new Deadline("starting the agent", { timeoutMs });
    memory = newMemory(setup.localBufferSize);
    client = await options.open(setup, deadline);
    await client.register(memory.address, memory.bytes.byteLength, deadline);
    const agent = new Agent(options, client, memory, lock);
    await agent.listen();
    return agent;
  } catch (error) {
    await client?.destroy();
    memory?.close();
    lock.release();
    throw error;
  }
}

/** A slot of a worker: a part of the pool, or memory of its own. */
interface HeldSlot {
  readonly base: bigint;
  readonly bytes: number;
  hold(ended: Promise<unknown>): void;
  release(): void;
}

/** One attached worker. */
interface Worker {
  readonly socket: Socket;
  pid: number | undefined;
  readonly slots: Map<number, HeldSlot>;
  readonly running: Map<number, AbortController>;
}

/** See {@linkcode serveAgent}. */
export class Agent {
  /** Settles when it has stopped, for whatever reason. */
  readonly stopped: Promise<void>;
  readonly #options: AgentOptions;
  readonly #client: AgentClient;
  readonly #memory: MappedMemory;
  readonly #pool: StagingPool;
  readonly #lock: FileLock;
  readonly #server: Server;
  readonly #workers = new Set<Worker>();
  readonly #startedMs = Date.now();
  readonly #total = { clients: 0, puts: 0, gets: 0, bytesPut: 0, bytesGot: 0, errors: 0 };
  #slotId = 0;
  #idle: ReturnType<typeof setTimeout> | undefined;
  #stopping: Promise<void> | undefined;
  #hasStopped!: () => void;

  constructor(options: AgentOptions, client: AgentClient, memory: MappedMemory, lock: FileLock) {
    this.#options = options;
    this.#client = client;
    this.#memory = memory;
    this.#lock = lock;
    this.#pool = new StagingPool(memory.bytes.byteLength);
    this.#server = createServer((socket) => this.#attach(socket));
    this.stopped = new Promise((resolve) => this.#hasStopped = resolve);
  }

  /** Listens; nobody else can be doing so, because the lock is held. */
  async listen(): Promise<void> {
    const { socket } = this.#options.place;
    rmSync(socket, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(socket, () => resolve());
    });
    chmodSync(socket, 0o600); // its folder is closed to others already
    this.#watchIdle();
  }

  /** What it is doing. */
  status(): AgentStatus {
    const { setup } = this.#options;
    const { total, free, quarantined, waiting } = this.#pool.use;
    const workers = [...this.#workers].filter(({ pid }) => pid !== undefined);
    return {
      pid: process.pid,
      hostname: this.#client.hostname,
      master: setup.masterServerAddr,
      transport: this.#client.transport,
      uptimeMs: Date.now() - this.#startedMs,
      segmentBytes: setup.globalSegmentSize,
      clients: workers.map(({ pid }) => pid as number),
      leases: workers.reduce((sum, { slots }) => sum + slots.size, 0),
      pool: { bytes: total, free, quarantined, waiting },
      total: { ...this.#total },
    };
  }

  /** Sends the workers away, and takes the client down with the memory it gave. */
  stop(): Promise<void> {
    return this.#stopping ??= (async () => {
      clearTimeout(this.#idle);
      this.#server.close();
      rmSync(this.#options.place.socket, { force: true });
      for (const { socket } of this.#workers) socket.destroy();
      this.#pool.close();
      await this.#client.destroy();
      this.#memory.close();
      this.#lock.release();
      this.#hasStopped();
    })();
  }

  /** An agent whose memory nobody uses is not needed without workers; one that gives memory holds their batches. */
  #watchIdle(): void {
    clearTimeout(this.#idle);
    if (this.#options.setup.globalSegmentSize > 0 || this.#workers.size > 0) return;
    this.#idle = setTimeout(() => void this.stop(), this.#options.idleMs ?? IDLE_MS);
  }

  #attach(socket: Socket): void {
    const worker: Worker = { socket, pid: undefined, slots: new Map(), running: new Map() };
    this.#workers.add(worker);
    this.#watchIdle();
    receive<Frame>(socket, (frame) => this.#take(worker, frame), () => socket.destroy());
    socket.on("error", () => {}); // told by the close
    socket.once("close", () => this.#detach(worker));
  }

  /** What a worker held goes with it, however it ended; what it put stays. */
  #detach(worker: Worker): void {
    this.#workers.delete(worker);
    for (const call of worker.running.values()) call.abort();
    for (const slot of worker.slots.values()) slot.release();
    worker.slots.clear();
    this.#watchIdle();
  }

  #take(worker: Worker, frame: Frame): void {
    switch (frame.op) {
      case undefined:
        return;
      case "release":
        worker.slots.get(frame.slot)?.release();
        worker.slots.delete(frame.slot);
        return;
      case "cancel":
        worker.running.get(frame.of)?.abort();
        return;
    }
    const { id } = frame;
    const controller = new AbortController();
    worker.running.set(id, controller);
    this.#answer(worker, frame, controller.signal).then(
      (result) => send(worker.socket, { id, result }),
      (error) => {
        this.#total.errors++;
        send(worker.socket, { id, error: toWire(error) });
      },
    ).finally(() => {
      worker.running.delete(id);
      if (frame.op === "stop") worker.socket.end(() => void this.stop());
    });
  }

  async #answer(worker: Worker, request: Request, signal: AbortSignal): Promise<unknown> {
    if (this.#stopping !== undefined) throw new ClosedError("the agent is stopping");
    if (request.op === "hello") return this.#welcome(worker, request.version, request.pid);
    if (request.op === "status") return this.status();
    if (request.op === "stop") return {};
    const deadline = new Deadline(request.op, { signal, timeoutMs: request.timeoutMs });
    switch (request.op) {
      case "reserve":
        return await this.#reserve(worker, request.bytes, deadline);
      case "put": {
        const [slot, objects] = held(worker, request.slot, request.objects);
        const codes = await this.#client.put(slot.base, objects, request.keeping, deadline, slot.hold);
        this.#total.puts++;
        objects.forEach(({ bytes }, i) => codes[i] === 0 && (this.#total.bytesPut += bytes));
        return codes;
      }
      case "get": {
        const [slot, objects] = held(worker, request.slot, request.objects);
        const codes = await this.#client.get(slot.base, objects, deadline, slot.hold);
        this.#total.gets++;
        for (const code of codes) if (code > 0) this.#total.bytesGot += code;
        return codes;
      }
      case "size":
        return await this.#client.size(request.key, deadline);
      case "remove":
        return await this.#client.remove(request.keys, deadline);
      case "regex":
        return await this.#client.removeByRegex(request.pattern, deadline);
    }
  }

  #welcome(worker: Worker, version: number, pid: number): Welcome {
    if (version !== PROTOCOL_VERSION) {
      throw new BackendUnavailableError(
        "VERSION_MISMATCH",
        `the agent speaks version ${PROTOCOL_VERSION} of its protocol, this process version ${version}`,
        {
          expected: PROTOCOL_VERSION,
          actual: version,
          hint:
            "use one version of batchferry on a host, and start the agent again (`batchferry agent --stop`)",
        },
      );
    }
    worker.pid = pid;
    this.#total.clients++;
    return {
      version,
      pid: process.pid,
      hostname: this.#client.hostname,
      transport: this.#client.transport,
      path: this.#memory.path,
      bytes: this.#memory.bytes.byteLength,
    };
  }

  async #reserve(worker: Worker, bytes: number, deadline: Deadline): Promise<Reserved> {
    const fromPool = this.#pool.fits(bytes);
    const slot = fromPool
      ? this.#fromPool(await this.#pool.reserve(bytes, deadline))
      : await this.#ownMemory(bytes, deadline);
    if (worker.socket.destroyed || !this.#workers.has(worker)) {
      slot.release();
      throw new TimeoutError("the worker is gone", {}, "ABORTED");
    }
    const id = ++this.#slotId;
    worker.slots.set(id, slot);
    return { slot: id, offset: slot.offset, ...(slot.path === undefined ? {} : { path: slot.path }) };
  }

  #fromPool(slot: StagingSlot): HeldSlot & { offset: number; path?: string } {
    const { offset, bytes, hold, release } = slot;
    return { base: this.#memory.address + BigInt(offset), bytes, offset, hold, release };
  }

  /** Memory for one request that is larger than the pool. */
  async #ownMemory(bytes: number, deadline: Deadline): Promise<HeldSlot & { offset: number; path: string }> {
    const memory = newMemory(bytes);
    try {
      await this.#client.register(memory.address, bytes, deadline);
    } catch (error) {
      memory.close();
      throw error;
    }
    const running: Promise<unknown>[] = [];
    let released = false;
    return {
      base: memory.address,
      bytes,
      offset: 0,
      path: memory.path,
      hold: (ended) => void running.push(ended),
      release: () => {
        if (released) return;
        released = true;
        void Promise.allSettled(running).then(() => this.#client.unregister(memory.address)).catch(() => {})
          .finally(
            () => memory.close(),
          );
      },
    };
  }
}

/** A worker's slot, and the objects in it; positions are checked, because the client writes where it is told. */
function held(worker: Worker, id: number, objects: readonly WireObject[]): [HeldSlot, StagedObject[]] {
  const slot = worker.slots.get(id);
  if (slot === undefined) throw new ClosedError(`slot ${id} is not this worker's`);
  return [
    slot,
    objects.map(([key, offset, bytes]) => {
      const inside = Number.isSafeInteger(offset) && Number.isSafeInteger(bytes) && offset >= 0 &&
        bytes >= 0 &&
        offset + bytes <= slot.bytes;
      if (!inside || typeof key !== "string") {
        throw new SchemaError(`${key} is not inside its slot`, {
          expected: slot.bytes,
          actual: [offset, bytes],
        });
      }
      return { key, offset, bytes };
    }),
  ];
}
