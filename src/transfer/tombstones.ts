/**
 * Tombstones: small objects beside a bundle that say which of its cells were deleted.
 *
 * Each deletion writes one of its own, `OBJECT-ID/tombstones/HEX`, so that two processes never overwrite each other's.
 *
 * @module
 */

import { type Json, parseJson, stringifyJson } from "../batch/json.ts";
import { RowSet } from "../batch/rowset.ts";
import { manifestKeyOf, newObjectId } from "../bundle/names.ts";
import { CorruptionError } from "../errors.ts";

const KEY = /^(.*\/[0-9a-f]{32})\/tombstones\/[0-9a-z]+$/s;

/** True for the key of a tombstone. */
export function isTombstoneKey(key: string): boolean {
  return KEY.test(key);
}

/** The manifest key of the bundle that a tombstone is of. */
export function bundleOfTombstone(key: string): string {
  return manifestKeyOf(KEY.exec(key)?.[1] as string);
}

/** A new tombstone of a bundle, ready to be put. The id after `tombstones` is no object id: it has a letter before. */
export function newTombstone(
  objectId: string,
  fields: readonly string[],
  rows: RowSet,
): { readonly key: string; readonly value: Uint8Array } {
  const value = stringifyJson({ v: 1, fields, rows: rows.toJSON() as Json });
  return { key: `${objectId}/tombstones/t${newObjectId()}`, value: new TextEncoder().encode(value) };
}

/**
 * What a tombstone says.
 *
 * @throws CorruptionError for bytes that are none
 */
export function readTombstone(
  key: string,
  bytes: Uint8Array,
): {
  readonly manifestKey: string;
  readonly fields: readonly string[];
  readonly rows: (limit: number) => RowSet;
} {
  let json: { v?: unknown; fields?: unknown; rows?: unknown } | null;
  try {
    json = parseJson(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as typeof json;
  } catch (cause) {
    throw new CorruptionError(`${key} is no JSON`, { key, cause });
  }
  const fields = json?.fields;
  if (json?.v !== 1 || !Array.isArray(fields) || !fields.every((field) => typeof field === "string")) {
    throw new CorruptionError(`${key} is no tombstone`, { key, actual: json });
  }
  return {
    manifestKey: bundleOfTombstone(key),
    fields,
    rows: (limit) => RowSet.fromJSON(json?.rows, limit),
  };
}

/** The deleted cells of one bundle. */
export class Tombstones {
  /** The objects that say so. */
  readonly keys: Set<string> = new Set();
  readonly #rows: number;
  readonly #dead = new Map<string, { readonly mask: Uint8Array; count: number }>();

  constructor(rows: number) {
    this.#rows = rows;
  }

  /** Notes cells as deleted. */
  add(fields: readonly string[], rows: RowSet): void {
    for (const field of fields) {
      let dead = this.#dead.get(field);
      if (dead === undefined) this.#dead.set(field, dead = { mask: new Uint8Array(this.#rows), count: 0 });
      for (const row of rows) {
        if (dead.mask[row] === 0) dead.count++;
        dead.mask[row] = 1;
      }
    }
  }

  /** True if a cell was deleted. */
  has(field: string, row: number): boolean {
    return this.#dead.get(field)?.mask[row] === 1;
  }

  /** True if every cell of a field was deleted. */
  covers(field: string): boolean {
    return this.#dead.get(field)?.count === this.#rows;
  }
}
