/**
 * `utf8_ragged`, `bytes_ragged`, `json_ragged`: byte strings back to back, with offsets.
 *
 * @module
 */

import type { VarlenColumn } from "../../batch/column.ts";
import type { PartSource } from "../part_source.ts";
import { nullMask, type PartLayout, type Parts } from "../parts.ts";
import type { Codec, EncodedColumn } from "./codec.ts";
import { bytesPart, checkNullRows, int64Part, maskLayout, maskPart, offsetsLayout } from "./common.ts";

const CODECS = { strings: "utf8_ragged", bytes: "bytes_ragged", json: "json_ragged" } as const;

/** How data, offsets and nulls depend on rows. */
export function varlenLayout(source: PartSource): readonly PartLayout[] {
  return [
    maskLayout("nulls"),
    offsetsLayout(source, "offsets"),
    { part: "data", width: 1, of: "offsets" },
  ];
}

/** The parts of byte strings, checked. */
export function varlenParts(
  source: PartSource,
  parts: Parts,
): { rows: number; nulls: Uint8Array | null; data: Uint8Array; offsets: Uint32Array } {
  const offsets = parts.offsets("offsets");
  const nulls = nullMask(parts.bytes("nulls"));
  checkNullRows(source, nulls, offsets);
  return { rows: offsets.length - 1, nulls, data: parts.bytes("data"), offsets };
}

function varlenCodec(kind: VarlenColumn["kind"]): Codec {
  return {
    info: () => ({ kind }),
    layout: varlenLayout,
    decode: (source, _rows, parts, guard) => ({ kind, ...varlenParts(source, parts), guard }),
  };
}

/** Text. */
export const utf8Ragged: Codec = varlenCodec("strings");
/** Raw bytes. */
export const bytesRagged: Codec = varlenCodec("bytes");
/** One JSON text a row. */
export const jsonRagged: Codec = varlenCodec("json");

/** The stored form of strings, bytes and json. */
export function encodeVarlen(column: VarlenColumn): EncodedColumn {
  const { kind, rows, nulls, data, offsets } = column;
  return {
    codec: CODECS[kind],
    metadata: {},
    parts: [
      bytesPart("data", data.subarray(0, offsets[rows])),
      int64Part("offsets", offsets, [rows + 1]),
      maskPart("nulls", nulls, rows),
    ],
  };
}
