/**
 * One other process: asked over TCP where bundles lie, and read by the plane.
 *
 * @module
 */

import { connect, type Socket } from "node:net";
import { Deadline } from "../../deadline.ts";
import { BackendUnavailableError, ConfigError, CorruptionError, TimeoutError } from "../../errors.ts";
import { LOOPBACK, splitAddress } from "../addresses.ts";
import { fromWire, receive, send, type WireError } from "../wire.ts";
import { type BundleTable, type Frame, type Request, tableFromWire } from "./messages.ts";
import type { Link, Plane, Wire } from "./plane.ts";
import { isProof, newNonce, proof } from "./secret.ts";

/** Tables that are remembered of one peer; the oldest go first. */
const MOST_TABLES = 4096;

/** How long a handshake and the making of a link may take, in milliseconds. */
const HANDSHAKE_MS = 10_000;
const LINK_MS = 20_000;
/** A handshake's frames are short. */
const STRANGER_BYTES = 1024;
const MOST_FRAME_BYTES = 64 * 2 ** 20;

/** A peer that is gone, or was never there. */
export function peerLost(address: string, cause?: unknown): BackendUnavailableError {
  return new BackendUnavailableError(
    "PEER_LOST",
    `the process at ${address} does not answer: it has ended, and what it had put is gone`,
    {
      actual: address,
      hint: LOOPBACK.test(address)
        ? "where it runs on another host, give both the same secret in BATCHFERRY_SECRET_FILE"
        : undefined,
      ...(cause === undefined ? {} : { cause }),
    },
  );
}

function peerSilent(address: string): BackendUnavailableError {
  return new BackendUnavailableError("PEER_LOST", `the process at ${address} is silent`, {
    actual: address,
    hint: "it may be stopped, or something between the hosts may drop its packets",
  });
}

function wrongSecret(address: string): ConfigError {
  return new ConfigError(`the process at ${address} has another secret`, {
    actual: address,
    hint: "give both processes the same file in BATCHFERRY_SECRET_FILE",
  });
}

/** Whether an error tells that a peer, or the way to it, is gone. */
export function isLost(error: unknown): boolean {
  return error instanceof BackendUnavailableError && error.code === "PEER_LOST";
}

interface Pending {
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** A connection that has passed the handshake. */
class Connection {
  readonly #socket: Socket;
  readonly #address: string;
  readonly #pending = new Map<number, Pending>();
  readonly #onLost: () => void;
  #next = 1;
  lost = false;

