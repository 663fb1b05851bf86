/**
 * The side that is asked: who has proved to have the secret is told where bundles lie.
 *
 * @module
 */

import { createServer, type Server, type Socket } from "node:net";
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

  /** Connections that are open. */
  get connections(): number {
    return this.#sockets.size;
  }

  #serve(socket: Socket): void {
    const { secret } = this.#context;
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.unref();
    const nonce = newNonce();
    const accepted: Accepted[] = [];
    let trusted = false;
    let gone = false;
    const end = async (): Promise<void> => {
      gone = true;
      this.#endings.delete(socket);
      await Promise.allSettled(accepted.splice(0).map((each) => each.close()));
    };
    this.#endings.set(socket, end);
    const timer = setTimeout(() => trusted || socket.destroy(), STRANGER_MS);
    socket.on("error", () => {}); // told by the close
    socket.on("close", () => {
      clearTimeout(timer);
      this.#sockets.delete(socket);
      void end();
    });
    const take = (frame: Frame): void => {
      if (trusted) {
        if (frame.op === undefined || !Number.isSafeInteger(frame.id)) return void socket.destroy();
        this.#answer(frame, (each) => gone ? void each.close().catch(() => {}) : void accepted.push(each))
          .then(
            (result) => send(socket, { id: frame.id, result }),
            (error) => send(socket, { id: frame.id, error: toWire(error) }),
          );
        return;
      }
      const { nonce: other, proof: shown } = frame as { nonce?: unknown; proof?: unknown };
      if (typeof other !== "string" || !isProof(proof(secret, "reader", [nonce, other]), shown)) {
        send(socket, { refused: true });
        return void socket.end();
      }
      trusted = true;
      send(socket, { proof: proof(secret, "writer", [nonce, other]) });
    };
    receive<Frame>(socket, take, () => socket.destroy(), () => trusted ? 2 ** 24 : STRANGER_BYTES);
    send(socket, { nonce });
  }

  async #answer(request: Request, accept: (accepted: Accepted) => void): Promise<unknown> {
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
        accept(accepted);
        return accepted.answer;
      }
      case "table": {
        const table = own.table(text(request.objectId));
        return table === undefined ? null : tableToWire(table);
      }
      case "get": {
        const key = text(request.key);
        const loose = own.loose(key);
        if (loose !== undefined) return { value: loose.toBase64() };
        const size = own.size(key);
        return size === undefined ? null : { size };
      }
      case "list":
        return own.list(text(request.prefix));
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
    const ended = [...this.#endings.values()].map((end) => end());
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(ended);
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
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
