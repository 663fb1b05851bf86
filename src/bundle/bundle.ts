/**
 * A stored bundle, opened: what its manifest and meta say, ready to be read.
 *
 * @module
 */

import { SchemaError } from "../errors.ts";
import type { EncodedFields } from "./encoded.ts";
import { corrupt } from "./json_text.ts";
import { openFields, type StoredField } from "./fields.ts";
import { type Manifest, parseManifest, type PayloadSpec } from "./manifest.ts";
import { type BundleFacts, type BundleMeta, parseMeta, STAGE_LAYOUT } from "./meta.ts";
import { splitManifestKey } from "./names.ts";

/** Everything known of a bundle before its data is read. */
export interface BundleInfo {
  readonly manifestKey: string;
  /** `PREFIX/PARTITION/HEX`. */
  readonly objectId: string;
  readonly prefix: string;
  readonly partition: string;
  readonly namespace: string;
  readonly stage: string;
  readonly rows: number;
  readonly fields: ReadonlyMap<string, StoredField>;
  /** Member → its payload. */
  readonly payloads: ReadonlyMap<string, PayloadSpec>;
  /** The manifest and meta themselves, for those who write changed ones. */
  readonly manifest: Manifest;
  readonly meta: BundleMeta;
  /** How its non-tensor fields are encoded, as far as the handle or its own facts say it. */
  readonly encoded: EncodedFields;
  /** What we stored beside Mooncake's metadata; null for bundles of Python's. */
  readonly facts: BundleFacts | null;
  /** All keys to delete, in Python's order: meta, payloads, cleanup keys, the manifest last. */
  readonly deleteKeys: readonly string[];
  /** Stored bytes of manifest, meta and payloads. */
  readonly bytes: number;
  /** null where a bundle of Python's does not say. */
  readonly createdMs: number | null;
  readonly ttlMs: number | null;
}

/**
 * Opens a bundle.
 *
 * @param manifestKey The key the manifest was read from.
 * @param metaBytes The meta payload that the manifest names: `wholePayloadReads(parseManifest(…).meta)`.
 * @param encoded How non-tensor fields were encoded, from a handle. Fields it lacks are looked up in the
 * bundle's own facts.
 * @throws CorruptionError naming the key and what is wrong.
 * @throws SchemaError for a bundle that is not a DataProto stage.
 */
export function openBundle(
  manifestKey: string,
  manifestBytes: Uint8Array,
  metaBytes: Uint8Array,
  encoded?: EncodedFields,
): BundleInfo {
  const manifest = parseManifest(manifestKey, manifestBytes);
  const meta = parseMeta(manifest.meta.key, metaBytes);
  return bundleOf(manifestKey, manifest, meta, manifestBytes.byteLength, encoded);
}

/** A bundle from its manifest and meta, as they were read or are about to be written. */
export function bundleOf(
  manifestKey: string,
  manifest: Manifest,
  meta: BundleMeta,
  manifestSize: number,
  encoded?: EncodedFields,
): BundleInfo {
  const { objectId, prefix, partition } = splitManifestKey(manifestKey);
  const { dataproto, facts } = meta;
  if (meta.layout !== STAGE_LAYOUT || dataproto === null) {
    throw new SchemaError(`${manifestKey} is not a batch: its layout is ${JSON.stringify(meta.layout)}`, {
      partition,
      key: manifestKey,
      expected: STAGE_LAYOUT,
      actual: meta.layout,
    });
  }
  const rows = dataproto.batchSize;
  if (facts?.rowIds && "count" in facts.rowIds && facts.rowIds.count !== rows) {
    corrupt(
      { key: manifest.meta.key, path: "batchferry.rowIds.count" },
      `is not ${rows}`,
      facts.rowIds.count,
    );
  }
  const encodings: EncodedFields = new Map([...(facts?.encoded ?? []), ...(encoded ?? [])]);
  let fields: ReadonlyMap<string, StoredField> | undefined;
  const payloads = [manifest.meta, ...manifest.buffers.values()];
  return {
    manifestKey,
    objectId,
    prefix,
    partition,
    namespace: dataproto.namespace,
    stage: dataproto.stage,
    rows,
    // whoever only writes and drops never looks at them
    get fields() {
      return fields ??= openFields({
        manifestKey,
        partition,
        rows,
        payloads: manifest.buffers,
        specs: meta.fields,
        encoded: encodings,
      });
    },
    payloads: manifest.buffers,
    manifest,
    meta,
    encoded: encodings,
    facts,
    deleteKeys: [
      ...new Set([
        ...payloads.flatMap((payload) => payload.chunks.map((chunk) => chunk.key)),
        ...(manifest.cleanupKeys ?? []),
      ]),
      manifestKey,
    ],
    bytes: payloads.reduce((sum, payload) => sum + payload.bytes, manifestSize),
    createdMs: facts?.createdMs ?? null,
    ttlMs: facts?.ttlMs ?? null,
  };
}
