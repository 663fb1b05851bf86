/**
 * Building a bundle: columns in, stored objects out.
 *
 * @module
 */

import type { Column, StoredAs } from "../batch/column.ts";
import type { Json } from "../batch/json.ts";
import { SchemaError } from "../errors.ts";
import type { StoreObject } from "../store/store.ts";
import { type BundleInfo, bundleOf } from "./bundle.ts";
import { cutPayload } from "./chunking.ts";
import { type EncodedField, encodeField, type TensorEncoding } from "./encode.ts";
import type { EncodedNonTensor } from "./encoded.ts";
import { type Manifest, type PayloadSpec, writeManifest } from "./manifest.ts";
import { type BundleFacts, MAX_ROWS, type RowIdsFact, STAGE_LAYOUT, writeMeta } from "./meta.ts";
import {
  checkSegment,
  manifestKeyOf,
  memberKeyOf,
  metaKeyOf,
  newObjectId,
  normalizePrefix,
  objectIdFor,
  rowIdsKeyOf,
} from "./names.ts";
import { writeRowIds } from "./row_ids.ts";

/** What a bundle is built from. */
export interface BuildOptions {
  /** The key prefix; readers in Python must use the same. */
  readonly prefix: string;
  readonly partition: string;
  readonly namespace: string;
  readonly stage: string;
  readonly rows: number;
  /** Field → column, each of `rows` rows. */
  readonly columns: ReadonlyMap<string, Column>;
  readonly tensorEncoding: TensorEncoding;
  /** How a field is to be stored, where that was declared. */
  readonly storedAs?: ((field: string) => StoredAs | undefined) | undefined;
  /** The most bytes a chunk should have; null for one chunk per payload. */
  readonly chunkBytes: number | null;
  /** Whether chunks carry a CRC-32. */
  readonly checksums: boolean | "written";
  /**
   * Whether our own facts are stored. Without them only the handle can tell how to read non-tensor fields.
   */
  readonly annotations: boolean;
  /**
   * Ids of the rows: a list, or a base that they are generated from. They are stored among the annotations.
   */
  readonly rowIds: readonly string[] | { readonly base: string; readonly count: number } | null;
  readonly origin: Json | null;
  readonly createdMs: number;
  readonly ttlMs: number | null;
  /** 32 lowercase hex digits; a new id where absent. */
  readonly hex?: string;
  /**
   * A bundle of the same stage that the new one takes over: its payloads stay where they are, and deleting the new bundle
   * deletes them too. Its row ids and encodings are kept.
   */
  readonly base?: BundleInfo | undefined;
}

/** A bundle that is ready to be written. */
export interface BuiltBundle {
  /** `PREFIX/PARTITION/HEX`. */
  readonly objectId: string;
  /** Where the store computes the checksums, known in full only after all objects but the manifest were written. */
  readonly bundle: BundleInfo;
  /**
   * In the order they must be written: meta, members, side objects, the manifest last. Parts are not copied.
   */
  readonly objects: StoreObject[];
  /** Bytes of all objects; known when `bundle` is. */
  readonly bytes: number;
}

/**
 * Encodes columns and works out everything a bundle consists of. Nothing is written.
 *
 * @throws SchemaError for names, columns and row ids that cannot be stored.
 */
