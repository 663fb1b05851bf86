/**
 * Reading dense tensors: rows of equal length, behind a torch header or bare.
 *
 * @module
 */

import type { Guard } from "../batch/column.ts";
import { type DType, itemSize } from "../batch/dtype.ts";
import { RowSet } from "../batch/rowset.ts";
import { MAX_DIMENSIONS, Tensor } from "../batch/tensor.ts";
import { SchemaError } from "../errors.ts";
import { parseNumpyCode, parseTorchName, swapBytes } from "./dtype_names.ts";
import type { FieldReader, PayloadLookup } from "./field_reader.ts";
import { fieldCorruption, type FieldSite, type StoredMember, unsupportedField } from "./part_source.ts";
import { allocate, type Reading } from "./ranges.ts";
import { readRows } from "./row_reading.ts";
import { elementCount, parseTensorHeader, TENSOR_HEADER_BYTES } from "./tensor_header.ts";

/** Where the rows of a tensor are in its payload. */
export interface TensorLayout {
  readonly dtype: DType;
  /** The shape of one row. */
  readonly rowShape: readonly number[];
  readonly rowBytes: number;
  /** Where the first row begins. */
  readonly dataOffset: number;
  /** Elements are big-endian. */
  readonly swap: boolean;
}

/** Reads a dense tensor. */
export class TensorReader implements FieldReader {
  readonly members: readonly StoredMember[];
  /** The layout, where the metadata alone says it. */
  readonly known: TensorLayout | undefined;
  readonly #site: FieldSite;
  readonly #rows: number;
  readonly #member: StoredMember;
  #layout: TensorLayout | undefined;

  /**
   * @throws SchemaError for element types and forms this library does not read.
   * @throws CorruptionError for shapes that contradict the payload or the bundle.
   */
  constructor(site: FieldSite, rows: number, member: StoredMember) {
    this.#site = site;
    this.#rows = rows;
    this.#member = member;
    this.members = [member];
    this.known = this.#layout = this.#fromMetadata();
  }

