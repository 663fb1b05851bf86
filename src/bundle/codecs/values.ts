/**
 * Rows of nested values.
 *
 * @module
 */

import type { Column, RecordsColumn, StoredAs } from "../../batch/column.ts";
import { dtypeOfArray, type TypedArray } from "../../batch/dtype.ts";
import { bytesOf } from "../../batch/dtype.ts";
import { rowsOf } from "../../batch/rows.ts";
import { Tensor } from "../../batch/tensor.ts";

/** Values as a records column. They are the column's own memory. */
export function recordsColumn(values: readonly unknown[], storedAs?: StoredAs): RecordsColumn {
  const nulls = new Uint8Array(new ArrayBuffer(values.length));
  values.forEach((value, row) => nulls[row] = value === null ? 1 : 0);
  return {
    kind: "records",
    rows: values.length,
    nulls: nulls.includes(1) ? nulls : null,
    values,
    ...(storedAs === undefined ? {} : { storedAs }),
  };
}

/** Sets a key that may be `__proto__`, where an assignment would set the prototype. */
export function setKey(object: Record<string, unknown>, key: string, value: unknown): void {
  if (key === "__proto__") {
    Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
  } else object[key] = value;
}

/**
 * The rows of a column as they stand inside records.
 *
 * Bytes are a Uint8Array there, so arrays of uint8 and bool are Tensors; other arrays are typed arrays, or
 * Tensors where they have several dimensions or `tensors` says that they were tensors.
 */
export function recordValues(column: Column, tensors = false): unknown[] {
  const values = rowsOf(column).toArray();
  if (column.kind !== "ragged" || column.rowFormat === "list") return values;
  const { dtype } = column;
  if (!tensors && dtype !== "uint8" && dtype !== "bool") return values;
  return values.map((value) => {
    if (!ArrayBuffer.isView(value) || dtypeOfArray(value) === undefined) return value;
    return new Tensor(dtype, [(value as TypedArray).length], bytesOf(value));
  });
}
