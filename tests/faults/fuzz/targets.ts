/**
 * What is fed with damaged inputs, and the sound inputs that the damage starts from.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { bytes, json, ragged, records, scalars, strings, tensor } from "../../../src/batch/build.ts";
import { checkColumn } from "../../../src/batch/check.ts";
import type { Column } from "../../../src/batch/column.ts";
import { gather } from "../../../src/batch/gather.ts";
import { parseJson } from "../../../src/batch/json.ts";
import { rowsOf } from "../../../src/batch/rows.ts";
import { RowSet } from "../../../src/batch/rowset.ts";
import { Tensor } from "../../../src/batch/tensor.ts";
import { Batch } from "../../../src/batch/batch.ts";
import { buildBundle, type BuildOptions } from "../../../src/bundle/build.ts";
import { type BundleInfo, openBundle } from "../../../src/bundle/bundle.ts";
import type { EncodedFields } from "../../../src/bundle/encoded.ts";
import { handleText, parseHandle, writeHandle } from "../../../src/bundle/handle.ts";
import { parseManifest, type PayloadSpec } from "../../../src/bundle/manifest.ts";
import {
  type ChunkRange,
  payloadToChunks,
  type Reading,
  verifyRanges,
  wholePayloadReads,
} from "../../../src/bundle/ranges.ts";
import { columnPlaces, decodeColumn, readColumn, tensorPlace, toChunks } from "../../../src/bundle/read.ts";
import { parseTensorHeader } from "../../../src/bundle/tensor_header.ts";
import type { FileColumns, Format } from "../../../src/cli/formats/format.ts";
import { jsonl } from "../../../src/cli/formats/jsonl.ts";
import { npy } from "../../../src/cli/formats/npy.ts";
import { safetensors } from "../../../src/cli/formats/safetensors.ts";
import { writeWhole } from "../../../src/cli/files.ts";
import { BatchferryError, ConfigError, CorruptionError, DroppedError } from "../../../src/errors.ts";
import { checkRange } from "../../../src/store/checks.ts";
import { openMemoryStore } from "../../../src/store/memory.ts";
import { Reader } from "../../../src/store/shm/reader.ts";
import { Root } from "../../../src/store/shm/root.ts";
import {
  decodeHeader,
  decodeTable,
  encodeHeader,
  HEADER_BYTES,
  layOut,
} from "../../../src/store/shm/format.ts";
import { TransferBackend } from "../../../src/transfer/backend.ts";
import { resolveConfig } from "../../../src/transfer/config.ts";
import { type FieldSchema, parseSchema } from "../../../src/transfer/field_schema.ts";
import { golden, objectsOf } from "../../unit/bundle/helpers.ts";
import type { Random } from "../../support/runtime.ts";
import { joined, mutateBytes, mutateJson } from "./mutate.ts";

/** An input: named byte strings. */
export type Parts = ReadonlyMap<string, Uint8Array>;

/** One thing under attack. */
export interface Target {
  readonly name: string;
  /** How many of all inputs go to it, in relation to the others. */
  readonly weight: number;
  readonly seeds: readonly Parts[];
  mutate(random: Random, parts: Parts, donor: Parts): Parts;
  /** Throws nothing but errors of ours, unless there is a bug. */
  run(parts: Parts): void | Promise<void>;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
/** Rows that are looked at one by one. */
const SHOWN = 200;
/** A payload of fewer bytes is read without asking for its size first, as a transfer does with metas. */
const SMALL = 1 << 20;

function sizeOf(parts: Parts): number {
  let size = 0;
  for (const part of parts.values()) size += part.byteLength;
  return size;
}
export { sizeOf as inputBytes };

/** Runs `act` and lets errors of ours pass; gives what it gave. */
function typed<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch (error) {
    if (error instanceof BatchferryError) return undefined;
    throw error;
  }
}