  #fromMetadata(): TensorLayout | undefined {
    const { spec, payload } = this.#member;
    const site = this.#site;
    if (payload.format !== undefined || (spec.format !== undefined && spec.encoding === "torch_tensor")) {
      const format = payload.format ?? spec.format;
      throw unsupportedField(site, `is stored as ${format}`, {
        expected: "a plain tensor",
        actual: format,
        hint: "store it as a tensor on the CPU, of one of the 15 element types of torch tensors in Mooncake",
      });
    }
    switch (spec.encoding) {
      case "bytes":
        return this.#checked("uint8", [payload.bytes], 0, false);
      case "ndarray": {
        const stored = parseNumpyCode(spec.dtype ?? "");
        if (stored === undefined) {
          throw unsupportedField(site, `has the unsupported dtype ${spec.dtype}`, { actual: spec.dtype });
        }
        if (spec.shape === undefined) throw fieldCorruption(site, "has no shape");
        return this.#checked(stored.dtype, spec.shape, 0, stored.swap);
      }
      case "torch_tensor": {
        const dtype = parseTorchName(spec.dtype ?? "");
        if (dtype === undefined || spec.shape === undefined || spec.shape.length === 0) return undefined;
        const data = (elementCount(spec.shape) ?? NaN) * itemSize(dtype);
        // any other length means that the header says something else, so it has to be read
        if (payload.bytes !== TENSOR_HEADER_BYTES + data) return undefined;
        return this.#checked(dtype, spec.shape, TENSOR_HEADER_BYTES, false);
      }
      default:
        throw unsupportedField(site, `has the unknown encoding ${JSON.stringify(spec.encoding)}`, {
          actual: spec.encoding,
        });
    }
  }

  #checked(dtype: DType, shape: readonly number[], dataOffset: number, swap: boolean): TensorLayout {
    const site = this.#site;
    const { bytes } = this.#member.payload;
    if (shape[0] !== this.#rows) {
      throw fieldCorruption(site, `has ${shape[0] ?? "no"} rows, but its bundle has ${this.#rows}`, {
        expected: this.#rows,
        actual: shape[0],
      });
    }
    if (shape.length > MAX_DIMENSIONS) {
      throw unsupportedField(site, `has ${shape.length} dimensions`, {
        expected: `at most ${MAX_DIMENSIONS}`,
        actual: shape.length,
      });
    }
    const data = (elementCount(shape) ?? NaN) * itemSize(dtype);
    if (data !== bytes - dataOffset) {
      throw fieldCorruption(site, `has ${bytes - dataOffset} bytes for the shape [${shape}] of ${dtype}`, {
        expected: data,
        actual: bytes - dataOffset,
      });
    }
    const rowShape = shape.slice(1);
    const rowBytes = (elementCount(rowShape) ?? NaN) * itemSize(dtype);
    if (!Number.isSafeInteger(rowBytes)) throw fieldCorruption(site, `has the impossible shape [${shape}]`);
    return { dtype, rowShape, rowBytes, dataOffset, swap };
  }

  #fromHeader(header: Uint8Array): TensorLayout {
    const { payload } = this.#member;
    const { dtype, shape, dataOffset } = parseTensorHeader(header, payload.bytes, payload.key);
    // torch scalars come back with one dimension
    return this.#checked(dtype, shape.length === 0 ? [1] : shape, dataOffset, false);
  }

  /** Where rows lie; reads the header if the metadata does not say. */
  *#resolve(): Reading<TensorLayout> {
    if (this.#layout !== undefined) return this.#layout;
    const header = allocate(Math.min(TENSOR_HEADER_BYTES, this.#member.payload.bytes), this.#member.name);
    yield [{ member: this.#member.name, offset: 0, into: header }];
    return this.#layout = this.#fromHeader(header);
  }

  *read(rows: RowSet): Reading<Tensor> {
    const layout = yield* this.#resolve();
    const bytes = allocate(rows.length * layout.rowBytes, this.#member.name);
    yield* this.#gather(layout, rows, bytes, RowSet.all(rows.length));
    if (layout.swap) swapBytes(bytes, itemSize(layout.dtype));
    return new Tensor(layout.dtype, [rows.length, ...layout.rowShape], bytes);
  }

  /** Reads rows into `out`: row i of `rows` becomes row `positions.at(i)` there. */
  *readInto(rows: RowSet, out: Uint8Array, positions: RowSet): Reading<void> {
    const layout = yield* this.#resolve();
    const { rowBytes } = layout;
    if (positions.length !== rows.length || (positions.max() + 1) * rowBytes > out.byteLength) {
      throw new SchemaError(
        `field ${JSON.stringify(this.#site.field)} does not fit where it is to be read to`,
        {
          ...this.#site,
          expected: `${rows.length} rows of ${rowBytes} bytes`,
          actual: `${positions.length} rows, ${out.byteLength} bytes`,
        },
      );
    }
    if (!layout.swap) return yield* this.#gather(layout, rows, out, positions);
    const { bytes } = yield* this.read(rows);
    let i = 0;
    for (const position of positions) {
      out.set(bytes.subarray(i * rowBytes, ++i * rowBytes), position * rowBytes);
    }
  }

  #gather(layout: TensorLayout, rows: RowSet, out: Uint8Array, positions: RowSet): Reading<void> {
    const { dataOffset: offset, rowBytes } = layout;
    return readRows({ member: this.#member.name, offset, rowBytes }, rows, out, positions);
  }

  decode(payload: PayloadLookup, guard?: Guard): Tensor {
    const bytes = payload(this.#member);
    const layout = this.#layout ??= this.#fromHeader(bytes);
    let data = bytes.subarray(layout.dataOffset);
    if (layout.swap) {
      data = data.slice();
      swapBytes(data, itemSize(layout.dtype));
    }
    return new Tensor(layout.dtype, [this.#rows, ...layout.rowShape], data, guard);
  }
}
