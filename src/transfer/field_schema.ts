/**
 * Field schemas: what a field is, declared beforehand, or fixed by the first put of it in a partition.
 *
 * @module
 */

import { type Column, type Kind, STORED_AS, type StoredAs } from "../batch/column.ts";
import { type DType, dtypeText, isDType, isNumericDType } from "../batch/dtype.ts";
import { ConfigError, SchemaError } from "../errors.ts";

/** What a schema says about one field. */
export interface FieldSchema {
  /** Absent: inferred, and only `nullable` counts. */
  readonly kind?: Kind;
  readonly dtype?: DType;
  /** The shape of one row; of a tensor only. */
  readonly shape?: readonly number[];
  readonly nullable: boolean;
  /** How it is stored, where not in its kind's own way. */
  readonly storedAs?: StoredAs;
}

const KINDS: readonly Kind[] = ["tensor", "scalars", "ragged", "strings", "bytes", "json", "records"];

/** ROLL's codec names; `auto` leaves the kind to inference. */
const CODECS: Readonly<Record<string, Kind | null>> = {
  auto: null,
  ndarray: "scalars",
  typed_ragged: "ragged",
  ragged_tensor: "ragged",
  utf8_ragged: "strings",
  bytes_ragged: "bytes",
  media_bytes: "bytes",
  json_ragged: "json",
  msgpack_ragged: "json",
  ragged_tensor_dict: "records",
  media_list_ragged: "records",
  jagged: "ragged",
  structured_recursive: "records",
};

/**
 * Field schemas from their JSON form, ours or ROLL's.
 *
 * @param where what errors name: a file, or a key of the configuration
 * @throws {ConfigError} naming the field and what is wrong
 */
export function parseSchema(value: unknown, where: string): Map<string, FieldSchema> {
  if (!isObject(value)) throw new ConfigError(`${where}: field schemas are an object of field name → schema`);
  return new Map(Object.entries(value).map(([field, entry]) => [field, parseField(entry, field, where)]));
}

function parseField(entry: unknown, field: string, where: string): FieldSchema {
  const fail = (why: string): never => {
    throw new ConfigError(`${where}: field ${JSON.stringify(field)}: ${why}`, { field });
  };
  if (!isObject(entry)) return fail("its schema is no object");
  const roll = Object.hasOwn(entry, "codec");
  const allowed = roll ? ["codec", "nullable", "metadata"] : ["kind", "dtype", "shape", "nullable"];
  for (const key of Object.keys(entry)) {
    if (!allowed.includes(key)) {
      fail(`unknown option ${JSON.stringify(key)}; known are ${allowed.join(", ")}`);
    }
  }
  const { nullable = true } = entry;
  if (typeof nullable !== "boolean") return fail("nullable is true or false");
  const { kind, dtype, shape } = roll ? fromCodec(entry, fail) : entry;
  if (kind !== undefined && !KINDS.includes(kind as Kind)) {
    fail(roll || Object.hasOwn(entry, "kind") ? `kind is one of ${KINDS.join(", ")}` : "kind is missing");
  }
  if (kind === undefined && !roll) return fail("kind is missing");
  const numeric = kind === "tensor" || kind === "scalars" || kind === "ragged";
  if (dtype !== undefined) {
    const known = kind === "tensor" ? isDType(dtype) : isNumericDType(dtype);
    if (!known) return fail(`${dtypeText(dtype)} is no dtype of kind ${String(kind)}`);
    if (!numeric) return fail(`kind ${String(kind)} has no dtype`);
  }
  if (shape !== undefined) {
    if (kind !== "tensor") return fail("only a tensor has a shape");
    if (!Array.isArray(shape) || !shape.every((size) => Number.isSafeInteger(size) && size >= 0)) {
      return fail("shape is a list of sizes, without the rows");
    }
  }
  const storedAs = roll && kind !== "tensor" && Object.hasOwn(STORED_AS, entry.codec as string)
    ? entry.codec as StoredAs
    : undefined;
  return {
    ...(storedAs === undefined ? {} : { storedAs }),
    ...(kind === undefined ? {} : { kind: kind as Kind }),
    ...(dtype === undefined ? {} : { dtype: dtype as DType }),
    ...(shape === undefined ? {} : { shape: shape as number[] }),
    nullable,
  };
}

