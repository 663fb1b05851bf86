/**
 * A worker's side of the node agent: a Mooncake client that lives in another process.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { native } from "../../../ffi/native.ts";
import type { Deadline } from "../../deadline.ts";
import { BackendUnavailableError, ClosedError, TimeoutError } from "../../errors.ts";
import type {
  ClientSetup,
  Keeping,
  MooncakeClient,
  StagedObject,
  Staging,
  TransportInUse,
} from "../../store/mooncake/client.ts";
import { attachMemory, type MappedMemory } from "../../store/registered/memory.ts";
import { tryLock } from "../../store/runtime_folder.ts";
import { fromWire, receive, send, type WireError } from "../../store/wire.ts";
import { type AgentPlace, agentPlace } from "./place.ts";
import {
  type Frame,
  type Notice,
  PROTOCOL_VERSION,
  type Request,
  type Reserved,
  type Welcome,
} from "./protocol.ts";
import type { AgentStatus } from "./server.ts";

/** How often a worker looks whether an agent that somebody else starts is there, in milliseconds. */
const LOOK_MS = 20;
/** How much later than the agent a worker gives up a call by itself. */
const GRACE_MS = 500;

/**
 * Attaches to the host's agent, and starts one where there is none.
 *
 * @throws BackendUnavailableError what the start of the agent ran into; VERSION_MISMATCH
 */
export async function connectAgent(setup: ClientSetup, deadline: Deadline): Promise<MooncakeClient> {
  const client = new RemoteClient(setup);
  await client.connect(deadline);
  return client;
}

/** Asks a running agent what it is doing; undefined where none runs. */
export async function agentStatus(setup: ClientSetup, deadline: Deadline): Promise<AgentStatus | undefined> {
  const connection = await attachExisting(setup, deadline);
  if (connection === undefined) return undefined;
  try {
    return await connection.ask({ op: "status" }, deadline) as AgentStatus;
  } finally {
    connection.close();
  }
}

/** Stops a running agent, and waits until it is gone; false where none runs. */
export async function stopAgent(setup: ClientSetup, deadline: Deadline): Promise<boolean> {
  const place = placesOf(setup);
  const connection = await attachExisting(setup, deadline);
  if (connection === undefined) return false;
  await connection.ask({ op: "stop" }, deadline).catch((error) => {
    if (!(error instanceof BackendUnavailableError)) throw error;
  });
  connection.close();
  for (;;) {
    const locks = place.map(({ liveLock }) => tryLock(liveLock));
    for (const lock of locks) lock?.release();
    if (locks.some((lock) => lock === undefined) === false) return true;
    deadline.check();
    await sleep(LOOK_MS);
  }
}

/** The agents that may serve a setup, the best one first: one that gives memory serves everybody. */
function placesOf(setup: ClientSetup): AgentPlace[] {
  const withMemory = agentPlace(setup, true);
  return setup.globalSegmentSize > 0 ? [withMemory] : [withMemory, agentPlace(setup, false)];
}

async function attachExisting(setup: ClientSetup, deadline: Deadline): Promise<Connection | undefined> {
  for (const { socket } of placesOf({ ...setup, globalSegmentSize: 0 })) {
    const connection = await Connection.open(socket, deadline);
    if (connection !== undefined) return connection;
  }
  return undefined;
}

class RemoteClient implements MooncakeClient {
  readonly #setup: ClientSetup;
  #connection: Promise<Attached> | undefined;
  #last: Welcome | undefined;
  #closed = false;

  constructor(setup: ClientSetup) {
    this.#setup = setup;
  }

  get hostname(): string {
    return this.#last?.hostname ?? "";
  }

  get transport(): TransportInUse {
    return this.#last?.transport ?? { asked: this.#setup.protocol, effective: "tcp" };
  }

  get poolBytes(): number {
    return this.#last?.bytes ?? this.#setup.localBufferSize;
  }

