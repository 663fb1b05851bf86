/**
 * What every file format offers to the commands.
 *
 * @module
 */

import type { Batch } from "../../batch/batch.ts";
import type { Column } from "../../batch/column.ts";
import { MAX_DIMENSIONS, type Tensor } from "../../batch/tensor.ts";
import { SchemaError } from "../../errors.ts";
import type { OutputFile } from "../files.ts";
import type { FieldSchema } from "../../transfer/field_schema.ts";

/** Columns of one row count, in the order the file has them. */
export interface FileColumns {
  readonly rows: number;
  readonly columns: Map<string, Column>;
}

/** A file format: a reader and a writer. */
export interface Format {
  /** Reads a whole file. Fields that `schema` names get the kind it says; others the file's own or an inferred one. */
  read(path: string, schema: ReadonlyMap<string, FieldSchema>): FileColumns;
  /** Throws before anything is read or written where fields of these names cannot be put into such a file. */
  checkFields?(path: string, fields: readonly string[]): void;
  /** Writes `batch`; the columns in their order. */
  write(file: OutputFile, batch: Batch): Promise<void>;
}

/**
 * Checks that an array of a file has rows, and not too many dimensions.
 *
 * @throws {SchemaError} naming the file, the array and where its data begins
 */
export function checkRank(path: string, field: string, shape: readonly number[], offset: number): void {
  const rank = shape.length;
  if (rank >= 1 && rank <= MAX_DIMENSIONS) return;
  const what = rank === 0 ? "no dimension for rows" : `${rank} dimensions`;
  throw new SchemaError(`${path}: tensor ${JSON.stringify(field)} at offset ${offset} has ${what}`, {
    field,
    expected: `shape [rows, …] of 1 to ${MAX_DIMENSIONS} dimensions`,
    actual: shape,
  });
}

/** The dtype, shape and bytes of a column in a file of plain arrays. */
export type ArrayPart = Pick<Tensor, "dtype" | "shape" | "bytes">;

/**
 * A column as one plain array: a tensor, or scalars without nulls.
 *
 * @throws {SchemaError} for every other column; `format` is named in it
 */
export function arrayPart(name: string, column: Column, format: string): ArrayPart {
  if (column.kind === "tensor") return column;
  if (column.kind === "scalars") {
    const row = column.nulls?.indexOf(1) ?? -1;
    if (row < 0) return { dtype: column.dtype, shape: [column.rows], bytes: column.data };
    throw new SchemaError(
      `field ${JSON.stringify(name)}: row ${row} is null, which ${format} files cannot hold`,
      {
        field: name,
        actual: null,
        hint: "write it to a .jsonl file",
      },
    );
  }
  throw new SchemaError(
    `field ${JSON.stringify(name)}: ${format} files hold tensors, this is ${column.kind}`,
    {
      field: name,
      expected: "tensor, or scalars without nulls",
      actual: column.kind,
      hint: "leave it out with --fields, or write a .jsonl file",
    },
  );
}