  constructor(socket: Socket, address: string, onLost: () => void) {
    this.#socket = socket;
    this.#address = address;
    this.#onLost = onLost;
    socket.on("close", () => this.#end());
    this.#hold();
  }

  take({ id, op, error, result }: Frame & { readonly error?: unknown; readonly result?: unknown }): void {
    const pending = this.#pending.get(id);
    if (pending === undefined || op !== undefined) return;
    if (error === undefined) pending.resolve(result);
    else pending.reject(errorOf(error, this.#address));
  }

  async ask(request: Request, deadline: Deadline): Promise<unknown> {
    if (this.lost) throw peerLost(this.#address);
    const id = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#pending.set(id, { resolve, reject });
    this.#hold();
    send(this.#socket, { ...request, id });
    try {
      return await within(promise, deadline, this.#address);
    } finally {
      this.#pending.delete(id);
      this.#hold();
    }
  }

  /** The process stays as long as an answer is waited for. */
  #hold(): void {
    if (this.#pending.size === 0) this.#socket.unref();
    else this.#socket.ref();
  }

  #end(): void {
    if (this.lost) return;
    this.lost = true;
    for (const { reject } of this.#pending.values()) reject(peerLost(this.#address));
    this.#onLost();
  }
}

/** The error that a peer sent, or that it sent none that makes sense. */
function errorOf(value: unknown, address: string): Error {
  const { code, message, details } = (value ?? {}) as Partial<WireError>;
  if (
    typeof code === "string" && typeof message === "string" && typeof details === "object" && details !== null
  ) {
    return fromWire({ code, message, details });
  }
  return new CorruptionError(`the process at ${address} sent an error that makes no sense`, {
    actual: address,
  });
}

/** What became of the last attempt to reach a peer. */
export type PeerState = "unknown" | "open" | "gone" | "silent" | "refused";

/** See the module. */
export class RemotePeer {
  /** `HOST:PORT`. */
  readonly address: string;
  readonly #plane: Plane;
  readonly #secret: Uint8Array;
  readonly #tables = new Map<string, BundleTable>();
  readonly #closing = new AbortController();
  #state: PeerState = "unknown";
  #socket: Socket | undefined;
  #connection: Promise<Connection> | undefined;
  #link: Promise<Link> | undefined;

  constructor(address: string, plane: Plane, secret: Uint8Array) {
    this.address = address;
    this.#plane = plane;
    this.#secret = secret;
  }

  get state(): PeerState {
    return this.#state;
  }

  /**
   * Asks the peer.
   *
   * @throws BackendUnavailableError PEER_LOST where nobody answers; ConfigError where it has another secret; TimeoutError
   */
  async ask(request: Request, deadline: Deadline): Promise<unknown> {
    return await (await this.#connected(deadline)).ask(request, deadline);
  }

  /** Where a bundle of the peer's lies; undefined where it has no such bundle. */
  async table(objectId: string, deadline: Deadline): Promise<BundleTable | undefined> {
    const known = this.#tables.get(objectId);
    if (known !== undefined) return known;
    const answer = await this.ask({ op: "table", objectId }, deadline);
    if (answer === null) return undefined;
    const table = tableFromWire(answer, this.address);
    if (this.#tables.size >= MOST_TABLES) this.#tables.delete(this.#tables.keys().next().value!);
    this.#tables.set(objectId, table);
    return table;
  }

  /** Forgets where a bundle lies. */
  forget(objectId: string): void {
    this.#tables.delete(objectId);
  }

  /** The link that bytes come over, made where there is none; all who read wait for the same one. */
  async link(deadline: Deadline): Promise<Link> {
    for (;;) {
      if (this.#closing.signal.aborted) throw peerLost(this.address);
      const opening = this.#link ??= this.#openLink();
      const link = await within(opening, deadline, this.address);
      if (link.alive) return link;
      if (this.#link === opening) {
        this.#link = undefined;
        // one of them may be what it failed for, and would fail the next one too
        this.#tables.clear();
      }
      link.close().catch(() => {});
    }
  }

  #openLink(): Promise<Link> {
    // a deadline of its own: others may wait for it longer than who came first
    const deadline = new Deadline("opening a link", { signal: this.#closing.signal }, LINK_MS);
    const opening = (async () => {
      const offer = await this.#plane.offer();
      try {
        const answer = await this.ask({ op: "link", kind: this.#plane.kind, hello: offer.hello }, deadline);
        return await offer.open(answer as Wire, deadline);
      } catch (error) {
        await offer.close();
        throw error;
      }
    })();
    opening.catch(() => {
      if (this.#link === opening) this.#link = undefined;
    });
    return opening;
  }

  async #connected(deadline: Deadline): Promise<Connection> {
    for (;;) {
      if (this.#closing.signal.aborted) throw peerLost(this.address);
      const connecting = this.#connection ??= this.#connect();
      const connection = await within(connecting, deadline, this.address);
      if (!connection.lost) return connection;
      if (this.#connection === connecting) this.#connection = undefined;
    }
  }

  #connect(): Promise<Connection> {
    const { host, port } = splitAddress(this.address);
    const connecting = new Promise<Connection>((resolve, reject) => {
      const socket = this.#socket = connect({ host, port, noDelay: true });
      const mine = newNonce();
      let expected: string | undefined;
      let connection: Connection | undefined;
      let failed = false;
      const fail = (error: Error, state: PeerState = "gone"): void => {
        if (failed) return;
        failed = true;
        clearTimeout(timer);
        socket.destroy();
        if (connection !== undefined) return; // told by its end
        this.#state = state;
        reject(error);
      };
      const timer = setTimeout(() => fail(peerSilent(this.address), "silent"), HANDSHAKE_MS);
      socket.on("error", (cause: Error & { code?: string }) => {
        const isSilent = cause.code === "ETIMEDOUT" || cause.code === "EHOSTUNREACH" ||
          cause.code === "ENETUNREACH";
        fail(
          isSilent ? peerSilent(this.address) : peerLost(this.address, cause),
          isSilent ? "silent" : "gone",
        );
      });
      socket.on("close", () => fail(peerLost(this.address)));
      const take = (frame: Frame): void => {
        if (connection !== undefined) return connection.take(frame);
        const { nonce, proof: shown, refused } = frame as {
          nonce?: unknown;
          proof?: unknown;
          refused?: unknown;
        };
        const isRight = refused !== true &&
          (expected === undefined ? typeof nonce === "string" : isProof(expected, shown));
        if (!isRight) return fail(wrongSecret(this.address), "refused");
        if (expected === undefined) {
          const nonces = [nonce as string, mine];
          expected = proof(this.#secret, "writer", nonces);
          return send(socket, { nonce: mine, proof: proof(this.#secret, "reader", nonces) });
        }
        clearTimeout(timer);
        this.#state = "open";
        resolve(connection = new Connection(socket, this.address, () => this.#lost()));
      };
      receive<Frame>(
        socket,
        take,
        (cause) => fail(peerLost(this.address, cause)),
        () => connection === undefined ? STRANGER_BYTES : MOST_FRAME_BYTES,
      );
    });
    connecting.catch(() => {
      if (this.#connection === connecting) this.#connection = undefined;
    });
    return connecting;
  }

  /** The process is gone: what is under way fails at once, not when the device gives up. */
  #lost(): void {
    this.#state = "gone";
    this.#tables.clear();
    const link = this.#link;
    this.#link = undefined;
    link?.then((open) => open.close()).catch(() => {});
  }

  /** Ends the connection and the link; who waits for them is told that the peer is lost. */
  async close(): Promise<void> {
    const link = this.#link;
    this.#link = undefined;
    this.#closing.abort();
    this.#socket?.destroy();
    this.#tables.clear();
    await (await link?.catch(() => undefined))?.close();
  }
}

/** Waits for what others wait for too, as long as one's own deadline allows. */
function within<T>(promise: Promise<T>, deadline: Deadline, address: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const { signal, timeoutMs } = deadline.options;
    const stop = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    };
    const late = (): void => {
      stop();
      reject(new TimeoutError(`the process at ${address} did not answer within its time`));
    };
    const abort = (): void => {
      stop();
      reject(new TimeoutError("the call was aborted", { cause: signal?.reason }, "ABORTED"));
    };
    const timer = setTimeout(late, Math.min(timeoutMs ?? 2 ** 31 - 1, 2 ** 31 - 1));
    promise.then(resolve, reject).finally(stop);
    if (signal?.aborted === true) abort();
    else signal?.addEventListener("abort", abort);
  });
}
