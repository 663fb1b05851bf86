/**
 * What workers and the node agent say to each other over a Unix socket, answered in any order. Bytes of batches never
 * pass here: they lie in memory that both map, and frames name positions in it.
 *
 * @module
 */

import type { Keeping, TransportInUse } from "../../store/mooncake/client.ts";
import type { WireError } from "../../store/wire.ts";

/** The version of this protocol; both sides must have the same. */
export const PROTOCOL_VERSION: number = 1;

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

/** Everything that goes over the socket. */
export type Frame =
  | (Request & { readonly id: number })
  | (Notice & { readonly id?: undefined })
  | { readonly id: number; readonly result?: unknown; readonly error?: WireError; readonly op?: undefined };
