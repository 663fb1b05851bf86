/**
 * Writing `ragged_tensor_dict`: dicts of numeric arrays, each key a ragged tensor column.
 *
 * @module
 */

import { ragged } from "../../batch/build.ts";
import type { RecordsColumn } from "../../batch/column.ts";
import { dtypeOfArray, isNumericDType, type TypedArray } from "../../batch/dtype.ts";
import type { Json } from "../../batch/json.ts";
import { Tensor } from "../../batch/tensor.ts";
import { SchemaError } from "../../errors.ts";
import { setKey } from "./values.ts";
import type { EncodedColumn, EncodedPart } from "./codec.ts";
import { maskPart } from "./common.ts";
import { encodeRagged } from "./ragged.ts";

/**
 * The stored form of dicts whose values are all Tensors or typed arrays of one dtype per key. A key may be missing.
 *
 * @throws SchemaError for other values, and for keys that Python refuses
 */
export function encodeTensorDict(field: string, column: RecordsColumn): EncodedColumn {
  const { rows, nulls, values } = column;
  const refuse = (row: number | string, problem: string): SchemaError =>
    new SchemaError(
      `field ${JSON.stringify(field)}: ${typeof row === "number" ? `row ${row}` : row} ${problem}`,
      {
        field,
        actual: row,
      },
    );
  const keys = new Map<string, (Tensor | TypedArray | null)[]>();
  values.forEach((value, row) => {
    if (value === null) return;
    if (
      typeof value !== "object" || Array.isArray(value) || ArrayBuffer.isView(value) ||
      value instanceof Tensor
    ) {
      throw refuse(row, "is not a dict of tensors");
    }
    for (const [key, item] of Object.entries(value as Record<string, unknown>)) {
      if (item === null) continue;
      const isArray = item instanceof Tensor ||
        (ArrayBuffer.isView(item) && dtypeOfArray(item) !== undefined);
      if (!isArray) throw refuse(row, `has no tensor under ${JSON.stringify(key)}`);
      let column = keys.get(key);
      if (column === undefined) keys.set(key, column = new Array(rows).fill(null));
      column[row] = item as Tensor | TypedArray;
    }
  });
  const codecs: Record<string, Json> = {};
  const parts: EncodedPart[] = [maskPart("null_mask", nulls, rows)];
  for (const [key, items] of keys) {
    if (key === "" || /[./\\]/.test(key)) {
      throw refuse(`key ${JSON.stringify(key)}`, "is empty or has one of . / \\, which Python refuses");
    }
    const dtypes = new Set(
      items.flatMap((item) =>
        item === null ? [] : [item instanceof Tensor ? item.dtype : dtypeOfArray(item)]
      ),
    );
    const [dtype] = dtypes;
    if (dtypes.size > 1) {
      throw refuse(`key ${JSON.stringify(key)}`, `has several dtypes: ${[...dtypes].join(", ")}`);
    }
    if (!isNumericDType(dtype)) {
      throw refuse(`key ${JSON.stringify(key)}`, `is ${dtype}, which NumPy does not have`);
    }
    const encoded = encodeRagged(ragged(dtype, items), "ragged_tensor");
    setKey(codecs, key, encoded.metadata);
    for (const part of encoded.parts) parts.push({ ...part, part: `${key}.${part.part}` });
  }
  return { codec: "ragged_tensor_dict", metadata: { keys: [...keys.keys()], key_codecs: codecs }, parts };
}
