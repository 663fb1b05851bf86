/**
 * The meta payload of a bundle: what its members are, and our own facts beside them.
 *
 * @module
 */

import type { Json, JsonObject } from "../batch/json.ts";
import { type EncodedFields, encodedTree, parseEncoded } from "./encoded.ts";
import {
  asArray,
  asCount,
  asCounts,
  asName,
  asObject,
  asString,
  below,
  corrupt,
  jsonBytes,
  type JsonTree,
  member,
  type Origin,
  parseJsonBytes,
  pythonJson,
  quoted,
} from "./json_text.ts";

/** How a member's payload is to be read. Fields other than `encoding` depend on it. */
export interface FieldSpec {
  /** `bytes`, `ndarray`, `torch_tensor`; others are refused when the field is read. */
  readonly encoding: string;
  /** `<f4` for ndarray, `torch.float32` for torch_tensor. */
  readonly dtype?: string;
  readonly shape?: readonly number[];
  readonly elementSize?: number;
  /** A jagged tensor: the payload is the concatenation of complete tensor payloads. */
  readonly nested?: boolean;
  readonly format?: string;
  readonly partBytes?: readonly number[];
  readonly hasLengths?: boolean;
  readonly raggedIdx?: number;
}

/** Where row ids come from: generated from a base, or listed in a side object. */
export type RowIdsFact =
  | { readonly base: string; readonly count: number }
  | { readonly key: string; readonly bytes?: number };

/** What we store beside Mooncake's own metadata, in `meta.batchferry`. */
export interface BundleFacts {
  readonly v: 1;
  /** Repeats the handle's `encoded_non_tensor`, so that the bundle can be read without a handle. */
  readonly encoded: EncodedFields;
  readonly rowIds: RowIdsFact | null;
  /** Whose rows these are, where the bundle was computed for the rows of others. */
  readonly origin: Json | null;
  readonly createdMs: number;
  readonly ttlMs: number | null;
}

/** The five values that Python compares before it appends to a stage. */
export interface DataProtoMeta {
  readonly namespace: string;
  readonly partition: string;
  readonly stage: string;
  readonly batchSize: number;
}

/** What a meta payload says. */
export interface BundleMeta {
  /** `dataproto_stage` for everything this library writes and reads. */
  readonly layout: string;
  readonly dataproto: DataProtoMeta | null;
  readonly fields: ReadonlyMap<string, FieldSpec>;
  readonly facts: BundleFacts | null;
}

/** The layout of a stage. */
export const STAGE_LAYOUT = "dataproto_stage";
const FIELDS = "__mooncake_structured_fields__";
const FACTS = "batchferry";
/** Row positions are 32 bits wide. */
export const MAX_ROWS: number = 2 ** 32 - 1;

/** The bytes of a meta payload, with Python's order of keys, our facts after them. */
export function writeMeta(meta: BundleMeta): Uint8Array {
  let text = `{"layout":${quoted(meta.layout)}`;
  if (meta.dataproto !== null) {
    const { namespace, partition, stage, batchSize } = meta.dataproto;
    text += `,"dataproto":{"version":1,"namespace":${quoted(namespace)},"partition":${quoted(partition)},` +
      `"stage":${quoted(stage)},"batch_size":${batchSize}}`;
  }
  let fields = "";
  for (const [name, spec] of meta.fields) {
    fields += `${fields === "" ? "" : ","}${quoted(name)}:${specText(spec)}`;
  }
  if (fields !== "") text += `,"${FIELDS}":{${fields}}`;
  if (meta.facts !== null) text += `,"${FACTS}":${pythonJson(factsTree(meta.facts))}`;
  return jsonBytes(`${text}}`);
}

const SPEC_KEYS = [
  ["encoding", "encoding"],
  ["dtype", "dtype"],
  ["shape", "shape"],
  ["element_size", "elementSize"],
  ["nested", "nested"],
  ["format", "format"],
  ["part_bytes", "partBytes"],
  ["has_lengths", "hasLengths"],
  ["ragged_idx", "raggedIdx"],
] as const;

function specText(spec: FieldSpec): string {
  let text = "";
  for (const [key, property] of SPEC_KEYS) {
    const value = spec[property];
    if (value === undefined) continue;
    const valueText = typeof value === "string" ? quoted(value) : JSON.stringify(value);
    text += `${text === "" ? "" : ","}"${key}":${valueText}`;
  }
  return `{${text}}`;
}

