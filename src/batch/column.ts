/**
 * Columns as they are held in memory: the layout the stored form has, so that neither a put nor a read rewrites them.
 *
 * @module
 */

import type { NumericDType } from "./dtype.ts";
import type { Tensor } from "./tensor.ts";

/** The kinds of column. The kind is explicit and survives a round trip. */
export type Kind = "tensor" | "scalars" | "ragged" | "strings" | "bytes" | "json" | "records";

/**
 * Ways to store a column other than its kind's own, by the name of Mooncake's codec: for rows that Python is to get as
 * tensors, images or MessagePack values. `jagged` is a nested torch tensor in the section `batch`.
 *
 * A column that was read from one of these carries its name, so that putting it again keeps it.
 */
export type StoredAs =
  | "msgpack_ragged"
  | "ragged_tensor"
  | "ragged_tensor_dict"
  | "media_bytes"
  | "media_list_ragged"
  | "jagged";

/** Which kinds each of them can store. */
export const STORED_AS: Readonly<Record<StoredAs, readonly Kind[]>> = {
  msgpack_ragged: ["json", "records"],
  ragged_tensor: ["ragged"],
  ragged_tensor_dict: ["records"],
  media_bytes: ["bytes", "records"],
  media_list_ragged: ["records"],
  jagged: ["ragged", "records"],
};

/** Says whether borrowed memory behind a column is still there. */
export interface Guard {
  readonly released: boolean;
}

interface ColumnBase {
  readonly rows: number;
  /** `nulls[i]` is 1 where row i is null; null where no row is. One byte a row. */
  readonly nulls: Uint8Array | null;
  /** Set on columns over borrowed memory; they throw ClosedError once it is released. */
  readonly guard?: Guard | undefined;
  /** How it is stored, where not in its kind's own way. */
  readonly storedAs?: StoredAs | undefined;
}

/** Nullable numbers: element i of `data` is row i, zero where it is null. */
export interface ScalarsColumn extends ColumnBase {
  readonly kind: "scalars";
  readonly dtype: NumericDType;
  /** `rows` elements, little-endian. */
  readonly data: Uint8Array;
}

/** Numeric rows of different lengths, back to back. */
export interface RaggedColumn extends ColumnBase {
  readonly kind: "ragged";
  readonly dtype: NumericDType;
  readonly data: Uint8Array;
  /** `rows + 1` element offsets, `offsets[0]` is 0; a null row is empty. */
  readonly offsets: Uint32Array;
  /** The shape of each row where any row has other than one dimension (null for a null row); else null. */
  readonly shapes: readonly (readonly number[] | null)[] | null;
  /** Rows come back as arrays of numbers ("list"), or as typed arrays ("ndarray"). */
  readonly rowFormat: "list" | "ndarray";
}

/** Byte strings back to back: UTF-8 text, raw bytes, or one JSON text a row. */
export interface VarlenColumn extends ColumnBase {
  readonly kind: "strings" | "bytes" | "json";
  readonly data: Uint8Array;
  /** `rows + 1` byte offsets, `offsets[0]` is 0; a null row is empty. */
  readonly offsets: Uint32Array;
}

/** Nested values with tensor, typed-array or bytes leaves. */
export interface RecordsColumn extends ColumnBase {
  readonly kind: "records";
  readonly values: readonly unknown[];
}

/** Any column. */
export type Column = Tensor | ScalarsColumn | RaggedColumn | VarlenColumn | RecordsColumn;

/** A column of one kind. */
export type ColumnOf<K extends Kind> = K extends "tensor" ? Tensor
  : K extends "strings" | "bytes" | "json" ? VarlenColumn & { readonly kind: K }
  : Extract<Column, { readonly kind: K }>;
