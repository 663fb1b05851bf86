/**
 * `media_bytes` and `media_list_ragged`: bytes and images. `media_write.ts` writes them.
 *
 * @module
 */

import type { Column } from "../../batch/column.ts";
import type { RowSet } from "../../batch/rowset.ts";
import { asArray, asCount, asObject, asString, below, member, type Origin } from "../json_text.ts";
import type { PartSource } from "../part_source.ts";
import { nullMask, type Parts } from "../parts.ts";
import type { Codec } from "./codec.ts";
import { checkNullRows, maskLayout, offsetsLayout } from "./common.ts";
import { recordsColumn } from "./values.ts";
import { varlenLayout, varlenParts } from "./varlen.ts";

/** An image, as Python's PIL stores it: its raw pixels. */
export interface StoredImage {
  /** PIL's mode, such as `RGB`. */
  readonly mode: string;
  readonly size: readonly [width: number, height: number];
  /** The format of the file it was loaded from, if any. The pixels are raw all the same. */
  readonly format: string | null;
  readonly data: Uint8Array;
}

/**
 * How the items of a column are to be understood, by position in the whole column; null where all are plain
 * bytes.
 */
function mediaEncodings(source: PartSource): readonly unknown[] | null {
  const given = source.metadata.media_encodings;
  if (given === undefined || given === null) return null;
  const at: Origin = { key: source.site.key, path: `${source.site.field}.media_encodings` };
  return asArray(given, at);
}

function isImage(encoding: unknown): boolean {
  return typeof encoding === "object" && encoding !== null &&
    (encoding as { kind?: unknown }).kind === "pil_raw";
}

function mediaItem(source: PartSource, index: number, encoding: unknown, bytes: Uint8Array): unknown {
  const data = new Uint8Array(new ArrayBuffer(bytes.byteLength));
  data.set(bytes);
  if (!isImage(encoding)) {
    return (encoding as { kind?: unknown } | undefined)?.kind === "null" ? null : data;
  }
  const at: Origin = { key: source.site.key, path: `${source.site.field}.media_encodings[${index}]` };
  const json = asObject(encoding, at);
  const size = asArray(member(json, "size"), below(at, "size"));
  const format = member(json, "format") ?? null;
  const image: StoredImage = {
    mode: asString(member(json, "mode"), below(at, "mode")),
    size: [asCount(size[0], below(at, "size")), asCount(size[1], below(at, "size"))],
    format: format === null ? null : asString(format, below(at, "format")),
    data,
  };
  return image;
}

/** Bytes, or images with bytes among them. */
export const mediaBytes: Codec = {
  info: (source) => ({ kind: mediaEncodings(source)?.some(isImage) ? "records" : "bytes" }),
  layout: varlenLayout,
  decode: (source: PartSource, rows: RowSet, parts: Parts, guard): Column => {
    const column = varlenParts(source, parts);
    const encodings = mediaEncodings(source);
    if (!encodings?.some(isImage)) return { kind: "bytes", ...column, guard, storedAs: "media_bytes" };
    const { nulls, data, offsets } = column;
    const values: unknown[] = [];
    for (const row of rows) {
      const i = values.length;
      const isNull = nulls !== null && nulls[i] === 1;
      values.push(
        isNull ? null : mediaItem(source, row, encodings[row], data.subarray(offsets[i]!, offsets[i + 1]!)),
      );
    }
    return recordsColumn(values, "media_bytes");
  },
};

/** Lists of bytes and images. */
export const mediaListRagged: Codec = {
  info: () => ({ kind: "records" }),
  layout: (source) => [
    maskLayout("nulls"),
    offsetsLayout(source, "row_offsets"),
    offsetsLayout(source, "byte_offsets", "row_offsets"),
    { part: "data", width: 1, of: "byte_offsets" },
  ],
  decode: (source: PartSource, rows: RowSet, parts: Parts): Column => {
    const rowOffsets = parts.offsets("row_offsets");
    const nulls = nullMask(parts.bytes("nulls"));
    checkNullRows(source, nulls, rowOffsets);
    const encodings = mediaEncodings(source);
    const byteOffsets = parts.offsets("byte_offsets");
    const data = parts.bytes("data");
    const items: unknown[] = [];
    parts.elements("row_offsets").forEach((index) => {
      const i = items.length;
      const bytes = data.subarray(byteOffsets[i]!, byteOffsets[i + 1]!);
      items.push(mediaItem(source, index, encodings?.[index], bytes));
    });
    return recordsColumn(
      Array.from(
        { length: rows.length },
        (_, row) =>
          nulls !== null && nulls[row] === 1 ? null : items.slice(rowOffsets[row], rowOffsets[row + 1]),
      ),
      "media_list_ragged",
    );
  },
};
