/**
 * Batches that live in a store: selections are index work, bytes move when they are materialized.
 *
 * @module
 */

import { Batch, type Fields, toColumns } from "../batch/batch.ts";
import { freezeJson, type JsonObject } from "../batch/json.ts";
import { normalizeRows, normalizeSlice, RowSet } from "../batch/rowset.ts";
import { Tensor } from "../batch/tensor.ts";
import { checkSegment } from "../bundle/names.ts";
import type { DeadlineOptions } from "../deadline.ts";
import { DroppedError, SchemaError } from "../errors.ts";
import { alignment, groupRows, idsOf } from "./align.ts";
import { appendColumns } from "./append.ts";
import { type BatchLease, borrowColumns } from "./borrow.ts";
import { dropCovered } from "./drop.ts";
import { batchToHandle } from "./handle.ts";
import { joinOwners, type OwnerToken } from "./leaks.ts";
import { type MooncakePart, mooncakeParts } from "./mooncake_parts.ts";
import { type FieldPiece, gatherPieces, joinPieces, type Piece, samePieces, type Source } from "./pieces.ts";
import { loadBundles, readColumns } from "./planner.ts";
import { isStored, resolveColumns, withResolved } from "./resolve.ts";
import { RowSource } from "./row_source.ts";
import type { Session } from "./session.ts";
import type { StoredBundle } from "./stored_bundle.ts";

/** What {@linkcode RemoteBatch.materialize} takes besides field names. */
export interface MaterializeOptions extends DeadlineOptions {
  /**
   * Memory to fill instead of new memory: an earlier Batch of the same form, or tensors by name. Fields it does not
   * have, and fields that are no tensors, get new memory.
   */
  readonly into?: Batch | Readonly<Record<string, Tensor>> | undefined;
}

/** One group of {@linkcode RemoteBatch.groupBy}. */
export interface BatchGroup<B> {
  /** The values its rows have in common, by field. */
  readonly key: Readonly<Record<string, unknown>>;
  readonly batch: B;
}

/** What a batch is made of; everything here is immutable. */
export interface BatchState {
  readonly session: Session;
  readonly partition: string;
  readonly rows: number;
  readonly columns: ReadonlyMap<string, readonly FieldPiece[]>;
  readonly origin: readonly Piece[];
  readonly meta: JsonObject;
  /** What tells that the bundles' owners are still held; only where leaks are traced. */
  readonly owners?: readonly OwnerToken[] | undefined;
}

/**
 * A batch in a store. Immutable: every operation gives a new batch of the same kind. Operations without a promise touch
 * no store and throw at the call.
 *
 * There are two kinds with the same methods and results: {@linkcode ColumnRemoteBatch} is bound to bundles,
 * {@linkcode RowRemoteBatch} to row ids.
 *
 * @example
 * ```ts
 * const rollout = await transfer.put("step-7", null, { input_ids, score }, 1024);
 * const shard = await rollout.slice(0, 128).materialize(["score"]); // reads 128 rows of one column
 * ```
 */
export abstract class RemoteBatch {
  readonly #state: BatchState;

  /** @ignore made by a TransferBackend */
  constructor(state: BatchState) {
    this.#state = state;
  }

  /** @ignore another batch of this kind */
  protected abstract derive(state: BatchState): this;

  /** The number of rows. */
  get rows(): number {
    return this.#state.rows;
  }

