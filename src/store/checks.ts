/**
 * The rules that are the same in every store: what may be written, and what a read may ask for.
 *
 * @module
 */

import { CorruptionError, DroppedError, SchemaError } from "../errors.ts";
import { objectIdOf, type ReadRange } from "./store.ts";

/** The length of an object. */
export function partsBytes(parts: readonly Uint8Array[]): number {
  let bytes = 0;
  for (const part of parts) bytes += part.byteLength;
  return bytes;
}

/**
 * Checks the keys of a bundle that is to be written.
 *
 * @throws {SchemaError} where the object id is none, there is no key, one is not below the object id, or stands twice
 */
export function checkBundle(objectId: string, keys: readonly string[]): void {
  if (objectIdOf(objectId) !== objectId) {
    throw new SchemaError(`${JSON.stringify(objectId)} is no object id`, {
      expected: "PREFIX/PARTITION/ and 32 lowercase hex digits",
      actual: objectId,
    });
  }
  for (const key of keys) {
    // one more segment of 32 hex digits would make it a key of another bundle
    const rest = key.startsWith(objectId) && key[objectId.length] === "/"
      ? key.slice(objectId.length + 1)
      : "";
    if (rest !== "" && !rest.endsWith("/") && (rest.length < 32 || objectIdOf(rest) === undefined)) continue;
    throw new SchemaError(`key ${JSON.stringify(key)} is not below the bundle's object id`, {
      key,
      expected: `${objectId}/…`,
      actual: key,
    });
  }
  if (keys.length === 0) throw new SchemaError(`bundle ${objectId} has no objects`, { key: objectId });
  if (keys.length > 1 && new Set(keys).size < keys.length) {
    const key = keys.find((key, i) => keys.indexOf(key) < i);
    throw new SchemaError(`key ${JSON.stringify(key)} stands twice in one bundle`, { key });
  }
}

/** Object ids are never used again; this one is in use. */
export function objectIdInUse(objectId: string): SchemaError {
  return new SchemaError(`object id ${objectId} is in use`, {
    key: objectId,
    expected: "a new object id for every bundle",
    actual: objectId,
  });
}

/** Checks a key that is to be put alone. */
export function checkKey(key: string): void {
  if (key !== "" && !key.startsWith("/") && !key.endsWith("/")) return;
  throw new SchemaError(`${JSON.stringify(key)} is no key`, {
    key,
    expected: "segments separated by slashes, none at the ends",
    actual: key,
  });
}

/** Checks the prefix of a `deletePrefix`. */
export function checkPrefix(prefix: string): void {
  if (prefix.length > 1 && prefix.endsWith("/")) return;
  throw new SchemaError(`${JSON.stringify(prefix)} is no prefix to delete`, {
    expected: "…/",
    actual: prefix,
  });
}

/** Checks the sizes of an `allocate`, and copies them. */
export function checkSizes(payloadBytes: readonly number[]): readonly number[] {
  for (const bytes of payloadBytes) {
    if (Number.isSafeInteger(bytes) && bytes >= 0) continue;
    throw new SchemaError("a payload's size is a number of bytes", { expected: "0 or more", actual: bytes });
  }
  return [...payloadBytes];
}

/** One allocated payload as its writer describes it. */
export interface Placed {
  readonly key: string;
  readonly bytes: number;
}

/** Checks what a writer says of allocated payloads against what it was given. */
export function checkPlaced(placed: readonly Placed[], sizes: readonly number[]): void {
  if (placed.length !== sizes.length) {
    throw new SchemaError("every allocated payload has to be described", {
      expected: sizes.length,
      actual: placed.length,
    });
  }
  for (const [i, { key, bytes }] of placed.entries()) {
    const limit = key === "" ? 0 : sizes[i]!;
    if (Number.isSafeInteger(bytes) && bytes >= 0 && bytes <= limit) continue;
    throw new SchemaError(`payload ${i} (${key}) has room for ${limit} bytes`, {
      key,
      expected: limit,
      actual: bytes,
    });
  }
}

/**
 * Checks that a range is within its object of `size` bytes.
 *
 * @throws {CorruptionError} where it is not: whoever asked believed a manifest that is wrong
 */
export function checkRange({ key, offset, into }: ReadRange, size: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0 && offset + into.byteLength <= size) return;
  throw new CorruptionError(
    `${into.byteLength} bytes at ${offset} are not within ${key}, which has ${size}`,
    {
      key,
      expected: size,
      actual: offset + into.byteLength,
    },
  );
}

/** An object that is not there. */
export function droppedError(key: string): DroppedError {
  return new DroppedError(`${key} is not there: it was deleted, or never written`, { key });
}

/** Groups by object id; what belongs to none comes under undefined. */
export function groupByObject<T>(
  items: readonly T[],
  keyOf: (item: T) => string,
): Map<string | undefined, T[]> {
  const groups = new Map<string | undefined, T[]>();
  let lastKey: string | undefined;
  let group: T[] = [];
  for (const item of items) {
    const key = keyOf(item);
    // thousands of ranges of one object come one after the other
    if (key !== lastKey) {
      lastKey = key;
      const objectId = objectIdOf(key);
      const known = groups.get(objectId);
      if (known === undefined) groups.set(objectId, group = []);
      else group = known;
    }
    group.push(item);
  }
  return groups;
}
