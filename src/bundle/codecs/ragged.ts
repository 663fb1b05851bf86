/**
 * `typed_ragged` and `ragged_tensor`: numeric rows of different lengths.
 *
 * @module
 */

import type { RaggedColumn, StoredAs } from "../../batch/column.ts";
import { arrayOver, bytesOf, itemSize } from "../../batch/dtype.ts";
import {
  numpyCode,
  parseNumpyName,
  parseTorchName,
  type StoredType,
  swapBytes,
  torchName,
} from "../dtype_names.ts";
import { integerWidth, readIntegers } from "../integers.ts";
import type { PartSource } from "../part_source.ts";
import { nullMask, type Parts } from "../parts.ts";
import { elementCount } from "../tensor_header.ts";
import type { Codec, CodecInfo, EncodedColumn } from "./codec.ts";
import { checkNullRows, int64Part, maskLayout, maskPart, offsetsLayout } from "./common.ts";

type Shapes = RaggedColumn["shapes"];

function raggedCodec(
  typeOf: (source: PartSource) => StoredType | undefined,
  formatOf: (source: PartSource) => RaggedColumn["rowFormat"],
  how: { readonly storedAs?: StoredAs } = {},
): Codec {
  const storedType = (source: PartSource): StoredType => {
    const stored = typeOf(source);
    if (stored !== undefined) return stored;
    const actual = source.metadata.dtype;
    // it comes from a handle, and not everything in JSON can be made text
    const name = typeof actual === "string" ? actual : `of type ${typeof actual}`;
    throw source.unsupported(`has the unsupported dtype ${name}`, { actual });
  };
  return {
    info: (source): CodecInfo & { dtype: StoredType["dtype"] } => ({
      kind: "ragged",
      dtype: storedType(source).dtype,
      rowFormat: formatOf(source),
    }),
    layout: (source) => [
      maskLayout("nulls"),
      offsetsLayout(source, "offsets"),
      { part: "shapes", width: integerWidth(source, "shapes") * dimensions(source) },
      { part: "ndims", width: integerWidth(source, "ndims") },
      { part: "data", width: itemSize(storedType(source).dtype), of: "offsets" },
    ],
    decode: (source, rows, parts, guard) => {
      const { dtype, swap } = storedType(source);
      const offsets = parts.offsets("offsets");
      const nulls = nullMask(parts.bytes("nulls"));
      checkNullRows(source, nulls, offsets);
      let data = parts.bytes("data");
      if (swap) {
        data = data.slice();
        swapBytes(data, itemSize(dtype));
      }
      const rowFormat = formatOf(source);
      const shapes = readShapes(source, parts, nulls, offsets);
      if (shapes !== null && rowFormat === "list") checkEmptyLists(source, shapes, data);
      return {
        kind: "ragged",
        rows: rows.length,
        dtype,
        data,
        offsets,
        shapes,
        rowFormat,
        nulls,
        guard,
        ...how,
      };
    },
  };
}

/** The name of the dtype; empty where it is no text. */
function dtypeName(source: PartSource, fallback: string): string {
  const name = source.metadata.dtype ?? fallback;
  return typeof name === "string" ? name : "";
}

/** Rows that are arrays, or lists of numbers. Where Python mixed both, all come back as lists. */
export const typedRagged: Codec = raggedCodec(
  (source) => parseNumpyName(dtypeName(source, "int64")),
  (source) => source.metadata.row_format === "ndarray" ? "ndarray" : "list",
);

/** Rows that are torch tensors. */
export const raggedTensor: Codec = raggedCodec(
  (source) => {
    const dtype = parseTorchName(dtypeName(source, "torch.float32"));
    return dtype === undefined || numpyCode(dtype) === undefined
      ? undefined
      : { dtype: dtype as StoredType["dtype"], swap: false };
  },
  () => "ndarray",
  { storedAs: "ragged_tensor" },
);

/** Entries of `shapes` for each row. */
function dimensions(source: PartSource): number {
  return source.member("shapes").spec.shape?.[1] ?? 1;
}

