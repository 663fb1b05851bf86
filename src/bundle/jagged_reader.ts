/**
 * Reading jagged torch tensors: rows whose first dimension differs.
 *
 * @module
 */

import type { Column, Guard, RaggedColumn } from "../batch/column.ts";
import { type DType, isNumericDType, itemSize } from "../batch/dtype.ts";
import { gather } from "../batch/gather.ts";
import type { RowSet } from "../batch/rowset.ts";
import { MAX_DIMENSIONS, Tensor } from "../batch/tensor.ts";
import type { CodecInfo } from "./codecs/codec.ts";
import { recordsColumn } from "./codecs/values.ts";
import { parseTorchName } from "./dtype_names.ts";
import type { FieldReader, PayloadLookup } from "./field_reader.ts";
import { int64Numbers } from "./integers.ts";
import { fieldCorruption, type FieldSite, type StoredMember, unsupportedField } from "./part_source.ts";
import { allocate, type Reading } from "./ranges.ts";
import { elementCount, parseTensorHeader } from "./tensor_header.ts";

/** One of the tensors that a jagged tensor is stored as. */
interface Part {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** Reads a jagged tensor, as a ragged column; as records of Tensors where NumPy lacks its dtype. */
export class JaggedReader implements FieldReader {
  readonly members: readonly StoredMember[];
  readonly info: CodecInfo;
  readonly #site: FieldSite;
  readonly #rows: number;
  readonly #member: StoredMember;
  readonly #partBytes: readonly number[];

  /**
   * @throws SchemaError for forms this library does not read.
   * @throws CorruptionError for parts that contradict the payload.
   */
  constructor(site: FieldSite, rows: number, member: StoredMember) {
    this.#site = site;
    this.#rows = rows;
    this.#member = member;
    this.members = [member];
    const { spec, payload } = member;
    if (spec.format !== "tensor_parts") {
      throw unsupportedField(site, `is a nested tensor stored as ${spec.format ?? "torch_save"}`, {
        expected: "tensor_parts",
        actual: spec.format,
        hint: "store it with all its components on the CPU",
      });
    }
    if ((spec.raggedIdx ?? 1) !== 1) {
      throw unsupportedField(site, `is a nested tensor that is jagged in dimension ${spec.raggedIdx}`, {
        expected: 1,
        actual: spec.raggedIdx,
      });
    }
    const dtype = parseTorchName(spec.dtype ?? "");
    if (dtype === undefined) {
      throw unsupportedField(site, `has the unsupported dtype ${spec.dtype}`, { actual: spec.dtype });
    }
    this.info = isNumericDType(dtype) ? { kind: "ragged", dtype, rowFormat: "ndarray" } : { kind: "records" };
    const parts = spec.partBytes ?? [];
    const expected = spec.hasLengths ? 3 : 2;
    const sum = parts.reduce((total, bytes) => total + bytes, 0);
    if (parts.length !== expected || sum !== payload.bytes) {
      throw fieldCorruption(site, `has parts of [${parts}] bytes in ${payload.bytes}`, {
        expected: `${expected} parts, ${payload.bytes} bytes`,
        actual: parts,
      });
    }
    this.#partBytes = parts;
  }