export function buildBundle(options: BuildOptions): BuiltBundle {
  checkNames(options);
  const hex = options.hex ?? newObjectId();
  const objectId = objectIdFor(normalizePrefix(options.prefix), options.partition, hex);
  const fields = encodeFields(options);
  const encoded = new Map<string, EncodedNonTensor>();
  for (const { field, encoded: how } of fields) if (how !== undefined) encoded.set(field, how);
  const { base } = options;
  if (base !== undefined) checkBase(base, options);
  const rowIds = base === undefined ? placeRowIds(options, objectId) : { fact: null, objects: [] };
  const facts: BundleFacts | null = options.annotations
    ? {
      v: 1,
      encoded: base === undefined ? encoded : new Map([...base.encoded, ...encoded]),
      rowIds: base === undefined ? rowIds.fact : baseRowIds(base),
      origin: base === undefined ? options.origin : base.facts?.origin ?? null,
      createdMs: options.createdMs,
      ttlMs: options.ttlMs,
    }
    : null;

  const { namespace, partition, stage, rows } = options;
  const members = fields.flatMap((field) => field.members);
  const meta = {
    layout: STAGE_LAYOUT,
    dataproto: { namespace, partition, stage, batchSize: rows },
    fields: new Map([
      ...(base?.meta.fields ?? []),
      ...members.map(({ member, spec }) => [member, spec] as const),
    ]),
    facts,
  };
  const metaCut = cutPayload({ key: metaKeyOf(objectId), parts: [writeMeta(meta)], rowBytes: null }, options);
  const objects = [...metaCut.objects];
  const buffers = new Map<string, PayloadSpec>(base?.manifest.buffers);
  for (const { member, ...source } of members) {
    const cut = cutPayload({ key: memberKeyOf(objectId, member), ...source }, options);
    buffers.set(member, cut.payload);
    objects.push(...cut.objects);
  }
  objects.push(...rowIds.objects);
  const manifest: Manifest = {
    objectId: `${partition}/${hex}`,
    meta: metaCut.payload,
    buffers,
    ...(base === undefined ? {} : inherited(base, options, `${partition}/${hex}`)),
    ...(rowIds.objects.length === 0 ? {} : { cleanupKeys: rowIds.objects.map(({ key }) => key) }),
  };
  const manifestKey = manifestKeyOf(objectId);
  const manifestBytes = once(() => writeManifest(manifest));
  objects.push({
    key: manifestKey,
    get parts() {
      return [manifestBytes()];
    },
  });
  const bundle = once(() =>
    bundleOf(
      manifestKey,
      manifest,
      meta,
      manifestBytes().byteLength,
      base === undefined ? encoded : new Map([...base.encoded, ...encoded]),
    )
  );
  return {
    objectId,
    objects,
    get bundle() {
      return bundle();
    },
    get bytes() {
      return objects.reduce(
        (sum, { parts }) => parts.reduce((bytes, part) => bytes + part.byteLength, sum),
        0,
      );
    },
  };
}

/** A value made when it is first asked for. */
function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}

/** A merged manifest must say the same of its batch as the one it takes over, as Python demands. */
function checkBase(base: BundleInfo, { partition, namespace, stage, rows, columns }: BuildOptions): void {
  const expected = {
    partition: base.partition,
    namespace: base.namespace,
    stage: base.stage,
    rows: base.rows,
  };
  const actual = { partition, namespace, stage, rows };
  for (const name of Object.keys(expected) as (keyof typeof expected)[]) {
    if (expected[name] === actual[name]) continue;
    throw new SchemaError(`columns of another ${name} cannot be appended to ${base.manifestKey}`, {
      partition,
      key: base.manifestKey,
      expected: expected[name],
      actual: actual[name],
    });
  }
  for (const field of columns.keys()) {
    if (!base.fields.has(field)) continue;
    throw new SchemaError(`${base.manifestKey} has a field ${JSON.stringify(field)} already`, {
      partition,
      field,
      key: base.manifestKey,
    });
  }
}

/** The row ids of the bundle that is taken over; one of Python's numbers its rows below its own id. */
function baseRowIds(base: BundleInfo): RowIdsFact {
  return base.facts?.rowIds ?? { base: base.objectId.slice(-32), count: base.rows };
}