  /** Field names, in order. */
  get fields(): readonly string[] {
    return [...this.#state.columns.keys()];
  }

  /** The partition its bundles are in. */
  get partition(): string {
    return this.#state.partition;
  }

  /** JSON that travels in the handle and is not stored. Frozen; see {@linkcode RemoteBatch.withMeta}. */
  get meta(): JsonObject {
    return this.#state.meta;
  }

  /** The same rows with `patch` merged over the meta; a key of `undefined` is removed. */
  withMeta(patch: Readonly<Record<string, unknown>>): this {
    const merged = Object.entries({ ...this.#state.meta, ...patch }).filter(([, value]) =>
      value !== undefined
    );
    return this.#with({ meta: freezeJson(Object.fromEntries(merged) as JsonObject) });
  }

  /** Only these fields, in this order. @throws SchemaError for an unknown or repeated name */
  select(fields: readonly string[]): this {
    const columns = new Map<string, readonly FieldPiece[]>();
    for (const field of fields) {
      if (columns.has(field)) {
        throw new SchemaError(`field ${JSON.stringify(field)} is selected twice`, { field });
      }
      columns.set(field, this.#column(field));
    }
    return this.#with({ columns });
  }

  /** All fields but these. @throws SchemaError for an unknown name */
  without(fields: readonly string[]): this {
    const columns = new Map(this.#state.columns);
    for (const field of fields) {
      this.#column(field);
      columns.delete(field);
    }
    return this.#with({ columns });
  }

  /** The same columns under other names. @throws SchemaError for an unknown name, or where two would have one name */
  rename(names: Readonly<Record<string, string>>): this {
    for (const field of Object.keys(names)) this.#column(field);
    const columns = new Map<string, readonly FieldPiece[]>();
    for (const [field, pieces] of this.#state.columns) {
      const name = Object.hasOwn(names, field) ? checkSegment("field", names[field]) : field;
      if (columns.has(name)) {
        throw new SchemaError(`two fields would be called ${JSON.stringify(name)}`, { field: name });
      }
      columns.set(name, pieces);
    }
    return this.#with({ columns });
  }

  /** These fields, and the batch without them. */
  pop(fields: readonly string[]): [popped: this, rest: this] {
    return [this.select(fields), this.without(fields)];
  }

  /** Rows from `start` to `end` by `step`, as Python slices: negative bounds count from the end, so do steps. */
  slice(start?: number, end?: number, step?: number): this {
    return this.#rowsOf(normalizeSlice(start, end, step, this.rows));
  }

  /**
   * Rows by position (negative ones count from the end; repeats allowed) or by a mask of one boolean a row.
   *
   * @throws SchemaError for a row out of range or a mask of another length
   */
  selectRows(rows: readonly number[] | Uint32Array | readonly boolean[]): this {
    return this.#rowsOf(normalizeRows(rows, this.rows));
  }

  /** Every row `times` times: the whole batch again and again, or with `interleave` each row beside its copies. */
  repeat(times: number, options: { readonly interleave?: boolean } = {}): this {
    if (!Number.isInteger(times) || times < 0) {
      throw new SchemaError("repeat takes a count", { expected: "an integer of at least 0", actual: times });
    }
    const { rows } = this;
    if (options.interleave !== true) {
      return this.#rowsOf(RowSet.concat(Array.from({ length: times }, () => RowSet.all(rows))));
    }
    const order = new Uint32Array(rows * times);
    for (let row = 0; row < rows; row++) order.fill(row, row * times, (row + 1) * times);
    return this.#rowsOf(RowSet.of(order));
  }

  /**
   * Consecutive parts: of the given sizes, or a count of parts of which the first ones may be one row larger.
   *
   * @throws SchemaError where sizes do not add up to the rows
   */
  chunk(sizes: number | readonly number[]): this[] {
    const { rows } = this;
    let counts: readonly number[];
    if (typeof sizes === "number") {
      if (!Number.isInteger(sizes) || sizes < 1) {
        throw new SchemaError("chunk takes a count of at least 1, or sizes", { actual: sizes });
      }
      const small = Math.floor(rows / sizes);
      counts = Array.from({ length: sizes }, (_, i) => small + (i < rows % sizes ? 1 : 0));
    } else {
      counts = sizes;
      const total = counts.reduce((sum, n) => sum + n, 0);
      if (total !== rows || counts.some((n) => !Number.isInteger(n) || n < 0)) {
        throw new SchemaError("the sizes of chunks must add up to the rows", {
          expected: rows,
          actual: sizes,
        });
      }
    }
    let start = 0;
    return counts.map((count) => this.#rowsOf(RowSet.range((start += count) - count, count)));
  }

  /**
   * Reads columns: each row once, whatever the history of this batch.
   *
   * @param fields names, in the order wanted; all fields where left out
   * @returns an owned Batch
   * @throws SchemaError for an unknown field, DroppedError, DataLostError, TimeoutError
   *
   * @example
   * ```ts
   * const data = await batch.materialize(["input_ids", "score"]);
   * data.tensor("input_ids").data; // BigInt64Array
   * ```
   */
  async materialize(
    fields: readonly string[] = this.fields,
    options: MaterializeOptions = {},
  ): Promise<Batch> {
    const { session, rows, meta } = this.#state;
    const chosen = this.#chosen(fields);
    const into = options.into === undefined ? undefined : targets(options.into, chosen.keys());
    const deadline = session.deadline("materialize", options);
    const read = await withResolved(
      session,
      chosen,
      deadline,
      (columns) => readColumns(session, columns, rows, deadline, into),
    );
    return new Batch(rows, read, meta);
  }

  /**
   * Columns in place, without a copy where the store allows it: tensors over contiguous rows of one bundle are views.
   *
   * The lease must be released; after that its tensors throw and arrays kept from it have length 0. What a consumer
   * writes into it is seen by nobody else. Selections that are not contiguous are copied, and counted in `info()`.
   *
   * @example
   * ```ts
   * using lease = await batch.borrow(["observations"]);
   * train(lease.batch.tensor("observations").data);
   * ```
   */
  async borrow(fields: readonly string[] = this.fields, options: DeadlineOptions = {}): Promise<BatchLease> {
    const { session, rows, meta } = this.#state;
    const chosen = this.#chosen(fields);
    const deadline = session.deadline("borrow", options);
    return await withResolved(
      session,
      chosen,
      deadline,
      (columns) => borrowColumns(session, columns, rows, meta, deadline),
    );
  }

  /**
   * The columns of both. The rows must be the same ones in the same order: both from one put, or one put over the other.
   *
   * @param options what happens to a name both have: `error` (default) unless it is the very same column, or the column
   *   of the `left` or `right` batch counts
   * @throws SchemaError for other rows, which `await other.alignTo(batch)` puts into this batch's order
   */
  union(
    other: RemoteBatch,
    { onConflict = "error" }: { readonly onConflict?: "error" | "left" | "right" } = {},
  ): this {
    const { session, rows, partition, origin, columns } = this.#state;
    const right = other.#state;
    if (right.session !== session) throw new SchemaError("union takes batches of one transfer");
    if (right.partition !== partition) {
      throw new SchemaError("union takes batches of one partition", {
        expected: partition,
        actual: right.partition,
      });
    }
    if (right.rows !== rows || !samePieces(origin, right.origin)) {
      throw new SchemaError("union takes batches over the same rows in the same order", {
        partition,
        expected: rows,
        actual: right.rows,
        hint: "if the ids of the rows agree, use batch.union(await other.alignTo(batch))",
      });
    }
    const merged = new Map(columns);
    for (const [name, pieces] of right.columns) {
      const mine = merged.get(name);
      if (mine === undefined || onConflict === "right") merged.set(name, pieces);
      else if (onConflict === "error" && !sameColumn(mine, pieces)) {
        throw new SchemaError(`both batches have a field ${JSON.stringify(name)}`, {
          partition,
          field: name,
          hint: 'say which one counts: { onConflict: "left" } or "right"',
        });
      }
    }
    return this.#with({
      columns: merged,
      owners: session.leaks && joinOwners(this.#state.owners, right.owners),
    });
  }

  /**
   * This batch's rows in the order of another batch's, matched by row id, so that the two can be united.
   *
   * @throws NotFoundError naming rows of `other` that this batch does not have
   */
  async alignTo(other: RemoteBatch, options: DeadlineOptions = {}): Promise<this> {
    const { session, origin } = this.#state;
    const right = other.#state;
    if (right.session !== session) throw new SchemaError("alignTo takes batches of one transfer");
    if (samePieces(origin, right.origin)) return this;
    const deadline = session.deadline("alignTo", options);
    const [mine, theirs] = await Promise.all([
      idsOf(session, origin, deadline),
      idsOf(session, right.origin, deadline),
    ]);
    const aligned = this.#rowsOf(alignment(mine, theirs));
    return aligned.#with({ origin: right.origin });
  }

  /** The ids of the rows, in order. */
  async rowIds(options: DeadlineOptions = {}): Promise<string[]> {
    const { session, origin } = this.#state;
    return await idsOf(session, origin, session.deadline("rowIds", options));
  }

  /**
   * Rows with equal values in `fields`, group by group in the order of first appearance. Only these columns are read.
   *
   * @returns for each group its values, `{ field: value }`, and its rows as a batch
   */
  async groupBy(
    fields: readonly string[],
    options: DeadlineOptions = {},
  ): Promise<BatchGroup<this>[]> {
    if (fields.length === 0) throw new SchemaError("groupBy takes at least one field");
    const keys = await this.materialize(fields, options);
    return groupRows(keys).map(({ key, rows }) => ({ key, batch: this.#rowsOf(rows) }));
  }

  /**
   * Writes new columns over these rows, whatever view this is. The result has only the new columns; {@linkcode
   * RemoteBatch.union} joins it to this batch.
   *
   * @throws SchemaError before anything is written
   *
   * @example
   * ```ts
   * const shard = batch.chunk(4)[rank];
   * const values = await shard.put({ advantage: new Float32Array(shard.rows) });
   * const both = shard.union(values);
   * ```
   */
  async put(
    fields: Fields,
    options: DeadlineOptions & { readonly stage?: string | undefined } = {},
  ): Promise<ColumnRemoteBatch> {
    const { session, partition, rows, origin, meta } = this.#state;
    const made = session.leaks?.here();
    const columns = toColumns(fields, rows);
    const stage = options.stage ?? "default";
    checkSegment("stage", stage);
    const deadline = session.deadline("put", options);
    for (const { bundle } of origin) {
      if (isDropped(bundle)) {
        throw new DroppedError("the rows these columns are for were dropped", {
          partition,
          key: bundle.manifestKey,
        });
      }
    }
    // rows named by id keep their ids; rows of bundles say which rows they are
    const stored = origin.every(isStored);
    const rowIds = stored ? null : await idsOf(session, origin, deadline);
    if (rowIds !== null && new Set(rowIds).size !== rowIds.length) {
      throw new SchemaError("columns cannot be put over rows that a batch bound to row ids has twice", {
        partition,
      });
    }
    const bundle = await session.write({
      partition,
      namespace: "default",
      stage,
      rows,
      columns,
      rowIds,
      origin: stored ? origin.filter(isStored) : undefined,
    }, deadline);
    return wholeBatch(session, bundle, columns.keys(), origin, meta, made);
  }

  /**
   * Reads everything and writes it as one new bundle, which outlives the old ones: it keeps the ids of the rows and needs
   * nothing else of them. To unite it with batches over the old rows, align by id.
   */
  async compact(
    options: DeadlineOptions & { readonly stage?: string | undefined } = {},
  ): Promise<ColumnRemoteBatch> {
    const { session, partition, rows, origin, meta } = this.#state;
    const made = session.leaks?.here();
    const data = await this.materialize(this.fields, options);
    const deadline = session.deadline("compact", options);
    const stage = options.stage ?? "default";
    checkSegment("stage", stage);
    const ids = await idsOf(session, origin, deadline);
    const bundle = await session.write({
      partition,
      namespace: "default",
      stage,
      rows,
      columns: toColumns(data, rows),
      rowIds: new Set(ids).size === ids.length ? ids : null,
    }, deadline);
    return wholeBatch(session, bundle, this.fields, undefined, meta, made);
  }

  /**
   * Handles that Mooncake's Python class reads, each with the rows of it that are meant (null for all), in order.
   *
   * @throws SchemaError where columns lie at different rows of their bundles; `compact()` mends that
   */
  async toMooncake(options: DeadlineOptions = {}): Promise<MooncakePart[]> {
    const { session, columns } = this.#state;
    const deadline = session.deadline("toMooncake", options);
    const stored = await resolveColumns(session, columns, deadline);
    await loadBundles(session, stored.values(), deadline);
    return mooncakeParts(session, { ...this.#state, columns: stored });
  }

  /** The handle: JSON without data, for any other process with the same store. A whole put's handle is Mooncake's. */
  toHandle(): JsonObject {
    return batchToHandle(this.#state.session, this.#state);
  }

  /**
   * Deletes the bundles that this batch covers completely: every row of every field of them.
   *
   * @throws OwnershipError, and deletes nothing, where it covers a bundle partly
   */
  async drop(options: DeadlineOptions = {}): Promise<void> {
    const { session, columns, origin } = this.#state;
    const deadline = session.deadline("drop", options);
    await dropCovered(
      session,
      await resolveColumns(session, columns, deadline),
      origin.filter(isStored),
      deadline,
    );
  }

  /** @ignore the parts, for the operations in this folder and the floor above */
  static stateOf(batch: RemoteBatch): BatchState {
    return batch.#state;
  }

  /** @ignore a batch of the same kind as another */
  static like<B extends RemoteBatch>(batch: B, state: BatchState): B {
    return batch.derive(state);
  }

  #with(change: Partial<BatchState>): this {
    return this.derive({ ...this.#state, ...change });
  }

  #rowsOf(rows: RowSet): this {
    const { columns, origin } = this.#state;
    // columns of one put share their pieces' rows, so the gather is done once for all of them
    const done: { readonly of: readonly Piece[]; readonly taken: readonly Piece[] }[] = [];
    const take = (pieces: readonly Piece[]): readonly Piece[] => {
      const known = done.find(({ of }) =>
        of.length === pieces.length &&
        of.every(({ bundle, rows }, i) => bundle === pieces[i]?.bundle && rows === pieces[i]?.rows)
      );
      if (known !== undefined) return known.taken;
      const taken = gatherPieces(pieces.map(({ bundle, rows }) => ({ bundle, rows })), rows);
      done.push({ of: pieces, taken });
      return taken;
    };
    const gathered = new Map<string, readonly FieldPiece[]>();
    for (const [name, pieces] of columns) {
      const field = pieces[0]?.field ?? name;
      gathered.set(
        name,
        pieces.every((piece) => piece.field === field)
          ? take(pieces).map((piece) => ({ ...piece, field }))
          : gatherPieces(pieces, rows),
      );
    }
    return this.#with({ rows: rows.length, columns: gathered, origin: take(origin) });
  }

  #column(field: string): readonly FieldPiece[] {
    const pieces = this.#state.columns.get(field);
    if (pieces === undefined) {
      throw new SchemaError(`there is no field ${JSON.stringify(field)} in this batch`, {
        field,
        partition: this.partition,
        expected: this.fields,
      });
    }
    return pieces;
  }

  #chosen(fields: readonly string[]): Map<string, readonly FieldPiece[]> {
    return new Map(fields.map((field) => [field, this.#column(field)]));
  }
}

/** A batch bound to the bundles that hold it: what `put` and `importHandle` give. */
export class ColumnRemoteBatch extends RemoteBatch {
  /**
   * Writes columns into this whole batch as Mooncake's Python class does: into one of its stages, as a new stage, or with
   * `overwrite` over a stage, whose fields must all be given. The result replaces this batch: drop that one, not this.
   *
   * @param options `stage`: the first one where left out
   * @throws SchemaError for a view (use {@linkcode RemoteBatch.put} and `union`) and for fields that are there already
   */
  async append(
    fields: Fields,
    { stage, overwrite = false, ...options }: DeadlineOptions & {
      readonly stage?: string | undefined;
      readonly overwrite?: boolean | undefined;
    } = {},
  ): Promise<ColumnRemoteBatch> {
    const state = RemoteBatch.stateOf(this);
    const columns = toColumns(fields, state.rows);
    if (stage !== undefined) checkSegment("stage", stage);
    const deadline = state.session.deadline("append", options);
    await loadBundles(
      state.session,
      (await resolveColumns(state.session, state.columns, deadline)).values(),
      deadline,
    );
    const target = { stage, overwrite };
    return this.derive({ ...state, ...await appendColumns(state.session, state, columns, target, deadline) });
  }

  /** @ignore */
  protected override derive(state: BatchState): this {
    return new ColumnRemoteBatch(state) as this;
  }
}

/** A batch bound to row ids, with declared fields: which bundles hold them is found out when they are read. */
export class RowRemoteBatch extends RemoteBatch {
  /** @ignore */
  protected override derive(state: BatchState): this {
    return new RowRemoteBatch(state) as this;
  }
}

/** The batch of a bundle just written, its owner; `made` says where, if leaks are traced. */
export function wholeBatch(
  session: Session,
  bundle: StoredBundle,
  fields: Iterable<string>,
  origin: readonly Piece[] | undefined,
  meta: JsonObject,
  made: string | undefined,
): ColumnRemoteBatch {
  const rows = RowSet.all(bundle.rows);
  const columns = new Map<string, readonly FieldPiece[]>();
  for (const field of fields) columns.set(field, [{ bundle, field, rows }]);
  return new ColumnRemoteBatch({
    session,
    partition: bundle.partition,
    rows: bundle.rows,
    columns,
    origin: origin ?? [{ bundle, rows }],
    meta,
    owners: made === undefined ? undefined : [session.leaks?.own(bundle, made) ?? {}],
  });
}

/** True if this process knows that a bundle is gone. */
function isDropped(source: Source): source is StoredBundle {
  return !(source instanceof RowSource) && source.dropped;
}

/** True if two columns are the same rows of the same fields. */
function sameColumn(a: readonly FieldPiece[], b: readonly FieldPiece[]): boolean {
  return samePieces(a, b) && a.length === b.length && a.every((piece, i) => piece.field === b[i]?.field);
}

/** The tensors of `into` that belong to the columns asked for. */
function targets(
  into: NonNullable<MaterializeOptions["into"]>,
  fields: Iterable<string>,
): Map<string, Tensor> {
  const found = new Map<string, Tensor>();
  for (const field of fields) {
    if (into instanceof Batch) {
      const column = into.has(field) ? into.column(field) : undefined;
      if (column instanceof Tensor) found.set(field, column);
    } else if (Object.hasOwn(into, field)) {
      const tensor = into[field];
      if (!(tensor instanceof Tensor)) {
        throw new SchemaError(`what is given to fill field ${JSON.stringify(field)} is no Tensor`, { field });
      }
      found.set(field, tensor);
    }
  }
  return found;
}

/**
 * Batches one after the other. They must be of one partition and have the same fields.
 *
 * @throws SchemaError where partitions or fields differ, or where the list is empty
 */
export function concat<B extends RemoteBatch>(batches: readonly B[]): B {
  const [first, ...others] = batches.map(RemoteBatch.stateOf);
  if (first === undefined) throw new SchemaError("concat takes at least one batch");
  const fields = [...first.columns.keys()];
  for (const other of others) {
    if (other.session !== first.session) throw new SchemaError("concat takes batches of one transfer");
    if (other.partition !== first.partition) {
      throw new SchemaError("concat takes batches of one partition", {
        expected: first.partition,
        actual: other.partition,
      });
    }
    if (other.columns.size !== fields.length || !fields.every((field) => other.columns.has(field))) {
      throw new SchemaError("concat takes batches with the same fields", {
        expected: fields,
        actual: [...other.columns.keys()],
      });
    }
  }
  if (others.length === 0) return batches[0] as B;
  const states = [first, ...others];
  return RemoteBatch.like(batches[0] as B, {
    ...first,
    rows: states.reduce((sum, state) => sum + state.rows, 0),
    columns: new Map(
      fields.map((field) => [field, joinPieces(states.map((state) => state.columns.get(field) ?? []))]),
    ),
    origin: joinPieces(states.map((state) => state.origin)),
    owners: first.session.leaks && joinOwners(...states.map((state) => state.owners)),
  });
}
