/**
 * Input files as the columns of one batch.
 *
 * @module
 */

import { extname } from "node:path";
import type { Column } from "../batch/column.ts";
import { SchemaError } from "../errors.ts";
import type { FileColumns, Format } from "./formats/format.ts";
import { jsonl } from "./formats/jsonl.ts";
import { npy } from "./formats/npy.ts";
import { safetensors } from "./formats/safetensors.ts";
import type { FieldSchema } from "../transfer/field_schema.ts";
import { UsageError } from "./usage.ts";

const FORMATS: ReadonlyMap<string, Format> = new Map([
  [".safetensors", safetensors],
  [".jsonl", jsonl],
  [".npy", npy],
]);

/**
 * The format of a file, by its extension.
 *
 * @throws {UsageError} for an unknown one
 */
export function formatOf(path: string): Format {
  const extension = extname(path).toLowerCase();
  const format = FORMATS.get(extension);
  if (format !== undefined) return format;
  const known = [...FORMATS.keys()].join(", ");
  if (extension === ".parquet") {
    throw new UsageError(`${path}: .parquet is not supported yet; use one of ${known}`);
  }
  throw new UsageError(`${path}: the file must end in one of ${known}`);
}

/**
 * Reads files that together make one batch: each brings columns, all have the same rows.
 *
 * @param paths at least one
 * @throws {SchemaError} where row counts differ or a name comes twice; it names both files
 */
export function readInputs(
  paths: readonly string[],
  schema: ReadonlyMap<string, FieldSchema> = new Map(),
): FileColumns {
  const formats = paths.map(formatOf);
  const columns = new Map<string, Column>();
  const sources = new Map<string, string>();
  let rows: number | undefined;
  paths.forEach((path, i) => {
    const read = formats[i]!.read(path, schema);
    rows ??= read.rows;
    if (read.rows !== rows) {
      throw new SchemaError(`${paths[0]} has ${rows} rows and ${path} has ${read.rows}`, {
        expected: rows,
        actual: read.rows,
        hint: "files of one batch have the same rows",
      });
    }
    for (const [name, column] of read.columns) {
      const source = sources.get(name);
      if (source !== undefined) {
        throw new SchemaError(`field ${JSON.stringify(name)} is in ${source} and in ${path}`, {
          field: name,
        });
      }
      sources.set(name, path);
      columns.set(name, column);
    }
  });
  return { rows: rows ?? 0, columns };
}
