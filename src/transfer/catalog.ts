/**
 * Which rows of a partition are in which bundles: a cache of what the bundles themselves say.
 *
 * It is filled by own puts, imported handles and by listing the partition's manifests, at most once in 250 ms.
 *
 * @module
 */

import type { Column, StoredAs } from "../batch/column.ts";
import type { Json } from "../batch/json.ts";
import { RowSet } from "../batch/rowset.ts";
import type { BundleInfo } from "../bundle/bundle.ts";
import { generatedRowId, splitManifestKey } from "../bundle/names.ts";
import { parseRowIds } from "../bundle/row_ids.ts";
import type { Deadline } from "../deadline.ts";
import { DroppedError, NotFoundError } from "../errors.ts";
import { joinPieces, type StoredPiece } from "../remote/pieces.ts";
import type { RowCatalog, Session } from "../remote/session.ts";
import type { StoredBundle } from "../remote/stored_bundle.ts";
import type { FieldForms } from "./field_schema.ts";
import { bundleOfTombstone, isTombstoneKey, readTombstone, Tombstones } from "./tombstones.ts";

/** A partition is listed at most this often, in milliseconds. */
const LISTING_INTERVAL_MS = 250;

/** Columns over columns over columns …: how far ids are looked for. A bundle that names itself ends there too. */
const MOST_ORIGINS = 16;

/** A row of a bundle. */
export interface Place {
  readonly bundle: StoredBundle;
  readonly row: number;
}

/** How a bundle names its rows: generated from a base, or a list. */
type RowNames =
  | { readonly base: string; readonly count: number }
  | { readonly ids: ReadonlyMap<string, number>; readonly list: readonly string[] };

interface Partition {
  readonly bundles: Map<string, StoredBundle>;
  readonly names: Map<StoredBundle, RowNames>;
  /** Cells that were deleted one by one. */
  readonly dead: Map<string, Tombstones>;
  /** Tombstone objects that were read. */
  readonly tombstones: Set<string>;
  /** Tombstones that were found without their bundle. */
  readonly orphans: Set<string>;
  listedMs: number;
  /** A listing under way. */
  listing: Promise<void> | undefined;
}

/** The bundles of each partition that this process knows, and their rows by id. */
export class Catalog implements RowCatalog {
  readonly #session: Session;
  readonly #forms: FieldForms;
  readonly #partitions = new Map<string, Partition>();

  constructor(session: Session, forms: FieldForms) {
    this.#session = session;
    this.#forms = forms;
    session.catalog = this;
  }

  /** Whether the store can be asked what it holds. */
  get kind(): "store" | "local" {
    return this.#session.store.list === undefined ? "local" : "store";
  }

  storedAs(field: string): StoredAs | undefined {
    return this.#forms.storedAs(field);
  }

  checkForms(partition: string, columns: ReadonlyMap<string, Column>): () => void {
    return this.#forms.check(partition, columns);
  }

  added(bundle: StoredBundle, rowIds: readonly string[] | undefined): void {
    const partition = this.#partition(bundle.partition);
    partition.bundles.set(bundle.manifestKey, bundle);
    if (rowIds !== undefined) partition.names.set(bundle, listed(rowIds));
  }

  removed(bundle: StoredBundle): void {
    const partition = this.#partitions.get(bundle.partition);
    partition?.bundles.delete(bundle.manifestKey);
    partition?.names.delete(bundle);
    for (const key of this.tombstones(bundle)) partition?.tombstones.delete(key);
    partition?.dead.delete(bundle.manifestKey);
    // somebody may have dropped it for the sake of another one
    if (partition !== undefined) partition.listedMs = -Infinity;
  }

  tombstones(bundle: StoredBundle): Iterable<string> {
    return this.#partitions.get(bundle.partition)?.dead.get(bundle.manifestKey)?.keys ?? [];
  }

  /** Deletes tombstones whose bundles are gone: their deleter did not know of them. */
  async sweep(deadline: Deadline): Promise<void> {
    const { store } = this.#session;
    for (const { orphans } of this.#partitions.values()) {
      for (const key of orphans) {
        if (await store.size(bundleOfTombstone(key), deadline.options) !== undefined) continue;
        await store.delete([key], deadline.options);
        orphans.delete(key);
      }
    }
  }

