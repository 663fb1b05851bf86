/** What the tests of stored bundles have in common: a store that is a map, golden cases, comparisons. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import type { Column } from "../../../src/batch/column.ts";
import { bytesOf, dtypeOfArray, itemSize, newArray, type TypedArray } from "../../../src/batch/dtype.ts";
import type { JsonObject } from "../../../src/batch/json.ts";
import { rowsOf } from "../../../src/batch/rows.ts";
import { RowSet } from "../../../src/batch/rowset.ts";
import { Tensor } from "../../../src/batch/tensor.ts";
import { buildBundle, type BuildOptions, type BuiltBundle } from "../../../src/bundle/build.ts";
import { type BundleInfo, openBundle } from "../../../src/bundle/bundle.ts";
import { parseNumpyCode, parseTorchName, swapBytes } from "../../../src/bundle/dtype_names.ts";
import type { EncodedFields } from "../../../src/bundle/encoded.ts";
import { type MooncakeHandle, parseHandle } from "../../../src/bundle/handle.ts";
import { parseManifest, type PayloadSpec, writeManifest } from "../../../src/bundle/manifest.ts";
import { type FieldSpec, writeMeta } from "../../../src/bundle/meta.ts";
import {
  type PayloadRange,
  type Reading,
  verifyRanges,
  wholePayloadReads,
} from "../../../src/bundle/ranges.ts";
import { readColumn, toChunks } from "../../../src/bundle/read.ts";
import type { ReadRange, StoreObject } from "../../../src/store/store.ts";

export type Objects = Map<string, Uint8Array>;

export interface GoldenCase {
  readonly name: string;
  readonly objects: Readonly<Record<string, string>>;
  readonly handle?: unknown;
  readonly manifest_key?: string;
  readonly decoded?: Decoded;
  readonly meta_info?: unknown;
  readonly row_slices?: readonly {
    readonly start: number;
    readonly end: number;
    readonly decoded: Decoded;
  }[];
}

export interface Decoded {
  readonly batch: Readonly<Record<string, unknown>>;
  readonly non_tensor_batch: Readonly<Record<string, unknown>>;
}

const file = new URL("../../golden/mooncake-wire.json", import.meta.url);
export const golden: readonly GoldenCase[] = JSON.parse(readFileSync(file, "utf8")).cases;

export function goldenCase(name: string): GoldenCase {
  const found = golden.find((item) => item.name === name);
  assert.ok(found, `there is no golden case ${name}`);
  return found;
}

export function fromHex(hex: string): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(hex.length / 2));
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function toText(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

export function toBytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

export function joined(object: StoreObject): Uint8Array {
  return Uint8Array.from(object.parts.flatMap((part) => [...part]));
}

export function objectsOf(item: GoldenCase): Objects {
  return new Map(Object.entries(item.objects).map(([key, hex]) => [key, fromHex(hex)]));
}

export function stored(built: BuiltBundle): Objects {
  return new Map(built.objects.map((object) => [object.key, joined(object)]));
}

export function readRanges(objects: Objects, ranges: readonly ReadRange[]): void {
  for (const { key, offset, into } of ranges) {
    const object = objects.get(key);
    assert.ok(object, `${key} was read, but is not stored`);
    assert.ok(offset + into.byteLength <= object.byteLength, `${key} was read beyond its end`);
    into.set(object.subarray(offset, offset + into.byteLength));
  }
}

/** Opens a bundle as a reader does: manifest, then meta. */
export function open(objects: Objects, manifestKey: string, encoded?: EncodedFields): BundleInfo {
  const manifestBytes = objects.get(manifestKey);
  assert.ok(manifestBytes, `${manifestKey} is not stored`);
  const meta = wholePayloadReads(parseManifest(manifestKey, manifestBytes).meta);
  readRanges(objects, meta.ranges);
  verifyRanges(meta.ranges);
  return openBundle(manifestKey, manifestBytes, meta.bytes, encoded);
}

export function openGolden(
  item: GoldenCase,
): { handle: MooncakeHandle; bundle: BundleInfo; objects: Objects } {
  const handle = parseHandle(item.handle);
  const objects = objectsOf(item);
  const [manifestKey] = handle.stages.values();
  assert.ok(manifestKey, `${item.name} has no stage`);
  return { handle, bundle: open(objects, manifestKey, handle.encodedNonTensor), objects };
}

