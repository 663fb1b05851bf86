/**
 * The transfer backend: put, get and delete over one store, the same for every kind of store.
 *
 * @module
 */

import { Batch, type Fields, toColumns } from "../batch/batch.ts";
import type { Column } from "../batch/column.ts";
import { freezeJson, type JsonObject, parseJson } from "../batch/json.ts";
import { RowSet } from "../batch/rowset.ts";
import type { BundleInfo as StoredInfo } from "../bundle/bundle.ts";
import { checkSegment, createdMsOf } from "../bundle/names.ts";
import { tryEach } from "../attempts.ts";
import type { Deadline, DeadlineOptions } from "../deadline.ts";
import { ClosedError, CorruptionError, DroppedError, OwnershipError, SchemaError } from "../errors.ts";
import { handleToBatch, manifestKeys, storeOfHandle } from "../remote/handle.ts";
import type { FieldPiece } from "../remote/pieces.ts";
import { readColumns } from "../remote/planner.ts";
import { isStored } from "../remote/resolve.ts";
import { ColumnRemoteBatch, type RemoteBatch, RowRemoteBatch, wholeBatch } from "../remote/remote_batch.ts";
import { RowSource } from "../remote/row_source.ts";
import { Session, type WriteRequest } from "../remote/session.ts";
import type { StoredBundle } from "../remote/stored_bundle.ts";
import type { ObjectStore } from "../store/store.ts";
import { allocateBatch, type AllocationSchema, type BatchAllocation } from "./allocation.ts";
import { Catalog, type Place } from "./catalog.ts";
import type { ResolvedConfig } from "./config.ts";
import { FieldForms } from "./field_schema.ts";
import { lookupHandle, publishHandle } from "./names.ts";
import { newTombstone } from "./tombstones.ts";
import { TransferScope } from "./scope.ts";

/** Objects without a manifest are left alone so long, in milliseconds: their put may be under way. */
const LEFTOVER_AGE_MS = 3_600_000;

/** The last argument of {@linkcode TransferBackend.put}. */
export interface PutOptions extends DeadlineOptions {
  /** The stage in Mooncake's handle; default `default`. */
  readonly stage?: string | undefined;
  /** JSON that travels in the handle (Mooncake's `meta_info`). */
  readonly meta?: JsonObject | undefined;
}

/** One stored bundle, as {@linkcode TransferBackend.list} tells it. */
export interface BundleInfo {
  readonly partition: string;
  /** 32 hex digits. */
  readonly objectId: string;
  readonly manifestKey: string;
  readonly stage: string;
  readonly rows: number;
  readonly fields: readonly string[];
  /** Payload bytes. */
  readonly bytes: number;
  /** Null where a bundle of Python's does not say. */
  readonly createdMs: number | null;
  readonly ttlMs: number | null;
}

/** What {@linkcode TransferBackend.info} tells. Counts are since opening, metadata included. */
export interface TransferInfo {
  readonly backend: string;
  /** Where the store is, such as `shm:/dev/shm/batchferry-1000`. */
  readonly store: string;
  readonly protocol: { readonly asked: string | null; readonly effective: string | null };
  /** `HOST:PORT` of the other processes that are read directly; null where all share one store. */
  readonly peers: readonly string[] | null;
  /** `store`: the store lists what it holds. `local`: only what this process wrote and imported is known. */
  readonly catalog: "store" | "local";
  /** Configuration keys of ROLL's that mean nothing here. */
  readonly ignored: readonly string[];
  readonly reads: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /** Bytes that borrows had to copy. */
  readonly bytesCopied: number;
}

/** What {@linkcode TransferBackend.delete} did. */
export interface DeleteResult {
  /** Rows deleted. */
  readonly deleted: number;
  /** Keys that were not there. */
  readonly absent: string[];
}

/**
 * Moves batches through one store. Made by {@linkcode openTransfer}; close it, or hold it with `await using`.
 *
 * Every call has a deadline (`timeoutMs`, default 60 s) and takes an AbortSignal.
 */