  /** Forgets all bundles of a partition that was deleted. */
  removePartition(name: string): void {
    const partition = this.#partitions.get(name);
    this.#partitions.delete(name);
    this.#forms.forget(name);
    for (const bundle of partition?.bundles.values() ?? []) this.#session.forget(bundle);
  }

  /** Bundles of one partition, or of all, oldest first. */
  async bundles(name: string | undefined, deadline: Deadline): Promise<BundleInfo[]> {
    for (const found of name === undefined ? await this.#partitionNames() : [name]) {
      await this.#list(found, deadline);
    }
    const infos: BundleInfo[] = [];
    for (const [found, { bundles }] of this.#partitions) {
      if (name !== undefined && found !== name) continue;
      for (const bundle of [...bundles.values()]) {
        const info = await this.#info(bundle, deadline);
        if (info !== undefined) infos.push(info);
      }
    }
    return infos.sort((a, b) => a.manifestKey < b.manifestKey ? -1 : 1);
  }

  /** True if neither the store nor this process knows a bundle in a partition. */
  async isEmpty(name: string, deadline: Deadline): Promise<boolean> {
    await this.#list(name, deadline);
    return (this.#partitions.get(name)?.bundles.size ?? 0) === 0;
  }

  /**
   * Where each row is, the newest bundle first.
   *
   * @returns for each id the places that hold it; an empty list where none does
   */
  async find(name: string, ids: readonly string[], deadline: Deadline): Promise<Place[][]> {
    // what others have put or deleted meanwhile counts too
    await this.#listAgain(name, deadline);
    const places: Place[][] = ids.map(() => []);
    const partition = this.#partition(name);
    const newestFirst = [...partition.bundles.values()].sort((a, b) =>
      a.manifestKey < b.manifestKey ? 1 : -1
    );
    for (const bundle of newestFirst) {
      const names = await this.#names(bundle, deadline);
      if (names === undefined) continue;
      ids.forEach((id, i) => {
        const row = rowOf(names, id);
        if (row !== undefined) (places[i] as Place[]).push({ bundle, row });
      });
    }
    return places;
  }

  /** True if a cell has not been deleted. */
  isAlive({ bundle, row }: Place, field: string): boolean {
    return this.#partition(bundle.partition).dead.get(bundle.manifestKey)?.has(field, row) !== true;
  }

  /** Notes cells as deleted. */
  bury(bundle: StoredBundle, key: string, fields: readonly string[], rows: RowSet): void {
    const partition = this.#partition(bundle.partition);
    partition.tombstones.add(key);
    let dead = partition.dead.get(bundle.manifestKey);
    if (dead === undefined) partition.dead.set(bundle.manifestKey, dead = new Tombstones(bundle.rows));
    dead.keys.add(key);
    dead.add(fields, rows);
  }

  /** True if every cell of a bundle was deleted. */
  isDead(info: BundleInfo): boolean {
    const dead = this.#partition(info.partition).dead.get(info.manifestKey);
    return dead !== undefined && [...info.fields.keys()].every((field) => dead.covers(field));
  }

  async resolve(
    partition: string,
    ids: readonly string[],
    fields: Iterable<string>,
    deadline: Deadline,
    missing: "NOT_FOUND" | "NOT_READY" = "NOT_READY",
  ): Promise<Map<string, readonly StoredPiece[]>> {
    const places = await this.find(partition, ids, deadline);
    const has = new Map<StoredBundle, ReadonlySet<string>>();
    for (const { bundle } of places.flat()) {
      if (!has.has(bundle)) has.set(bundle, new Set((await this.#info(bundle, deadline))?.fields.keys()));
    }
    const unknown = ids.filter((_, i) => !places[i]?.some((place) => this.#hasLiveCell(place, has)));
    if (unknown.length > 0) {
      throw new NotFoundError(
        `${unknown.length} of ${ids.length} rows are not in ${JSON.stringify(partition)}`,
        { partition, rows: unknown, actual: unknown.slice(0, 5) },
        missing,
      );
    }
    const pieces = new Map<string, readonly StoredPiece[]>();
    for (const field of fields) pieces.set(field, this.#resolveField(partition, field, ids, places, has));
    return pieces;
  }

  #hasLiveCell(place: Place, has: ReadonlyMap<StoredBundle, ReadonlySet<string>>): boolean {
    const fields = has.get(place.bundle) as ReadonlySet<string>;
    if (fields.size === 0) return true;
    for (const field of fields) if (this.isAlive(place, field)) return true;
    return false;
  }

  #resolveField(
    partition: string,
    field: string,
    ids: readonly string[],
    places: readonly (readonly Place[])[],
    has: ReadonlyMap<StoredBundle, ReadonlySet<string>>,
  ): readonly StoredPiece[] {
    const missing: string[] = [];
    const runs: { bundle: StoredBundle; rows: number[] }[] = [];
    places.forEach((list, i) => {
      // the newest bundle that has the field decides, also where it says that the cell is deleted
      const place = list.find(({ bundle }) => has.get(bundle)?.has(field));
      if (place === undefined || !this.isAlive(place, field)) return void missing.push(ids[i] as string);
      const last = runs.at(-1);
      if (last?.bundle === place.bundle) last.rows.push(place.row);
      else runs.push({ bundle: place.bundle, rows: [place.row] });
    });
    if (missing.length > 0) {
      throw new NotFoundError(
        `field ${JSON.stringify(field)} has not been put for ${missing.length} of ${ids.length} rows`,
        { partition, field, rows: missing, actual: missing.slice(0, 5) },
        "NOT_READY",
      );
    }
    return joinPieces([runs.map(({ bundle, rows }) => ({ bundle, field, rows: RowSet.of(rows) }))]);
  }

  async rowIds(bundle: StoredBundle, deadline: Deadline): Promise<(row: number) => string> {
    const names = await this.#names(bundle, deadline);
    if (names === undefined) throw new DroppedError(`the bundle of ${bundle.manifestKey} was dropped`);
    return nameOf(names);
  }

  /** How a bundle names its rows; undefined where it was deleted meanwhile. */
  async #names(bundle: StoredBundle, deadline: Deadline, depth = 0): Promise<RowNames | undefined> {
    const known = this.#partition(bundle.partition).names.get(bundle);
    if (known !== undefined) return known;
    const info = await this.#info(bundle, deadline);
    if (info === undefined) return undefined;
    const names = await this.#readNames(info, deadline, depth);
    if (!bundle.dropped) this.#partition(bundle.partition).names.set(bundle, names);
    return names;
  }

  async #readNames(info: BundleInfo, deadline: Deadline, depth: number): Promise<RowNames> {
    const ids = info.facts?.rowIds ?? null;
    if (ids !== null && "key" in ids) return await this.#readIds(info, ids.key, deadline);
    const origin = info.facts?.origin ?? null;
    // columns computed for the rows of others have their ids, as long as those are there
    const inherited = origin === null
      ? undefined
      : await this.#originNames(origin, info.rows, deadline, depth);
    // bundles of Python's name no rows: they are numbered below the bundle's own id
    return inherited ?? ids ?? { base: info.objectId.slice(-32), count: info.rows };
  }

  async #originNames(
    origin: Json,
    rows: number,
    deadline: Deadline,
    depth: number,
  ): Promise<RowNames | undefined> {
    if (depth > MOST_ORIGINS) return undefined;
    const list: string[] = [];
    try {
      for (const [key, runs] of origin as readonly (readonly [string, Json])[]) {
        const bundle = this.#session.known(key) ?? await this.#session.discover(key, deadline);
        const names = await this.#names(bundle, deadline, depth + 1);
        const set = RowSet.fromJSON(runs, bundle.rows);
        if (names === undefined || list.length + set.length > rows) return undefined;
        const name = nameOf(names);
        for (const row of set) list.push(name(row));
      }
    } catch (error) {
      if (error instanceof DroppedError) return undefined;
      throw error;
    }
    return list.length === rows ? listed(list) : undefined;
  }

  async #readIds(info: BundleInfo, key: string, deadline: Deadline): Promise<RowNames> {
    const bytes = await this.#session.readObject(key, deadline);
    if (bytes === undefined) throw new DroppedError(`the row ids of ${info.manifestKey} are gone`, { key });
    return listed(parseRowIds(bytes, info.rows, key));
  }

  /** What a bundle holds, or undefined where it was deleted meanwhile. */
  async #info(bundle: StoredBundle, deadline: Deadline): Promise<BundleInfo | undefined> {
    try {
      return await this.#session.load(bundle, deadline);
    } catch (error) {
      if (error instanceof DroppedError) return undefined;
      throw error;
    }
  }

