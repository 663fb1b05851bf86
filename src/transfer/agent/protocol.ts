/**
 * What workers and the node agent say to each other over a Unix socket: frames of JSON, answered in any order.
 *
 * A frame is its length in four bytes, little-endian, and as many bytes of JSON. Bytes of batches never pass here: they
 * lie in memory that both map, and frames name positions in it.
 *
 * @module
 */

import type { Socket } from "node:net";
import {
  BackendUnavailableError,
  BatchferryError,
  CapacityError,
  ClosedError,
  ConfigError,
  CorruptionError,
  DataLostError,
  DroppedError,
  type ErrorCode,
  type ErrorDetails,
  NativeError,
  NotFoundError,
  OwnershipError,
  SchemaError,
  TimeoutError,
  type UnavailableCode,
} from "../../errors.ts";
import type { Keeping, TransportInUse } from "../../store/mooncake/client.ts";

/** The version of this protocol; both sides must have the same. */
export const PROTOCOL_VERSION: number = 1;
/** No frame is longer: a batched call has a few hundred keys. */
const MOST_FRAME_BYTES = 64 * 2 ** 20;

/** An object in a slot: key, first byte, bytes. */
export type WireObject = readonly [key: string, offset: number, bytes: number];

/** What a worker asks. `timeoutMs` is what is left of its deadline. */
export type Request =
  | { readonly op: "hello"; readonly version: number; readonly pid: number }
  | { readonly op: "reserve"; readonly bytes: number; readonly timeoutMs: number }
  | {
    readonly op: "put";
    readonly slot: number;
    readonly objects: readonly WireObject[];
    readonly keeping: Keeping;
    readonly timeoutMs: number;
  }
  | {
    readonly op: "get";
    readonly slot: number;
    readonly objects: readonly WireObject[];
    readonly timeoutMs: number;
  }
  | { readonly op: "size"; readonly key: string; readonly timeoutMs: number }
  | { readonly op: "remove"; readonly keys: readonly string[]; readonly timeoutMs: number }
  | { readonly op: "regex"; readonly pattern: string; readonly timeoutMs: number }
  | { readonly op: "status" }
  | { readonly op: "stop" };

/** What needs no answer. */
export type Notice =
  | { readonly op: "release"; readonly slot: number }
  | { readonly op: "cancel"; readonly of: number };

/** The answer to `hello`. */
export interface Welcome {
  readonly version: number;
  readonly pid: number;
  readonly hostname: string;
  readonly transport: TransportInUse;
  /** Where the pool can be opened, and its size. */
  readonly path: string;
  readonly bytes: number;
}

/** The answer to `reserve`: a part of the pool, or memory of its own at `path`. */
export interface Reserved {
  readonly slot: number;
  readonly offset: number;
  readonly path?: string;
}

/** An error on its way. */
export interface WireError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: ErrorDetails;
}

/** Everything that goes over the socket. */
export type Frame =
  | (Request & { readonly id: number })
  | (Notice & { readonly id?: undefined })
  | { readonly id: number; readonly result?: unknown; readonly error?: WireError; readonly op?: undefined };

/** An error as it is sent; one that is not ours becomes NATIVE. */
export function toWire(error: unknown): WireError {
  if (!(error instanceof BatchferryError)) {
    return { code: "NATIVE", message: error instanceof Error ? error.message : String(error), details: {} };
  }
  const { cause: _, ...details } = error.details;
  const { hint } = details;
  // the constructor adds the hint again
  const message = hint !== undefined && error.message.endsWith(`; ${hint}`)
    ? error.message.slice(0, -hint.length - 2)
    : error.message;
  return { code: error.code, message, details };
}

/** The error that was sent. */
export function fromWire({ code, message, details }: WireError): BatchferryError {
  switch (code) {
    case "CONFIG":
      return new ConfigError(message, details);
    case "NOT_FOUND":
    case "NOT_READY":
      return new NotFoundError(message, details, code);
    case "NOT_OWNER":
      return new OwnershipError(message, details);
    case "DROPPED":
      return new DroppedError(message, details);
    case "DATA_LOST":
    case "LEASE_EXPIRED":
      return new DataLostError(message, details, code);
    case "CAPACITY":
      return new CapacityError(message, details);
    case "SCHEMA":
      return new SchemaError(message, details);
    case "CORRUPT":
      return new CorruptionError(message, details);
    case "TIMEOUT":
    case "ABORTED":
      return new TimeoutError(message, details, code);
    case "CLOSED":
      return new ClosedError(message, details);
    case "NATIVE":
      return new NativeError(message, details);
    default:
      return new BackendUnavailableError(code satisfies UnavailableCode, message, details);
  }
}

/** Sends one frame. */
export function send(socket: Socket, frame: Frame): void {
  if (socket.destroyed) return;
  const body = new TextEncoder().encode(JSON.stringify(frame));
  const bytes = new Uint8Array(4 + body.byteLength);
  new DataView(bytes.buffer).setUint32(0, body.byteLength, true);
  bytes.set(body, 4);
  socket.write(bytes);
}

/**
 * Calls `take` with every frame that comes.
 *
 * @param broken is called, once, with what makes the rest unreadable
 */
export function receive(socket: Socket, take: (frame: Frame) => void, broken: (error: Error) => void): void {
  let parts: Uint8Array[] = [];
  let held = 0;
  let dead = false;
  socket.on("data", (chunk: Uint8Array) => {
    if (dead) return;
    parts.push(chunk);
    held += chunk.byteLength;
    try {
      for (;;) {
        if (held < 4) return;
        let all = parts[0]!;
        if (parts.length > 1 && all.byteLength < 4) parts = [all = join(parts, held)];
        const length = new DataView(all.buffer, all.byteOffset).getUint32(0, true);
        if (length > MOST_FRAME_BYTES) throw new Error(`a frame of ${length} bytes`);
        if (held < 4 + length) return;
        if (parts.length > 1) all = join(parts, held);
        const frame = JSON.parse(new TextDecoder().decode(all.subarray(4, 4 + length))) as Frame;
        const rest = all.subarray(4 + length);
        parts = rest.byteLength === 0 ? [] : [rest];
        held = rest.byteLength;
        take(frame);
      }
    } catch (error) {
      dead = true;
      broken(error as Error);
    }
  });
}

function join(parts: readonly Uint8Array[], bytes: number): Uint8Array {
  const out = new Uint8Array(bytes);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.byteLength;
  }
  return out;
}
