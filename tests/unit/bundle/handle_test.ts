import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { stringifyJson } from "../../../src/batch/json.ts";
import { handleText, isMooncakeHandle, parseHandle, writeHandle } from "../../../src/bundle/handle.ts";
import { goldenCase } from "./helpers.ts";

type Json = Record<string, unknown>;

const strings = goldenCase("strings").handle as Json;

function changed(changes: Json): Json {
  return { ...structuredClone(strings), ...changes };
}

function without(key: string): Json {
  const { [key]: _, ...rest } = strings;
  return rest;
}

describe("parseHandle()", () => {
  it("takes version 2 with a storage group, and writes version 1", () => {
    const handle = parseHandle(changed({ version: 2 }));
    assert.equal(handle.storageGroupId, "structured-00000000000000000000000000000001");
    assert.equal(writeHandle(handle).version, 1);
  });

  it("gives defaults for what may be left out", () => {
    const handle = parseHandle({
      type: "mooncake_dataproto_ref",
      version: 1,
      kind: "bundle_stages",
      batch_size: 3,
      stage_refs: {},
      field_index: {},
    });
    assert.equal(handle.namespace, "default");
    assert.equal(handle.partition, "default");
    assert.equal(handle.globalIndexes, null);
    assert.deepEqual(handle.metaInfo, {});
    assert.equal(handle.encodedNonTensor.size, 0);
    assert.equal(handle.storageGroupId, undefined);
  });

  it("ignores unknown keys", () => assert.equal(parseHandle(changed({ later: 1 })).batchSize, 4));

  it("keeps global indexes", () => {
    const indexes = [3, -1, 2n ** 60n];
    assert.deepEqual(parseHandle(changed({ global_indexes: indexes })).globalIndexes, indexes);
  });

  it("keeps our hint", () => {
    const hint = { store: "shm:/dev/shm", manifestBytes: { gen: 935 } };
    const handle = parseHandle(changed({ batchferry: hint }));
    assert.equal(handle.batchferry!.manifestBytes.get("gen"), 935);
    assert.deepEqual(writeHandle(handle).batchferry, hint);
  });

  it("keeps the order of fields in text, whatever their names", () => {
    const handle = parseHandle(strings);
    const where = handle.fields.get("text")!;
    const fields = new Map([["b", where], ["1", where], ["__proto__", where]]);
    assert.match(handleText({ ...handle, fields }), /"field_index":{"b":{.*},"1":{.*},"__proto__":{/);
  });

  it("escapes text as Python does", () => {
    const handle = parseHandle(changed({ meta_info: { "é": "😀\u007f" } }));
    assert.match(handleText(handle), /"meta_info":{"\\u00e9":"\\ud83d\\ude00\\u007f"}/);
  });

  it("reads its own text and JSON", () => {
    const handle = parseHandle(changed({ meta_info: { big: 2n ** 60n } }));
    assert.deepEqual(parseHandle(writeHandle(handle)), handle);
    assert.equal(stringifyJson(writeHandle(handle)), handleText(handle));
  });

  const field = { stage: "gen", member: "non_tensor_batch.text", section: "non_tensor_batch" };
  const hostile: readonly (readonly [what: string, json: unknown, path: RegExp])[] = [
    ["null", null, /^the handle is not an object/],
    ["a list", [], /^the handle is not an object/],
    ["text", "{}", /^the handle is not an object/],
    ["another type", changed({ type: "ref" }), /^type of the handle/],
    ["no type", without("type"), /^type of the handle/],
    ["version 3", changed({ version: 3 }), /^version of the handle/],
    ["version as text", changed({ version: "one" }), /^version of the handle/],
    [
      "version 2 without a storage group",
      { ...without("storage_group_id"), version: 2 },
      /^storage_group_id of/,
    ],
    ["another kind", changed({ kind: "x" }), /^kind of the handle/],
    ["no batch size", without("batch_size"), /^batch_size of the handle/],
    ["a negative batch size", changed({ batch_size: -1 }), /^batch_size of the handle/],
    ["a huge batch size", changed({ batch_size: 2 ** 40 }), /^batch_size of the handle/],
    ["no stages", without("stage_refs"), /^stage_refs of the handle/],
    ["stages as a list", changed({ stage_refs: [] }), /^stage_refs of the handle/],
    ["an empty stage name", changed({ stage_refs: { "": { manifest_key: "k" } } }), /has an empty name/],
    [
      "a stage without manifest key",
      changed({ stage_refs: { gen: {} } }),
      /^stage_refs\.gen\.manifest_key of/,
    ],
    [
      "an empty manifest key",
      changed({ stage_refs: { gen: { manifest_key: "" } } }),
      /manifest_key of .* is empty/,
    ],
    ["no fields", without("field_index"), /^field_index of the handle/],
    ["an empty field name", changed({ field_index: { "": field } }), /has an empty name/],
    [
      "a field of an unknown stage",
      changed({ field_index: { t: { ...field, stage: "x" } } }),
      /^field_index\.t\.stage/,
    ],
    [
      "a field of no section",
      changed({ field_index: { t: { ...field, section: "x" } } }),
      /^field_index\.t\.section/,
    ],
    [
      "a field without member",
      changed({ field_index: { t: { ...field, member: "" } } }),
      /^field_index\.t\.member/,
    ],
    ["meta_info that is null", changed({ meta_info: null }), /^meta_info of the handle/],
    [
      "encoded_non_tensor that is null",
      changed({ encoded_non_tensor: null }),
      /^encoded_non_tensor of the handle/,
    ],
    ["an encoding that is text", changed({ encoded_non_tensor: { t: "utf8" } }), /^encoded_non_tensor\.t of/],
    [
      "a codec that is missing",
      changed({ encoded_non_tensor: { t: { payload_members: {} } } }),
      /^encoded_non_tensor\.t\.codec/,
    ],
    [
      "members that are missing",
      changed({ encoded_non_tensor: { t: { codec: "x" } } }),
      /\.t\.payload_members of/,
    ],
    ["global indexes that are no list", changed({ global_indexes: 3 }), /^global_indexes of the handle/],
    [
      "global indexes that are booleans",
      changed({ global_indexes: [true] }),
      /^global_indexes\[0\] of the handle/,
    ],
    ["an empty storage group", changed({ storage_group_id: "" }), /^storage_group_id of the handle/],
    ["a storage group that is null", changed({ storage_group_id: null }), /^storage_group_id of the handle/],
    ["a namespace that is a number", changed({ namespace: 3 }), /^namespace of the handle/],
    ["a hint without store", changed({ batchferry: {} }), /^batchferry\.store of the handle/],
  ];
  for (const [what, json, path] of hostile) {
    it(`refuses ${what}`, () => assert.throws(() => parseHandle(json), { code: "CORRUPT", message: path }));
  }
});

describe("isMooncakeHandle()", () => {
  it("tells handles from other JSON", () => {
    assert.equal(isMooncakeHandle(strings), true);
    for (const other of [null, 3, [], {}, { type: "batchferry_ref" }]) {
      assert.equal(isMooncakeHandle(other), false);
    }
  });
});