/** A column that was read must be sound, and its rows either come out or fail with an error of ours. */
function inspect(field: string, column: Column): void {
  try {
    checkColumn(field, column);
  } catch (cause) {
    throw new Error(`an unsound column was read: ${(cause as Error).message}`, { cause });
  }
  const rows = rowsOf(column);
  for (let row = 0; row < Math.min(rows.length, SHOWN); row++) typed(() => rows.at(row));
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

/** A value as text, the same for the same value. */
function valueText(value: unknown): string {
  if (value instanceof Tensor) return `${value.dtype}[${value.shape}]${latin1(value.bytes)}`;
  if (ArrayBuffer.isView(value)) {
    const view = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    return `${value.constructor.name} ${latin1(view)}`;
  }
  if (Array.isArray(value)) return `[${value.map(valueText).join()}]`;
  if (typeof value === "object" && value !== null) {
    return `{${
      Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}:${valueText(item)}`).join()
    }}`;
  }
  return typeof value === "bigint" ? `${value}n` : Object.is(value, -0) ? "-0" : String(value);
}

function columnText(column: Column): string {
  if (column.kind === "tensor") return valueText(column);
  const { rows, nulls } = column;
  const base = `${column.kind} ${rows} ${nulls === null ? "" : latin1(nulls)}`;
  if (column.kind === "records") return `${base} ${column.values.map(valueText).join()}`;
  const rest = "offsets" in column ? `${column.offsets.join()} ` : "";
  const more = column.kind === "ragged"
    ? `${column.dtype} ${column.rowFormat} ${JSON.stringify(column.shapes)}`
    : "";
  return `${base} ${rest}${more}${latin1(column.data)}`;
}

// bundles

function readFrom(objects: Parts, ranges: readonly ChunkRange[]): void {
  for (const range of ranges) {
    const object = objects.get(range.key);
    if (object === undefined) throw new DroppedError(`${range.key} is not there`);
    checkRange(range, object.byteLength);
    range.into.set(object.subarray(range.offset, range.offset + range.into.byteLength));
  }
  verifyRanges(ranges);
}

/** What a manifest claims must be there before memory is made for it. */
function checkSizes(objects: Parts, payload: PayloadSpec): void {
  if (payload.bytes < SMALL) return;
  for (const { key, bytes } of payload.chunks) {
    if (objects.get(key)?.byteLength === bytes) continue;
    throw new CorruptionError(`${key} has not the size its manifest says`);
  }
}

function open(objects: Parts, manifestKey: string, encoded: EncodedFields | undefined): BundleInfo {
  const manifestBytes = objects.get(manifestKey);
  if (manifestBytes === undefined) throw new DroppedError(`${manifestKey} is not there`);
  const manifest = parseManifest(manifestKey, manifestBytes);
  checkSizes(objects, manifest.meta);
  const meta = wholePayloadReads(manifest.meta);
  readFrom(objects, meta.ranges);
  return openBundle(manifestKey, manifestBytes, meta.bytes, encoded);
}

function finish<T>(objects: Parts, bundle: BundleInfo, reading: Reading<T>): T {
  for (;;) {
    const step = reading.next();
    if (step.done) return step.value;
    readFrom(objects, toChunks(bundle, step.value));
  }
}

function readField(objects: Parts, bundle: BundleInfo, field: string): void {
  const stored = bundle.fields.get(field)!;
  for (const { payload } of stored.reader.members) checkSizes(objects, payload);
  tensorPlace(bundle, field);
  columnPlaces(bundle, field);
  const { rows } = bundle;
  const whole = typed(() => finish(objects, bundle, readColumn(bundle, field, RowSet.all(rows))));
  const some = rows === 0 ? RowSet.all(0) : RowSet.of([rows - 1, 0, 0, rows >>> 1, Math.min(1, rows - 1)]);
  const read = (): Column => finish(objects, bundle, readColumn(bundle, field, some));
  const decode = (): Column => {
    const payloads = new Map<string, Uint8Array>();
    for (const { name, payload } of stored.reader.members) {
      if (payloads.has(name)) continue;
      const into = new Uint8Array(payload.bytes);
      readFrom(objects, payloadToChunks(payload, [{ member: name, offset: 0, into }]));
      payloads.set(name, into);
    }
    return decodeColumn(bundle, field, payloads);
  };
  if (whole === undefined) {
    // some rows may be sound, and the whole column in place is looked at less closely
    for (const act of [read, decode]) {
      const column = typed(act);
      if (column !== undefined) inspect(field, column);
    }
    return;
  }
  inspect(field, whole);
  assert.equal(columnText(read()), columnText(gather(whole, some)), `rows of ${field} read alone differ`);
  assert.equal(columnText(decode()), columnText(whole), `${field} read and decoded in place differ`);
}

function parseText(text: Uint8Array): unknown {
  try {
    return parseJson(decoder.decode(text));
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw new CorruptionError("the handle is no JSON", { cause });
  }
}

function runBundle(parts: Parts): void {
  const text = parts.get("handle");
  let manifestKeys: Iterable<string> = [...parts.keys()].filter((key) => key.endsWith("/manifest"));
  let encoded: EncodedFields | undefined;
  if (text !== undefined) {
    const handle = parseHandle(parseText(text));
    encoded = handle.encodedNonTensor;
    manifestKeys = handle.stages.values();
    const written = typed(() => writeHandle(handle));
    if (written !== undefined) {
      assert.equal(
        handleText(parseHandle(written)),
        handleText({ ...handle }),
        "a handle changes when it is read",
      );
    }
  }
  for (const key of [...manifestKeys].slice(0, 4)) {
    typed(() => {
      const bundle = open(parts, key, encoded);
      for (const field of [...bundle.fields.keys()].slice(0, 64)) {
        typed(() => readField(parts, bundle, field));
      }
    });
  }
}

/** Says in a manifest how long its one-chunk payloads have become; most damage would be found by its size otherwise. */
function repaired(parts: Map<string, Uint8Array>): Map<string, Uint8Array> {
  for (const [key, text] of parts) {
    if (!key.endsWith("/manifest")) continue;
    try {
      const manifest = JSON.parse(decoder.decode(text)) as {
        meta: Payload;
        buffers: Record<string, Payload>;
      };
      let changed = false;
      for (const payload of [manifest.meta, ...Object.values(manifest.buffers)]) {
        const [chunk] = payload.chunks;
        if (payload.chunks.length !== 1 || chunk === undefined) continue;
        const size = parts.get(chunk.key)?.byteLength ?? chunk.bytes;
        if (size === chunk.bytes) continue;
        payload.bytes = chunk.bytes = size;
        delete chunk.crc32;
        changed = true;
      }
      if (changed) parts.set(key, encoder.encode(JSON.stringify(manifest)));
    } catch {
      // damaged itself
    }
  }
  return parts;
}

interface Payload {
  bytes: number;
  readonly chunks: { key: string; bytes: number; crc32?: number }[];
}

function isJson(name: string): boolean {
  return name === "handle" || name === "schema" || /\/(?:manifest|meta)$/.test(name);
}

function mutateBundle(random: Random, parts: Parts, donor: Parts): Parts {
  const out = new Map(parts);
  const names = [...parts.keys()];
  const texts = names.filter(isJson);
  const payloads = names.filter((name) => !isJson(name));
  const donors = [...donor.values()];
  const times = random.pick([1, 1, 2]);
  for (let i = 0; i < times; i++) {
    const name = payloads.length > 0 && random.chance(0.35) ? random.pick(payloads) : random.pick(texts);
    const from = (isJson(name) ? donor.get(name) : undefined) ?? random.pick(donors);
    const change = isJson(name) && random.chance(0.85) ? mutateJson : mutateBytes;
    out.set(name, change(random, out.get(name)!, from));
  }
  return random.chance(0.85) ? repaired(out) : out;
}

const BUILD: Omit<BuildOptions, "rows" | "columns"> = {
  prefix: "rl",
  partition: "p0",
  namespace: "ns",
  stage: "gen",
  tensorEncoding: "torch",
  chunkBytes: null,
  checksums: false,
  annotations: true,
  rowIds: null,
  origin: null,
  createdMs: 1_700_000_000_000,
  ttlMs: null,
};

function ownColumns(): Map<string, Column> {
  return new Map<string, Column>([
    ["obs", tensor("float32", [3, 2], [1, 2, 3, 4, 5, 6])],
    ["half", tensor("bfloat16", [3], [1, 2, 3])],
    ["score", scalars("float64", [0.5, null, -0])],
    ["ids", ragged("int64", [[1, 2, 3], null, []])],
    ["grid", ragged("uint8", [[[1, 2], [3, 4]], [[]], [[5]]])],
    ["frames", ragged("float32", [tensor("float32", [2, 1], [1, 2]), new Float32Array(2), null])],
    ["text", strings(["é😀", null, ""])],
    ["image", bytes([Uint8Array.of(1, 2, 3), null, new Uint8Array(0)])],
    ["turns", json([{ a: [1, 2.5, null] }, null, 1n << 70n])],
    [
      "nested",
      records([
        { x: tensor("int32", [2], [1, 2]), y: [{ b: Uint8Array.of(1) }, { b: null }], "a.b[0]": "t" },
        null,
        { x: null, y: [], n: 1 },
      ]),
    ],
  ]);
}

/** Bundles of our own: one field each, so that damage hits it, and all together. */
function ownBundles(): Parts[] {
  const all = ownColumns();
  const sets: [Map<string, Column>, Partial<BuildOptions>][] = [...all].map(([field, column]) => [
    new Map([[field, column]]),
    { annotations: field > "n", tensorEncoding: field === "obs" ? "numpy" : "torch" },
  ]);
  sets.push([all, {}], [all, { annotations: false, chunkBytes: 7, checksums: true }]);
  sets.push([
    new Map([...all].map(([field, column]) => [field, gather(column, RowSet.all(0))])),
    { annotations: false },
  ]);
  return sets.map(([columns, options]) => {
    const rows = [...columns.values()][0]!.rows;
    const built = buildBundle({ ...BUILD, hex: "0".repeat(31) + "1", rows, columns, ...options });
    const parts = new Map<string, Uint8Array>();
    const { bundle } = built;
    if (options.annotations === false) parts.set("handle", encoder.encode(handleText(handleOf(bundle))));
    for (const object of built.objects) parts.set(object.key, joined(...object.parts));
    return parts;
  });
}

function handleOf(bundle: BundleInfo): Parameters<typeof handleText>[0] {
  return {
    batchSize: bundle.rows,
    namespace: bundle.namespace,
    partition: bundle.partition,
    globalIndexes: null,
    stages: new Map([[bundle.stage, bundle.manifestKey]]),
    fields: new Map(
      [...bundle.fields].map(([field, { section }]) => [
        field,
        { stage: bundle.stage, section, member: `${section}.${field}` },
      ]),
    ),
    metaInfo: { step: 7, note: "x" },
    encodedNonTensor: bundle.encoded,
  };
}

const bundleTarget: Target = {
  name: "bundle",
  weight: 9,
  seeds: [
    ...golden.filter((item) => item.handle !== undefined && Object.keys(item.objects).length > 0).map((
      item,
    ) => new Map([["handle", encoder.encode(JSON.stringify(item.handle))], ...objectsOf(item)])),
    ...ownBundles(),
  ],
  mutate: mutateBundle,
  run: (parts) => typed(() => runBundle(parts)),
};

// handles, through a transfer

/** A transfer over three bundles that are always there. */
async function openTransfer(): Promise<TransferBackend> {
  const store = await openMemoryStore();
  const columns = ownColumns();
  for (let i = 0; i < 3; i++) {
    const chosen = new Map([...columns].filter((_, index) => i === 2 || index % 2 === i));
    const built = buildBundle({
      ...BUILD,
      hex: "0".repeat(31) + String(i + 1),
      rows: 3,
      columns: chosen,
      rowIds: ["a", "b", "c"].map((id) => id + i),
    });
    await store.writeBundle(built.bundle.objectId, built.objects);
  }
  return new TransferBackend(resolveConfig({ backend: "memory", keyPrefix: "rl" }), store);
}

async function handleSeeds(): Promise<Parts[]> {
  await using transfer = await openTransfer();
  const bundles = await transfer.list("p0");
  const handles: unknown[] = [];
  for (const { manifestKey, rows, stage, fields } of bundles) {
    const ref = {
      type: "batchferry_ref",
      version: 1,
      rows,
      partition: "p0",
      bundles: [{ manifest_key: manifestKey, rows, stage, namespace: "ns" }, {
        partition: "p0",
        ids: ["a2", "c2"],
      }],
      selections: [[[0, [[0, rows]]]], [[0, [2, 0]], [0, [1]]], [[1, [0, 1, 1]]]],
      columns: fields.map((field, i) => [field, i % 2, i % 2 === 0 ? field : [field, field]]),
      origin: 0,
      meta: { step: 1 },
      batchferry: { store: "memory:" },
    };
    handles.push(ref, { ...ref, columns: [[fields[0], 2, fields[0]]], origin: 2 });
    const batch = transfer.importHandle(ref).select(fields.slice(0, 3));
    handles.push(
      batch.slice(0, 2).toHandle(),
      batch.repeat(3).toHandle(),
      batch.repeat(2, { interleave: true }).selectRows([3, 1, 1, 0]).toHandle(),
      ...(await batch.select(fields.slice(0, 1)).toMooncake()).map((part) => part.handle),
    );
  }
  const encoded = handles.map((handle) => new Map([["handle", encoder.encode(JSON.stringify(handle))]]));
  return [...encoded, ...bundleTarget.seeds.filter((parts) => parts.has("handle")).map(handleOnly)];
}

function handleOnly(parts: Parts): Parts {
  return new Map([["handle", parts.get("handle")!]]);
}

let transfer: TransferBackend | undefined;
let imports = 0;

const handleTarget: Target = {
  name: "handle",
  weight: 4,
  seeds: await handleSeeds(),
  mutate: mutateBundle,
  run: async (parts) => {
    // what a handle names is remembered, so now and then it is forgotten
    if (transfer === undefined || imports++ % 500 === 0) transfer = await openTransfer();
    try {
      const batch = transfer.importHandle(decoder.decode(parts.get("handle")!));
      assert.ok(Number.isSafeInteger(batch.rows) && batch.rows >= 0);
      // a caller sees how many rows it asks for
      if (batch.rows > 4096) return;
      const handle = batch.toHandle();
      assert.equal(transfer.importHandle(handle).rows, batch.rows);
      for (const field of batch.fields.slice(0, 16)) {
        try {
          const column = (await batch.materialize([field])).column(field);
          assert.equal(column.rows, batch.rows);
          inspect(field, column);
        } catch (error) {
          if (!(error instanceof BatchferryError)) throw error;
        }
      }
    } catch (error) {
      if (!(error instanceof BatchferryError)) throw error;
    }
  },
};

/** The same bundles behind a transfer, as its users have them. */
const transferTarget: Target = {
  name: "transfer",
  weight: 3,
  seeds: bundleTarget.seeds,
  mutate: mutateBundle,
  run: async (parts) => {
    const store = await openMemoryStore();
    const objects = [...parts].filter(([key]) => key !== "handle" && !key.endsWith("/manifest"));
    const [manifestKey, manifest] = [...parts].find(([key]) => key.endsWith("/manifest"))!;
    await store.writeBundle(
      manifestKey.slice(0, -"/manifest".length),
      [...objects, [manifestKey, manifest] as const].map(([key, part]) => ({ key, parts: [part] })),
    );
    await using transfer = new TransferBackend(resolveConfig({ backend: "memory", keyPrefix: "rl" }), store);
    const act = async (what: () => Promise<unknown>): Promise<void> => {
      try {
        await what();
      } catch (error) {
        if (!(error instanceof BatchferryError)) throw error;
      }
    };
    const handle = parts.get("handle");
    await act(async () => {
      if (handle === undefined) return;
      const batch = transfer.importHandle(decoder.decode(handle));
      if (batch.rows > 4096) return;
      for (const field of batch.fields.slice(0, 16)) {
        await act(async () => inspect(field, (await batch.materialize([field])).column(field)));
      }
    });
    await act(async () => {
      for (const { rows, partition, fields } of await transfer.list()) {
        if (rows > 4096) continue;
        const ids = [
          "0-0",
          ...Array.from({ length: Math.min(rows, 3) }, (_, row) => `${manifestKey.slice(-41, -9)}-${row}`),
        ];
        await act(() => transfer.get(partition, ids, fields));
        await act(() => transfer.get(partition, ids.slice(1), fields));
        await act(() => transfer.delete(partition, ids, fields.slice(1)));
      }
    });
    await act(() => transfer.gc());
    await act(() => transfer.dropPartition("p0"));
  },
};

// files in shared memory

const FOLDER = "live";
let root: Root | undefined;
let numbered = 0;

/** Says in which folder targets may write; needed before any of them runs. */
export function setFolder(path: string): void {
  folder = path;
  root = new Root(join(path, "shm"));
  mkdirSync(root.liveFolder(FOLDER).path, { recursive: true });
}
let folder = "";

function shmFile(objects: readonly { key: string; parts: readonly Uint8Array[] }[]): Uint8Array {
  const layout = layOut(objects);
  const out = new Uint8Array(layout.used);
  out.set(encodeHeader(layout, "123-456-0123456789abcdef"));
  for (const { key, parts } of objects) out.set(joined(...parts), layout.table.get(key)!.offset);
  out.set(layout.tableJson, layout.tableOffset);
  return out;
}

/** Makes header and checksum fit a table that stands at the end. */
function withTable(head: Uint8Array, tableOffset: number, table: Uint8Array): Uint8Array {
  const out = joined(head.subarray(0, tableOffset), table);
  const view = new DataView(out.buffer);
  view.setBigUint64(8, BigInt(out.length), true);
  view.setBigUint64(24, BigInt(table.length), true);
  view.setUint32(32, crc32(table), true);
  return out;
}

const shmTarget: Target = {
  name: "shm",
  weight: 3,
  seeds: ownBundles().slice(-4).map((parts) => {
    const objects = [...parts].filter(([key]) => key !== "handle").map(([key, part]) => ({
      key,
      parts: [part],
    }));
    return new Map([["file", shmFile(objects)]]);
  }),
  mutate: (random, parts, donor) => {
    const file = parts.get("file")!;
    const view = new DataView(file.buffer, file.byteOffset);
    const tableOffset = Number(view.getBigUint64(16, true));
    const other = donor.get("file")!;
    if (random.chance(0.3)) return new Map([["file", mutateBytes(random, file, other)]]);
    if (random.chance(0.3)) {
      const head = mutateBytes(random, file.slice(0, HEADER_BYTES), other);
      return new Map([["file", joined(head.subarray(0, HEADER_BYTES), file.subarray(HEADER_BYTES))]]);
    }
    const change = random.chance(0.8) ? mutateJson : mutateBytes;
    const table = change(random, file.slice(tableOffset), encoder.encode('[["a",128,1],["b",-1,1e300]]'));
    return new Map([["file", withTable(file, tableOffset, table)]]);
  },
  run: (parts) => {
    const file = parts.get("file")!;
    typed(() => {
      const header = decodeHeader(file.subarray(0, HEADER_BYTES), file.length, "the file");
      const { tableOffset, tableBytes } = header;
      const table = decodeTable(file.subarray(tableOffset, tableOffset + tableBytes), header, "the file");
      for (const { offset, bytes } of table.values()) {
        assert.ok(offset >= HEADER_BYTES && bytes >= 0 && offset + bytes <= tableOffset);
      }
    });
    // the same as a file that somebody put there, now and then: opening and mapping cost more than the rest
    if (crc32(file) % 16 !== 0) return;
    const live = root!.liveFolder(FOLDER);
    const name = (numbered++).toString(16).padStart(32, "0");
    writeFileSync(join(live.path, name), file);
    typed(() => {
      const reader = new Reader(root!);
      const { table } = reader.inspect(live, name)!;
      const into = (size: number): Uint8Array => new Uint8Array(Math.min(size, file.length));
      const ranges = [...table].map(([key, { bytes }]) => ({ key, offset: 0, into: into(bytes) }));
      assert.equal(reader.read(live, name, ranges).length, 0);
      for (const { key, into } of ranges) {
        const { offset } = table.get(key)!;
        assert.equal(latin1(into), latin1(file.subarray(offset, offset + into.length)));
      }
      const mapped = reader.map(live, name)!;
      mapped.mapping.close();
    });
    writeFileSync(join(live.path, name), "");
  },
};

// files of the command line

function formatTarget(
  name: string,
  weight: number,
  format: Format,
  seeds: readonly Parts[],
  mutate: Target["mutate"],
  check: (parts: Parts, read: FileColumns) => void = () => {},
): Target {
  return {
    name,
    weight,
    seeds,
    mutate,
    run: (parts) => {
      const path = join(folder, `input.${name}`);
      writeFileSync(path, parts.get("file")!);
      const read = typed(() => {
        const text = parts.get("schema");
        const schema = text === undefined
          ? new Map<string, FieldSchema>()
          : parseSchema(plainJson(text), "the schema");
        return format.read(path, schema);
      });
      if (read === undefined) return;
      for (const [field, column] of read.columns) {
        assert.equal(column.rows, read.rows);
        inspect(field, column);
      }
      check(parts, read);
    },
  };
}

async function written(format: Format, name: string, batch: Batch): Promise<Uint8Array> {
  const { mkdtempSync, readFileSync, rmSync } = await import("node:fs");
  const { tmpdir } = await import("node:os");
  const path = mkdtempSync(join(tmpdir(), "batchferry-fuzz-"));
  try {
    await writeWhole(join(path, name), (file) => format.write(file, batch));
    return new Uint8Array(readFileSync(join(path, name)));
  } finally {
    rmSync(path, { recursive: true });
  }
}

const arrays = new Batch(
  3,
  new Map<string, Column>([
    ["a", tensor("float32", [3, 2], [1, 2, 3, 4, 5, 6])],
    ["b", tensor("bool", [3], [true, false, true])],
    ["7", tensor("float8_e5m2", [3, 0], [])],
    ["é", tensor("int64", [3, 1], [1n, -1n, 1n << 60n])],
  ]),
);

function mutateSafetensors(random: Random, parts: Parts, donor: Parts): Parts {
  const file = parts.get("file")!;
  const other = donor.get("file")!;
  if (random.chance(0.3)) return new Map([["file", mutateBytes(random, file, other)]]);
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const header = mutateJson(random, file.slice(8, 8 + length), other.slice(8));
  const start = new Uint8Array(8);
  new DataView(start.buffer).setBigUint64(0, BigInt(header.length), true);
  const data = file.subarray(8 + length);
  const kept = random.chance(0.3) ? data.subarray(0, random.int(data.length + 1)) : data;
  return new Map([["file", joined(start, header, kept)]]);
}

function npyFile(header: string, data: Uint8Array, version = 1): Uint8Array {
  const text = encoder.encode(header);
  const start = Uint8Array.of(
    0x93,
    0x4e,
    0x55,
    0x4d,
    0x50,
    0x59,
    version,
    0,
    0,
    0,
    ...(version === 1 ? [] : [0, 0]),
  );
  new DataView(start.buffer).setUint16(8, text.length, true);
  return joined(start, text, data);
}

const HEADER_WORDS = [
  "(",
  ")",
  "[",
  "]",
  "{",
  "}",
  "'",
  '"',
  ",",
  ":",
  "\\",
  "True",
  "False",
  "None",
  "0",
  "1",
  "3",
  "-1",
  "1.5",
  "2L",
  "99999999999999999999",
  "4294967296",
  "9007199254740992",
  "'descr'",
  "'shape'",
  "'fortran_order'",
  "'<f4'",
  "'|O'",
  "'>i8'",
  "'=u2'",
  "'f4'",
  "''",
  "(0,)",
  "(3, 2)",
  "(0, 9007199254740991, 9007199254740991)",
  "('a', '<f4')",
  "\n",
  "(".repeat(40),
  "[".repeat(1000),
  "'".repeat(3),
  "\\x",
  "é",
];

function mutateNpy(random: Random, parts: Parts, donor: Parts): Parts {
  const file = parts.get("file")!;
  const other = donor.get("file")!;
  if (random.chance(0.4)) return new Map([["file", mutateBytes(random, file, other)]]);
  const length = new DataView(file.buffer, file.byteOffset).getUint16(8, true);
  const at = file[6] === 1 ? 10 : 12;
  const tokens = decoder.decode(file.subarray(at, at + length)).match(/'[^']*'|\w+|[^\w']/g) ?? [];
  const edits = random.pick([1, 1, 2, 4]);
  for (let i = 0; i < edits; i++) {
    tokens.splice(
      random.int(tokens.length + 1),
      random.int(3),
      ...(random.chance(0.8) ? [random.pick(HEADER_WORDS)] : []),
    );
  }
  return new Map([["file", npyFile(tokens.join(""), file.subarray(at + length), file[6])]]);
}

const LINES = [
  '{"id":1,"x":0.5,"t":"a","l":[1,2,3],"b":true,"raw":{"$bytes":"AQID"},"j":{"k":[1,"x",null]}}',
  '{"id":18446744073709551615,"x":-1e3,"t":"é\\u00e9\\n","l":[],"b":false,"raw":{"$bytes":""},"j":[{"a":1}]}',
  '{"t":null,"id":-9223372036854775808,"x":null,"l":null,"j":12345678901234567890}',
];
const TOKENS = [
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  '"',
  "\\",
  "\n",
  "\r\n",
  " ",
  "null",
  "true",
  "nul",
  "NaN",
  "-",
  "0",
  "00",
  "1e",
  "1.",
  "-0",
  "1e400",
  "123456789012345678901",
  '"\\ud800"',
  '"\\u12"',
  '{"$bytes":"AQ="}',
  '{"$bytes":"AQI="}',
  "\u2028",
  '"id":',
  '"__proto__":1',
  "{}",
  '{"new":1}',
  "[[1],[2]]",
  "[1,true]",
  "[".repeat(600),
  "9".repeat(5000),
  "\ufeff",
  "\u0000",
];

function mutateJsonl(random: Random, parts: Parts, donor: Parts): Parts {
  const out = new Map(parts);
  const file = parts.get("file")!;
  const schema = parts.get("schema");
  const kind = random.next();
  if (schema !== undefined && kind < 0.2) out.set("schema", mutateJson(random, schema, schema));
  else if (kind < 0.4) out.set("file", mutateBytes(random, file, donor.get("file")!));
  else {
    const lines = decoder.decode(file).split("\n");
    const edits = random.pick([1, 1, 2, 3]);
    for (let i = 0; i < edits; i++) {
      const at = random.int(lines.length);
      const line = lines[at]!;
      if (random.chance(0.5)) {
        const from = encoder.encode(random.pick(LINES));
        lines[at] = decoder.decode(mutateJson(random, encoder.encode(line), from));
      } else {
        const place = random.int(line.length + 1);
        lines[at] = line.slice(0, place) + random.pick(TOKENS) + line.slice(place + random.int(3));
      }
    }
    if (random.chance(0.02)) {
      lines.push(...new Array<string>(random.int(3000)).fill(random.pick(["{}", '{"z":1}'])));
    }
    out.set("file", encoder.encode(lines.join("\n")));
  }
  return out;
}

function plainJson(text: Uint8Array): unknown {
  try {
    return JSON.parse(decoder.decode(text));
  } catch (cause) {
    throw new ConfigError("the schema is no JSON", { cause });
  }
}

/** Columns inferred from a JSONL file must hold what a parser of JSON finds in its lines. */
function checkJsonl(parts: Parts, read: FileColumns): void {
  if (parts.has("schema")) return;
  const text = new TextDecoder("utf-8", { fatal: true }).decode(parts.get("file")!);
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  assert.equal(lines.length, read.rows, "another number of rows than there are lines");
  lines.slice(0, SHOWN).forEach((line, row) => {
    JSON.parse(line);
    let object: Record<string, unknown>;
    try {
      object = parseJson(line) as Record<string, unknown>;
    } catch {
      return; // its values are as deep as they may be, and the line is one level more
    }
    const found: Record<string, unknown> = Object.create(null);
    for (const [field, column] of read.columns) {
      const value = rowsOf(column).at(row);
      if (value !== null) found[field] = value;
    }
    const keys = Object.keys(object).filter((key) => object[key] !== null);
    assert.deepEqual(Object.keys(found).sort(), keys.sort());
    for (const key of keys) {
      assert.equal(plainText(found[key]), plainText(object[key]), `field ${key} of row ${row}`);
    }
  });
}

/** A JSON value as text; numbers by their value, bytes as the object they are written as. */
function plainText(value: unknown): string {
  if (value instanceof Uint8Array) return `{"$bytes":"${Buffer.from(value).toString("base64")}"}`;
  if (Array.isArray(value)) return `[${value.map(plainText).join()}]`;
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1);
    return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${plainText(item)}`).join()}}`;
  }
  if (typeof value === "bigint") return String(Number(value));
  return value === 0 ? "0" : typeof value === "string" ? JSON.stringify(value) : String(value);
}

const SCHEMA = JSON.stringify({
  id: { kind: "scalars", dtype: "uint64" },
  x: { kind: "tensor", dtype: "float32", shape: [2] },
  l: { kind: "ragged", dtype: "int16" },
  b: { kind: "scalars", dtype: "bool" },
  raw: { kind: "bytes" },
  j: { kind: "records" },
  t: { kind: "strings", nullable: false },
});

function files(...contents: readonly (string | Uint8Array)[]): Parts[] {
  return contents.map((content) =>
    new Map([["file", typeof content === "string" ? encoder.encode(content) : content]])
  );
}

const data = Uint8Array.from({ length: 24 }, (_, i) => i);

/** All targets. */
export const targets: readonly Target[] = [
  bundleTarget,
  handleTarget,
  transferTarget,
  shmTarget,
  {
    name: "tensor_header",
    weight: 1,
    seeds: bundleTarget.seeds.flatMap((parts) =>
      [...parts].filter(([name]) => name.includes("/batch.")).flatMap(([, part]) => files(part))
    ),
    mutate: (random, parts, donor) =>
      new Map([["file", mutateBytes(random, parts.get("file")!, donor.get("file")!)]]),
    run: (parts) => {
      const file = parts.get("file")!;
      const header = typed(() => parseTensorHeader(file, file.length, "the tensor"));
      if (header === undefined || header.shape.length === 0) return;
      typed(() => new Tensor(header.dtype, header.shape, file.subarray(header.dataOffset)));
    },
  },
  formatTarget(
    "safetensors",
    3,
    safetensors,
    files(
      await written(safetensors, "x.safetensors", arrays),
      await written(safetensors, "x.safetensors", new Batch(0, new Map())),
    ),
    mutateSafetensors,
  ),
  formatTarget(
    "npy",
    3,
    npy,
    files(
      await written(npy, "x.npy", new Batch(3, new Map([["a", arrays.tensor("a")]]))),
      npyFile("{'descr': '>i4', 'fortran_order': True, 'shape': (3, 2), }\n", data, 2),
      npyFile("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }\n", data, 3),
    ),
    mutateNpy,
  ),
  formatTarget(
    "jsonl",
    4,
    jsonl,
    [
      ...files(LINES.join("\n"), `${LINES[0]}\n`, '{"a":[1.5,2],"s":[[1,2],[3]]}\n{"a":[],"s":[]}\n'),
      new Map([
        ["schema", encoder.encode(SCHEMA)],
        [
          "file",
          encoder.encode(
            '{"id":1,"x":[1,2],"l":[1,2],"b":true,"raw":{"$bytes":"AQ=="},"j":{"$bytes":"AQ=="},"t":"x"}\n' +
              '{"id":2,"x":[3,4],"l":[[1],[2]],"b":null,"raw":null,"j":[{"k":1}],"t":"y"}\n',
          ),
        ],
      ]),
    ],
    mutateJsonl,
    checkJsonl,
  ),
];
