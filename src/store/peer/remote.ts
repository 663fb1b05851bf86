/**
 * One other process: asked over TCP where bundles lie, and read by the plane.
 *
 * @module
 */

import { connect, type Socket } from "node:net";
import { Deadline } from "../../deadline.ts";
import { BackendUnavailableError, ClosedError, TimeoutError } from "../../errors.ts";
import { LOOPBACK, splitAddress } from "../addresses.ts";
import { fromWire, receive, send } from "../wire.ts";
import { type BundleTable, type Frame, type Request, tableFromWire } from "./messages.ts";
import type { Link, Plane, Wire } from "./plane.ts";
import { isProof, newNonce, proof } from "./secret.ts";

/** Tables that are remembered of one peer; the oldest go first. */
const MOST_TABLES = 4096;

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
  }

  take(frame: Frame): void {
    const pending = this.#pending.get(frame.id);
    if (pending === undefined || frame.op !== undefined) return;
    this.#pending.delete(frame.id);
    this.#hold();
    if (frame.error !== undefined) pending.reject(fromWire(frame.error));
    else pending.resolve(frame.result);
  }

  ask(request: Request, deadline: Deadline): Promise<unknown> {
    if (this.lost) return Promise.reject(peerLost(this.#address));
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const { signal, timeoutMs } = deadline.options;
      const give = (error: Error): void => {
        this.#pending.get(id)?.reject(error);
        this.#pending.delete(id);
        this.#hold();
      };
      const late = (): void =>
        give(new TimeoutError(`the process at ${this.#address} did not answer within its time`));
      const abort = (): void =>
        give(new TimeoutError("the call was aborted", { cause: signal?.reason }, "ABORTED"));
      const timer = setTimeout(late, Math.min(timeoutMs ?? 2 ** 31 - 1, 2 ** 31 - 1));
      const stop = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
      };
      this.#pending.set(id, {
        resolve: (value) => (stop(), resolve(value)),
        reject: (error) => (stop(), reject(error)),
      });
      this.#hold();
      if (signal?.aborted === true) return abort();
      signal?.addEventListener("abort", abort);
      send(this.#socket, { ...request, id });
    });
  }

  close(): void {
    this.#socket.destroy();
    this.#end();
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
    this.#pending.clear();
    this.#onLost();
  }
}

/** See the module. */
export class RemotePeer {
  /** `HOST:PORT`. */
  readonly address: string;
  readonly #plane: Plane;
  readonly #secret: Uint8Array;
  readonly #tables = new Map<string, BundleTable>();
  #connection: Promise<Connection> | undefined;
  #link: Promise<Link> | undefined;
  #closed = false;

  constructor(address: string, plane: Plane, secret: Uint8Array) {
    this.address = address;
    this.#plane = plane;
    this.#secret = secret;
  }

  /**
   * Asks the peer.
   *
   * @throws BackendUnavailableError PEER_LOST where nobody answers, MASTER_UNREACHABLE never; TimeoutError
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

  /** The link that bytes come over, made where there is none. */
  async link(deadline: Deadline): Promise<Link> {
    const open = await this.#link?.catch(() => undefined);
    if (open?.alive === true) return open;
    if (this.#closed) throw new ClosedError("the store was closed");
    this.#link = this.#openLink(deadline);
    this.#link.catch(() => {});
    await open?.close();
    return await this.#link;
  }

  async #openLink(deadline: Deadline): Promise<Link> {
    const offer = await this.#plane.offer();
    try {
      const answer = await this.ask({ op: "link", kind: this.#plane.kind, hello: offer.hello }, deadline);
      return await offer.open(answer as Wire, deadline);
    } catch (error) {
      await offer.close();
      throw error;
    }
  }

  async #connected(deadline: Deadline): Promise<Connection> {
    for (;;) {
      const connecting = this.#connection ??= this.#connect();
      let connection: Connection;
      try {
        connection = await within(connecting, deadline, this.address);
      } catch (error) {
        if (!(error instanceof TimeoutError) && this.#connection === connecting) this.#connection = undefined;
        throw error;
      }
      if (!connection.lost) return connection;
      if (this.#connection === connecting) this.#connection = undefined;
    }
  }

  #connect(): Promise<Connection> {
    if (this.#closed) return Promise.reject(new ClosedError("the store was closed"));
    const { host, port } = splitAddress(this.address);
    return new Promise((resolve, reject) => {
      const socket = connect({ host, port, noDelay: true });
      const mine = newNonce();
      let expected: string | undefined;
      let connection: Connection | undefined;
      const fail = (error: Error): void => {
        socket.destroy();
        reject(error);
      };
      socket.setTimeout(HANDSHAKE_MS, () => connection ?? fail(peerLost(this.address, new Error("silent"))));
      socket.on("error", (cause) => fail(peerLost(this.address, cause)));
      socket.on("close", () => fail(peerLost(this.address)));
      const take = (frame: Frame): void => {
        if (connection !== undefined) return connection.take(frame);
        const { nonce, proof: shown, refused } = frame as {
          nonce?: unknown;
          proof?: unknown;
          refused?: unknown;
        };
        if (refused === true || (expected !== undefined && !isProof(expected, shown))) {
          return fail(wrongSecret(this.address));
        }
        if (expected === undefined) {
          if (typeof nonce !== "string") return fail(wrongSecret(this.address));
          expected = proof(this.#secret, "writer", [nonce, mine]);
          return send(socket, { nonce: mine, proof: proof(this.#secret, "reader", [nonce, mine]) });
        }
        socket.setTimeout(0);
        resolve(connection = new Connection(socket, this.address, () => this.#lost()));
        socket.unref();
      };
      receive<Frame>(socket, take, (cause) => fail(peerLost(this.address, cause)));
    });
  }

  /** The process is gone: what is under way fails at once, not when the device gives up. */
  #lost(): void {
    this.#tables.clear();
    const link = this.#link;
    this.#link = undefined;
    link?.then((open) => open.close(), () => {}).catch(() => {});
  }

  /** Ends the connection and the link. */
  async close(): Promise<void> {
    this.#closed = true;
    const [link, connection] = [this.#link, this.#connection];
    this.#link = undefined;
    this.#tables.clear();
    await (await link?.catch(() => undefined))?.close();
    (await connection?.catch(() => undefined))?.close();
  }
}

/** How long a handshake may take, in milliseconds. */
const HANDSHAKE_MS = 10_000;

function wrongSecret(address: string): BackendUnavailableError {
  return new BackendUnavailableError("PEER_LOST", `the process at ${address} has another secret`, {
    actual: address,
    hint: "give both processes the same file in BATCHFERRY_SECRET_FILE",
  });
}

/** Waits for what others wait for too, as long as one's own deadline allows. */
function within<T>(promise: Promise<T>, deadline: Deadline, address: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const { signal, timeoutMs } = deadline.options;
    const late = (): void =>
      reject(new TimeoutError(`the process at ${address} did not answer within its time`));
    const abort = (): void =>
      reject(new TimeoutError("the call was aborted", { cause: signal?.reason }, "ABORTED"));
    const timer = setTimeout(late, Math.min(timeoutMs ?? 2 ** 31 - 1, 2 ** 31 - 1));
    if (signal?.aborted === true) abort();
    signal?.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    });
  });
}
