/**
 * One open store as remote batches see it: which bundles are known, and counted reads, writes and deletes.
 *
 * @module
 */

import type { Column, StoredAs } from "../batch/column.ts";
import { buildBundle, type BuiltBundle } from "../bundle/build.ts";
import { type BundleInfo, openBundle } from "../bundle/bundle.ts";
import { parseManifest, type PayloadSpec } from "../bundle/manifest.ts";
import { newObjectId } from "../bundle/names.ts";
import { allocate, verifyRanges, wholePayloadReads } from "../bundle/ranges.ts";
import { Deadline, type DeadlineOptions } from "../deadline.ts";
import { CorruptionError, DataLostError, DroppedError } from "../errors.ts";
import type { ObjectStore, ReadRange } from "../store/store.ts";
import type { Counters } from "./counters.ts";
import { newCounters } from "./counters.ts";
import { LeakTracer } from "./leaks.ts";
import { type Piece, piecesToJson, type StoredPiece } from "./pieces.ts";
import { type BundleHint, hintOf, StoredBundle } from "./stored_bundle.ts";

/** A payload of fewer bytes is read without asking for its size first. */
const SMALL_PAYLOAD = 1 << 20;

/** What does not change while a store is open. */
export interface SessionSettings {
  readonly prefix: string;
  readonly tensorEncoding: "torch" | "numpy";
  readonly ttlMs: number | null;
  /** Whether bundles carry `meta.batchferry`. */
  readonly annotations: boolean;
  /** Whether checksums are checked of what a store that reads ranges gives; one that reads whole objects does it itself. */
  readonly verify: boolean;
  /** The limit of a call that brings none, in milliseconds. */
  readonly timeoutMs: number;
}

/** What one put says besides its columns. */
export interface WriteRequest {
  readonly partition: string;
  readonly namespace: string;
  readonly stage: string;
  readonly rows: number;
  readonly columns: ReadonlyMap<string, Column>;
  /** Null for generated ids. */
  readonly rowIds: readonly string[] | null;
  /** A bundle of the same stage whose payloads the new one takes over. */
  readonly base?: BundleInfo | undefined;
  /** Python's group for leases, where the new bundle goes into a handle that has one. */
  readonly storageGroupId?: string | undefined;
  /** The rows the columns were computed for, where they belong to another bundle's rows. */
  readonly origin?: readonly Piece<StoredBundle>[] | undefined;
}

/** What remote batches ask of the catalog on the floor above; it also hears of bundles as they come and go. */
export interface RowCatalog {
  /**
   * Holds columns to what is declared, and to what was put before, for their fields.
   *
   * @returns a function to be called once they are stored
   * @throws SchemaError with both sides
   */
  checkForms(partition: string, columns: ReadonlyMap<string, Column>): () => void;
  /** How a field is to be stored, where that was declared. */
  storedAs(field: string): StoredAs | undefined;
  added(bundle: StoredBundle, rowIds: readonly string[] | undefined): void;
  removed(bundle: StoredBundle): void;
  /** Keys of objects beside a bundle that go with it. */
  tombstones(bundle: StoredBundle): Iterable<string>;
  /**
   * The pieces that hold fields of rows named by id.
   *
   * @throws NotFoundError with code NOT_READY naming the rows that are not there yet
   */
  resolve(
    partition: string,
    ids: readonly string[],
    fields: Iterable<string>,
    deadline: Deadline,
  ): Promise<Map<string, readonly StoredPiece[]>>;
  /** The ids of a bundle's rows; every row has one. */
  rowIds(bundle: StoredBundle, deadline: Deadline): Promise<(row: number) => string>;
}

/** An open store with the bundles that this process knows in it. */
export class Session {
  readonly store: ObjectStore;
  readonly settings: SessionSettings;
  readonly counters: Counters = newCounters();
  /** Only where the environment asks for it. */
  readonly leaks: LeakTracer | undefined = LeakTracer.fromEnvironment();
  #bundles = new Map<string, StoredBundle>();
  #catalog: RowCatalog | undefined;

  constructor(store: ObjectStore, settings: SessionSettings) {
    this.store = store;
    this.settings = settings;
  }

  /** The catalog; set once, by the catalog itself. */
  get catalog(): RowCatalog {
    return this.#catalog as RowCatalog;
  }

  set catalog(catalog: RowCatalog) {
    this.#catalog = catalog;
  }

  /**
   * The bundle of a manifest key: always the same object for the same key.
   *
   * @throws CorruptionError where the hint says another number of rows than the bundle has
   */
  bundle(manifestKey: string, hint: BundleHint): StoredBundle {
    const known = this.#bundles.get(manifestKey);
    if (known !== undefined && known.rows === hint.rows) {
      known.learn(hint);
      return known;
    }
    // of two that nobody has checked yet the later one counts; the wrong one fails when it is read
    if (known?.info !== undefined) throw rowsDiffer(manifestKey, hint.rows, known.rows);
    const bundle = new StoredBundle(manifestKey, hint);
    this.#bundles.set(manifestKey, bundle);
    this.#catalog?.added(bundle, undefined);
    return bundle;
  }

