/**
 * What processes of this library say to each other over a socket: frames of JSON.
 *
 * A frame is its length in four bytes, little-endian, and as many bytes of JSON.
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
} from "../errors.ts";

/** No frame is longer: a batched call has a few hundred keys. */
const MOST_FRAME_BYTES = 64 * 2 ** 20;

/** An error on its way. */
export interface WireError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: ErrorDetails;
}

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
export function send(socket: Socket, frame: object): void {
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
 * @param most how many bytes a frame may have now: few before the other side has said who it is
 */
export function receive<Frame extends object>(
  socket: Socket,
  take: (frame: Frame) => void,
  broken: (error: Error) => void,
  most: () => number = () => MOST_FRAME_BYTES,
): void {
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
        if (length > most()) throw new Error(`a frame of ${length} bytes`);
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
