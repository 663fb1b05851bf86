/**
 * `structured_recursive`: nested dicts and lists whose leaves are columns of their own. The writing half.
 *
 * Values are taken apart only as far down as there are tensors, arrays or bytes in them; what is plain JSON
 * below that is one leaf.
 *
 * @module
 */

import { bytes, json, ragged, scalars, strings } from "../../batch/build.ts";
import type { RaggedColumn, RecordsColumn } from "../../batch/column.ts";
import { dtypeOfArray, isNumericDType, type NumericDType, type TypedArray } from "../../batch/dtype.ts";
import { isPlainObject, type Json, MAX_JSON_DEPTH } from "../../batch/json.ts";
import { Tensor } from "../../batch/tensor.ts";
import { SchemaError } from "../../errors.ts";
import type { EncodedColumn, EncodedPart } from "./codec.ts";
import { int64Part, maskPart } from "./common.ts";
import { encodeRagged } from "./ragged.ts";
import { dictPath, listPath } from "./recursive.ts";
import { encodeScalars } from "./scalars.ts";
import { encodeVarlen } from "./varlen.ts";

/** Every node and leaf is several stored objects, so there have to be few. */
const MAX_PARTS = 4096;

/** The value of a child that its parent does not have. */
const MISSING = Symbol("missing");
/**
 * The value of a child whose parent is null or absent itself. Python calls such nodes missing, and such
 * leaves null.
 */
const UNREACHED = Symbol("unreached");

function isMark(value: unknown): boolean {
  return value === MISSING || value === UNREACHED;
}

/** What values are, as far as storing them goes. */
type Form = "boolean" | "number" | "string" | "bytes" | "array" | "tensor" | "dict" | "list";

type Dict = Readonly<Record<string, unknown>>;

/**
 * The stored form of records.
 *
 * @throws SchemaError naming the path, for values that cannot be stored together.
 */
export function encodeRecords(field: string, column: RecordsColumn): EncodedColumn {
  const root = `non_tensor_batch.${field}`;
  const values = column.values.map((value, row) => column.nulls?.[row] === 1 ? null : value);
  const builder = new RecordsBuilder(field, column.rows);
  values.forEach((value) => builder.findBinary(value, 0));
  builder.add(root, values);
  return {
    codec: "structured_recursive",
    metadata: { structure_version: 1, root_path: root, nodes: builder.nodes, leaves: builder.leaves },
    parts: [...builder.nodeParts, ...builder.leafParts],
  };
}

class RecordsBuilder {
  readonly nodes: Json[] = [];
  readonly leaves: Json[] = [];
  readonly nodeParts: EncodedPart[] = [];
  readonly leafParts: EncodedPart[] = [];
  readonly #field: string;
  readonly #rows: number;
  /** Whether a dict or list has something in it that JSON has no form for. */
  readonly #binary = new Map<unknown, boolean>();

  constructor(field: string, rows: number) {
    this.#field = field;
    this.#rows = rows;
  }

  /** Finds the containers that have to be taken apart. */
  findBinary(value: unknown, depth: number): boolean {
    // NaN and the infinities: as scalars they have a form
    if (typeof value === "number") return !Number.isFinite(value);
    if (typeof value !== "object" || value === null) return false;
    if (value instanceof Tensor || ArrayBuffer.isView(value)) return true;
    if (depth > MAX_JSON_DEPTH) throw this.#refuse("a row", `nests deeper than ${MAX_JSON_DEPTH} levels`);
    let found = this.#binary.get(value);
    if (found === undefined) {
      found = false;
      for (const item of Array.isArray(value) ? value : Object.values(value)) {
        if (this.findBinary(item, depth + 1)) found = true;
      }
      this.#binary.set(value, found);
    }
    return found;
  }

