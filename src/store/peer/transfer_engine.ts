/**
 * The plane of Mooncake's Transfer Engine: READs over TCP, or over RDMA where there is a device.
 *
 * With metadata by P2P handshake the offset of a READ is the other process's address.
 *
 * @module
 */

import type { TransferStatus } from "../../../ffi/transfer_engine.ts";
import { tryEach, trySteps } from "../../attempts.ts";
import type { Deadline } from "../../deadline.ts";
import { BackendUnavailableError, ClosedError, CorruptionError, TimeoutError } from "../../errors.ts";
import { chooseTransport } from "../transport.ts";
import type { Accepted, Link, Offer, Plane, ReadPiece, Registration, Wire } from "./plane.ts";
import { checkPieces, describeMemory, remoteMemoryOf } from "./remote_memory.ts";
import { type Batch, type Engine, statusRoom, useEngine } from "./transfer_engine/engine.ts";

/** How the plane is opened. */
export interface TransferEngineOptions {
  /** The address that the other processes reach this one by. */
  readonly localHostname: string;
  readonly protocol: "tcp" | "rdma" | "auto";
  readonly deviceName: string;
  readonly metadataServer: string;
  readonly libraryPath?: string;
}

/** READs of one batch. */
const BATCH_READS = 128;
/** Polls that follow each other at once, before timers take over. */
const EAGER_POLLS = 20;
/** Polls of a transfer that takes long, and of one that was given up, come so many milliseconds apart. */
const SLOWEST_POLL_MS = 10;
const ABANDONED_POLL_MS = 100;

/**
 * Opens the plane.
 *
 * @throws BackendUnavailableError LIBRARY_MISSING, VERSION_MISMATCH; TRANSPORT_UNAVAILABLE where RDMA is asked for and not
 * to be had
 */
export async function openTransferEnginePlane(options: TransferEngineOptions): Promise<Plane> {
  const { localHostname, protocol, deviceName, metadataServer, libraryPath } = options;
  const effective = chooseTransport(protocol, deviceName);
  const { engine, release } = await useEngine({
    localHostname,
    protocol: effective,
    deviceName: effective === "rdma" ? deviceName : "",
    metadataServer,
    libraryPath,
  });
  return new TransferEnginePlane(engine, release, { asked: protocol, effective });
}

class TransferEnginePlane implements Plane {
  readonly kind = "transfer-engine";
  readonly transport: { readonly asked: string; readonly effective: string };
  readonly #engine: Engine;
  readonly #release: () => void;
  readonly #open = new Set<{ close(): Promise<void> }>();
  #closed = false;

  constructor(engine: Engine, release: () => void, transport: { asked: string; effective: string }) {
    this.#engine = engine;
    this.#release = release;
    this.transport = transport;
  }

  async register(address: bigint, bytes: number): Promise<Registration> {
    this.#check();
    await this.#engine.register(address, bytes);
    let closing: Promise<void> | undefined;
    const registration: Registration = {
      address,
      bytes,
      remote: describeMemory({ address, bytes }),
      close: () =>
        closing ??= this.#engine.unregister(address).finally(() => this.#open.delete(registration)),
    };
    this.#open.add(registration);
    return registration;
  }