function factsTree(facts: BundleFacts): JsonTree {
  return new Map<string, JsonTree>([
    ["v", facts.v],
    ["encoded", encodedTree(facts.encoded)],
    ["rowIds", facts.rowIds],
    ["origin", facts.origin],
    ["createdMs", facts.createdMs],
    ["ttlMs", facts.ttlMs],
  ]);
}

/**
 * Reads and checks a meta payload.
 *
 * @param key The key to name in errors.
 * @throws CorruptionError naming the key, the path and what is wrong.
 */
export function parseMeta(key: string, bytes: Uint8Array): BundleMeta {
  const root: Origin = { key, path: "" };
  const json = asObject(parseJsonBytes(bytes, root), root);
  const fields = new Map<string, FieldSpec>();
  const fieldsAt = below(root, FIELDS);
  for (const [name, value] of Object.entries(asObject(member(json, FIELDS) ?? {}, fieldsAt))) {
    fields.set(name, parseField(value, below(fieldsAt, name)));
  }
  const dataproto = member(json, "dataproto");
  const facts = member(json, FACTS);
  return {
    layout: asString(member(json, "layout"), below(root, "layout")),
    dataproto: dataproto === undefined ? null : parseDataProto(dataproto, below(root, "dataproto")),
    fields,
    facts: facts === undefined ? null : parseFacts(facts, below(root, FACTS)),
  };
}

function parseDataProto(value: unknown, origin: Origin): DataProtoMeta {
  const json = asObject(value, origin);
  const text = (name: string): string => asString(member(json, name), below(origin, name));
  return {
    namespace: text("namespace"),
    partition: text("partition"),
    stage: text("stage"),
    batchSize: asCount(member(json, "batch_size"), below(origin, "batch_size"), MAX_ROWS),
  };
}

function parseField(value: unknown, origin: Origin): FieldSpec {
  const json = asObject(value, origin);
  const given = <T>(name: string, read: (value: unknown, at: Origin) => T): T | undefined => {
    const item = member(json, name);
    return item === undefined || item === null ? undefined : read(item, below(origin, name));
  };
  const spec = {
    encoding: asString(member(json, "encoding"), below(origin, "encoding")),
    dtype: given("dtype", asString),
    shape: given("shape", asCounts),
    elementSize: given("element_size", asCount),
    nested: given("nested", asBoolean),
    format: given("format", asString),
    partBytes: given("part_bytes", asCounts),
    hasLengths: given("has_lengths", asBoolean),
    raggedIdx: given("ragged_idx", asCount),
  };
  return Object.fromEntries(
    Object.entries(spec).filter(([, item]) => item !== undefined),
  ) as unknown as FieldSpec;
}

function asBoolean(value: unknown, origin: Origin): boolean {
  return typeof value === "boolean" ? value : corrupt(origin, "is neither true nor false", value);
}

/** Facts of a later version are left alone: their bundle is read through its handle, as one of Python's. */
function parseFacts(value: unknown, origin: Origin): BundleFacts | null {
  const json: JsonObject = asObject(value, origin);
  if (member(json, "v") !== 1) return null;
  const rowIds = member(json, "rowIds") ?? null;
  const ttlMs = member(json, "ttlMs") ?? null;
  return {
    v: 1,
    encoded: parseEncoded(member(json, "encoded") ?? {}, below(origin, "encoded")),
    rowIds: rowIds === null ? null : parseRowIds(rowIds, below(origin, "rowIds")),
    origin: parseOrigin(member(json, "origin") ?? null, below(origin, "origin")),
    createdMs: asCount(member(json, "createdMs"), below(origin, "createdMs")),
    ttlMs: ttlMs === null ? null : asCount(ttlMs, below(origin, "ttlMs")),
  };
}

/** A list of manifest keys and rows. The rows are read by whoever knows how many the bundle has. */
function parseOrigin(value: unknown, origin: Origin): Json | null {
  if (value === null) return null;
  asArray(value, origin).forEach((item, index) => {
    const at = below(origin, index);
    const [key, rows] = asArray(item, at);
    asName(key, below(at, 0));
    asArray(rows, below(at, 1));
  });
  return value as Json;
}

function parseRowIds(value: unknown, origin: Origin): RowIdsFact {
  const json = asObject(value, origin);
  const key = member(json, "key");
  if (key !== undefined) {
    const bytes = member(json, "bytes");
    return {
      key: asString(key, below(origin, "key")),
      ...(bytes === undefined ? {} : { bytes: asCount(bytes, below(origin, "bytes")) }),
    };
  }
  return {
    base: asString(member(json, "base"), below(origin, "base")),
    count: asCount(member(json, "count"), below(origin, "count"), MAX_ROWS),
  };
}
