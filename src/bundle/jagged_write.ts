/**
 * Writing jagged torch tensors: the values of all rows as one tensor, and their offsets as another, back to back.
 *
 * @module
 */

import { ragged } from "../batch/build.ts";
import type { RaggedColumn, RecordsColumn } from "../batch/column.ts";
import { bytesOf, type DType, itemSize } from "../batch/dtype.ts";
import { Tensor } from "../batch/tensor.ts";
import { SchemaError } from "../errors.ts";
import { torchName } from "./dtype_names.ts";
import type { EncodedField } from "./encode.ts";
import { elementCount, writeTensorHeader } from "./tensor_header.ts";

/** Rows of one dtype, back to back. */
interface Rows {
  readonly dtype: DType;
  readonly data: readonly Uint8Array[];
  /** The shape of each row. */
  readonly shapes: readonly (readonly number[])[];
}

/**
 * The stored form of ragged rows, or of records that are Tensors, as a jagged tensor in the section `batch`.
 *
 * @throws SchemaError for null rows, and rows that differ in more than their first dimension: torch has neither
 */
export function encodeJagged(field: string, column: RaggedColumn | RecordsColumn): EncodedField {
  const refuse = (problem: string): SchemaError =>
    new SchemaError(`field ${JSON.stringify(field)} ${problem}, so it cannot be a jagged tensor`, { field });
  if (column.nulls !== null) throw refuse("has null rows");
  const { dtype, data, shapes } = column.kind === "ragged" ? raggedRows(column) : tensorRows(column, refuse);
  const [first = [0]] = shapes;
  const row = first.slice(1);
  const odd = shapes.findIndex((shape) =>
    shape.length !== first.length || shape.slice(1).join() !== row.join()
  );
  if (odd >= 0) throw refuse(`has rows of the shapes [${first}] and [${shapes[odd]}]`);
  if (first.length === 0) throw refuse("has rows without dimensions");
  const offsets = new BigInt64Array(new ArrayBuffer((shapes.length + 1) * 8));
  shapes.forEach((shape, i) => offsets[i + 1] = offsets[i]! + BigInt(shape[0]!));
  const items = Number(offsets[shapes.length]);
  const head = writeTensorHeader(dtype, [items, ...row]);
  const tail = writeTensorHeader("int64", [shapes.length + 1]);
  const bytes = items * elementCount(row)! * itemSize(dtype);
  return {
    field,
    section: "batch",
    members: [{
      member: `batch.${field}`,
      spec: {
        encoding: "torch_tensor",
        dtype: torchName(dtype),
        nested: true,
        format: "tensor_parts",
        partBytes: [head.byteLength + bytes, tail.byteLength + offsets.byteLength],
        hasLengths: false,
        raggedIdx: 1,
      },
      parts: [head, ...data, tail, bytesOf(offsets)],
      rowBytes: null,
    }],
  };
}

function raggedRows(column: RaggedColumn): Rows {
  const { rows, dtype, data, offsets, shapes } = column;
  return {
    dtype,
    data: [data.subarray(0, offsets[rows]! * itemSize(dtype))],
    shapes: Array.from({ length: rows }, (_, row) => shapes?.[row] ?? [offsets[row + 1]! - offsets[row]!]),
  };
}

/** Tensors of dtypes that NumPy lacks come as records. */
function tensorRows(column: RecordsColumn, refuse: (problem: string) => SchemaError): Rows {
  const tensors = column.values as readonly unknown[];
  const [first] = tensors;
  if (!tensors.every((value) => value instanceof Tensor && value.dtype === (first as Tensor).dtype)) {
    throw refuse("has rows that are not Tensors of one dtype");
  }
  const all = tensors as readonly Tensor[];
  if (all.length === 0) return raggedRows(ragged("float32", []));
  return { dtype: all[0]!.dtype, data: all.map(({ bytes }) => bytes), shapes: all.map(({ shape }) => shape) };
}
