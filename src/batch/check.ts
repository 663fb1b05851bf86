/**
 * Checks on columns that did not come from a constructor of this library.
 *
 * @module
 */

import { SchemaError } from "../errors.ts";
import type { Column, Kind } from "./column.ts";
import { dtypeText, isNumericDType, itemSize } from "./dtype.ts";
import { Tensor } from "./tensor.ts";

const KINDS: readonly Kind[] = ["tensor", "scalars", "ragged", "strings", "bytes", "json", "records"];

/** True for what says it is a column; {@linkcode checkColumn} tells whether it is one. */
export function isColumn(value: unknown): value is Column {
  if (value instanceof Tensor) return true;
  if (typeof value !== "object" || value === null) return false;
  const { kind } = value as { kind?: unknown };
  return kind !== "tensor" && KINDS.some((known) => known === kind);
}

/**
 * Checks that the parts of a column agree with one another.
 *
 * @param field named in the error
 * @throws {SchemaError} where they do not
 */
export function checkColumn(field: string, column: Column): void {
  const problem = findProblem(column);
  if (problem === undefined) return;
  throw new SchemaError(`field ${JSON.stringify(field)} is no ${column.kind} column: ${problem}`, {
    field,
    actual: problem,
    hint: `make it with ${column.kind}()`,
  });
}

function findProblem(column: Column): string | undefined {
  if (column.kind === "tensor") return undefined;
  const { rows, nulls } = column;
  if (!Number.isSafeInteger(rows) || rows < 0) return "its row count is no whole number";
  if (nulls !== null && !(nulls instanceof Uint8Array && nulls.length === rows)) {
    return "its nulls are not a byte a row";
  }
  if (column.kind === "records") {
    return Array.isArray(column.values) && column.values.length === rows
      ? undefined
      : "it has not a value a row";
  }
  if (!(column.data instanceof Uint8Array)) return "its data is no Uint8Array";
  let size = 1;
  if (column.kind === "scalars" || column.kind === "ragged") {
    if (!isNumericDType(column.dtype)) return `its dtype is ${dtypeText(column.dtype)}`;
    size = itemSize(column.dtype);
  }
  if (column.kind === "scalars") {
    return column.data.byteLength === rows * size ? undefined : "its data is not an element a row";
  }
  const { offsets } = column;
  if (!(offsets instanceof Uint32Array) || offsets.length !== rows + 1) return "it has not rows + 1 offsets";
  if (offsets[0] !== 0) return "its first offset is not 0";
  for (let row = 0; row < rows; row++) if (offsets[row]! > offsets[row + 1]!) return "its offsets go down";
  if (offsets[rows]! * size !== column.data.byteLength) return "its last offset is not the end of its data";
  if (column.kind !== "ragged") return undefined;
  if (column.rowFormat !== "list" && column.rowFormat !== "ndarray") return "its row format is unknown";
  return column.shapes === null ? undefined : shapeProblem(column.shapes, offsets, nulls);
}

function shapeProblem(
  shapes: readonly (readonly number[] | null)[],
  offsets: Uint32Array,
  nulls: Uint8Array | null,
): string | undefined {
  if (shapes.length !== offsets.length - 1) return "it has not a shape a row";
  for (const [row, shape] of shapes.entries()) {
    if (nulls !== null && nulls[row] === 1) continue;
    const elements = shape?.reduce((product, dimension) => product * dimension, 1);
    if (elements !== offsets[row + 1]! - offsets[row]!) return `the shape of row ${row} is not its length`;
  }
  return undefined;
}

/** What a caller gave, in a few words. */
export function describeInput(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) {
    if (value.length === 0) return "an empty array";
    const kinds = new Set(value.slice(0, 100).map((item) => item === null ? "null" : nameOf(item)));
    return `an array of ${[...kinds].join(" and ")}`;
  }
  return nameOf(value);
}

function nameOf(value: unknown): string {
  return typeof value === "object" && value !== null ? value.constructor?.name ?? "object" : typeof value;
}
