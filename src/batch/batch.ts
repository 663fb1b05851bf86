/**
 * Batches: named columns with one row count.
 *
 * @module
 */

import { SchemaError } from "../errors.ts";
import { checkColumn, describeInput, isColumn } from "./check.ts";
import type { Column, ColumnOf, Kind } from "./column.ts";
import { bytesOf, dtypeOfArray, type TypedArray } from "./dtype.ts";
import { freezeJson, isPlainObject, type Json, type JsonObject } from "./json.ts";
import {
  bytesRows,
  type ColumnRows,
  jsonRows,
  position,
  type RaggedRow,
  raggedRows,
  rowsOf,
  type Scalar,
  scalarRows,
  stringRows,
} from "./rows.ts";
import { Tensor } from "./tensor.ts";

export { ColumnRows } from "./rows.ts";
export type { RaggedRow, Scalar } from "./rows.ts";

/** What can be put: columns by name, where a bare typed array is a tensor of one dimension; or a batch. */
export type Fields = Readonly<Record<string, Column | Tensor | TypedArray>> | Batch;

/**
 * Named columns with one row count, in memory.
 *
 * @example
 * ```ts
 * for (const row of batch) console.log(row.prompt, row.score);
 * batch.tensor("input_ids").shape; // [rows, length]
 * batch.strings("prompt").at(-1);
 * ```
 */
export class Batch implements Iterable<Record<string, unknown>> {
  /** How many rows every column has. */
  readonly rows: number;
  /** The names of the columns, in order. */
  readonly fields: readonly string[];
  /** JSON about the batch as a whole; frozen. */
  readonly meta: JsonObject;
  readonly #columns: ReadonlyMap<string, Column>;
  readonly #decoded = new Map<string, ColumnRows<unknown>>();

  /**
   * @param rows how many rows every column has
   * @param columns by name; the map is copied, the columns are not
   * @param meta JSON, copied
   * @throws {SchemaError} where a column has other than `rows` rows, or `meta` is no JSON object
   */
  constructor(
    rows: number,
    columns: ReadonlyMap<string, Column> | Iterable<readonly [string, Column]>,
    meta: JsonObject = {},
  ) {
    const map = new Map(columns);
    for (const [field, column] of map) checkRows(field, column, rows);
    this.rows = rows;
    this.fields = Object.freeze([...map.keys()]);
    this.meta = freezeJson(meta);
    this.#columns = map;
  }

  /** True if there is a column of this name. */
  has(field: string): boolean {
    return this.#columns.has(field);
  }

  /**
   * A column of any kind, as it is held.
   *
   * @throws {SchemaError} where there is none of this name
   */
  column(field: string): Column {
    const column = this.#columns.get(field);
    if (column === undefined) {
      throw new SchemaError(`there is no field ${JSON.stringify(field)} in the batch`, {
        field,
        expected: this.fields,
        actual: field,
        hint: this.fields.length === 0
          ? "the batch has no fields"
          : `its fields are ${this.fields.join(", ")}`,
      });
    }
    return column;
  }

