/**
 * The side object that lists the ids of a bundle's rows.
 *
 * @module
 */

import { SchemaError } from "../errors.ts";
import {
  asArray,
  asString,
  below,
  corrupt,
  type Origin,
  parseJsonBytes,
  pythonJsonBytes,
} from "./json_text.ts";

/**
 * The bytes of a list of row ids.
 *
 * @throws SchemaError if there is not one id a row, or one is not a string.
 */
export function writeRowIds(ids: readonly string[], rows: number): Uint8Array {
  if (ids.length !== rows) {
    throw new SchemaError(`there are ${ids.length} row ids for ${rows} rows`, {
      expected: rows,
      actual: ids.length,
    });
  }
  const wrong = ids.findIndex((id) => typeof id !== "string" || !id.isWellFormed());
  if (wrong >= 0) {
    throw new SchemaError(`row id ${wrong} is not text`, {
      expected: "a well-formed string",
      actual: ids[wrong],
    });
  }
  return pythonJsonBytes(ids);
}

/**
 * Reads a list of row ids.
 *
 * @param rows How many there have to be.
 * @param key The key to name in errors.
 * @throws CorruptionError
 */
export function parseRowIds(bytes: Uint8Array, rows: number, key: string): string[] {
  const root: Origin = { key, path: "" };
  const ids = asArray(parseJsonBytes(bytes, root), root).map((id, index) => asString(id, below(root, index)));
  if (ids.length !== rows) corrupt(root, `has ${ids.length} row ids, not ${rows}`, ids.length);
  return ids;
}
