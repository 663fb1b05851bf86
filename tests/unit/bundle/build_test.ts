import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { bytes, json, ragged, records, scalars, strings, tensor } from "../../../src/batch/build.ts";
import type { Column } from "../../../src/batch/column.ts";
import { decodeColumn } from "../../../src/bundle/read.ts";
import { encodeField } from "../../../src/bundle/encode.ts";
import { parseRowIds } from "../../../src/bundle/row_ids.ts";
import { build, column, joined, open, plain, stored, toBytes, toText } from "./helpers.ts";

const score = tensor("float32", [2], [1, 2]);
const columns = {
  score,
  prompt: strings(["a", null]),
  ids: ragged("int64", [[1, 2], [3]]),
};

describe("buildBundle()", () => {
  it("gives meta, members in the order of the fields, the manifest last", () => {
    const { objects, bundle, bytes } = build(columns);
    assert.deepEqual(objects.map(({ key }) => key.slice(bundle.objectId.length)), [
      "/meta",
      "/buffer/batch.score",
      ...["data", "offsets", "nulls"].map((part) => `/buffer/non_tensor_batch.prompt.${part}`),
      ...["data", "offsets", "shapes", "ndims", "nulls"].map((part) =>
        `/buffer/non_tensor_batch.ids.${part}`
      ),
      "/manifest",
    ]);
    assert.equal(bytes, objects.reduce((sum, object) => sum + joined(object).length, 0));
    assert.equal(bundle.bytes, bytes);
    assert.deepEqual([...bundle.deleteKeys].sort(), objects.map(({ key }) => key).sort());
    assert.equal(bundle.deleteKeys.at(-1), bundle.manifestKey);
  });

  it("does not copy data", () => {
    const { objects, bundle } = build(columns);
    const object = objects.find(({ key }) => key === `${bundle.objectId}/buffer/batch.score`)!;
    assert.equal(object.parts.at(-1)!.buffer, score.bytes.buffer);
  });

  it("opens again as it was built", () => {
    const built = build(columns, {
      origin: [["rl/p0/x", [1]]],
      ttlMs: 5,
      prefix: "/a/b/",
      chunkBytes: 64,
      checksums: true,
    });
    const bundle = open(stored(built), built.bundle.manifestKey);
    assert.deepEqual(bundle, built.bundle);
    assert.deepEqual(
      [
        bundle.prefix,
        bundle.partition,
        bundle.namespace,
        bundle.stage,
        bundle.rows,
        bundle.createdMs,
        bundle.ttlMs,
      ],
      ["a/b", "p0", "ns", "gen", 2, 1_700_000_000_000, 5],
    );
    assert.deepEqual(bundle.facts!.origin, [["rl/p0/x", [1]]]);
  });

  it("makes a new id each time", () => {
    const [a, b] = [build(columns), build(columns)];
    assert.ok(a.bundle.objectId < b.bundle.objectId);
  });

  it("takes a batch without fields, and one without rows", () => {
    const none = build({}, { rows: 7 });
    assert.deepEqual([none.objects.length, none.bundle.rows, none.bundle.fields.size], [2, 7, 0]);
    const empty = build({ t: tensor("int8", [0, 2], []), s: strings([]) });
    assert.deepEqual(plain(column(stored(empty), empty.bundle, "s")), plain(strings([])));
  });

  it("without annotations stores what Python would, and the handle's encodings are needed", () => {
    const built = build(columns, { annotations: false, rowIds: ["x", "y"] });
    const objects = stored(built);
    assert.ok(!toText(objects.get(`${built.bundle.objectId}/meta`)!).includes("batchferry"));
    assert.equal(built.bundle.facts, null);
    assert.deepEqual(plain(column(objects, built.bundle, "prompt")), plain(columns.prompt));
    assert.throws(() => column(objects, open(objects, built.bundle.manifestKey), "prompt"), {
      code: "SCHEMA",
    });
  });

  it("never writes what Python's reader handles badly", () => {
    const meta = (all: Record<string, Column>) => {
      const { objects } = build(all);
      return toText(joined(objects[0]!)) + toText(joined(objects.at(-1)!));
    };
    const text = meta({ ...columns, r: records([{ x: new Float32Array(2) }, { x: null }]) });
    for (const word of ["physical_layout", "contiguous_flat", '"kind"', "mixed", "ndarray_rows"]) {
      assert.ok(!text.includes(word), word);
    }
    for (const spec of text.matchAll(/nulls":{"encoding":"ndarray","dtype":"([^"]*)"/g)) {
      assert.equal(spec[1], "|b1");
    }
  });

  it("keeps row ids in a side object that goes with the bundle", () => {
    const ids = ["r/0", "é"];
    const { objects, bundle } = build(columns, { rowIds: ids });
    const { key, parts } = objects.at(-2)!;
    assert.equal(key, `${bundle.objectId}/rowids`);
    assert.deepEqual(parseRowIds(parts[0]!, 2, key), ids);
    assert.deepEqual(bundle.manifest.cleanupKeys, [key]);
    assert.deepEqual(bundle.deleteKeys.slice(-2), [key, bundle.manifestKey]);
    assert.deepEqual(bundle.facts!.rowIds, { key, bytes: parts[0]!.length });
  });

  it("keeps the base of generated row ids", () => {
    const { objects, bundle } = build(columns, { rowIds: { base: "01X", count: 2 } });
    assert.deepEqual(bundle.facts!.rowIds, { base: "01X", count: 2 });
    assert.ok(!objects.some(({ key }) => key.endsWith("/rowids")));
  });

  it("cuts meta and members into chunks, whole rows where they fit", () => {
    const t = tensor("int32", [50, 3], new Int32Array(150));
    const { bundle } = build({ t }, { chunkBytes: 320 });
    const sizes = bundle.payloads.get("batch.t")!.chunks.map(({ bytes }) => bytes);
    assert.deepEqual(sizes, [304, 312, 288]);
    assert.ok(bundle.manifest.meta.chunks.length > 1);
    assert.deepEqual([...bundle.payloads.get("batch.t")!.chunks].map(({ key }) => key.slice(-8)), [
      "/chunk/0",
      "/chunk/1",
      "/chunk/2",
    ]);
  });

  const wrong:
    readonly (readonly [what: string, columns: Record<string, Column>, options: object, message: RegExp])[] =
      [
        ["columns of other rows", columns, { rows: 3 }, /field "score" has 2 rows, not 3/],
        ["a field with a slash", { "a/b": score }, {}, /the field name "a\/b" contains/],
        ["an empty field name", { "": score }, {}, /the field name "" is empty/],
        ["a partition with a slash", columns, { partition: "a/b" }, /the partition "a\/b" contains/],
        ["an empty partition", columns, { partition: "" }, /the partition "" is empty/],
        ["an empty prefix", columns, { prefix: "/" }, /the key prefix "\/" is empty/],
        ["an empty stage", columns, { stage: "" }, /the stage ""/],
        ["a stage with half a surrogate pair", columns, { stage: "\ud800" }, /the stage/],
        ["a namespace with half a surrogate pair", columns, { namespace: "\ud800" }, /the namespace/],
        ["an id that is not hex", columns, { hex: "X".repeat(32) }, /is not an object id/],
        ["chunks of nothing", columns, { chunkBytes: 0 }, /a chunk cannot have 0 bytes/],
        ["negative rows", {}, { rows: -1 }, /cannot have -1 rows/],
        ["too few row ids", columns, { rowIds: ["a"] }, /1 row ids for 2 rows/],
        [
          "another count of generated row ids",
          columns,
          { rowIds: { base: "x", count: 3 } },
          /3 row ids for 2 rows/,
        ],
        ["row ids that are numbers", columns, { rowIds: ["a", 1] }, /row id 1 is not text/],
        ["row ids with half a surrogate pair", columns, { rowIds: ["a", "\ud800"] }, /row id 1 is not text/],
        [
          "a field beside a part of its name",
          { a: strings(["x"]), "a.data": strings(["x"]) },
          {},
          /part of "a"/,
        ],
        ["a part first", { "a.nulls": tensor("int8", [1], [1]), a: scalars("int8", [1]) }, {}, /part of "a"/],
        [
          "a part of records",
          { a: records([{ x: new Int8Array(1) }]), "a.leaf.0.data": json([1]) },
          {},
          /part of "a"/,
        ],
        [
          "bfloat16 for NumPy",
          { a: tensor("bfloat16", [1], [1]) },
          { tensorEncoding: "numpy" },
          /field "a" is bfloat16, which NumPy does not have; use the tensor encoding "torch"/,
        ],
        [
          "float8 for NumPy",
          { a: tensor("float8_e5m2", [1], [1]) },
          { tensorEncoding: "numpy" },
          /field "a" is float8_e5m2/,
        ],
      ];
  for (const [what, all, options, message] of wrong) {
    it(`refuses ${what}`, () => {
      assert.throws(() => build(all, options), { code: "SCHEMA", message });
    });
  }

  it("takes names that only look like parts", () => {
    build({ "a.data": strings(["x"]), "a.rows": bytes([null]), b: json([1]), "b.datum": json([1]) });
  });

  it("refuses borrowed columns whose lease was released", () => {
    const built = build(columns);
    const guard = { released: false };
    const payloads = new Map(
      [...stored(built)].map(([key, bytes]) => [key.slice(`${built.bundle.objectId}/buffer/`.length), bytes]),
    );
    for (const field of ["score", "ids"]) {
      const borrowed = decodeColumn(built.bundle, field, payloads, guard);
      guard.released = false;
      build({ field: borrowed });
      guard.released = true;
      assert.throws(() => build({ field: borrowed }), { code: "CLOSED" });
    }
  });
});

describe("encodeField()", () => {
  it("says how a field is to be read", () => {
    const { section, encoded, members } = encodeField("f", ragged("int32", [[1], null]), {
      tensorEncoding: "torch",
    });
    assert.equal(section, "non_tensor_batch");
    assert.deepEqual([encoded!.codec, encoded!.rows, encoded!.metadata], ["typed_ragged", 2, {
      dtype: "int32",
      row_format: "list",
    }]);
    assert.deepEqual([...encoded!.payloadMembers.values()], members.map(({ member }) => member));
    assert.deepEqual(members.map(({ rowBytes }) => rowBytes), [4, 8, 8, 2, 1]);
  });
});

describe("parseRowIds()", () => {
  for (const text of ['["a"]', '["a","b","c"]', '["a",1]', '{"0":"a","1":"b"}', "", '["a","b"'] as const) {
    it(`refuses ${text || "nothing"} for two rows`, () => {
      assert.throws(() => parseRowIds(toBytes(text), 2, "k"), { code: "CORRUPT", message: /k/ });
    });
  }
});
