/**
 * The handle of a batch as Mooncake's Python class exports and imports it.
 *
 * @module
 */

import { type JsonObject, parseJson } from "../batch/json.ts";
import { type EncodedFields, encodedTree, parseEncoded } from "./encoded.ts";
import type { Section } from "./fields.ts";
import {
  asArray,
  asCount,
  asName,
  asObject,
  asString,
  below,
  corrupt,
  type JsonTree,
  member,
  type Origin,
  pythonJson,
} from "./json_text.ts";
import { MAX_ROWS } from "./meta.ts";

/** Where a field is. */
export interface HandleField {
  readonly stage: string;
  readonly member: string;
  readonly section: Section;
}

/** A hint of our own; nothing depends on it. */
export interface HandleHint {
  /** The URI of the store that the bundles were put to. */
  readonly store: string;
  /** Stage → the size of its manifest, which saves asking for it. */
  readonly manifestBytes: ReadonlyMap<string, number>;
}

/** A handle: bundles over the same rows, each a stage. */
export interface MooncakeHandle {
  readonly batchSize: number;
  readonly namespace: string;
  readonly partition: string;
  /** Carried along for Python; nobody fills it. */
  readonly globalIndexes: readonly (number | bigint)[] | null;
  /** Stage → manifest key. */
  readonly stages: ReadonlyMap<string, string>;
  /** Field → where it is, in the order the fields come out. */
  readonly fields: ReadonlyMap<string, HandleField>;
  readonly metaInfo: JsonObject;
  readonly encodedNonTensor: EncodedFields;
  /** Python's group for leases; has to be kept when a handle is passed on. */
  readonly storageGroupId?: string;
  readonly batchferry?: HandleHint;
}

const TYPE = "mooncake_dataproto_ref";
const KIND = "bundle_stages";
const SECTIONS: readonly unknown[] = ["batch", "non_tensor_batch"] satisfies Section[];

/** True for JSON that says it is a handle of Mooncake's. */
export function isMooncakeHandle(json: unknown): boolean {
  return typeof json === "object" && json !== null && (json as JsonObject).type === TYPE;
}

/**
 * Reads and checks a handle by Python's rules.
 *
 * @param json The parsed JSON: `parseJson` keeps big integers exact, which `JSON.parse` does not.
 * @throws CorruptionError naming the path.
 */
export function parseHandle(json: unknown): MooncakeHandle {
  const root: Origin = { key: "the handle", path: "" };
  const object = asObject(json, root);
  const get = (name: string): unknown => member(object, name);
  const at = (name: string): Origin => below(root, name);
  if (get("type") !== TYPE) corrupt(at("type"), `is not ${JSON.stringify(TYPE)}`, get("type"));
  const version = asCount(get("version"), at("version"));
  if (version !== 1 && version !== 2) corrupt(at("version"), "is neither 1 nor 2", version);
  if (get("kind") !== KIND) corrupt(at("kind"), `is not ${JSON.stringify(KIND)}`, get("kind"));

  const stages = new Map<string, string>();
  for (const [stage, value] of Object.entries(asObject(get("stage_refs"), at("stage_refs")))) {
    const stageAt = below(at("stage_refs"), stage);
    if (stage === "") corrupt(stageAt, "has an empty name");
    stages.set(
      stage,
      asName(member(asObject(value, stageAt), "manifest_key"), below(stageAt, "manifest_key")),
    );
  }
  const group = get("storage_group_id");
  if (version === 2 && group === undefined) corrupt(at("storage_group_id"), "is missing in version 2");
  return {
    batchSize: asCount(get("batch_size"), at("batch_size"), MAX_ROWS),
    namespace: asString(get("namespace") ?? "default", at("namespace")),
    partition: asString(get("partition") ?? "default", at("partition")),
    globalIndexes: parseIndexes(get("global_indexes") ?? null, at("global_indexes")),
    stages,
    fields: parseFields(get("field_index"), at("field_index"), stages),
    metaInfo: asObject(absentAs({}, get("meta_info")), at("meta_info")),
    encodedNonTensor: parseEncoded(absentAs({}, get("encoded_non_tensor")), at("encoded_non_tensor")),
    ...(group === undefined ? {} : { storageGroupId: asName(group, at("storage_group_id")) }),
    ...parseHint(get("batchferry"), at("batchferry")),
  };
}