  /** The connection; a new one, and perhaps a new agent, where the last one is lost. */
  async connect(deadline: Deadline): Promise<Attached> {
    if (this.#closed) throw new ClosedError("the Mooncake client is closed");
    const current = await this.#connection?.catch(() => undefined);
    if (current !== undefined && !current.connection.lost) return current;
    this.#connection = this.#open(deadline);
    return await this.#connection;
  }

  async #open(deadline: Deadline): Promise<Attached> {
    const connection = await openOrStart(this.#setup, deadline);
    try {
      const welcome = await connection.ask(
        { op: "hello", version: PROTOCOL_VERSION, pid: process.pid },
        deadline,
      ) as Welcome;
      this.#last = welcome;
      return new Attached(connection, welcome);
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  async reserve(bytes: number, deadline: Deadline): Promise<Staging> {
    return (await this.connect(deadline)).reserve(bytes, deadline);
  }

  async put(
    staging: Staging,
    objects: readonly StagedObject[],
    keeping: Keeping,
    deadline: Deadline,
  ): Promise<readonly number[]> {
    const { connection, slot } = staging as RemoteStaging;
    const { pin, replicas } = keeping;
    return await connection.ask({
      op: "put",
      slot,
      objects: objects.map(({ key, offset, bytes }) => [key, offset, bytes]),
      keeping: { pin, replicas },
      timeoutMs: deadline.remainingMs,
    }, deadline) as number[];
  }

  async get(
    staging: Staging,
    objects: readonly StagedObject[],
    deadline: Deadline,
  ): Promise<readonly number[]> {
    const { connection, slot } = staging as RemoteStaging;
    return await connection.ask({
      op: "get",
      slot,
      objects: objects.map(({ key, offset, bytes }) => [key, offset, bytes]),
      timeoutMs: deadline.remainingMs,
    }, deadline) as number[];
  }

  async size(key: string, deadline: Deadline): Promise<number> {
    return await this.#ask({ op: "size", key, timeoutMs: deadline.remainingMs }, deadline) as number;
  }

  async remove(keys: readonly string[], deadline: Deadline): Promise<readonly number[]> {
    return await this.#ask({ op: "remove", keys, timeoutMs: deadline.remainingMs }, deadline) as number[];
  }

  async removeByRegex(pattern: string, deadline: Deadline): Promise<number> {
    return await this.#ask({ op: "regex", pattern, timeoutMs: deadline.remainingMs }, deadline) as number;
  }

  async #ask(request: Request, deadline: Deadline): Promise<unknown> {
    return await (await this.connect(deadline)).connection.ask(request, deadline);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const attached = await this.#connection?.catch(() => undefined);
    attached?.connection.close();
  }
}

/** Staging memory of the agent's pool. */
interface RemoteStaging extends Staging {
  readonly connection: Connection;
  readonly slot: number;
}

/** A connection with the agent's pool mapped. */
class Attached {
  readonly connection: Connection;
  readonly #pool: MappedMemory;
  #stagings = 0;

  constructor(connection: Connection, { path, bytes }: Welcome) {
    this.connection = connection;
    this.#pool = attachMemory(path, bytes);
    connection.ended.then(() => this.#unmap());
  }

  async reserve(bytes: number, deadline: Deadline): Promise<RemoteStaging> {
    const { connection } = this;
    const request = { op: "reserve", bytes, timeoutMs: deadline.remainingMs } as const;
    const { slot, offset, path } = await connection.ask(
      request,
      deadline,
      (late) => connection.tell({ op: "release", slot: (late as Reserved).slot }),
    ) as Reserved;
    let own: MappedMemory | undefined;
    try {
      own = path === undefined ? undefined : attachMemory(path, bytes);
    } catch (error) {
      connection.tell({ op: "release", slot });
      throw error;
    }
    this.#stagings++;
    let released = false;
    return {
      connection,
      slot,
      bytes: own === undefined ? this.#pool.bytes.subarray(offset, offset + bytes) : own.bytes,
      release: () => {
        if (released) return;
        released = true;
        own?.close();
        connection.tell({ op: "release", slot });
        this.#stagings--;
        this.#unmap();
      },
    };
  }

  /** The mapping stays as long as somebody copies from or to it, also when the agent is gone. */
  #unmap(): void {
    if (this.connection.lost && this.#stagings === 0) this.#pool.close();
  }
}

interface Pending {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

/** One socket to an agent. */
class Connection {
  /** The agent is gone, or the connection was closed. */
  lost = false;
  readonly ended: Promise<void>;
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #path: string;
  #ids = 0;

  private constructor(socket: Socket, path: string) {
    this.#socket = socket;
    this.#path = path;
    receive<Frame>(socket, (frame) => this.#take(frame), () => socket.destroy());
    socket.on("error", () => {}); // told by the close
    this.ended = new Promise((resolve) =>
      socket.once("close", () => {
        this.#end();
        resolve();
      })
    );
    this.#keep();
  }

  /** Connects; undefined where nobody listens. */
  static open(path: string, deadline: Deadline): Promise<Connection | undefined> {
    deadline.check();
    return new Promise((resolve) => {
      const socket = connect({ path });
      const timer = setTimeout(() => {
        socket.destroy();
        resolve(undefined);
      }, Math.min(deadline.remainingMs, 5000));
      socket.once("connect", () => {
        clearTimeout(timer);
        resolve(new Connection(socket, path));
      });
      socket.once("error", () => {
        clearTimeout(timer);
        resolve(undefined);
      });
    });
  }

  /**
   * Asks and waits for the answer.
   *
   * @param late takes an answer that comes after the call was given up
   */
  ask(request: Request, deadline: Deadline, late?: (result: unknown) => void): Promise<unknown> {
    return new Promise((resolve, reject) => {
      deadline.check();
      if (this.lost) return reject(this.#gone());
      const id = ++this.#ids;
      const { signal, timeoutMs = 0 } = deadline.options;
      const giveUp = (error: TimeoutError): void => {
        stop();
        this.tell({ op: "cancel", of: id });
        this.#pending.set(id, { resolve: late ?? (() => {}), reject: () => {} });
        reject(error);
      };
      const abort = (): void =>
        giveUp(new TimeoutError(`${request.op} was aborted`, { cause: signal?.reason }, "ABORTED"));
      // the agent keeps the deadline; this is for one that does not answer at all
      const timer = setTimeout(
        () => giveUp(new TimeoutError(`the agent did not answer ${request.op} in time`)),
        Math.min(timeoutMs + GRACE_MS, 2 ** 31 - 1),
      );
      const stop = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
      };
      signal?.addEventListener("abort", abort);
      this.#pending.set(id, {
        resolve: (result) => {
          stop();
          resolve(result);
        },
        reject: (error) => {
          stop();
          reject(error);
        },
      });
      this.#keep();
      send(this.#socket, { ...request, id });
    });
  }

  /** Says something that needs no answer. */
  tell(notice: Notice): void {
    if (!this.lost) send(this.#socket, notice);
  }

  close(): void {
    this.#socket.destroy();
    this.#end();
  }

  #take(frame: Frame): void {
    if (frame.op !== undefined) return;
    const { id, result, error } = frame;
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    this.#keep();
    if (error !== undefined) pending?.reject(fromWire(error));
    else pending?.resolve(result);
  }

  #end(): void {
    this.lost = true;
    for (const { reject } of this.#pending.values()) reject(this.#gone());
    this.#pending.clear();
  }

  /** An idle connection does not keep the process. */
  #keep(): void {
    if (this.#pending.size === 0) this.#socket.unref();
    else this.#socket.ref();
  }

  #gone(): BackendUnavailableError {
    return new BackendUnavailableError("AGENT_LOST", "the node agent ended during the call", {
      expected: this.#path,
      hint: "the next call starts a new one; batches in the memory it gave are lost",
    });
  }
}

/** A connection to the agent for a setup; starts one where there is none. One of many that try starts it. */
async function openOrStart(setup: ClientSetup, deadline: Deadline): Promise<Connection> {
  const places = placesOf(setup);
  const own = agentPlace(setup, setup.globalSegmentSize > 0);
  for (;;) {
    for (const { socket } of places) {
      const connection = await Connection.open(socket, deadline);
      if (connection !== undefined) return connection;
    }
    const lock = tryLock(own.startLock);
    if (lock !== undefined) {
      try {
        const connection = await Connection.open(own.socket, deadline);
        if (connection !== undefined) return connection;
        // an agent that is stopping goes first
        const live = tryLock(own.liveLock);
        live?.release();
        if (live !== undefined) await startAgent(setup, own, deadline);
      } finally {
        lock.release();
      }
    }
    deadline.check();
    await sleep(LOOK_MS);
  }
}

/** Starts an agent as a process of its own, and waits until it serves. */
function startAgent(setup: ClientSetup, place: AgentPlace, deadline: Deadline): Promise<void> {
  const suffix = import.meta.url.endsWith(".ts") ? "ts" : "js";
  const main = fileURLToPath(new URL(`./main.${suffix}`, import.meta.url));
  const runtime = native.name === "deno" ? ["run", "-A", "--no-check", "--quiet"] : [];
  const { signal, timeoutMs = 0 } = deadline.options;
  // the shell makes the log file its own: the agent must not keep this process's terminal
  const command = 'umask 077; exec "$@" 2>"$0"';
  const words = [process.execPath, ...runtime, main, JSON.stringify({ setup, place, timeoutMs })];
  const child = spawn("sh", ["-c", command, place.log, ...words], {
    detached: true,
    stdio: ["ignore", "pipe", "ignore"],
    cwd: "/",
  });
  return new Promise((resolve, reject) => {
    let said = "";
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      end(new TimeoutError(`the node agent was not ready in time; its log is ${place.log}`));
    }, timeoutMs);
    const abort = (): void => {
      child.kill("SIGKILL");
      end(new TimeoutError("starting the node agent was aborted", { cause: signal?.reason }, "ABORTED"));
    };
    const end = (error?: Error): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      release(child);
      if (error === undefined) resolve();
      else reject(error);
    };
    signal?.addEventListener("abort", abort);
    child.once("error", (cause) => end(startFailed(place, cause.message)));
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      if (!said.includes("\n")) return;
      const { error } = JSON.parse(said.slice(0, said.indexOf("\n"))) as { error?: WireError };
      end(error === undefined ? undefined : fromWire(error));
    });
    child.once("exit", (status, by) => {
      if (said.includes("\n")) return;
      end(startFailed(place, `it ended with ${by ?? status}: ${lastLine(place.log)}`));
    });
  });
}

/** Lets the process go its own way. */
function release(child: ChildProcess): void {
  child.stdout?.destroy();
  child.unref();
}

function startFailed(place: AgentPlace, why: string): BackendUnavailableError {
  return new BackendUnavailableError("AGENT_LOST", `the node agent could not be started: ${why}`, {
    hint: `its log is ${place.log}; clientScope "process" needs no agent`,
  });
}

function lastLine(file: string): string {
  try {
    return readFileSync(file, "utf8").trim().split("\n").at(-1) ?? "";
  } catch {
    return "no log";
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
