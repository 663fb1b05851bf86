/**
 * `ndarray`: nullable numbers.
 *
 * @module
 */

import type { ScalarsColumn } from "../../batch/column.ts";
import { itemSize } from "../../batch/dtype.ts";
import { numpyCode, swapBytes } from "../dtype_names.ts";
import { numericType } from "../integers.ts";
import { nullMask } from "../parts.ts";
import type { Codec, EncodedColumn } from "./codec.ts";
import { maskLayout, maskPart } from "./common.ts";

/** Nullable numbers. */
export const scalarsCodec: Codec = {
  info: (source) => ({ kind: "scalars", dtype: numericType(source, source.member("data")).dtype }),
  layout: (source) => {
    const { dtype } = numericType(source, source.member("data"));
    return [maskLayout("nulls"), { part: "data", width: itemSize(dtype) }];
  },
  decode: (source, rows, parts, guard) => {
    const { dtype, swap } = numericType(source, source.member("data"));
    let data = parts.bytes("data");
    if (swap) {
      data = data.slice();
      swapBytes(data, itemSize(dtype));
    }
    return { kind: "scalars", rows: rows.length, dtype, data, nulls: nullMask(parts.bytes("nulls")), guard };
  },
};

/** The stored form of scalars. */
export function encodeScalars(column: ScalarsColumn): EncodedColumn {
  const { rows, nulls, data, dtype } = column;
  return {
    codec: "ndarray",
    metadata: { dtype, shape: [rows] },
    parts: [
      {
        part: "data",
        spec: { encoding: "ndarray", dtype: numpyCode(dtype)!, shape: [rows] },
        bytes: [data],
        rowBytes: itemSize(dtype),
      },
      maskPart("nulls", nulls, rows),
    ],
  };
}