/** Python takes an absent key, but not null. */
function absentAs(fallback: unknown, value: unknown): unknown {
  return value === undefined ? fallback : value;
}

function parseIndexes(value: unknown, origin: Origin): readonly (number | bigint)[] | null {
  if (value === null) return null;
  return asArray(value, origin).map((item, index) => {
    if (typeof item === "bigint" || (typeof item === "number" && Number.isSafeInteger(item))) return item;
    return corrupt(below(origin, index), "is not an integer", item);
  });
}

function parseFields(
  value: unknown,
  origin: Origin,
  stages: ReadonlyMap<string, string>,
): ReadonlyMap<string, HandleField> {
  const fields = new Map<string, HandleField>();
  for (const [field, item] of Object.entries(asObject(value, origin))) {
    const at = below(origin, field);
    if (field === "") corrupt(at, "has an empty name");
    const json = asObject(item, at);
    const stage = asName(member(json, "stage"), below(at, "stage"));
    if (!stages.has(stage)) {
      corrupt(below(at, "stage"), `names the unknown stage ${JSON.stringify(stage)}`, stage);
    }
    const section = member(json, "section");
    if (!SECTIONS.includes(section)) corrupt(below(at, "section"), "is no section", section);
    fields.set(field, {
      stage,
      member: asName(member(json, "member"), below(at, "member")),
      section: section as Section,
    });
  }
  return fields;
}

function parseHint(value: unknown, origin: Origin): { batchferry?: HandleHint } {
  if (value === undefined || value === null) return {};
  const json = asObject(value, origin);
  const sizes = new Map<string, number>();
  const sizesAt = below(origin, "manifestBytes");
  for (const [stage, bytes] of Object.entries(asObject(member(json, "manifestBytes") ?? {}, sizesAt))) {
    sizes.set(stage, asCount(bytes, below(sizesAt, stage)));
  }
  return {
    batchferry: { store: asString(member(json, "store"), below(origin, "store")), manifestBytes: sizes },
  };
}

/**
 * The JSON text of a handle, version 1, keys in Python's order. In a JavaScript object fields named like `0`
 * would come first, so text is what keeps the order of fields.
 */
export function handleText(handle: MooncakeHandle): string {
  const tree = new Map<string, JsonTree>([
    ["type", TYPE],
    ["version", 1],
    ["kind", KIND],
    ["batch_size", handle.batchSize],
    ["namespace", handle.namespace],
    ["partition", handle.partition],
    ["global_indexes", handle.globalIndexes],
    ["stage_refs", new Map([...handle.stages].map(([stage, key]) => [stage, { manifest_key: key }]))],
    [
      "field_index",
      new Map(
        [...handle.fields].map(([field, { stage, member, section }]) => [field, { stage, member, section }]),
      ),
    ],
    ["meta_info", handle.metaInfo],
    ["encoded_non_tensor", encodedTree(handle.encodedNonTensor)],
  ]);
  if (handle.storageGroupId !== undefined) tree.set("storage_group_id", handle.storageGroupId);
  if (handle.batchferry !== undefined) {
    const { store, manifestBytes } = handle.batchferry;
    tree.set("batchferry", new Map<string, JsonTree>([["store", store], ["manifestBytes", manifestBytes]]));
  }
  return pythonJson(tree);
}

/**
 * The handle as JSON, version 1, to be passed to Python or another process.
 *
 * @returns An object; big integers in it are bigint, which `stringifyJson` writes and `JSON.stringify` does
 * not.
 */
export function writeHandle(handle: MooncakeHandle): JsonObject {
  return parseJson(handleText(handle)) as JsonObject;
}