  /** The bundle of a manifest key if this process knows it. */
  known(manifestKey: string): StoredBundle | undefined {
    return this.#bundles.get(manifestKey);
  }

  /** The deadline of a call that starts now. */
  deadline(what: string, options: DeadlineOptions): Deadline {
    return new Deadline(what, options, this.settings.timeoutMs);
  }

  /** The objects that a put would write; nothing is written. */
  build(request: WriteRequest): BuiltBundle {
    const { prefix, tensorEncoding, ttlMs, annotations } = this.settings;
    const { capabilities } = this.store;
    const hex = newObjectId();
    return buildBundle({
      prefix,
      hex,
      partition: request.partition,
      namespace: request.namespace,
      stage: request.stage,
      rows: request.rows,
      columns: request.columns,
      tensorEncoding,
      storedAs: (field) => this.#catalog?.storedAs(field),
      chunkBytes: capabilities.chunkBytes,
      checksums: capabilities.checksums ? "written" : false,
      annotations,
      rowIds: request.rowIds ?? { base: hex, count: request.rows },
      origin: request.origin === undefined ? null : piecesToJson(request.origin),
      createdMs: Date.now(),
      ttlMs,
      base: request.base,
    });
  }

  /** Writes one bundle: all of it, or nothing. */
  async write(request: WriteRequest, deadline: Deadline): Promise<StoredBundle> {
    const fix = this.catalog.checkForms(request.partition, request.columns);
    const built = this.build(request);
    deadline.check();
    await this.store.writeBundle(built.objectId, built.objects, deadline.options);
    fix();
    return this.adopt(built, request);
  }

  /** Takes in a bundle that this process has just written. */
  adopt(
    { bundle: info, bytes, objects }: BuiltBundle,
    { columns, rowIds, base, storageGroupId }: WriteRequest,
  ): StoredBundle {
    this.counters.bytesWritten += bytes;
    const bundle = new StoredBundle(info.manifestKey, { ...hintOf(info), storageGroupId });
    bundle.info = info;
    bundle.manifestBytes = objects.at(-1)?.parts.reduce((sum, part) => sum + part.byteLength, 0);
    if (base === undefined) bundle.fieldNames = [...columns.keys()];
    this.#bundles.set(info.manifestKey, bundle);
    this.#catalog?.added(bundle, rowIds ?? undefined);
    return bundle;
  }

  /**
   * What a bundle holds; read once.
   *
   * @throws DroppedError where the manifest is gone, CorruptionError where it contradicts itself
   */
  load(bundle: StoredBundle, deadline: Deadline): Promise<BundleInfo> | BundleInfo {
    if (bundle.dropped) throw dropped(bundle.manifestKey);
    if (bundle.info !== undefined) return bundle.info;
    if (bundle.loading === undefined) {
      bundle.loading = this.#load(bundle, deadline).finally(() => bundle.loading = undefined);
    }
    return bundle.loading;
  }

