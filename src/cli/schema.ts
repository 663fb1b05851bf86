/**
 * Schema files, and columns of files held to them.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import type { Column } from "../batch/column.ts";
import { isNumericDType } from "../batch/dtype.ts";
import { parseJson } from "../batch/json.ts";
import type { Tensor } from "../batch/tensor.ts";
import { ConfigError, SchemaError } from "../errors.ts";
import { type FieldSchema, parseSchema } from "../transfer/field_schema.ts";
import { fileError } from "./files.ts";

/** Reads a schema file: a JSON object of field name → schema. */
export function readSchemaFile(path: string): Map<string, FieldSchema> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw fileError(error, "read", path);
  }
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (cause) {
    throw new ConfigError(`${path}: no JSON: ${(cause as Error).message}`, { cause });
  }
  return parseSchema(value, path);
}

/** The most rows of a ragged column none of which has an element. */
const MAX_EMPTY_ROWS = 65_536;

/**
 * A tensor of a file as the column its schema says: itself, scalars (shape `[rows]`), or ragged rows.
 *
 * @throws {SchemaError} where it does not fit
 */
export function fitTensor(
  path: string,
  field: string,
  tensor: Tensor,
  schema: FieldSchema | undefined,
): Column {
  if (schema?.kind === undefined) return tensor;
  const { kind, dtype, shape } = schema;
  const fail = (expected: unknown, actual: unknown): never => {
    throw new SchemaError(
      `${path}: field ${JSON.stringify(field)} does not match its schema from row 0 on: ` +
        `expected ${JSON.stringify(expected)}, the file has ${JSON.stringify(actual)}`,
      { field, expected, actual },
    );
  };
  if (dtype !== undefined && dtype !== tensor.dtype) return fail(dtype, tensor.dtype);
  const row = tensor.shape.slice(1);
  if (kind === "tensor") {
    if (shape !== undefined && shape.join() !== row.join()) return fail(["rows", ...shape], tensor.shape);
    return tensor;
  }
  if (!isNumericDType(tensor.dtype)) return fail(`a dtype of ${kind}`, tensor.dtype);
  const common = { rows: tensor.rows, nulls: null, dtype: tensor.dtype, data: tensor.bytes };
  if (kind === "scalars" && row.length === 0) return { kind, ...common };
  if (kind === "ragged" && row.length > 0) {
    // no byte of the file bears out such rows, and each would take memory
    if (tensor.bytes.byteLength === 0 && tensor.rows > MAX_EMPTY_ROWS) {
      return fail(`at most ${MAX_EMPTY_ROWS} rows without elements`, tensor.shape);
    }
    const length = row.reduce((product, extent) => product * extent, 1);
    const offsets = Uint32Array.from({ length: tensor.rows + 1 }, (_, i) => i * length);
    const shapes = row.length === 1 ? null : Array.from({ length: tensor.rows }, () => row);
    return { kind, ...common, offsets, shapes, rowFormat: "ndarray" };
  }
  return fail(kind, `a tensor of shape ${JSON.stringify(tensor.shape)}`);
}
