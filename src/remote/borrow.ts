/**
 * Borrowing: columns in place, in the store's own memory, until the lease is released.
 *
 * @module
 */

import { Batch } from "../batch/batch.ts";
import type { Column } from "../batch/column.ts";
import type { JsonObject } from "../batch/json.ts";
import { Tensor } from "../batch/tensor.ts";
import type { BundleInfo } from "../bundle/bundle.ts";
import { columnPlaces, decodeColumn, tensorPlace } from "../bundle/read.ts";
import type { Deadline } from "../deadline.ts";
import { CorruptionError, DroppedError } from "../errors.ts";
import type { Lease } from "../store/store.ts";
import type { StoredPiece } from "./pieces.ts";
import { fieldOf, loadBundles, readColumns } from "./planner.ts";
import type { Session } from "./session.ts";
import type { StoredBundle } from "./stored_bundle.ts";

/** A batch over borrowed memory. Release it (`using` does); after that its tensors throw ClosedError. */
export interface BatchLease extends Disposable {
  readonly batch: Batch;
  readonly released: boolean;
  release(): void;
}

/** A column that can be handed out in place: all of one piece's bytes lie in payloads of one bundle. */
interface InPlace {
  readonly name: string;
  readonly piece: StoredPiece;
  readonly info: BundleInfo;
  /** Store key of each payload by member. */
  readonly keys: ReadonlyMap<string, string>;
}

/** Columns of a batch, in place where the store and the selection allow it. */
export async function borrowColumns(
  session: Session,
  columns: ReadonlyMap<string, readonly StoredPiece[]>,
  rows: number,
  meta: JsonObject,
  deadline: Deadline,
): Promise<BatchLease> {
  const infos = await loadBundles(session, columns.values(), deadline);
  const inPlace: InPlace[] = [];
  const copied = new Map<string, readonly StoredPiece[]>();
  for (const [name, pieces] of columns) {
    const place = session.store.view === undefined ? undefined : placeOf(name, pieces, infos);
    if (place === undefined) copied.set(name, pieces);
    else inPlace.push(place);
  }
  const copies = await readColumns(session, copied, rows, deadline);
  for (const column of copies.values()) session.counters.bytesCopied += columnBytes(column);
  const lease = new StoreLease();
  try {
    const views = viewPayloads(session, inPlace, lease);
    const result = new Map<string, Column>();
    for (const name of columns.keys()) {
      const place = inPlace.find((entry) => entry.name === name);
      const column = place === undefined
        ? lendCopy(copies.get(name) as Column, lease)
        : columnInPlace(place, views, lease);
      result.set(name, column);
    }
    lease.batch = new Batch(rows, result, meta);
    return lease;
  } catch (error) {
    lease.release();
    throw error;
  }
}

/** Where a column lies, if it can be handed out as it is. */
function placeOf(
  name: string,
  pieces: readonly StoredPiece[],
  infos: ReadonlyMap<StoredBundle, BundleInfo>,
): InPlace | undefined {
  const [piece] = pieces;
  if (pieces.length !== 1 || piece === undefined) return undefined;
  const info = infos.get(piece.bundle) as BundleInfo;
  const field = fieldOf(info, piece.field);
  const range = piece.rows.isRange();
  if (range === null || (range.step !== 1 && range.count > 1)) return undefined;
  const tensor = tensorPlace(info, piece.field);
  if (tensor !== undefined) return { name, piece, info, keys: new Map([[tensor.member, tensor.key]]) };
  if (field.kind === "tensor" || range.count !== info.rows) return undefined;
  const places = columnPlaces(info, piece.field);
  if (places === undefined) return undefined;
  return { name, piece, info, keys: new Map(places.map(({ member, key }) => [member, key])) };
}

/** One store lease per bundle, over all payloads wanted of it. */
function viewPayloads(
  session: Session,
  inPlace: readonly InPlace[],
  lease: StoreLease,
): Map<BundleInfo, ReadonlyMap<string, ArrayBuffer>> {
  const wanted = new Map<StoredBundle, { info: BundleInfo; keys: Set<string> }>();
  for (const { piece, info, keys } of inPlace) {
    let entry = wanted.get(piece.bundle);
    if (entry === undefined) wanted.set(piece.bundle, entry = { info, keys: new Set() });
    for (const key of keys.values()) entry.keys.add(key);
  }
  const views = new Map<BundleInfo, ReadonlyMap<string, ArrayBuffer>>();
  for (const [bundle, { info, keys }] of wanted) {
    try {
      const part = (session.store.view as NonNullable<typeof session.store.view>)(info.objectId, [...keys]);
      lease.parts.push(part);
      session.counters.bytesCopied += part.copiedBytes;
      views.set(info, part.payloads);
    } catch (error) {
      if (error instanceof DroppedError) session.forget(bundle);
      throw error;
    }
  }
  return views;
}

function columnInPlace(
  { piece, info, keys }: InPlace,
  views: ReadonlyMap<BundleInfo, ReadonlyMap<string, ArrayBuffer>>,
  lease: StoreLease,
): Column {
  const buffers = views.get(info) as ReadonlyMap<string, ArrayBuffer>;
  const range = piece.rows.isRange() as { start: number; count: number };
  const tensor = tensorPlace(info, piece.field);
  if (tensor !== undefined) {
    const buffer = buffers.get(tensor.key) as ArrayBuffer;
    const expected = info.payloads.get(tensor.member)?.bytes;
    if (buffer.byteLength !== expected) {
      throw new CorruptionError(`${tensor.key} has not the size its manifest says`, {
        key: tensor.key,
        field: piece.field,
        expected,
        actual: buffer.byteLength,
      });
    }
    const bytes = new Uint8Array(
      buffer,
      tensor.dataOffset + range.start * tensor.rowBytes,
      range.count * tensor.rowBytes,
    );
    return new Tensor(tensor.dtype, [range.count, ...tensor.rowShape], bytes, lease);
  }
  const payloads = new Map<string, Uint8Array>();
  for (const [member, key] of keys) payloads.set(member, new Uint8Array(buffers.get(key) as ArrayBuffer));
  return decodeColumn(info, piece.field, payloads, lease);
}

/** A column that was copied for a lease ends with it like any other: what is borrowed is the same in every store. */
function lendCopy(column: Column, lease: StoreLease): Column {
  const bytes = column.kind === "tensor" ? column.bytes : "data" in column ? column.data : undefined;
  if (bytes !== undefined) lease.copies.push(bytes.buffer as ArrayBuffer);
  return column.kind === "tensor"
    ? new Tensor(column.dtype, column.shape, column.bytes, lease)
    : { ...column, guard: lease };
}

/** The bytes a column holds. */
function columnBytes(column: Column): number {
  return column.kind === "tensor" ? column.bytes.byteLength : "data" in column ? column.data.byteLength : 0;
}

class StoreLease implements BatchLease {
  batch!: Batch;
  released = false;
  readonly parts: Lease[] = [];
  readonly copies: ArrayBuffer[] = [];

  release(): void {
    this.released = true;
    for (const part of this.parts) part.release();
    for (const copy of this.copies.splice(0)) copy.transfer(0);
  }

  [Symbol.dispose](): void {
    this.release();
  }
}