export class TransferBackend implements AsyncDisposable {
  readonly #config: ResolvedConfig;
  readonly #session: Session;
  readonly #catalog: Catalog;
  #closed = false;

  /** @ignore use openTransfer */
  constructor(config: ResolvedConfig, store: ObjectStore) {
    this.#config = config;
    this.#session = new Session(store, {
      prefix: config.keyPrefix,
      tensorEncoding: config.tensorEncoding,
      ttlMs: config.ttlMs,
      annotations: config.annotations,
      verify: config.verify === "always",
      timeoutMs: config.timeoutMs,
    });
    this.#catalog = new Catalog(this.#session, new FieldForms(config.fieldSchemas));
  }

  /**
   * Writes one batch as one bundle: readers see all of it or nothing.
   *
   * @param partition where it goes; a name without `/`
   * @param rowIds one id a row, unique within this put, or null for generated ones
   * @param fields columns by name; a bare typed array is a 1-D tensor
   * @param batchSize the number of rows of every column
   * @throws SchemaError before anything is written; CapacityError where the store is full
   *
   * @example
   * ```ts
   * const batch = await transfer.put("step-7", null, { text: strings(["a", "b"]), score: new Float32Array(2) }, 2);
   * ```
   */
  async put(
    partition: string,
    rowIds: readonly string[] | null,
    fields: Fields,
    batchSize: number,
    options: PutOptions = {},
  ): Promise<ColumnRemoteBatch> {
    if (!Number.isSafeInteger(batchSize) || batchSize < 0 || batchSize > 0xffffffff) {
      throw new SchemaError("batchSize is not a count of rows", { partition, actual: batchSize });
    }
    const write = this.#session.write.bind(this.#session);
    return await this.#put(partition, rowIds, () => toColumns(fields, batchSize), batchSize, options, write);
  }

  /** Checks everything that can be checked, then has `write` store it. */
  async #put(
    partition: string,
    rowIds: readonly string[] | null,
    columnsOf: () => ReadonlyMap<string, Column>,
    rows: number,
    options: PutOptions,
    write: (request: WriteRequest, deadline: Deadline) => Promise<StoredBundle>,
  ): Promise<ColumnRemoteBatch> {
    const deadline = this.#begin("put", options);
    const made = this.#session.leaks?.here();
    checkSegment("partition", partition);
    const stage = options.stage ?? "default";
    checkSegment("stage", stage);
    if (rowIds !== null) checkRowIds(partition, rowIds, rows);
    const columns = columnsOf();
    const meta = freezeJson(options.meta ?? {});
    const bundle = await write({ partition, namespace: "default", stage, rows, columns, rowIds }, deadline);
    return wholeBatch(this.#session, bundle, columns.keys(), undefined, meta, made);
  }

  /**
   * Reads rows by id.
   *
   * @param partition where they are
   * @param keys row ids in output order, duplicates allowed
   * @param fields the columns wanted; where several bundles have the same cell, the one put last counts
   * @throws NotFoundError with code NOT_FOUND (rows unknown) or NOT_READY (a field not put yet), naming the rows
   */
  async get(
    partition: string,
    keys: readonly string[],
    fields: readonly string[],
    options: DeadlineOptions = {},
  ): Promise<Batch> {
    const deadline = this.#begin("get", options);
    checkSegment("partition", partition);
    const read = async () => {
      const columns = await this.#catalog.resolve(partition, keys, fields, deadline, "NOT_FOUND");
      return await readColumns(this.#session, columns, keys.length, deadline);
    };
    const columns = await read().catch((error) => {
      // what has just been dropped may be in another bundle by now
      if (error instanceof DroppedError) return read();
      throw error;
    });
    return new Batch(keys.length, columns);
  }

  /**
   * A batch bound to row ids: nothing is looked up before it is read. Rows that have not been put by then fail with
   * their ids (NOT_READY); where several bundles have the same cell, the one put last counts.
   *
   * @param rowIds in any order, duplicates allowed
   * @param fields the fields it is declared to have
   */
  rows(partition: string, rowIds: readonly string[], fields: readonly string[]): RowRemoteBatch {
    this.#check();
    checkSegment("partition", partition);
    const columns = new Map<string, readonly FieldPiece[]>();
    const bundle = new RowSource(partition, rowIds);
    const rows = RowSet.all(bundle.rows);
    for (const field of fields) {
      checkSegment("field", field);
      if (columns.has(field)) {
        throw new SchemaError(`field ${JSON.stringify(field)} is declared twice`, { field });
      }
      columns.set(field, [{ bundle, field, rows }]);
    }
    return new RowRemoteBatch({
      session: this.#session,
      partition,
      rows: bundle.rows,
      columns,
      origin: [{ bundle, rows }],
      meta: freezeJson({}),
    });
  }

  /**
   * Deletes cells by row id. Absent rows are reported and never stop the others; a bundle goes when all of its cells are
   * deleted.
   *
   * @param fields the columns to delete, or `[]` for whole rows
   */
  async delete(
    partition: string,
    keys: readonly string[],
    fields: readonly string[],
    options: DeadlineOptions = {},
  ): Promise<DeleteResult> {
    const deadline = this.#begin("delete", options);
    checkSegment("partition", partition);
    const ids = [...new Set(keys)];
    const places = await this.#catalog.find(partition, ids, deadline);
    const doomed = new Map<StoredBundle, { info: StoredInfo; fields: readonly string[]; rows: number[] }>();
    const found = new Set<string>();
    for (const [i, id] of ids.entries()) {
      for (const place of places[i] as Place[]) {
        const { bundle, row } = place;
        let entry = doomed.get(bundle);
        if (entry === undefined) {
          const info = await this.#session.load(bundle, deadline);
          const named = [...info.fields.keys()].filter((field) =>
            fields.length === 0 || fields.includes(field)
          );
          doomed.set(bundle, entry = { info, fields: named, rows: [] });
        }
        const alive = entry.fields.some((field) => this.#catalog.isAlive(place, field));
        if (!alive && (entry.fields.length > 0 || entry.info.fields.size > 0)) continue;
        entry.rows.push(row);
        found.add(id);
      }
    }
    await tryEach(
      doomed,
      ([bundle, entry]) => this.#bury(bundle, entry.info, entry.fields, entry.rows, deadline),
    );
    return { deleted: found.size, absent: ids.filter((id) => !found.has(id)) };
  }

  /** Deletes some cells of one bundle: the bundle itself where nothing is left of it, else by a tombstone. */
  async #bury(
    bundle: StoredBundle,
    info: StoredInfo,
    fields: readonly string[],
    list: readonly number[],
    deadline: Deadline,
  ): Promise<void> {
    if (list.length === 0) return;
    const rows = RowSet.of([...list].sort((a, b) => a - b));
    if (rows.length < info.rows || fields.length < info.fields.size) {
      const { key, value } = newTombstone(info.objectId, fields, rows);
      await this.#session.store.put(key, value, deadline.options);
      this.#session.counters.bytesWritten += value.byteLength;
      this.#catalog.bury(bundle, key, fields, rows);
      if (!this.#catalog.isDead(info)) return;
    }
    await this.#session.drop(bundle, deadline);
    await this.#session.store.deletePrefix(`${info.objectId}/`, deadline.options);
  }

  /** Puts the handle of a batch under a name of the partition, in place of an earlier one. */
  async publish(
    partition: string,
    name: string,
    batch: RemoteBatch,
    options: DeadlineOptions = {},
  ): Promise<void> {
    await publishHandle(this.#session, partition, name, batch, this.#begin("publish", options));
  }

  /**
   * The batch that was published under a name; waits for it until the deadline.
   *
   * @throws TimeoutError
   *
   * @example
   * ```ts
   * const parts = await Promise.all(ranks.map((rank) => transfer.lookup("step-7", `rollout-${rank}`)));
   * const batch = concat(parts);
   * ```
   */
  async lookup(partition: string, name: string, options: DeadlineOptions = {}): Promise<RemoteBatch> {
    const deadline = this.#begin("lookup", options);
    return this.importHandle(await lookupHandle(this.#session, partition, name, deadline, options.signal));
  }

  /**
   * Drops bundles whose time to live is over (bundles made by Python have none), and what puts left that were cut off
   * more than an hour ago. Gives the number dropped.
   */
  async gc(options: DeadlineOptions = {}): Promise<number> {
    const deadline = this.#begin("gc", options);
    const now = Date.now();
    const old = (await this.#catalog.bundles(undefined, deadline)).filter(({ createdMs, ttlMs }) =>
      createdMs !== null && ttlMs !== null && createdMs + ttlMs < now
    );
    let dropped = 0;
    await tryEach(old, async ({ manifestKey }) => {
      const bundle = this.#session.known(manifestKey);
      if (bundle !== undefined && await this.#session.drop(bundle, deadline)) dropped++;
    });
    await this.#catalog.sweep(deadline);
    return dropped + await this.#sweepLeftovers(now, deadline);
  }

  /** Removes objects of ours that no manifest speaks for, where their put cannot be under way any more. */
  async #sweepLeftovers(now: number, deadline: Deadline): Promise<number> {
    const { store, settings } = this.#session;
    const old = (await store.leftovers?.(`${settings.prefix}/`) ?? []).filter((objectId) => {
      const made = createdMsOf(objectId.slice(-32));
      return made !== undefined && made + LEFTOVER_AGE_MS < now;
    });
    if (old.length === 0) return 0;
    // after an append by Python, payloads lie below ids whose own manifest is gone
    const spoken = new Set<string>();
    for (const { manifestKey } of await this.#catalog.bundles(undefined, deadline)) {
      const ids = this.#session.known(manifestKey)?.info?.manifest.bufferObjectIds ?? [];
      for (const id of ids) spoken.add(`${settings.prefix}/${id}`);
    }
    const lost = old.filter((objectId) => !spoken.has(objectId));
    await tryEach(lost, async (objectId) => void await store.deletePrefix(`${objectId}/`, deadline.options));
    return lost.length;
  }

  /**
   * Opens a partition for the length of a step: closing the scope drops everything in it, whoever put it.
   *
   * @throws OwnershipError where the partition holds bundles already, unless `adopt` is set
   *
   * @example
   * ```ts
   * await using step = await transfer.scope("step-7");
   * const rollout = await step.put({ prompt: strings(prompts) });
   * ```
   */
  async scope(
    partition: string,
    options: DeadlineOptions & { readonly adopt?: boolean } = {},
  ): Promise<TransferScope> {
    const deadline = this.#begin("scope", options);
    checkSegment("partition", partition);
    if (options.adopt !== true && !await this.#catalog.isEmpty(partition, deadline)) {
      throw new OwnershipError(`the partition ${JSON.stringify(partition)} holds bundles already`, {
        partition,
        hint: "open the scope before anything is put, or pass { adopt: true }",
      });
    }
    return new TransferScope(this, partition);
  }

  /** The stored bundles of a partition, or of all, oldest first. */
  async list(partition?: string, options: DeadlineOptions = {}): Promise<BundleInfo[]> {
    const deadline = this.#begin("list", options);
    if (partition !== undefined) checkSegment("partition", partition);
    return (await this.#catalog.bundles(partition, deadline)).map(publicInfo);
  }

  /** Deletes everything in a partition; nothing has to be known or listed. Gives the number of bundles deleted. */
  async dropPartition(partition: string, options: DeadlineOptions = {}): Promise<number> {
    const deadline = this.#begin("dropPartition", options);
    checkSegment("partition", partition);
    const deleted = await this.#session.store.deletePrefix(
      `${this.#config.keyPrefix}/${partition}/`,
      deadline.options,
    );
    this.#catalog.removePartition(partition);
    return deleted;
  }

  /**
   * The batch a handle stands for. Nothing is read before it is used.
   *
   * @param handle JSON text or the parsed object: of {@linkcode ColumnRemoteBatch.toHandle}, or Mooncake's
   *   `export_dataproto_ref`
   * @throws CorruptionError where it is damaged; ConfigError where its keys have another prefix
   */
  importHandle(handle: string | object): ColumnRemoteBatch {
    this.#check();
    let parsed: unknown = handle;
    if (typeof handle === "string") {
      try {
        parsed = parseJson(handle);
      } catch (cause) {
        throw new CorruptionError("the handle is no JSON", { cause });
      }
    }
    const parts = handleToBatch(this.#session, parsed);
    const uri = storeOfHandle(parsed);
    if (uri !== undefined) this.#session.store.learn?.(uri, manifestKeys(parts));
    let meta: JsonObject;
    try {
      meta = freezeJson(parts.meta);
    } catch (cause) {
      throw new CorruptionError(`the handle's ${(cause as Error).message}`, { cause });
    }
    const state = { session: this.#session, ...parts, meta };
    const bound = parts.origin.every(isStored);
    return (bound ? new ColumnRemoteBatch(state) : new RowRemoteBatch(state)) as ColumnRemoteBatch;
  }

  /** Memory in the store to fill in place: tensors of the given forms, published without a copy. */
  async allocate(
    schema: AllocationSchema,
    rows: number,
    options: DeadlineOptions = {},
  ): Promise<BatchAllocation> {
    const deadline = this.#begin("allocate", options);
    return await allocateBatch(
      this.#session,
      (partition, rowIds, columns, options, publish) =>
        this.#put(partition, rowIds, () => columns, rows, options, publish),
      schema,
      rows,
      deadline,
    );
  }

  /** What this transfer is and what it has moved. */
  // deno-lint-ignore require-await
  async info(): Promise<TransferInfo> {
    this.#check();
    const { counters, store } = this.#session;
    return {
      backend: this.#config.backend,
      store: store.uri,
      protocol: { asked: store.transport?.asked ?? null, effective: store.transport?.effective ?? null },
      peers: store.peers ?? null,
      catalog: this.#catalog.kind,
      ignored: this.#config.ignored,
      ...counters,
    };
  }

  /** Gives back what this process holds; batches that were put stay. Closing twice is fine. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#session.store.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #begin(what: string, options: DeadlineOptions): Deadline {
    this.#check();
    const deadline = this.#session.deadline(what, options);
    deadline.check();
    return deadline;
  }

  #check(): void {
    if (this.#closed) throw new ClosedError("this transfer is closed");
  }
}

function checkRowIds(partition: string, rowIds: readonly string[], rows: number): void {
  if (rowIds.length !== rows) {
    throw new SchemaError("there must be one row id a row", {
      partition,
      expected: rows,
      actual: rowIds.length,
    });
  }
  const seen = new Set<string>();
  for (const id of rowIds) {
    if (typeof id !== "string" || id === "" || !id.isWellFormed()) {
      throw new SchemaError("a row id is a non-empty text", { partition, actual: id });
    }
    if (seen.has(id)) throw new SchemaError("a row id occurs twice in one put", { partition, actual: id });
    seen.add(id);
  }
}

function publicInfo(info: StoredInfo): BundleInfo {
  return {
    partition: info.partition,
    objectId: info.objectId.slice(info.objectId.lastIndexOf("/") + 1),
    manifestKey: info.manifestKey,
    stage: info.stage,
    rows: info.rows,
    fields: [...info.fields.keys()],
    bytes: info.bytes,
    createdMs: info.createdMs,
    ttlMs: info.ttlMs,
  };
}