  /** Adds what is at one path: a value a row; null, MISSING and UNREACHED among them. */
  add(path: string, values: readonly unknown[]): void {
    const forms = new Set<Form>();
    let container = false;
    for (const value of values) {
      if (value === null || isMark(value)) continue;
      forms.add(this.#formOf(path, value));
      container ||= this.#binary.get(value) === true;
    }
    const [form, other] = forms;
    if (container && other !== undefined) {
      throw this.#refuse(path, `is a ${form} in some rows and a ${other} in others`);
    }
    if (!container) this.#addLeaf(path, values, [...forms]);
    else if (form === "dict") this.#addDict(path, values);
    else this.#addList(path, values);
  }

  #addDict(path: string, values: readonly unknown[]): void {
    const isDict = values.map(isPlainObject);
    const dicts = values.filter((_, row) => isDict[row]) as readonly Dict[];
    const keys = [...new Set(dicts.flatMap((value) => Object.keys(value)))].sort();
    this.#addNode(path, "dict", keys, values, isDict);
    for (const key of keys) {
      if (!key.isWellFormed()) throw this.#refuse(path, "has a key with half of a surrogate pair");
      this.add(
        dictPath(path, key),
        values.map((value, row) => {
          if (!isDict[row]) return UNREACHED;
          return Object.hasOwn(value as Dict, key) ? (value as Dict)[key] : MISSING;
        }),
      );
    }
  }

