/**
 * What peers tell each other over TCP; the bytes of batches do not pass here.
 *
 * A connection begins with a handshake: the writer sends `{ nonce }`, the reader `{ nonce, proof }`, the writer
 * `{ proof }`. After it the reader asks, and the writer answers in any order.
 *
 * @module
 */

import { CorruptionError } from "../../errors.ts";
import type { WireError } from "../wire.ts";
import type { Wire } from "./plane.ts";

/** What a reader asks. */
export type Request =
  | { readonly op: "link"; readonly kind: string; readonly hello: Wire }
  | { readonly op: "table"; readonly objectId: string }
  | { readonly op: "get"; readonly key: string }
  | { readonly op: "list"; readonly prefix: string }
  | { readonly op: "delete"; readonly keys: readonly string[] }
  /** A small object was put elsewhere; an older one of the same key goes. */
  | { readonly op: "replaced"; readonly key: string; readonly stamp: string }
  | { readonly op: "deletePrefix"; readonly prefix: string }
  | { readonly op: "peers" };

/** Everything that goes over a connection after the handshake. */
export type Frame =
  | (Request & { readonly id: number })
  | { readonly id: number; readonly result?: unknown; readonly error?: WireError; readonly op?: undefined };

/** Where the objects of a bundle lie. */
export interface BundleTable {
  /** What the guard holds as long as the bundle is there. */
  readonly generation: bigint;
  /** The guard's place: segment and offset. */
  readonly guard: readonly [segment: number, offset: number];
  /** What is needed to READ from each segment that is named. */
  readonly segments: ReadonlyMap<number, { readonly bytes: number; readonly remote: Wire }>;
  readonly objects: ReadonlyMap<
    string,
    { readonly segment: number; readonly offset: number; readonly bytes: number }
  >;
}

/** A table as it is sent. */
export function tableToWire(table: BundleTable): Wire {
  return {
    generation: table.generation.toString(16),
    guard: table.guard,
    segments: [...table.segments].map(([id, { bytes, remote }]) => [id, bytes, remote]),
    objects: [...table.objects].map(([key, { segment, offset, bytes }]) => [key, segment, offset, bytes]),
  };
}

/** A table that has come. @throws CorruptionError where it is none, or names what lies outside its segments */
export function tableFromWire(value: unknown, peer: string): BundleTable {
  const wrong = (): never => {
    throw new CorruptionError(`the peer ${peer} sent a table of a bundle that makes no sense`, {
      actual: peer,
    });
  };
  const { generation, guard, segments, objects } = (value ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof generation !== "string" || !/^[0-9a-f]{1,16}$/.test(generation)) return wrong();
  if (!Array.isArray(guard) || !Array.isArray(segments) || !Array.isArray(objects)) return wrong();
  const bySegment = new Map<number, { bytes: number; remote: Wire }>();
  for (const entry of segments as unknown[]) {
    if (!Array.isArray(entry) || !isCount(entry[0]) || !isCount(entry[1])) return wrong();
    bySegment.set(entry[0], { bytes: entry[1], remote: entry[2] as Wire });
  }
  const within = (segment: unknown, offset: unknown, bytes: number): boolean =>
    isCount(segment) && isCount(offset) && offset + bytes <= (bySegment.get(segment)?.bytes ?? -1);
  if (!within(guard[0], guard[1], GUARD_BYTES)) return wrong();
  const byKey = new Map<string, { segment: number; offset: number; bytes: number }>();
  for (const entry of objects as unknown[]) {
    if (!Array.isArray(entry)) return wrong();
    const [key, segment, offset, bytes] = entry as unknown[];
    if (typeof key !== "string" || !isCount(bytes) || !within(segment, offset, bytes)) return wrong();
    byKey.set(key, { segment: segment as number, offset: offset as number, bytes });
  }
  return {
    generation: BigInt(`0x${generation}`),
    guard: [guard[0] as number, guard[1] as number],
    segments: bySegment,
    objects: byKey,
  };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/**
 * A guard begins a bundle's memory: magic, generation and length, each of 64 bits, little-endian. Its generation changes
 * before the memory is used again, so a reader that has READ its ranges and finds the guard unchanged has what it asked for.
 */
export const GUARD_BYTES: number = 24;
/** The first word of a guard: `BFPEER\0\1`. */
export const GUARD_MAGIC: bigint = 0x0100_5245_4550_4642n;