  #kind<K extends Kind>(field: string, kind: K): ColumnOf<K> {
    const column = this.column(field);
    if (column.kind !== kind) {
      throw new SchemaError(`field ${JSON.stringify(field)} is of kind ${column.kind}, not ${kind}`, {
        field,
        expected: kind,
        actual: column.kind,
        hint: `use .${column.kind}(${JSON.stringify(field)})`,
      });
    }
    return column as unknown as ColumnOf<K>;
  }

  #rows<T>(field: string, make: () => ColumnRows<T>): ColumnRows<T> {
    let rows = this.#decoded.get(field) as ColumnRows<T> | undefined;
    if (rows === undefined) this.#decoded.set(field, rows = make());
    return rows;
  }

  /**
   * A tensor column.
   *
   * @throws {SchemaError} where the field is of another kind, or is not there
   */
  tensor(field: string): Tensor {
    return this.#kind(field, "tensor");
  }

  /**
   * The rows of a scalars column: numbers, bigints where a 64-bit integer is beyond ±(2^53−1), booleans for bool.
   *
   * @throws {SchemaError} where the field is of another kind, or is not there
   */
  scalars(field: string): ColumnRows<Scalar | null> {
    const column = this.#kind(field, "scalars");
    return this.#rows(field, () => scalarRows(column));
  }

  /**
   * The rows of a ragged column: typed arrays, or arrays of numbers where they were given so; Tensors or nested arrays
   * for rows of more than one dimension. Arrays share the batch's memory.
   *
   * @throws {SchemaError} where the field is of another kind, or is not there
   */
  ragged(field: string): ColumnRows<RaggedRow | null> {
    const column = this.#kind(field, "ragged");
    return this.#rows(field, () => raggedRows(column));
  }

  /**
   * The rows of a strings column.
   *
   * @throws {SchemaError} where the field is of another kind, or is not there
   */
  strings(field: string): ColumnRows<string | null> {
    const column = this.#kind(field, "strings");
    return this.#rows(field, () => stringRows(column));
  }

  /**
   * The rows of a bytes column; they share the batch's memory.
   *
   * @throws {SchemaError} where the field is of another kind, or is not there
   */
  bytes(field: string): ColumnRows<Uint8Array | null> {
    const column = this.#kind(field, "bytes");
    return this.#rows(field, () => bytesRows(column));
  }

  /**
   * The rows of a json column, each parsed at its first access; integers beyond ±(2^53−1) are bigints.
   *
   * @throws {SchemaError} where the field is of another kind, or is not there
   */
  json(field: string): ColumnRows<Json> {
    const column = this.#kind(field, "json");
    return this.#rows(field, () => jsonRows(column));
  }

  /**
   * The rows of a records column.
   *
   * @throws {SchemaError} where the field is of another kind, or is not there
   */
  records(field: string): ColumnRows<unknown> {
    const column = this.#kind(field, "records");
    return this.#rows(field, () => rowsOf(column));
  }

  /**
   * One row: an object with a value for each field, as the accessors give them. A tensor of shape `[rows]` gives a
   * number (a boolean for bool), any other a Tensor of the row's shape over the batch's own memory.
   *
   * @param row its position; a negative one counts from the end
   * @throws {SchemaError} where there is no such row
   */
  at(row: number): Record<string, unknown> {
    const at = position(row, this.rows);
    // fromEntries makes own properties of all names, __proto__ too
    return Object.fromEntries(
      this.fields.map((field) => [field, this.#rows(field, () => rowsOf(this.column(field))).at(at)]),
    );
  }

  /** The rows in order; see {@linkcode Batch.at}. */
  *[Symbol.iterator](): Generator<Record<string, unknown>, void, undefined> {
    for (let row = 0; row < this.rows; row++) yield this.at(row);
  }
}

function checkRows(field: string, column: Column, rows: number): void {
  if (column.rows !== rows) {
    throw new SchemaError(`field ${JSON.stringify(field)} has ${column.rows} rows instead of ${rows}`, {
      field,
      expected: rows,
      actual: column.rows,
    });
  }
}

/**
 * The columns of what a caller puts, checked.
 *
 * @param fields columns by name, or a batch
 * @param expectedRows how many rows each must have; else as many as the first
 * @returns the columns in order; none for `{}`
 * @throws {SchemaError} naming the field, for values that are no column, unequal lengths and unusable names
 */
export function toColumns(fields: Fields, expectedRows?: number): Map<string, Column> {
  if (expectedRows !== undefined && !(Number.isSafeInteger(expectedRows) && expectedRows >= 0)) {
    throw new SchemaError("the number of rows is no whole number", {
      expected: "0 or more",
      actual: expectedRows,
    });
  }
  if (fields instanceof Batch) {
    const batch = fields;
    if (expectedRows !== undefined && batch.rows !== expectedRows) {
      throw new SchemaError(`a batch has ${batch.rows} rows instead of ${expectedRows}`, {
        expected: expectedRows,
        actual: batch.rows,
      });
    }
    for (const field of batch.fields) checkName(field);
    return new Map(batch.fields.map((field) => [field, batch.column(field)]));
  }
  if (!isPlainObject(fields)) {
    throw new SchemaError("fields are no object of columns by name", {
      expected: "an object such as { prompt: strings(prompts) }, or a Batch",
      actual: describeInput(fields),
    });
  }
  const columns = new Map<string, Column>();
  let rows = expectedRows;
  for (const [field, value] of Object.entries(fields)) {
    checkName(field);
    const column = toColumn(field, value);
    checkRows(field, column, rows ??= column.rows);
    columns.set(field, column);
  }
  return columns;
}

function toColumn(field: string, value: unknown): Column {
  if (value instanceof Tensor) return value;
  if (ArrayBuffer.isView(value)) {
    const dtype = dtypeOfArray(value);
    if (dtype !== undefined) return new Tensor(dtype, [(value as TypedArray).length], bytesOf(value));
  } else if (isColumn(value)) {
    checkColumn(field, value);
    return value;
  }
  throw new SchemaError(`field ${JSON.stringify(field)} is no column`, {
    field,
    expected: "a column or a typed array",
    actual: describeInput(value),
    hint: `use ${constructorFor(value)}`,
  });
}

/** The constructor a caller most likely wants. */
function constructorFor(value: unknown): string {
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) {
    return 'tensor("uint8", shape, new Uint8Array(…))';
  }
  if (!Array.isArray(value)) return "tensor, scalars, ragged, strings, bytes, json or records";
  const sample: unknown = value.find((row) => row !== null && row !== undefined);
  switch (typeof sample) {
    case "string":
      return "strings(rows)";
    case "number":
    case "bigint":
    case "boolean":
      return "tensor(dtype, [rows], data), or scalars(dtype, rows) where rows may be null";
    default:
      if (sample instanceof Uint8Array) return "bytes(rows), or ragged(dtype, rows)";
      if (Array.isArray(sample) || ArrayBuffer.isView(sample) || sample instanceof Tensor) {
        return "ragged(dtype, rows), or tensor(dtype, shape, data)";
      }
      return "json(rows), or records(rows)";
  }
}

/** Field names are parts of keys and of paths in manifests. */
function checkName(field: string): void {
  let problem: string | undefined;
  if (field === "") problem = "is empty";
  else if (field.includes("/")) problem = 'has a "/"';
  // deno-lint-ignore no-control-regex
  else if (/[\u0000-\u001f]/.test(field)) problem = "has a control character";
  else if (!field.isWellFormed()) problem = "has a lone surrogate";
  if (problem === undefined) return;
  throw new SchemaError(`the field name ${JSON.stringify(field)} ${problem}`, { field, actual: field });
}