  #addList(path: string, values: readonly unknown[]): void {
    const isList = values.map(Array.isArray);
    const lengths = new Uint32Array(values.length);
    values.forEach((value, row) => lengths[row] = isList[row] ? (value as readonly unknown[]).length : 0);
    const longest = lengths.reduce((max, length) => Math.max(max, length), 0);
    if (longest > MAX_PARTS) {
      throw this.#refuse(
        path,
        `has lists of ${longest} items with arrays, bytes or non-finite numbers in them`,
      );
    }
    this.#addNode(
      path,
      "list",
      Array.from({ length: longest }, (_, index) => index),
      values,
      isList,
      lengths,
    );
    for (let index = 0; index < longest; index++) {
      this.add(
        listPath(path, index),
        values.map((value, row) => {
          if (!isList[row]) return UNREACHED;
          return index < lengths[row]! ? (value as readonly unknown[])[index] : MISSING;
        }),
      );
    }
  }

  #addNode(
    path: string,
    type: "dict" | "list",
    children: readonly (string | number)[],
    values: readonly unknown[],
    present: readonly boolean[],
    lengths?: Uint32Array,
  ): void {
    const id = this.nodes.length;
    this.#checkCount(path);
    const name = (part: string): string => `node.${id}.${part}`;
    this.nodes.push({
      id,
      path,
      node_type: type,
      children,
      missing_payload: name("missing"),
      row_mask_payload: name("row_mask"),
      ...(lengths === undefined ? {} : { lengths_payload: name("lengths") }),
    });
    this.nodeParts.push(
      maskPart(name("missing"), this.#mask(values.map((value) => isMark(value))), this.#rows),
      maskPart(name("row_mask"), this.#mask(present), this.#rows),
    );
    if (lengths !== undefined) this.nodeParts.push(int64Part(name("lengths"), lengths, [this.#rows]));
  }

  #addLeaf(path: string, values: readonly unknown[], forms: readonly Form[]): void {
    const id = this.leaves.length;
    this.#checkCount(path);
    const missing = values.map((value) => value === MISSING);
    const encoded = this.#encodeLeaf(
      path,
      values.map((value) => isMark(value) ? null : value),
      forms,
    );
    const outer = (part: string): string => `leaf.${id}.${part}`;
    const parts = [...encoded.parts, maskPart("missing", this.#mask(missing), this.#rows)];
    this.leafParts.push(...parts.map((part) => ({ ...part, part: outer(part.part) })));
    this.leaves.push({
      id,
      path,
      codec: encoded.codec,
      rows: this.#rows,
      metadata: encoded.metadata,
      payload_members: Object.fromEntries(parts.map(({ part }) => [part, outer(part)])),
    });
  }

  /** A column for the values at one path; JSON where they are of several forms, or of none. */
  #encodeLeaf(path: string, values: readonly unknown[], forms: readonly Form[]): EncodedColumn {
    const [form, other] = forms;
    const binary = forms.find((each) => each === "bytes" || each === "array" || each === "tensor");
    if (other !== undefined && binary !== undefined) {
      throw this.#refuse(path, `is ${binary} in some rows and ${form === binary ? other : form} in others`);
    }
    try {
      if (other !== undefined) return encodeVarlen(json(values as Json[]));
      switch (form) {
        case "boolean":
          return encodeScalars(scalars("bool", values as (boolean | null)[]));
        case "number": {
          const dtype = numberType(values as (number | bigint | null)[]);
          if (dtype === undefined) return encodeVarlen(json(values as Json[]));
          return encodeScalars(scalars(dtype, values as (number | bigint | null)[]));
        }
        case "string":
          return encodeVarlen(strings(values as (string | null)[]));
        case "bytes":
          return encodeVarlen(bytes(values as (Uint8Array | null)[]));
        case "array":
          return encodeRagged(this.#ragged(path, values));
        case "tensor":
          return encodeRagged(this.#ragged(path, values), "ragged_tensor");
        default:
          return encodeVarlen(json(values as Json[]));
      }
    } catch (cause) {
      if (!(cause instanceof SchemaError) || cause.details.field !== undefined) throw cause;
      throw new SchemaError(`${path}: ${cause.message}`, {
        ...cause.details,
        field: this.#field,
        hint: undefined,
        cause,
      });
    }
  }

  /** Arrays or tensors of one dtype as a ragged column. */
  #ragged(path: string, values: readonly unknown[]): RaggedColumn {
    const rows = values as readonly (Tensor | TypedArray | null)[];
    const dtypes = new Set(rows.filter((row) => row !== null).map(dtypeOf));
    const [dtype, other] = dtypes;
    if (other !== undefined) throw this.#refuse(path, `is ${dtype} in some rows and ${other} in others`);
    if (!isNumericDType(dtype)) {
      throw this.#refuse(path, `is ${dtype}, which NumPy does not have`, "convert it to float32 first");
    }
    return ragged(dtype, rows);
  }

  #formOf(path: string, value: unknown): Form {
    switch (typeof value) {
      case "boolean":
      case "string":
        return typeof value as Form;
      case "number":
      case "bigint":
        return "number";
      case "object":
        if (value instanceof Uint8Array) return "bytes";
        if (value instanceof Tensor) return "tensor";
        if (Array.isArray(value)) return "list";
        if (isPlainObject(value)) return "dict";
        if (ArrayBuffer.isView(value) && dtypeOfArray(value) !== undefined) return "array";
    }
    throw this.#refuse(
      path,
      `has a value of the type ${(value as object)?.constructor?.name ?? typeof value}`,
    );
  }

  #mask(rows: readonly boolean[]): Uint8Array {
    const mask = new Uint8Array(new ArrayBuffer(rows.length));
    rows.forEach((set, row) => mask[row] = set ? 1 : 0);
    return mask;
  }

  #checkCount(path: string): void {
    if (this.nodes.length + this.leaves.length < MAX_PARTS) return;
    throw this.#refuse(
      path,
      `is one of more than ${MAX_PARTS} dicts, lists and leaves`,
      "use a flatter form",
    );
  }

  #refuse(path: string, problem: string, hint?: string): SchemaError {
    const where = `field ${JSON.stringify(this.#field)}: ${path}`;
    return new SchemaError(`${where} ${problem}`, { field: this.#field, actual: problem, hint });
  }
}

function dtypeOf(value: Tensor | TypedArray): string {
  return value instanceof Tensor ? value.dtype : dtypeOfArray(value)!;
}

/**
 * The narrowest 64-bit dtype that holds all numbers exactly; undefined where big integers stand beside
 * fractions.
 */
function numberType(values: readonly (number | bigint | null)[]): NumericDType | undefined {
  let big = false;
  let fraction = false;
  let min = 0n;
  let max = 0n;
  for (const value of values) {
    if (value === null) continue;
    if (typeof value === "number" && (!Number.isSafeInteger(value) || Object.is(value, -0))) {
      fraction = true;
      continue;
    }
    if (typeof value === "number") continue;
    big = true;
    if (value < min) min = value;
    if (value > max) max = value;
  }
  if (fraction) return big ? undefined : "float64";
  const negative = min < 0n || values.some((value) => value !== null && value < 0);
  if (min >= -(2n ** 63n) && max < 2n ** 63n) return "int64";
  return !negative && max < 2n ** 64n ? "uint64" : undefined;
}
