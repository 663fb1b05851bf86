/**
 * The side that is asked: who has proved to have the secret is told where bundles lie.
 *
 * @module
 */

import { createServer, type Server, type Socket } from "node:net";
import { tryEach, trySteps } from "../../attempts.ts";
import { Deadline } from "../../deadline.ts";
import { ConfigError, CorruptionError } from "../../errors.ts";
import { joinAddress } from "../addresses.ts";
import { receive, send, toWire } from "../wire.ts";
import { type Frame, type Request, tableToWire } from "./messages.ts";
import type { OwnObjects } from "./own.ts";
import type { Accepted, Plane } from "./plane.ts";
import { isProof, newNonce, proof } from "./secret.ts";

/** Frames of those who have not proved anything are short, and must come soon. */
const STRANGER_BYTES = 1024;
const STRANGER_MS = 5000;
const MOST_CONNECTIONS = 4096;
/** How long setting up one link may take. */
const LINK_MS = 20_000;

/** What the server tells about. */
export interface ServerContext {
  readonly plane: Plane;
  readonly own: OwnObjects;
  readonly secret: Uint8Array;
  /** Addresses of the peers known here. */
  readonly peers: () => readonly string[];
}

/** A listening peer. */
export class PeerServer {
  /** `HOST:PORT`. */
  readonly address: string;
  readonly #server: Server;
  readonly #context: ServerContext;
  readonly #sockets = new Set<Socket>();
  /** Ends what belongs to a connection, for each that is open. */
  readonly #endings = new Map<Socket, () => Promise<void>>();
  /** Requests that are being answered. */
  readonly #answering = new Set<Promise<void>>();
  #closed = false;

  private constructor(server: Server, address: string, context: ServerContext) {
    this.#server = server;
    this.address = address;
    this.#context = context;
    server.on("connection", (socket: Socket) => this.#serve(socket));
    server.on("error", () => {}); // those of accept: the next connection may do better
  }

  /** Listens. @throws ConfigError where the address cannot be bound */
  static async listen(host: string, port: number, context: ServerContext): Promise<PeerServer> {
    const server = createServer();
    server.maxConnections = MOST_CONNECTIONS;
    await new Promise<void>((resolve, reject) => {
      server.once("error", (cause) =>
        reject(
          new ConfigError(`${joinAddress({ host, port })} cannot be listened at: ${cause.message}`, {
            cause,
            hint: "set localHostname to an address of this host",
          }),
        ));
      server.listen(port, host, resolve);
    });
    server.removeAllListeners("error");
    const bound = server.address() as { port: number };
    server.unref(); // a process does not stay for its readers, unless it is told to
    return new PeerServer(server, joinAddress({ host, port: bound.port }), context);
  }

  #serve(socket: Socket): void {
    const { secret } = this.#context;
    if (this.#closed) return void socket.destroy();
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.unref();
    const nonce = newNonce();
    let accepted: Accepted | undefined;
    let trusted = false;
    let gone = false;
    const end = async (): Promise<void> => {
      gone = true;
      this.#endings.delete(socket);
      await accepted?.close();
    };
    /** A reader has one link: a new one takes the place of one that has failed. */
    const keep = async (next: Accepted): Promise<void> => {
      const before = accepted;
      accepted = next;
      await (gone ? next : before)?.close();
    };
    this.#endings.set(socket, end);
    const timer = setTimeout(() => socket.destroy(), STRANGER_MS);
    (timer as { unref?: () => void }).unref?.();
    socket.on("error", () => {}); // told by the close
    socket.on("close", () => {
      clearTimeout(timer);
      this.#sockets.delete(socket);
      end().catch(() => {});
    });
    const take = (frame: Frame): void => {
      if (trusted) {
        if (frame.op === undefined || !Number.isSafeInteger(frame.id)) return void socket.destroy();
        const answering = this.#answer(frame, keep).then(
          (result) => send(socket, { id: frame.id, result }),
          (error) => send(socket, { id: frame.id, error: toWire(error) }),
        ).finally(() => this.#answering.delete(answering));
        this.#answering.add(answering);
        return;
      }
      const { nonce: other, proof: shown } = frame as { nonce?: unknown; proof?: unknown };
      if (typeof other !== "string" || !isProof(proof(secret, "reader", [nonce, other]), shown)) {
        send(socket, { refused: true });
        return void socket.end();
      }
      trusted = true;
      clearTimeout(timer);
      send(socket, { proof: proof(secret, "writer", [nonce, other]) });
    };
    receive<Frame>(socket, take, () => socket.destroy(), () => trusted ? 2 ** 24 : STRANGER_BYTES);
    send(socket, { nonce });
  }

  async #answer(request: Request, keep: (accepted: Accepted) => Promise<void>): Promise<unknown> {
    const { plane, own, peers } = this.#context;
    switch (request.op) {
      case "link": {
        if (request.kind !== plane.kind) {
          throw new CorruptionError(`this peer is read by ${plane.kind}`, {
            expected: plane.kind,
            actual: request.kind,
          });
        }
        const accepted = await plane.accept(request.hello, new Deadline("accepting a reader", {}, LINK_MS));
        await keep(accepted);
        return accepted.answer;
      }
      case "table": {
        const table = own.table(text(request.objectId));
        return table === undefined ? null : tableToWire(table);
      }
      case "get": {
        const key = text(request.key);
        const loose = own.loose(key);
        if (loose !== undefined) return { value: loose.value.toBase64(), stamp: loose.stamp };
        const size = own.size(key);
        return size === undefined ? null : { size };
      }
      case "list":
        return own.list(text(request.prefix));
      case "replaced":
        own.replaced(text(request.key), text(request.stamp));
        return null;
      case "delete":
        own.delete(texts(request.keys));
        return null;
      case "deletePrefix": {
        const prefix = text(request.prefix);
        return prefix.length > 1 && prefix.endsWith("/") ? own.deletePrefix(prefix) : 0;
      }
      case "peers":
        return peers();
      default:
        throw new CorruptionError("an unknown request");
    }
  }

  /** Stops listening and ends all connections. */
  async close(): Promise<void> {
    this.#closed = true;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const endings = [...this.#endings.values()];
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(this.#answering); // never rejected
    await trySteps(() => tryEach(endings, (end) => end()), () => closed);
  }
}

function text(value: unknown): string {
  if (typeof value === "string") return value;
  throw new CorruptionError("a request without its text");
}

function texts(value: unknown): string[] {
  if (Array.isArray(value)) return value.map(text);
  throw new CorruptionError("a request without its list");
}