  async #load(bundle: StoredBundle, deadline: Deadline): Promise<BundleInfo> {
    const { manifestKey } = bundle;
    let read: { readonly info: BundleInfo; readonly manifestBytes: number };
    try {
      read = await this.#readInfo(manifestKey, bundle.encoded, deadline);
    } catch (error) {
      throw error instanceof DroppedError ? this.#gone(bundle, error) : error;
    }
    const { info, manifestBytes } = read;
    if (info.rows !== bundle.rows) {
      // the handle is wrong, not what is stored: nobody else shall get this object
      if (this.#bundles.get(manifestKey) === bundle) {
        this.#bundles.delete(manifestKey);
        this.#catalog?.removed(bundle);
      }
      throw rowsDiffer(manifestKey, bundle.rows, info.rows);
    }
    bundle.info = info;
    bundle.manifestBytes = manifestBytes;
    return info;
  }

  /** Takes in a bundle that is known by its manifest key only. @throws DroppedError where it is gone */
  async discover(manifestKey: string, deadline: Deadline): Promise<StoredBundle> {
    const { info, manifestBytes } = await this.#readInfo(manifestKey, undefined, deadline);
    const bundle = this.bundle(manifestKey, hintOf(info));
    bundle.info ??= info;
    bundle.manifestBytes = manifestBytes;
    return bundle;
  }

  async #readInfo(
    manifestKey: string,
    encoded: StoredBundle["encoded"],
    deadline: Deadline,
  ): Promise<{ info: BundleInfo; manifestBytes: number }> {
    const manifestBytes = await this.readObject(manifestKey, deadline);
    if (manifestBytes === undefined) throw dropped(manifestKey);
    const manifest = parseManifest(manifestKey, manifestBytes);
    // a store that reads ranges tells sizes as cheaply; one that does not reads whole chunks, and checks them then
    const payloads = this.store.capabilities.rangeReads ? manifest.buffers.values() : [];
    await this.#checkSize(manifest.meta, true, deadline);
    for (const payload of payloads) await this.#checkSize(payload, false, deadline);
    const meta = wholePayloadReads(manifest.meta);
    await this.read(meta.ranges, deadline);
    return {
      info: openBundle(manifestKey, manifestBytes, meta.bytes, encoded),
      manifestBytes: manifestBytes.byteLength,
    };
  }

  /** A whole small object, counted; undefined where it is absent. */
  async readObject(key: string, deadline: Deadline): Promise<Uint8Array | undefined> {
    deadline.check();
    if (this.store.get !== undefined) {
      const bytes = await this.store.get(key, deadline.options);
      if (bytes !== undefined) this.#count(1, bytes.byteLength);
      return bytes;
    }
    const size = await this.store.size(key, deadline.options);
    if (size === undefined) return undefined;
    const into = allocate(size, key);
    await this.read([{ key, offset: 0, into }], deadline);
    return into;
  }

  /** Nothing is allocated by what a manifest claims: a large payload must be there first. */
  async #checkSize(payload: PayloadSpec, isMeta: boolean, deadline: Deadline): Promise<void> {
    if (payload.bytes < SMALL_PAYLOAD) return;
    for (const { key, bytes } of payload.chunks) {
      const actual = await this.store.size(key, deadline.options);
      // a member that is absent is told when it is read, the meta at once
      if (actual === bytes || (actual === undefined && !isMeta)) continue;
      if (actual === undefined) throw dropped(key);
      throw new CorruptionError(`${key} has not the size its manifest says`, {
        key,
        expected: bytes,
        actual,
      });
    }
  }

  /** Reads ranges of objects, counted. */
  async read(ranges: readonly ReadRange[], deadline: Deadline): Promise<void> {
    deadline.check();
    if (ranges.length === 0) return;
    await this.store.read(ranges, deadline.options);
    if (this.settings.verify && this.store.capabilities.rangeReads) verifyRanges(ranges);
    let bytes = 0;
    for (const range of ranges) bytes += range.into.byteLength;
    this.#count(ranges.length, bytes);
  }

  #count(reads: number, bytes: number): void {
    this.counters.reads += reads;
    this.counters.bytesRead += bytes;
  }

  /**
   * Reads ranges of payloads of bundles whose manifests are known.
   *
   * @throws DroppedError where a bundle was deleted, DataLostError where its manifest is there and a payload is not
   */
  async readPayloads(
    ranges: readonly ReadRange[],
    bundles: Iterable<StoredBundle>,
    deadline: Deadline,
  ): Promise<void> {
    try {
      await this.read(ranges, deadline);
    } catch (error) {
      if (!(error instanceof DroppedError)) throw error;
      for (const bundle of bundles) {
        const size = await this.store.size(bundle.manifestKey, deadline.options);
        if (size === undefined) throw this.#gone(bundle, error);
      }
      // every manifest is there: perhaps the payload only moved
      try {
        await this.read(ranges, deadline);
      } catch (second) {
        if (!(second instanceof DroppedError)) throw second;
        throw new DataLostError(
          `${second.details.key ?? "a payload"} is gone although its manifest is there`,
          { ...second.details, cause: second },
        );
      }
    }
  }

  #gone(bundle: StoredBundle, cause?: unknown): DroppedError {
    this.forget(bundle);
    return dropped(bundle.manifestKey, cause);
  }

  /** Deletes a bundle, whoever wrote it; one that is gone already is a success. */
  async drop(bundle: StoredBundle, deadline: Deadline): Promise<boolean> {
    if (bundle.dropped) return false;
    let info: BundleInfo;
    try {
      info = await this.load(bundle, deadline);
    } catch (error) {
      if (error instanceof DroppedError) return false;
      throw error;
    }
    deadline.check();
    await this.store.delete([...info.deleteKeys, ...this.catalog.tombstones(bundle)], deadline.options);
    // those that were appended to go with what was appended
    for (const key of info.deleteKeys) {
      const known = this.#bundles.get(key);
      if (known !== undefined) this.forget(known);
    }
    this.forget(bundle);
    return true;
  }

  /** Notes that a bundle is gone. */
  forget(bundle: StoredBundle): void {
    if (bundle.dropped) return;
    bundle.dropped = true;
    this.#bundles.delete(bundle.manifestKey);
    this.#catalog?.removed(bundle);
  }
}

function dropped(manifestKey: string, cause?: unknown): DroppedError {
  return new DroppedError(`the bundle of ${manifestKey} was dropped`, {
    key: manifestKey,
    ...(cause === undefined ? {} : { cause }),
  });
}

function rowsDiffer(key: string, expected: number, actual: number): CorruptionError {
  return new CorruptionError(`the handle and the stored bundle disagree about the rows of ${key}`, {
    key,
    expected,
    actual,
  });
}
