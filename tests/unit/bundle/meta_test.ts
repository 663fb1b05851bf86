import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type BundleMeta, parseMeta, writeMeta } from "../../../src/bundle/meta.ts";
import { toBytes, toText } from "./helpers.ts";

const META: BundleMeta = {
  layout: "dataproto_stage",
  dataproto: { namespace: "ns", partition: "p0", stage: "gen", batchSize: 2 },
  fields: new Map([
    ["batch.x", { encoding: "torch_tensor", dtype: "torch.int8", shape: [2, 3], elementSize: 1 }],
    ["non_tensor_batch.s.data", { encoding: "bytes" }],
  ]),
  facts: {
    v: 1,
    encoded: new Map([
      ["s", {
        codec: "utf8_ragged",
        rows: 2,
        metadata: { note: "é" },
        payloadMembers: new Map([["data", "non_tensor_batch.s.data"]]),
      }],
    ]),
    rowIds: { base: "01ABC", count: 2 },
    origin: [["x", [[0, 2]]]],
    createdMs: 5,
    ttlMs: null,
  },
};

describe("writeMeta()", () => {
  it("writes Python's keys in Python's order, our facts after them", () => {
    assert.equal(
      toText(writeMeta(META)),
      '{"layout":"dataproto_stage","dataproto":{"version":1,"namespace":"ns","partition":"p0","stage":"gen",' +
        '"batch_size":2},"__mooncake_structured_fields__":{"batch.x":{"encoding":"torch_tensor",' +
        '"dtype":"torch.int8","shape":[2,3],"element_size":1},"non_tensor_batch.s.data":{"encoding":"bytes"}},' +
        '"batchferry":{"v":1,"encoded":{"s":{"codec":"utf8_ragged","rows":2,"metadata":{"note":"\\u00e9"},' +
        '"payload_members":{"data":"non_tensor_batch.s.data"}}},"rowIds":{"base":"01ABC","count":2},' +
        '"origin":[["x",[[0,2]]]],"createdMs":5,"ttlMs":null}}',
    );
  });

  it("leaves out what is not there", () => {
    const bare = { ...META, fields: new Map(), facts: null };
    assert.equal(
      toText(writeMeta(bare)),
      '{"layout":"dataproto_stage","dataproto":{"version":1,"namespace":"ns","partition":"p0","stage":"gen","batch_size":2}}',
    );
  });
});

describe("parseMeta()", () => {
  it("reads back what was written", () => assert.deepEqual(parseMeta("k", writeMeta(META)), META));

  it("reads facts with a list of row ids", () => {
    const meta = {
      ...META,
      facts: { ...META.facts!, rowIds: { key: "a/rowids", bytes: 9 }, ttlMs: 7, origin: null },
    };
    assert.deepEqual(parseMeta("k", writeMeta(meta)), meta);
  });

  it("leaves facts of a later version alone", () => {
    const text = toText(writeMeta(META)).replace('"v":1', '"v":2').replace(
      '"rowIds":{',
      '"rowIds":{"shape":"new",',
    );
    assert.equal(parseMeta("k", toBytes(text)).facts, null);
  });

  it("tolerates extra keys, NaN and big integers beside what it needs", () => {
    const text = toText(writeMeta(META)).replace(
      "{",
      '{"user":{"loss":NaN,"big":123456789012345678901234567890},',
    );
    assert.deepEqual(parseMeta("k", toBytes(text)), META);
  });

  it("keeps encodings it does not know for the reader to refuse", () => {
    const text = '{"layout":"x","__mooncake_structured_fields__":{"batch.a":{"encoding":"zstd","level":3}}}';
    assert.deepEqual(parseMeta("k", toBytes(text)).fields.get("batch.a"), { encoding: "zstd" });
  });

  const whole = toText(writeMeta(META));
  const hostile: readonly (readonly [what: string, text: string, message: RegExp])[] = [
    ["no JSON", "m", /^k is not JSON/],
    ["a list", "[]", /^k is not an object/],
    ["no layout", whole.replace('"layout"', '"l"'), /^layout of k is not a string/],
    [
      "a stage that is no object",
      whole.replace(/"dataproto":{[^}]*}/, '"dataproto":3'),
      /^dataproto of k is not/,
    ],
    ["a number for the stage", whole.replace('"stage":"gen"', '"stage":1'), /^dataproto.stage of k/],
    ["negative rows", whole.replace('"batch_size":2', '"batch_size":-2'), /^dataproto.batch_size of k/],
    [
      "more rows than positions",
      whole.replace('"batch_size":2', '"batch_size":4294967296'),
      /batch_size of k/,
    ],
    [
      "rows as a big integer",
      whole.replace('"batch_size":2', `"batch_size":${10n ** 30n}`),
      /batch_size of k/,
    ],
    [
      "fields that are a list",
      whole.replace(/"__mooncake_structured_fields__":{.*?}},/, '"__mooncake_structured_fields__":[],'),
      /fields__ of k is not an object/,
    ],
    [
      "a field that is text",
      whole.replace('{"encoding":"bytes"}', '"bytes"'),
      /s\.data of k is not an object/,
    ],
    [
      "a field without encoding",
      whole.replace('{"encoding":"bytes"}', "{}"),
      /s\.data\.encoding of k is not a string/,
    ],
    ["a shape that is no list", whole.replace("[2,3]", "6"), /batch\.x\.shape of k is not an array/],
    ["a negative size", whole.replace("[2,3]", "[2,-3]"), /batch\.x\.shape\[1\] of k/],
    ["a size with a fraction", whole.replace("[2,3]", "[2.5,3]"), /batch\.x\.shape\[0\] of k/],
    [
      "facts that are text",
      whole.replace(/"batchferry":.*$/, '"batchferry":"x"}'),
      /^batchferry of k is not an object/,
    ],
    ["facts without a time", whole.replace('"createdMs":5,', ""), /^batchferry\.createdMs of k/],
    [
      "an origin that is no list",
      whole.replace('[["x",[[0,2]]]]', '{"x":1}'),
      /^batchferry\.origin of k is not/,
    ],
    [
      "an origin without rows",
      whole.replace('[["x",[[0,2]]]]', '[["x"]]'),
      /^batchferry\.origin\[0\]\[1\] of k/,
    ],
    [
      "a codec that is no text",
      whole.replace('"utf8_ragged"', "4"),
      /encoded\.s\.codec of k is not a string/,
    ],
    [
      "members that are no text",
      whole.replace('{"data":"non_tensor_batch.s.data"}', '{"data":1}'),
      /payload_members\.data of k/,
    ],
    [
      "row ids of an unknown form",
      whole.replace('{"base":"01ABC","count":2}', '{"file":"x"}'),
      /rowIds\.base of k/,
    ],
    ["a negative TTL", whole.replace('"ttlMs":null', '"ttlMs":-1'), /ttlMs of k/],
  ];
  for (const [what, text, message] of hostile) {
    it(`refuses ${what}`, () => {
      assert.notEqual(text, whole);
      assert.throws(() => parseMeta("k", toBytes(text)), { code: "CORRUPT", message });
    });
  }

  it("is refused wherever it is cut", () => {
    const bytes = toBytes(whole);
    for (let i = 0; i < bytes.length; i++) {
      assert.throws(() => parseMeta("k", bytes.subarray(0, i)), { code: "CORRUPT" });
    }
  });
});