/** Kind and dtype of ROLL's form; a codec in the section `batch` means a tensor. */
function fromCodec(
  entry: Record<string, unknown>,
  fail: (why: string) => never,
): { kind?: unknown; dtype?: unknown; shape?: unknown } {
  const { codec, metadata = {} } = entry;
  if (typeof codec !== "string" || !Object.hasOwn(CODECS, codec)) {
    return fail(`codec is one of ${Object.keys(CODECS).join(", ")}`);
  }
  if (!isObject(metadata)) return fail("metadata is an object");
  const { section, dtype: name } = metadata;
  if (section !== undefined && section !== "batch" && section !== "non_tensor_batch") {
    return fail("section is batch or non_tensor_batch");
  }
  const kind = section === "batch" ? "tensor" : CODECS[codec]!;
  const numeric = kind === "tensor" || kind === "scalars" || kind === "ragged";
  const dtype = typeof name === "string" ? name.replace(/^torch\./, "") : name;
  return { ...(kind === null ? {} : { kind }), ...(numeric && dtype !== undefined ? { dtype } : {}) };
}

/** The form of a field, and where it was fixed. */
interface Form {
  readonly kind: Kind;
  readonly dtype: DType | undefined;
  /** How many dimensions a tensor has, its rows included. */
  readonly dimensions: number | undefined;
}

function formOf(column: Column): Form {
  return {
    kind: column.kind,
    dtype: "dtype" in column ? column.dtype : undefined,
    dimensions: column.kind === "tensor" ? column.shape.length : undefined,
  };
}

function formText({ kind, dtype, dimensions }: Form): string {
  return [kind, dtype, dimensions === undefined ? undefined : `${dimensions}-D`].filter((part) =>
    part !== undefined
  )
    .join(" ");
}

/** Columns without a row that is not null say nothing of their dtype. */
function saysNothing(column: Column): boolean {
  return column.kind !== "tensor" &&
    (column.rows === 0 || column.nulls?.every((isNull) => isNull !== 0) === true);
}

/**
 * Holds every put to what was declared for its fields, and to what the first put of a field in the partition was: its
 * kind, its dtype, and of a tensor the number of dimensions.
 */
export class FieldForms {
  readonly #declared: ReadonlyMap<string, FieldSchema>;
  readonly #partitions = new Map<string, Map<string, Form>>();

  constructor(declared: ReadonlyMap<string, FieldSchema>) {
    this.#declared = declared;
  }

  /**
   * Checks columns that are about to be put.
   *
   * @returns a function that fixes their forms; called once they are stored
   * @throws SchemaError with both sides
   */
  check(partition: string, columns: ReadonlyMap<string, Column>): () => void {
    const known = this.#partitions.get(partition);
    for (const [field, column] of columns) {
      const declared = this.#declared.get(field);
      if (declared !== undefined) checkDeclared(partition, field, column, declared);
      const first = known?.get(field);
      const form = formOf(column);
      if (first === undefined || formText(first) === formText(form)) continue;
      if (first.kind === form.kind && saysNothing(column)) continue;
      throw new SchemaError(
        `field ${JSON.stringify(field)} is ${formText(first)} in ${JSON.stringify(partition)}, not ${
          formText(form)
        }`,
        {
          partition,
          field,
          expected: formText(first),
          actual: formText(form),
          hint: "a field keeps the form of its first put in a partition; use another name",
        },
      );
    }
    return () => {
      let forms = this.#partitions.get(partition);
      if (forms === undefined) this.#partitions.set(partition, forms = new Map());
      for (const [field, column] of columns) {
        if (!forms.has(field) && !saysNothing(column)) forms.set(field, formOf(column));
      }
    };
  }

  /** How a field is to be stored, where that was declared. */
  storedAs(field: string): StoredAs | undefined {
    return this.#declared.get(field)?.storedAs;
  }

  /** Forgets what was fixed for a partition. */
  forget(partition: string): void {
    this.#partitions.delete(partition);
  }
}

function checkDeclared(partition: string, field: string, column: Column, declared: FieldSchema): void {
  const fail = (expected: unknown, actual: unknown): never => {
    throw new SchemaError(
      `field ${JSON.stringify(field)} does not match its schema: ${
        JSON.stringify(expected)
      } was declared, and ` +
        `${JSON.stringify(actual)} was put`,
      { partition, field, expected, actual },
    );
  };
  const { kind, dtype, shape, nullable, storedAs } = declared;
  const kinds = storedAs === undefined ? [kind] : STORED_AS[storedAs];
  if (kind !== undefined && !kinds.includes(column.kind)) fail(kind, column.kind);
  if (dtype !== undefined && "dtype" in column && column.dtype !== dtype && !saysNothing(column)) {
    fail(dtype, column.dtype);
  }
  if (shape !== undefined && column.kind === "tensor") {
    const row = column.shape.slice(1);
    if (row.join() !== shape.join()) fail(["rows", ...shape], column.shape);
  }
  if (!nullable && hasNull(column)) fail("no nulls", "nulls");
}

function hasNull(column: Column): boolean {
  return column.nulls?.some((isNull) => isNull !== 0) === true;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
