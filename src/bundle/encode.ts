/**
 * Columns in stored form.
 *
 * @module
 */

import {
  type Column,
  type RaggedColumn,
  type RecordsColumn,
  STORED_AS,
  type StoredAs,
  type VarlenColumn,
} from "../batch/column.ts";
import { itemSize } from "../batch/dtype.ts";
import { assertHeld, MAX_PAYLOAD_BYTES, type Tensor } from "../batch/tensor.ts";
import { SchemaError } from "../errors.ts";
import type { EncodedColumn } from "./codecs/codec.ts";
import { encodeMediaBytes, encodeMediaLists, mediaCodecOf } from "./codecs/media_write.ts";
import { encodeMsgpack } from "./codecs/msgpack_write.ts";
import { encodeRagged } from "./codecs/ragged.ts";
import { encodeRecords } from "./codecs/records.ts";
import { encodeScalars } from "./codecs/scalars.ts";
import { encodeTensorDict } from "./codecs/tensor_dict_write.ts";
import { encodeVarlen } from "./codecs/varlen.ts";
import { numpyCode, torchName } from "./dtype_names.ts";
import type { EncodedNonTensor } from "./encoded.ts";
import type { Section } from "./fields.ts";
import type { FieldSpec } from "./meta.ts";
import { encodeJagged } from "./jagged_write.ts";
import { checkSegment } from "./names.ts";
import { elementCount, TENSOR_HEADER_BYTES, writeTensorHeader } from "./tensor_header.ts";

/** How tensors are stored: behind a torch header (Python gets torch tensors), or bare (NumPy arrays). */
export type TensorEncoding = "torch" | "numpy";

/** One member of an encoded field. */
export interface EncodedMember {
  readonly member: string;
  readonly spec: FieldSpec;
  /**
   * The payload is the concatenation of these; they are views of the column's memory where that has the
   * stored form.
   */
  readonly parts: readonly Uint8Array[];
  /** Bytes of the header in front of the rows. */
  readonly metadataBytes?: number;
  /** Bytes of a row, where all rows have as many. */
  readonly rowBytes: number | null;
}

/** A field ready to be stored. */
export interface EncodedField {
  readonly field: string;
  readonly section: Section;
  readonly members: readonly EncodedMember[];
  /** For the handle: how a non-tensor field was encoded. */
  readonly encoded?: EncodedNonTensor;
}

/**
 * The stored form of one column.
 *
 * @throws SchemaError for names that cannot stand in a key, dtypes that NumPy lacks, and payloads beyond 4
 * GiB.
 * @throws ClosedError for borrowed columns whose lease was released.
 */
export function encodeField(
  field: string,
  column: Column,
  options: {
    readonly tensorEncoding: TensorEncoding;
    /** How a field is to be stored, where that was declared. */
    readonly storedAs?: ((field: string) => StoredAs | undefined) | undefined;
  },
): EncodedField {
  checkSegment("field name", field);
  assertHeld(column.guard);
  const encoded = column.kind === "tensor"
    ? encodeTensor(field, column, options.tensorEncoding)
    : encodeOther(field, column, options.storedAs?.(field) ?? column.storedAs);
  for (const { member, parts } of encoded.members) {
    const bytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
    if (bytes > MAX_PAYLOAD_BYTES) {
      throw new SchemaError(`${member} has ${bytes} bytes, more than a payload may have`, {
        field,
        expected: `at most ${MAX_PAYLOAD_BYTES}`,
        actual: bytes,
        hint: "put it in several columns or several batches",
      });
    }
  }
  return encoded;
}

function encodeTensor(field: string, tensor: Tensor, encoding: TensorEncoding): EncodedField {
  const { dtype, shape } = tensor;
  const member = `batch.${field}`;
  const rowBytes = elementCount(shape.slice(1))! * itemSize(dtype);
  if (encoding === "torch") {
    const spec = { encoding: "torch_tensor", dtype: torchName(dtype), shape, elementSize: itemSize(dtype) };
    const parts = [writeTensorHeader(dtype, shape), tensor.bytes];
    return {
      field,
      section: "batch",
      members: [{ member, spec, parts, metadataBytes: TENSOR_HEADER_BYTES, rowBytes }],
    };
  }
  const code = numpyCode(dtype);
  if (code === undefined) {
    throw new SchemaError(`field ${JSON.stringify(field)} is ${dtype}, which NumPy does not have`, {
      field,
      expected: "a dtype that NumPy has",
      actual: dtype,
      hint: 'use the tensor encoding "torch", or convert it to float32',
    });
  }
  const spec = { encoding: "ndarray", dtype: code, shape };
  return { field, section: "batch", members: [{ member, spec, parts: [tensor.bytes], rowBytes }] };
}

function encodeOther(
  field: string,
  column: Exclude<Column, Tensor>,
  how: StoredAs | undefined,
): EncodedField {
  if (how !== undefined && !STORED_AS[how].includes(column.kind)) {
    throw new SchemaError(
      `field ${JSON.stringify(field)} is ${column.kind}, which cannot be stored as ${how}`,
      {
        field,
        expected: STORED_AS[how],
        actual: column.kind,
      },
    );
  }
  return how === "jagged"
    ? encodeJagged(field, column as RaggedColumn | RecordsColumn)
    : encodeNonTensor(field, column.rows, encodeColumn(field, column, how));
}

function encodeColumn(
  field: string,
  column: Exclude<Column, Tensor>,
  how: Exclude<StoredAs, "jagged"> | undefined,
): EncodedColumn {
  switch (how ?? (column.kind === "records" ? mediaCodecOf(column) : undefined)) {
    case "msgpack_ragged":
      return encodeMsgpack(field, column as RecordsColumn | VarlenColumn);
    case "ragged_tensor":
      return encodeRagged(column as RaggedColumn, "ragged_tensor");
    case "ragged_tensor_dict":
      return encodeTensorDict(field, column as RecordsColumn);
    case "media_bytes":
      return encodeMediaBytes(field, column as RecordsColumn | VarlenColumn);
    case "media_list_ragged":
      return encodeMediaLists(field, column as RecordsColumn);
  }
  switch (column.kind) {
    case "scalars":
      return encodeScalars(column);
    case "ragged":
      return encodeRagged(column);
    case "records":
      return encodeRecords(field, column);
    default:
      return encodeVarlen(column);
  }
}

function encodeNonTensor(field: string, rows: number, column: EncodedColumn): EncodedField {
  const members = column.parts.map(({ part, spec, bytes, rowBytes }) => ({
    member: `non_tensor_batch.${field}.${part}`,
    spec,
    parts: bytes,
    rowBytes,
  }));
  return {
    field,
    section: "non_tensor_batch",
    members,
    encoded: {
      codec: column.codec,
      rows,
      metadata: column.metadata,
      payloadMembers: new Map(column.parts.map(({ part }, index) => [part, members[index]!.member])),
    },
  };
}
