/**
 * Reading columns of a bundle.
 *
 * Readers are generators: each round they yield the byte ranges they need next, so that a caller can join the
 * ranges of many columns and bundles in one read of the store.
 *
 * @module
 */

import type { Column, Guard } from "../batch/column.ts";
import type { DType } from "../batch/dtype.ts";
import type { RowSet } from "../batch/rowset.ts";
import { CorruptionError, NotFoundError, SchemaError } from "../errors.ts";
import type { BundleInfo } from "./bundle.ts";
import type { StoredField } from "./fields.ts";
import { type ChunkRange, type PayloadRange, payloadToChunks, type Reading } from "./ranges.ts";
import { type TensorLayout, TensorReader } from "./tensor_reader.ts";

function storedField(bundle: BundleInfo, field: string): StoredField {
  const stored = bundle.fields.get(field);
  if (stored !== undefined) return stored;
  throw new NotFoundError(`there is no field ${JSON.stringify(field)} in ${bundle.manifestKey}`, {
    partition: bundle.partition,
    field,
    key: bundle.manifestKey,
    expected: [...bundle.fields.keys()],
  });
}

function checkRows(bundle: BundleInfo, field: string, rows: RowSet): void {
  if (rows.max() < bundle.rows) return;
  throw new SchemaError(`row ${rows.max()} is beyond the ${bundle.rows} rows of ${bundle.manifestKey}`, {
    partition: bundle.partition,
    field,
    key: bundle.manifestKey,
    expected: `below ${bundle.rows}`,
    actual: rows.max(),
  });
}

/**
 * Reads rows of one field, in the order asked; duplicates are allowed and read once.
 *
 * @returns A column of `rows.length` rows in memory of its own.
 * @throws NotFoundError for an unknown field.
 * @throws SchemaError for rows out of range and fields stored in a form this library does not read.
 * @throws CorruptionError for stored bytes that contradict themselves.
 */
export function* readColumn(bundle: BundleInfo, field: string, rows: RowSet): Reading<Column> {
  const { reader } = storedField(bundle, field);
  checkRows(bundle, field, rows);
  return yield* reader.read(rows);
}

/**
 * Reads rows of a tensor straight to where they belong: row i of `rows` becomes row `positions.at(i)` of
 * `out`, which is row-major and has as many bytes a row as the tensor.
 *
 * @throws As `readColumn`; SchemaError also for a field that is not a tensor and for an `out` that is too
 * short.
 */
export function* readTensorInto(
  bundle: BundleInfo,
  field: string,
  rows: RowSet,
  out: Uint8Array,
  positions: RowSet,
): Reading<void> {
  const stored = storedField(bundle, field);
  checkRows(bundle, field, rows);
  if (stored.problem !== undefined) throw stored.problem;
  if (!(stored.reader instanceof TensorReader)) {
    throw new SchemaError(`field ${JSON.stringify(field)} is not a tensor but ${stored.kind}`, {
      partition: bundle.partition,
      field,
      expected: "tensor",
      actual: stored.kind,
    });
  }
  yield* stored.reader.readInto(rows, out, positions);
}

/**
 * Maps payload ranges onto stored objects, splitting them where a payload has several chunks.
 *
 * @throws CorruptionError for ranges beyond a payload.
 */
export function toChunks(bundle: BundleInfo, ranges: readonly PayloadRange[]): ChunkRange[] {
  const out: ChunkRange[] = [];
  for (let from = 0, to = 0; from < ranges.length; from = to) {
    const { member } = ranges[from]!;
    for (to = from + 1; to < ranges.length && ranges[to]!.member === member; to++);
    for (const range of payloadToChunks(bundle.payloads.get(member)!, ranges.slice(from, to))) {
      out.push(range);
    }
  }
  return out;
}

/** A member whose payload is one stored object. */
export interface PayloadPlace {
  readonly member: string;
  /** The key of its only chunk. */
  readonly key: string;
  readonly bytes: number;
}

/** A tensor that can be used in place. */
export interface TensorPlace extends Omit<TensorLayout, "swap"> {
  readonly member: string;
  readonly key: string;
  readonly dtype: DType;
}

/**
 * Where a tensor lies, if it can be viewed in place: stored in one chunk, little-endian, its layout known
 * without reading it, and not empty.
 */
export function tensorPlace(bundle: BundleInfo, field: string): TensorPlace | undefined {
  const { reader } = storedField(bundle, field);
  if (!(reader instanceof TensorReader) || reader.known === undefined) return undefined;
  const { swap, ...layout } = reader.known;
  const [place] = columnPlaces(bundle, field) ?? [];
  if (place === undefined || swap || layout.rowBytes * bundle.rows === 0) return undefined;
  return { member: place.member, key: place.key, ...layout };
}

/**
 * Where the payloads of a field lie that are not empty, if each is one stored object; undefined if any is
 * split, or the field cannot be read at all.
 */
export function columnPlaces(bundle: BundleInfo, field: string): readonly PayloadPlace[] | undefined {
  const { reader, problem } = storedField(bundle, field);
  if (problem !== undefined) return undefined;
  const places: PayloadPlace[] = [];
  for (const { name, payload } of reader.members) {
    const chunks = payload.chunks.filter((chunk) => chunk.bytes > 0);
    if (chunks.length > 1) return undefined;
    if (chunks.length === 1) places.push({ member: name, key: chunks[0]!.key, bytes: payload.bytes });
  }
  return places;
}

/**
 * The whole column, from whole payloads. Data is not copied (big-endian numbers are).
 *
 * @param payloads Member → its payload; empty payloads may be left out.
 * @param guard Says when the memory behind the payloads is gone.
 * @throws As `readColumn`; CorruptionError also for payloads of another length than the manifest says.
 */
export function decodeColumn(
  bundle: BundleInfo,
  field: string,
  payloads: ReadonlyMap<string, Uint8Array>,
  guard?: Guard,
): Column {
  const { reader } = storedField(bundle, field);
  return reader.decode(({ name, payload }) => {
    const bytes = payloads.get(name) ?? new Uint8Array(0);
    if (bytes.byteLength === payload.bytes) return bytes;
    throw new CorruptionError(
      `${payload.key} has ${bytes.byteLength} bytes, its manifest says ${payload.bytes}`,
      {
        partition: bundle.partition,
        field,
        key: payload.key,
        expected: payload.bytes,
        actual: bytes.byteLength,
      },
    );
  }, guard);
}