  offer(): Promise<Offer> {
    this.#check();
    return Promise.resolve({
      hello: { engine: this.#engine.name },
      open: async (answer: Wire, deadline: Deadline) => {
        const name = textOf(answer, "segment");
        const link = new TransferEngineLink(this.#engine, name, () => this.#open.delete(link));
        await link.refresh(deadline);
        this.#check();
        this.#open.add(link);
        return link;
      },
      close: () => Promise.resolve(),
    });
  }

  // deno-lint-ignore require-await -- errors reach the caller as a rejection
  async accept(hello: Wire): Promise<Accepted> {
    this.#check();
    textOf(hello, "engine");
    return { answer: { segment: this.#engine.name }, close: () => Promise.resolve() };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await trySteps(
      // links first: they were added after the memory they read into
      () => tryEach([...this.#open].reverse(), (each) => each.close()),
      () => this.#release(),
    );
  }

  #check(): void {
    if (this.#closed) throw new ClosedError("the Transfer Engine's plane was closed");
  }
}

class TransferEngineLink implements Link {
  readonly #engine: Engine;
  readonly #name: string;
  readonly #onClose: () => void;
  /** Memory of the other side that its description is known to name. */
  readonly #known = new Set<string>();
  #segment: number | undefined;
  #closed = false;
  #failed = false;

  constructor(engine: Engine, name: string, onClose: () => void) {
    this.#engine = engine;
    this.#name = name;
    this.#onClose = onClose;
  }

  get alive(): boolean {
    return !this.#closed && !this.#failed;
  }

  /** Asks the other side what memory it has now. */
  async refresh(deadline: Deadline): Promise<void> {
    const segment = await this.#engine.openSegment(this.#name, deadline);
    if (segment === undefined) {
      throw lost(`the Transfer Engine at ${this.#name} does not answer`, "openSegment");
    }
    this.#segment = segment;
  }

  async read(
    local: Registration,
    remote: Wire,
    pieces: readonly ReadPiece[],
    deadline: Deadline,
    quarantine: (ended: Promise<unknown>) => void,
  ): Promise<void> {
    const source = remoteMemoryOf(remote);
    const { address, bytes } = source;
    checkPieces(pieces, local, source);
    const wanted = pieces.filter((piece) => piece.bytes > 0);
    if (wanted.length === 0) return;
    if (!this.alive) throw lost("the connection has failed before");
    const key = `${address} ${bytes}`;
    if (!this.#known.has(key)) {
      await this.refresh(deadline);
      this.#known.add(key);
    }
    const batches: Batch[] = [];
    let failure: unknown;
    try {
      for (let at = 0; at < wanted.length && failure === undefined; at += BATCH_READS) {
        deadline.check();
        const requests = wanted.slice(at, at + BATCH_READS).map((piece) => ({
          source: local.address + BigInt(piece.localOffset),
          targetId: this.#segment!,
          targetOffset: address + BigInt(piece.remoteOffset),
          length: piece.bytes,
        }));
        const submitted = await this.#engine.submit(requests);
        batches.push(submitted.batch);
        failure = submitted.failure;
      }
    } catch (error) {
      failure = error;
    }
    // also after a failure: what has been started writes to our memory until it has ended
    const watch = { abandoned: false };
    const ended = this.#ended(batches, watch);
    const status = await giveUp(ended, deadline, () => this.#closed, () => {
      watch.abandoned = true;
      quarantine(ended);
    });
    if (failure === undefined && status === "COMPLETED") return;
    // one that ran out of time says nothing about the others
    if (!(failure instanceof TimeoutError)) this.#failed = true;
    throw failure ?? lost(`the process at ${this.#name} has ended, or has taken its memory back`, status);
  }

  /** Waits for all tasks; gives the first state that is not COMPLETED. */
  async #ended(
    batches: readonly Batch[],
    watch: { readonly abandoned: boolean },
  ): Promise<TransferStatus> {
    const room = statusRoom();
    let worst: TransferStatus = "COMPLETED";
    let polls = 0;
    const startedMs = performance.now();
    for (const batch of batches) {
      for (let task = 0; task < batch.tasks;) {
        const status = this.#engine.status(batch, task, room);
        if (status !== "WAITING" && status !== "PENDING") {
          if (status !== "COMPLETED" && worst === "COMPLETED") worst = status;
          task++;
          continue;
        }
        if (polls++ < EAGER_POLLS) await new Promise((resolve) => setImmediate(resolve));
        else await pause(performance.now() - startedMs, watch.abandoned);
      }
      this.#engine.free(batch);
    }
    return worst;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#onClose();
    if (this.#segment !== undefined) await this.#engine.closeSegment(this.#segment);
  }
}

/**
 * Waits for the next poll: the longer it has taken, the longer it may take now. What nobody waits for any more is looked at
 * now and then, and does not keep the process.
 */
function pause(elapsedMs: number, abandoned: boolean): Promise<void> {
  return new Promise((resolve) => {
    const ms = abandoned ? ABANDONED_POLL_MS : Math.min(Math.max(1, elapsedMs / 16), SLOWEST_POLL_MS);
    const timer = setTimeout(resolve, ms);
    if (abandoned) (timer as { unref?: () => void }).unref?.();
  });
}

/** Waits until all has ended, or the time is up, or the link was closed; then `abandon` is called. */
function giveUp<T>(
  ended: Promise<T>,
  deadline: Deadline,
  isClosed: () => boolean,
  abandon: () => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setInterval(() => {
      try {
        deadline.check();
        if (isClosed()) throw lost("the connection was closed during the read");
      } catch (error) {
        clearInterval(timer);
        abandon();
        reject(error);
      }
    }, 10);
    ended.then(resolve, reject).finally(() => clearInterval(timer));
  });
}

function lost(problem: string, nativeName?: string): BackendUnavailableError {
  return new BackendUnavailableError("PEER_LOST", problem, nativeName === undefined ? {} : { nativeName });
}

function textOf(value: Wire, name: string): string {
  const text = (value as Readonly<Record<string, Wire>> | null)?.[name];
  if (typeof text === "string" && /^[^\s\0]{1,300}$/.test(text)) return text;
  throw new CorruptionError(`a peer of the Transfer Engine did not tell its ${name}`, { actual: value });
}
