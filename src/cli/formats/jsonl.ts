/**
 * JSONL files: one JSON object a line, one field a key.
 *
 * @module
 */

import type { Column } from "../../batch/column.ts";
import { MAX_PAYLOAD_BYTES } from "../../batch/tensor.ts";
import { SchemaError } from "../../errors.ts";
import { InputFile } from "../files.ts";
import type { FieldSchema } from "../../transfer/field_schema.ts";
import type { FileColumns, Format } from "./format.ts";
import { failRow, inferredColumn } from "./jsonl_columns.ts";
import { declaredColumn } from "./jsonl_declared.ts";
import { scanJsonl } from "./jsonl_scan.ts";
import { write } from "./jsonl_write.ts";

/** The format for `.jsonl`. */
export const jsonl: Format = { read, write };

function read(path: string, schema: ReadonlyMap<string, FieldSchema>): FileColumns {
  const bytes = readBytes(path);
  const file = scanJsonl(path, bytes);
  const columns = new Map<string, Column>();
  for (const column of file.columns) {
    const field = schema.get(column.name);
    const made = field?.kind === undefined
      ? inferredColumn(file, column)
      : declaredColumn(file, column, field);
    const row = made.nulls?.indexOf(1) ?? -1;
    if (field?.nullable === false && row >= 0) failRow(file, column, row, "a value (it is not nullable)");
    columns.set(column.name, made);
  }
  return { rows: file.rows, columns };
}

function readBytes(path: string): Uint8Array {
  using file = new InputFile(path);
  if (file.size >= MAX_PAYLOAD_BYTES) {
    throw new SchemaError(`${path}: ${file.size} bytes are more than a JSONL file may have here`, {
      expected: `less than ${MAX_PAYLOAD_BYTES} bytes`,
      actual: file.size,
      hint: "split the rows over several files, or keep large tensors in .safetensors",
    });
  }
  return file.read(0, file.size);
}
