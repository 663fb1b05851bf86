/**
 * Writing `media_bytes` and `media_list_ragged`: bytes and images, with what each item is in the metadata.
 *
 * @module
 */

import type { RecordsColumn, VarlenColumn } from "../../batch/column.ts";
import type { Json, JsonObject } from "../../batch/json.ts";
import { SchemaError } from "../../errors.ts";
import type { EncodedColumn } from "./codec.ts";
import { bytesPart, int64Part, maskPart } from "./common.ts";
import type { StoredImage } from "./media.ts";
import { encodeVarlen } from "./varlen.ts";

/** True for raw pixels as Python's PIL has them. */
export function isImage(value: unknown): value is StoredImage {
  const image = value as Partial<StoredImage> | null;
  return typeof image === "object" && image !== null && !Array.isArray(image) &&
    typeof image.mode === "string" && image.data instanceof Uint8Array && Array.isArray(image.size) &&
    image.size.length === 2 && image.size.every((side) => Number.isSafeInteger(side) && side >= 0) &&
    (image.format === null || typeof image.format === "string") && Object.keys(image).length === 4;
}

/** How Python infers records of media: images with bytes among them, or lists of either. Other records have no media. */
export function mediaCodecOf(column: RecordsColumn): "media_bytes" | "media_list_ragged" | undefined {
  const rows = column.values.filter((value) => value !== null);
  const isMedia = (value: unknown): boolean => value instanceof Uint8Array || isImage(value);
  if (rows.some(isImage) && rows.every(isMedia)) return "media_bytes";
  const lists = rows.length > 0 &&
    rows.every((row) => Array.isArray(row) && row.every((item) => item === null || isMedia(item)));
  // lists that are all empty, or all null, are as well anything else
  return lists && rows.some((row) => (row as unknown[]).some(isMedia)) ? "media_list_ragged" : undefined;
}

function describe(item: Uint8Array | StoredImage | null): Json {
  if (item === null) return { kind: "null" };
  if (item instanceof Uint8Array) return { kind: "bytes" };
  return { kind: "pil_raw", mode: item.mode, size: [...item.size], format: item.format };
}

function metadataOf(items: readonly (Uint8Array | StoredImage | null)[], list: boolean): JsonObject {
  const images = items.some(isImage);
  return {
    ...(images || list
      ? { media_encodings: items.map(describe), encode_source: "raw_pixels_from_object" }
      : {}),
    ...(images ? { media_types: ["image/raw"] } : {}),
  };
}

/** Bytes back to back. */
function join(
  items: readonly (Uint8Array | StoredImage | null)[],
): { data: Uint8Array; offsets: Uint32Array } {
  const bytes = items.map((item) =>
    item === null ? new Uint8Array(0) : item instanceof Uint8Array ? item : item.data
  );
  const offsets = new Uint32Array(new ArrayBuffer((items.length + 1) * 4));
  bytes.forEach((part, i) => offsets[i + 1] = offsets[i]! + part.byteLength);
  const data = new Uint8Array(new ArrayBuffer(bytes.reduce((sum, part) => sum + part.byteLength, 0)));
  bytes.forEach((part, i) => data.set(part, offsets[i]!));
  return { data, offsets };
}

/**
 * Bytes, or images with bytes among them, as `media_bytes`.
 *
 * @throws SchemaError for other values
 */
export function encodeMediaBytes(field: string, column: VarlenColumn | RecordsColumn): EncodedColumn {
  if (column.kind !== "records") return { ...encodeVarlen(column), codec: "media_bytes" };
  const items = column.values.map((value, row) => {
    if (value === null || value instanceof Uint8Array || isImage(value)) return value;
    throw refuse(field, row, "bytes, { mode, size, format, data }, or null");
  });
  const { data, offsets } = join(items);
  return {
    codec: "media_bytes",
    metadata: metadataOf(items, false),
    parts: [
      bytesPart("data", data),
      int64Part("offsets", offsets, [column.rows + 1]),
      maskPart("nulls", column.nulls, column.rows),
    ],
  };
}

/**
 * Lists of bytes and images as `media_list_ragged`.
 *
 * @throws SchemaError for other values
 */
export function encodeMediaLists(field: string, column: RecordsColumn): EncodedColumn {
  const { rows, nulls, values } = column;
  const items: (Uint8Array | StoredImage | null)[] = [];
  const rowOffsets = new Uint32Array(new ArrayBuffer((rows + 1) * 4));
  values.forEach((value, row) => {
    if (value !== null) {
      if (!Array.isArray(value)) throw refuse(field, row, "a list of bytes and images, or null");
      for (const item of value as unknown[]) {
        if (item !== null && !(item instanceof Uint8Array) && !isImage(item)) {
          throw refuse(field, row, "a list of bytes, { mode, size, format, data } and nulls");
        }
        items.push(item);
      }
    }
    rowOffsets[row + 1] = items.length;
  });
  const { data, offsets } = join(items);
  return {
    codec: "media_list_ragged",
    metadata: metadataOf(items, true),
    parts: [
      bytesPart("data", data),
      int64Part("row_offsets", rowOffsets, [rows + 1]),
      int64Part("byte_offsets", offsets, [items.length + 1]),
      maskPart("nulls", nulls, rows),
    ],
  };
}

function refuse(field: string, row: number, expected: string): SchemaError {
  return new SchemaError(`field ${JSON.stringify(field)}: row ${row} is not ${expected}`, {
    field,
    expected,
    actual: row,
  });
}