export interface Run<Result> {
  readonly result: Result;
  readonly rounds: readonly (readonly PayloadRange[])[];
}

/** Runs a reading against the map. */
export function run<Result>(objects: Objects, bundle: BundleInfo, reading: Reading<Result>): Run<Result> {
  const rounds: (readonly PayloadRange[])[] = [];
  for (;;) {
    const step = reading.next();
    if (step.done) return { result: step.value, rounds };
    rounds.push(step.value);
    const ranges = toChunks(bundle, step.value);
    readRanges(objects, ranges);
    verifyRanges(ranges);
  }
}

export function column(objects: Objects, bundle: BundleInfo, field: string, rows?: RowSet): Column {
  return run(objects, bundle, readColumn(bundle, field, rows ?? RowSet.all(bundle.rows))).result;
}

export const BUILD: Omit<BuildOptions, "rows" | "columns"> = {
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

export function build(
  columns: Readonly<Record<string, Column>>,
  options: Partial<BuildOptions> = {},
): BuiltBundle {
  const rows = options.rows ?? Object.values(columns)[0]?.rows ?? 0;
  return buildBundle({ ...BUILD, rows, columns: new Map(Object.entries(columns)), ...options });
}

type Tagged = Readonly<Record<string, unknown>>;

function arrayTag(expected: Tagged): { dtype: string; shape: readonly number[]; hex: string } | undefined {
  const numpy = expected.$ndarray;
  const torch = expected.$torch;
  if (numpy === undefined && torch === undefined) return undefined;
  const dtype = numpy === undefined
    ? parseTorchName(torch as string)
    : parseNumpyCode(numpy as string)?.dtype;
  assert.ok(dtype, `unknown dtype in the golden file: ${JSON.stringify(expected)}`);
  return { dtype, shape: expected.shape as number[], hex: expected.hex as string };
}

function arrayForm(actual: unknown): { dtype: string; shape: readonly number[]; hex: string } {
  if (actual instanceof Tensor) {
    return { dtype: actual.dtype, shape: [...actual.shape], hex: toHex(actual.bytes) };
  }
  assert.ok(ArrayBuffer.isView(actual), `expected an array, got ${String(actual)}`);
  const array = actual as TypedArray;
  return { dtype: dtypeOfArray(array)!, shape: [array.length], hex: toHex(bytesOf(array)) };
}

/** Compares a decoded value with a tagged one of the golden file. */
export function assertTagged(actual: unknown, expected: unknown): void {
  if (Array.isArray(expected)) {
    assert.ok(Array.isArray(actual));
    assert.equal(actual.length, expected.length);
    expected.forEach((item, index) => assertTagged(actual[index], item));
    return;
  }
  if (typeof expected !== "object" || expected === null) {
    assert.deepEqual(actual, expected);
    return;
  }
  const tagged = expected as Tagged;
  const array = arrayTag(tagged);
  if (array !== undefined) return assert.deepEqual(arrayForm(actual), array);
  if ("$float" in tagged) return assert.equal(actual, tagged.$float);
  if ("$bytes" in tagged) {
    assert.ok(actual instanceof Uint8Array);
    return assert.equal(toHex(actual), tagged.$bytes);
  }
  const entries = tagged.$dict as readonly [string, unknown][];
  assert.ok(entries, `unknown tag in the golden file: ${JSON.stringify(expected)}`);
  assert.deepEqual(Object.keys(actual as object), entries.map(([key]) => key));
  for (const [key, value] of entries) assertTagged((actual as Tagged)[key], value);
}

/** Compares a column with what the golden file says of it. */
export function assertColumn(actual: Column, expected: unknown): void {
  if (!Array.isArray(expected)) {
    const nested = (expected as Tagged).$nested;
    if (nested === undefined) return assertTagged(actual, expected);
    return assertTagged(rowsOf(actual).toArray(), nested);
  }
  assert.equal(actual.rows, expected.length);
  assertTagged(rowsOf(actual).toArray(), expected);
}

/** A column as plain data, so that two columns can be compared exactly. */
export function plain(of: Column): unknown {
  if (of.kind === "tensor") {
    return { kind: of.kind, dtype: of.dtype, shape: [...of.shape], data: toHex(of.bytes) };
  }
  if (of.kind === "records") {
    return { kind: of.kind, rows: of.rows, nulls: mask(of.nulls), values: of.values };
  }
  const base = { kind: of.kind, rows: of.rows, nulls: mask(of.nulls), data: toHex(of.data) };
  if (of.kind === "scalars") return { ...base, dtype: of.dtype };
  const { offsets } = of;
  if (of.kind !== "ragged") return { ...base, offsets: [...offsets] };
  return { ...base, offsets: [...offsets], dtype: of.dtype, rowFormat: of.rowFormat, shapes: of.shapes };
}

function plainValue(value: unknown): unknown {
  if (value instanceof Tensor) return plain(value);
  if (Array.isArray(value)) return value.map(plainValue);
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plainValue(item)]));
}