  *read(rows: RowSet): Reading<Column> {
    const bytes = allocate(this.#member.payload.bytes, this.#member.name);
    yield [{ member: this.#member.name, offset: 0, into: bytes }];
    const column = this.#decode(bytes);
    const range = rows.isRange();
    const all = range !== null && range.start === 0 && range.step === 1 && range.count === this.#rows;
    return all ? column : gather(column, rows);
  }

  decode(payload: PayloadLookup, guard?: Guard): Column {
    return this.#decode(payload(this.#member), guard);
  }

  #decode(bytes: Uint8Array, guard?: Guard): Column {
    const [values, offsets, lengths] = this.#parts(bytes) as [Part, Part, Part?];
    const { kind, dtype } = this.info;
    if (kind === "ragged" && values.dtype !== dtype) {
      throw fieldCorruption(this.#site, `has values of ${values.dtype}, not ${dtype}`, {
        expected: dtype,
        actual: values.dtype,
      });
    }
    const spans = this.#spans(values, this.#integers(offsets, this.#rows + 1), lengths);
    const rowShape = values.shape.slice(1);
    const itemBytes = (elementCount(rowShape) ?? 0) * itemSize(values.dtype);
    if (kind === "ragged") return { ...raggedRows(values, spans, rowShape, itemBytes), guard };
    return recordsColumn(
      spans.map(([start, end]) => {
        const data = values.data.slice(start * itemBytes, end * itemBytes);
        return new Tensor(values.dtype, [end - start, ...rowShape], data);
      }),
      "jagged",
    );
  }

  #parts(bytes: Uint8Array): readonly Part[] {
    const { key } = this.#member.payload;
    let at = 0;
    return this.#partBytes.map((length) => {
      const part = bytes.subarray(at, at += length);
      const { dtype, shape, dataOffset } = parseTensorHeader(part, length, key);
      if (shape.length === 0 || shape.length > MAX_DIMENSIONS) {
        throw fieldCorruption(this.#site, `has a part of ${shape.length} dimensions`, { actual: shape });
      }
      return { dtype, shape, data: part.subarray(dataOffset) };
    });
  }

  #integers(part: Part, count: number): Float64Array {
    if (part.dtype === "int64" && part.shape.length === 1 && part.shape[0] === count) {
      return int64Numbers(part.data);
    }
    throw fieldCorruption(this.#site, `has ${part.dtype} of shape [${part.shape}] for offsets or lengths`, {
      expected: `int64 of shape [${count}]`,
      actual: part.shape,
    });
  }

  /** The items of each row among the values. */
  #spans(
    values: Part,
    offsets: Float64Array,
    lengths: Part | undefined,
  ): (readonly [start: number, end: number])[] {
    const sizes = lengths === undefined ? undefined : this.#integers(lengths, this.#rows);
    return Array.from({ length: this.#rows }, (_, row) => {
      const start = offsets[row]!;
      const next = offsets[row + 1]!;
      const end = sizes === undefined ? next : start + sizes[row]!;
      if (!(start >= 0 && end >= start && end <= next && next <= values.shape[0]!)) {
        throw fieldCorruption(this.#site, `has row ${row} at ${start} to ${end} of ${values.shape[0]}`, {
          actual: row,
        });
      }
      return [start, end];
    });
  }
}

/** Rows of whole items as a ragged column; a view where they lie back to back. */
function raggedRows(
  values: Part,
  spans: readonly (readonly [number, number])[],
  rowShape: readonly number[],
  itemBytes: number,
): RaggedColumn {
  const dtype = values.dtype as RaggedColumn["dtype"];
  const itemElements = itemBytes / itemSize(dtype);
  const offsets = new Uint32Array(new ArrayBuffer((spans.length + 1) * 4));
  spans.forEach(([start, end], row) => offsets[row + 1] = offsets[row]! + (end - start) * itemElements);
  const first = spans[0]?.[0] ?? 0;
  const last = spans.at(-1)?.[1] ?? 0;
  let data = values.data.subarray(first * itemBytes, last * itemBytes);
  if (spans.some(([start], row) => row > 0 && start !== spans[row - 1]![1])) {
    data = allocate(offsets[spans.length]! * itemSize(dtype), "jagged rows");
    spans.forEach(([start, end], row) => {
      data.set(values.data.subarray(start * itemBytes, end * itemBytes), offsets[row]! * itemSize(dtype));
    });
  }
  const shapes = rowShape.length === 0 ? null : spans.map(([start, end]) => [end - start, ...rowShape]);
  return {
    kind: "ragged",
    rows: spans.length,
    dtype,
    data,
    offsets,
    shapes,
    rowFormat: "ndarray",
    nulls: null,
    storedAs: "jagged",
  };
}