/** What a merged manifest says of the bundle it takes over. */
function inherited(
  base: BundleInfo,
  { prefix, partition }: BuildOptions,
  objectId: string,
): Pick<Manifest, "bufferObjectIds" | "cleanupKeys"> {
  const start = `${normalizePrefix(prefix)}/`;
  if (base.prefix !== normalizePrefix(prefix)) {
    throw new SchemaError(`columns below another key prefix cannot be appended to ${base.manifestKey}`, {
      partition,
      key: base.manifestKey,
      expected: base.prefix,
      actual: prefix,
    });
  }
  const cleanupKeys = [
    ...new Set([
      ...(base.manifest.cleanupKeys ?? []),
      base.manifestKey,
      ...base.manifest.meta.chunks.map(({ key }) => key),
    ]),
  ];
  const keys = [...cleanupKeys, ...[...base.manifest.buffers.values()].map(({ key }) => key)];
  const ids = keys.map((key) => key.slice(start.length).split("/").slice(0, 2).join("/"));
  return { bufferObjectIds: [...new Set([...ids, objectId])].sort(), cleanupKeys };
}

function checkNames(options: BuildOptions): void {
  checkSegment("partition", options.partition);
  const { stage, namespace, hex, rows, chunkBytes } = options;
  if (typeof stage !== "string" || stage === "" || !stage.isWellFormed()) {
    throw new SchemaError(`the stage ${JSON.stringify(stage)} is not a name`, {
      expected: "a non-empty string",
      actual: stage,
      hint: "Python cannot import a handle with an empty stage",
    });
  }
  if (typeof namespace !== "string" || !namespace.isWellFormed()) {
    throw new SchemaError(`the namespace ${JSON.stringify(namespace)} is not text`, { actual: namespace });
  }
  if (hex !== undefined && !/^[0-9a-f]{32}$/.test(hex)) {
    throw new SchemaError(`${JSON.stringify(hex)} is not an object id`, {
      expected: "32 lowercase hex digits",
      actual: hex,
    });
  }
  if (!Number.isInteger(rows) || rows < 0 || rows > MAX_ROWS) {
    throw new SchemaError(`a batch cannot have ${rows} rows`, { expected: `0 to ${MAX_ROWS}`, actual: rows });
  }
  if (chunkBytes !== null && !(Number.isSafeInteger(chunkBytes) && chunkBytes > 0)) {
    throw new SchemaError(`a chunk cannot have ${chunkBytes} bytes`, {
      expected: "a positive whole number",
      actual: chunkBytes,
    });
  }
}

/** All columns encoded; nothing goes on before all of them are. */
function encodeFields(options: BuildOptions): readonly EncodedField[] {
  const { partition, columns, rows } = options;
  const fields: EncodedField[] = [];
  const parts = new Map<string, string>();
  for (const [field, column] of columns) {
    if (column.rows !== rows) {
      throw new SchemaError(`field ${JSON.stringify(field)} has ${column.rows} rows, not ${rows}`, {
        partition,
        field,
        expected: rows,
        actual: column.rows,
      });
    }
    const encoded = encodeField(field, column, options);
    fields.push(encoded);
    for (const part of encoded.encoded?.payloadMembers.keys() ?? []) parts.set(`${field}.${part}`, field);
  }
  for (const field of columns.keys()) {
    const other = parts.get(field);
    if (other === undefined) continue;
    throw new SchemaError(
      `the field ${JSON.stringify(field)} has the name of a part of ${JSON.stringify(other)}`,
      {
        partition,
        field,
        hint: "rename one of them",
      },
    );
  }
  return fields;
}

/** Row ids are a fact; a list of them is a side object that goes when the bundle goes. */
function placeRowIds(
  options: BuildOptions,
  objectId: string,
): { fact: RowIdsFact | null; objects: readonly StoreObject[] } {
  const { rowIds, rows, annotations } = options;
  if (rowIds === null || !annotations) return { fact: null, objects: [] };
  if (!("base" in rowIds)) {
    const bytes = writeRowIds(rowIds, rows);
    const key = rowIdsKeyOf(objectId);
    return { fact: { key, bytes: bytes.byteLength }, objects: [{ key, parts: [bytes] }] };
  }
  if (rowIds.count !== rows) {
    throw new SchemaError(`there are ${rowIds.count} row ids for ${rows} rows`, {
      partition: options.partition,
      expected: rows,
      actual: rowIds.count,
    });
  }
  return { fact: { base: rowIds.base, count: rowIds.count }, objects: [] };
}