function mask(nulls: Uint8Array | null): string | null {
  return nulls === null ? null : toHex(nulls);
}

/** Numbers of 0 to 2^32 − 1, the same for the same seed. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

export function randomBytes(random: () => number, length: number): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(length));
  for (let i = 0; i < length; i++) bytes[i] = random() & 0xff;
  return bytes;
}

/** A member of a bundle made by hand. */
export interface HandMember {
  readonly spec: FieldSpec;
  readonly bytes: Uint8Array;
  readonly payload?: Partial<PayloadSpec>;
}

/** A bundle as some other writer might have written it. */
export function handmade(
  rows: number,
  members: Readonly<Record<string, HandMember>>,
  encoded?: EncodedFields,
): { bundle: BundleInfo; objects: Objects } {
  const hex = "0".repeat(31) + "9";
  const base = `rl/p0/${hex}`;
  const objects: Objects = new Map();
  const place = (key: string, bytes: Uint8Array, more: Partial<PayloadSpec> = {}): PayloadSpec => {
    if (bytes.length > 0) objects.set(key, bytes);
    return {
      key,
      bytes: bytes.length,
      chunks: bytes.length > 0 ? [{ key, bytes: bytes.length }] : [],
      ...more,
    };
  };
  const meta = writeMeta({
    layout: "dataproto_stage",
    dataproto: { namespace: "ns", partition: "p0", stage: "gen", batchSize: rows },
    fields: new Map(Object.entries(members).map(([name, { spec }]) => [name, spec])),
    facts: null,
  });
  const buffers = new Map(
    Object.entries(members).map((
      [name, { bytes, payload }],
    ) => [name, place(`${base}/buffer/${name}`, bytes, payload)]),
  );
  const metaPayload = place(`${base}/meta`, meta);
  objects.set(`${base}/manifest`, writeManifest({ objectId: `p0/${hex}`, meta: metaPayload, buffers }));
  return { bundle: open(objects, `${base}/manifest`, encoded), objects };
}

/** Numbers as an ndarray member. */
export function ndarray(dtype: string, shape: readonly number[], values: readonly number[]): HandMember {
  const { dtype: type, swap } = parseNumpyCode(dtype)!;
  const array = newArray(type, values.length);
  values.forEach((value, i) => array[i] = array instanceof BigInt64Array ? BigInt(value) : value);
  const bytes = bytesOf(array);
  if (swap) swapBytes(bytes, itemSize(type));
  return { spec: { encoding: "ndarray", dtype, shape }, bytes };
}

/** Bytes as a member. */
export function rawBytes(bytes: Uint8Array): HandMember {
  return { spec: { encoding: "bytes" }, bytes };
}

/** A field made by hand: its parts, stored as members of their names. */
export function handField(
  rows: number,
  codec: string,
  metadata: JsonObject,
  parts: Readonly<Record<string, HandMember>>,
): { bundle: BundleInfo; objects: Objects } {
  const name = (part: string): string => `non_tensor_batch.f.${part}`;
  const payloadMembers = new Map(Object.keys(parts).map((part) => [part, name(part)]));
  return handmade(
    rows,
    Object.fromEntries(Object.entries(parts).map(([part, member]) => [name(part), member])),
    new Map([["f", { codec, rows, metadata, payloadMembers }]]),
  );
}

/** The rows of the field `f`. */
export function values(made: { bundle: BundleInfo; objects: Objects }, rows?: RowSet): unknown[] {
  return rowsOf(column(made.objects, made.bundle, "f", rows)).toArray();
}