/** The shapes of rows; null where every row has one dimension, as most columns do. */
function readShapes(
  source: PartSource,
  parts: Parts,
  nulls: Uint8Array | null,
  offsets: Uint32Array,
): Shapes {
  const most = dimensions(source);
  const sizes = readIntegers(source, source.member("shapes"), parts.bytes("shapes"));
  const ndims = readIntegers(source, source.member("ndims"), parts.bytes("ndims"));
  const rows = offsets.length - 1;
  const isNull = (row: number): boolean => nulls !== null && nulls[row] === 1;
  let flat = true;
  for (let row = 0; row < rows; row++) {
    if (isNull(row)) continue;
    const length = offsets[row + 1]! - offsets[row]!;
    if (ndims[row] === 1 && most > 0 && sizes[row * most] === length) continue;
    const shape = rowShape(row, sizes, ndims[row]!, most);
    if (shape === undefined || elementCount(shape) !== length) {
      throw source.corruption(`has a row of ${length} elements with another shape`, {
        expected: length,
        actual: shape,
      });
    }
    flat = false;
  }
  if (flat) return null;
  return Array.from(
    { length: rows },
    (_, row) => isNull(row) ? null : rowShape(row, sizes, ndims[row]!, most)!,
  );
}

/** The most lists without elements that a column may be made of beyond the bytes it has. */
const MAX_EMPTY_LISTS = 65_536;

/** A shape such as [1000000, 0] has no element to bear it out, and yet would come out as a million lists. */
function checkEmptyLists(source: PartSource, shapes: NonNullable<Shapes>, data: Uint8Array): void {
  let lists = 0;
  for (const shape of shapes) {
    const zero = shape?.indexOf(0) ?? -1;
    if (zero > 0) lists += shape!.slice(0, zero).reduce((product, size) => product * size, 1);
  }
  const most = MAX_EMPTY_LISTS + data.byteLength;
  if (lists <= most) return;
  throw source.corruption(`has ${lists} lists without elements`, {
    expected: `at most ${most}`,
    actual: lists,
  });
}

function rowShape(row: number, sizes: ArrayLike<number>, ndim: number, most: number): number[] | undefined {
  if (ndim < 0 || ndim > most) return undefined;
  const shape = Array.from({ length: ndim }, (_, dimension) => sizes[row * most + dimension]!);
  return shape.every((size) => Number.isSafeInteger(size) && size >= 0) ? shape : undefined;
}

/**
 * The stored form of ragged rows.
 *
 * `physical_layout` is left out: with it, Python's reader returns views of memory it has given back.
 *
 * @param codec `ragged_tensor` gives Python tensors instead of arrays.
 */
export function encodeRagged(
  column: RaggedColumn,
  codec: "typed_ragged" | "ragged_tensor" = "typed_ragged",
): EncodedColumn {
  const { rows, nulls, data, offsets, dtype, rowFormat } = column;
  const code = numpyCode(dtype)!;
  const elements = offsets[rows]!;
  const { sizes, ndims, most } = shapeTables(column);
  const tensors = codec === "ragged_tensor";
  return {
    codec,
    metadata: { dtype: tensors ? torchName(dtype) : dtype, row_format: tensors ? "ndarray" : rowFormat },
    parts: [
      {
        part: "data",
        spec: { encoding: "ndarray", dtype: code, shape: [elements] },
        bytes: [data.subarray(0, elements * itemSize(dtype))],
        rowBytes: itemSize(dtype),
      },
      int64Part("offsets", offsets, [rows + 1]),
      int64Part("shapes", sizes, [rows, most]),
      {
        part: "ndims",
        spec: { encoding: "ndarray", dtype: "<i2", shape: [rows] },
        bytes: [bytesOf(ndims)],
        rowBytes: 2,
      },
      maskPart("nulls", nulls, rows),
    ],
  };
}

/**
 * `shapes` and `ndims`. A null row has no dimensions among arrays, and one of size 0 among lists, as Python
 * has it.
 */
function shapeTables(column: RaggedColumn): { sizes: Uint32Array; ndims: Int16Array; most: number } {
  const { rows, nulls, offsets, shapes, rowFormat } = column;
  const most = shapes === null ? 1 : shapes.reduce((max, shape) => Math.max(max, shape?.length ?? 0), 1);
  const sizes = new Uint32Array(new ArrayBuffer(rows * most * 4));
  const ndims = arrayOver("int16", new Uint8Array(new ArrayBuffer(rows * 2))) as Int16Array;
  for (let row = 0; row < rows; row++) {
    if (nulls !== null && nulls[row] === 1) {
      ndims[row] = rowFormat === "list" ? 1 : 0;
      continue;
    }
    const shape = shapes?.[row];
    if (shape === undefined || shape === null) {
      ndims[row] = 1;
      sizes[row * most] = offsets[row + 1]! - offsets[row]!;
    } else {
      ndims[row] = shape.length;
      shape.forEach((size, dimension) => sizes[row * most + dimension] = size);
    }
  }
  return { sizes, ndims, most };
}
