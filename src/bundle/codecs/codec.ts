/**
 * What a codec for non-tensor fields is.
 *
 * @module
 */

import type { Column, Guard, Kind } from "../../batch/column.ts";
import type { NumericDType } from "../../batch/dtype.ts";
import type { JsonObject } from "../../batch/json.ts";
import type { RowSet } from "../../batch/rowset.ts";
import type { FieldSpec } from "../meta.ts";
import type { PartSource } from "../part_source.ts";
import type { PartLayout, Parts } from "../parts.ts";

/** What is known of a field before a byte of it is read. */
export interface CodecInfo {
  readonly kind: Kind;
  readonly dtype?: NumericDType;
  readonly rowFormat?: "list" | "ndarray";
}

/** Reads one form of non-tensor field. One codec, one file. */
export interface Codec {
  /** What the field is. Throws what reading it will throw. */
  info(source: PartSource): CodecInfo;
  /** How its parts depend on rows. */
  layout(source: PartSource): readonly PartLayout[];
  /**
   * Makes the column.
   *
   * @param rows Which rows the parts are of, strictly ascending.
   * @param guard Set where the parts are views of borrowed memory.
   */
  decode(source: PartSource, rows: RowSet, parts: Parts, guard?: Guard): Column;
}

/** One part of an encoded field. */
export interface EncodedPart {
  readonly part: string;
  readonly spec: FieldSpec;
  readonly bytes: readonly Uint8Array[];
  /** Bytes of a row, where all rows have as many. */
  readonly rowBytes: number | null;
}

/** A column in stored form; part names are still its own. */
export interface EncodedColumn {
  readonly codec: string;
  readonly metadata: JsonObject;
  readonly parts: readonly EncodedPart[];
}