  /** Takes in what has come to a partition, and forgets what has gone. */
  #list(name: string, deadline: Deadline): Promise<void> {
    const partition = this.#partition(name);
    const listing = this.#readListing(name, partition, deadline).finally(() => {
      if (partition.listing === listing) partition.listing = undefined;
    });
    return partition.listing = listing;
  }

  /** The same, unless it is being done or was a moment ago. */
  async #listAgain(name: string, deadline: Deadline): Promise<void> {
    const { listing } = this.#partition(name);
    if (listing !== undefined && await listing.then(() => true, () => false)) return;
    const age = performance.now() - this.#partition(name).listedMs;
    if (age > LISTING_INTERVAL_MS) await this.#list(name, deadline);
  }

  async #readListing(name: string, partition: Partition, deadline: Deadline): Promise<void> {
    const { store, settings } = this.#session;
    if (store.list === undefined) return;
    const startedMs = performance.now();
    const before = [...partition.bundles.values()];
    const present = new Set<string>();
    const tombstones: string[] = [];
    for await (const key of store.list(`${settings.prefix}/${name}/`)) {
      if (key.endsWith("/manifest")) present.add(key);
      else if (isTombstoneKey(key)) tombstones.push(key);
    }
    // only what was known before the listing began can have been missed by it
    for (const bundle of before) if (!present.has(bundle.manifestKey)) this.#session.forget(bundle);
    for (const key of present) {
      if (this.#session.known(key) === undefined) await this.#discover(key, deadline);
    }
    for (const key of tombstones) {
      if (!present.has(bundleOfTombstone(key))) partition.orphans.add(key);
      else if (!partition.tombstones.has(key)) await this.#readTombstone(key, deadline);
    }
    partition.listedMs = startedMs;
  }

  async #readTombstone(key: string, deadline: Deadline): Promise<void> {
    const bytes = await this.#session.readObject(key, deadline).catch((error) => {
      if (error instanceof DroppedError) return undefined;
      throw error;
    });
    if (bytes === undefined) return;
    const { manifestKey, fields, rows } = readTombstone(key, bytes);
    const bundle = this.#session.known(manifestKey);
    if (bundle !== undefined) this.bury(bundle, key, fields, rows(bundle.rows));
  }

  async #partitionNames(): Promise<Set<string>> {
    const names = new Set(this.#partitions.keys());
    const { store, settings } = this.#session;
    for await (const key of store.list?.(`${settings.prefix}/`) ?? []) {
      const manifestKey = isTombstoneKey(key) ? bundleOfTombstone(key) : key;
      if (manifestKey.endsWith("/manifest")) names.add(splitManifestKey(manifestKey).partition);
    }
    return names;
  }

  /** Takes in a bundle that was found by listing. */
  async #discover(manifestKey: string, deadline: Deadline): Promise<void> {
    try {
      await this.#session.discover(manifestKey, deadline);
    } catch (error) {
      // deleted since it was listed
      if (!(error instanceof DroppedError)) throw error;
    }
  }

  #partition(name: string): Partition {
    let partition = this.#partitions.get(name);
    if (partition === undefined) {
      partition = {
        bundles: new Map(),
        names: new Map(),
        dead: new Map(),
        tombstones: new Set(),
        orphans: new Set(),
        listedMs: -Infinity,
        listing: undefined,
      };
      this.#partitions.set(name, partition);
    }
    return partition;
  }
}

/** Names from a list; where an id comes twice, its first row counts. */
function listed(list: readonly string[]): RowNames {
  const ids = new Map<string, number>();
  list.forEach((id, row) => ids.has(id) || ids.set(id, row));
  return { list, ids };
}

function nameOf(names: RowNames): (row: number) => string {
  return "list" in names ? (row) => names.list[row] as string : (row) => generatedRowId(names.base, row);
}

function rowOf(names: RowNames, id: string): number | undefined {
  if ("ids" in names) return names.ids.get(id);
  if (!id.startsWith(names.base) || id[names.base.length] !== "-") return undefined;
  const text = id.slice(names.base.length + 1);
  return /^(?:0|[1-9]\d{0,9})$/.test(text) && Number(text) < names.count ? Number(text) : undefined;
}
