/**
 * Batches filled in place: tensors in the store's own memory, published without a copy.
 *
 * @module
 */

import type { Column } from "../batch/column.ts";
import { type DType, isDType, itemSize } from "../batch/dtype.ts";
import { toColumns } from "../batch/batch.ts";
import { Tensor } from "../batch/tensor.ts";
import { encodeField } from "../bundle/encode.ts";
import type { Deadline } from "../deadline.ts";
import { ClosedError, SchemaError } from "../errors.ts";
import type { ColumnRemoteBatch } from "../remote/remote_batch.ts";
import type { Session, WriteRequest } from "../remote/session.ts";
import type { StoredBundle } from "../remote/stored_bundle.ts";
import type { BundleLease, StoreObject } from "../store/store.ts";
import type { PutOptions } from "./backend.ts";

/** Tensors by name: element type, and shape without the rows. */
export type AllocationSchema = Readonly<
  Record<string, { readonly dtype: DType; readonly shape?: readonly number[] }>
>;

/** Tensors to fill, then {@linkcode BatchAllocation.put}. Released without a put, nothing was ever stored. */
export interface BatchAllocation extends Disposable {
  /** The tensors, by name; write through their `.data`. They throw once put or released. */
  readonly tensors: Readonly<Record<string, Tensor>>;
  /** Makes the batch visible. */
  put(partition: string, rowIds: readonly string[] | null, options?: PutOptions): Promise<ColumnRemoteBatch>;
  /** Gives the memory back; does nothing after a put. */
  release(): void;
}

/** How the floor above turns filled columns into a batch: checks the request, then has `publish` store it. */
export type PutColumns = (
  partition: string,
  rowIds: readonly string[] | null,
  columns: ReadonlyMap<string, Column>,
  options: PutOptions,
  publish: (request: WriteRequest, deadline: Deadline) => Promise<StoredBundle>,
) => Promise<ColumnRemoteBatch>;

/**
 * Asks the store for the memory of some tensors.
 *
 * @throws SchemaError for a schema that is none; CapacityError where the store is full
 */
export async function allocateBatch(
  session: Session,
  putColumns: PutColumns,
  schema: AllocationSchema,
  rows: number,
  deadline: Deadline,
): Promise<BatchAllocation> {
  const forms = Object.entries(schema).map(([field, { dtype, shape = [] }]) => {
    if (!isDType(dtype)) {
      throw new SchemaError(`${field}: there is no dtype ${dtype}`, { field, actual: dtype });
    }
    if (!Number.isSafeInteger(rows) || rows < 0) {
      throw new SchemaError("rows is not a count", { actual: rows });
    }
    const full = [rows, ...shape];
    if (!full.every((n) => Number.isSafeInteger(n) && n >= 0)) {
      throw new SchemaError(`${field}: [${full}] is no shape`, { field, actual: full });
    }
    const bytes = full.reduce((product, n) => product * n, itemSize(dtype));
    // a tensor without elements of the same kind says how many bytes stand before the data
    const empty = encodeField(field, new Tensor(dtype, [0], new Uint8Array(0)), session.settings);
    const header = empty.members.flatMap(({ parts }) => parts).reduce(
      (sum, part) => sum + part.byteLength,
      0,
    );
    return { field, dtype, shape: full, bytes, header };
  });
  const inPlace = session.store.allocate !== undefined && session.store.capabilities.chunkBytes === null;
  const lease = inPlace
    ? await session.store.allocate?.(forms.map(({ header, bytes }) => header + bytes), deadline.options)
    : undefined;
  const allocation = new Allocation(
    lease,
    (guard) =>
      new Map(forms.map(({ field, dtype, shape, bytes, header }, i) => {
        const memory = lease?.payloads[i]?.subarray(header) ?? new Uint8Array(new ArrayBuffer(bytes));
        return [field, new Tensor(dtype, shape, memory, guard)];
      })),
    session,
    putColumns,
  );
  try {
    toColumns(allocation.tensors, rows);
  } catch (error) {
    allocation.release();
    throw error;
  }
  return allocation;
}

class Allocation implements BatchAllocation {
  readonly #lease: BundleLease | undefined;
  readonly #columns: ReadonlyMap<string, Tensor>;
  readonly #session: Session;
  readonly #putColumns: PutColumns;
  readonly tensors: Readonly<Record<string, Tensor>>;
  /** The tensors' guard: they throw once this is true. */
  released = false;

  constructor(
    lease: BundleLease | undefined,
    columns: (guard: { readonly released: boolean }) => ReadonlyMap<string, Tensor>,
    session: Session,
    putColumns: PutColumns,
  ) {
    this.#lease = lease;
    this.#columns = columns(this);
    this.#session = session;
    this.#putColumns = putColumns;
    this.tensors = Object.fromEntries(this.#columns);
  }

  async put(
    partition: string,
    rowIds: readonly string[] | null,
    options: PutOptions = {},
  ): Promise<ColumnRemoteBatch> {
    if (this.released) throw new ClosedError("this allocation was put or released already");
    const batch = await this.#putColumns(
      partition,
      rowIds,
      this.#columns,
      options,
      (request, deadline) => this.#publish(request, deadline),
    );
    this.release();
    return batch;
  }

  async #publish(request: WriteRequest, deadline: Deadline): Promise<StoredBundle> {
    const lease = this.#lease;
    if (lease === undefined) return await this.#session.write(request, deadline);
    const built = this.#session.build(request);
    const places = new Map<ArrayBufferLike | string, number>();
    [...this.#columns.values()].forEach(({ bytes }, i) => places.set(placeOf(bytes), i));
    const placed: { key: string; bytes: number }[] = [];
    const rest: StoreObject[] = [];
    for (const object of built.objects) {
      const data = object.parts.at(-1);
      const index = data === undefined || data.byteLength === 0 ? undefined : places.get(placeOf(data));
      if (index === undefined) {
        rest.push(object);
        continue;
      }
      // everything before the data is the header, and goes where room was left for it
      let at = 0;
      for (const part of object.parts.slice(0, -1)) {
        lease.payloads[index]?.set(part, at);
        at += part.byteLength;
      }
      placed[index] = { key: object.key, bytes: at + (data as Uint8Array).byteLength };
    }
    // tensors without elements are stored like the small rest
    lease.payloads.forEach((_, i) => placed[i] ??= { key: "", bytes: 0 });
    deadline.check();
    await lease.publish(built.objectId, placed, rest, deadline.options);
    return this.#session.adopt(built, request);
  }

  release(): void {
    if (this.released) return;
    this.released = true;
    this.#lease?.release();
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** Identifies memory: views of the same first byte of the same buffer are the same. */
function placeOf(bytes: Uint8Array): string {
  return `${bufferId(bytes.buffer)}:${bytes.byteOffset}`;
}

const bufferIds = new WeakMap<ArrayBufferLike, number>();
let nextBufferId = 0;

function bufferId(buffer: ArrayBufferLike): number {
  let id = bufferIds.get(buffer);
  if (id === undefined) bufferIds.set(buffer, id = nextBufferId++);
  return id;
}
