import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Manifest, parseManifest, writeManifest } from "../../../src/bundle/manifest.ts";
import { toBytes, toText } from "./helpers.ts";

const HEX = "0".repeat(31) + "2";
const BASE = `rl/p0/${HEX}`;
const KEY = `${BASE}/manifest`;

function payload(name: string, bytes: number): Record<string, unknown> {
  const key = `${BASE}/${name}`;
  return { key, bytes, chunks: [{ key, bytes }] };
}

function json(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    version: 1,
    layout: "bundle",
    object_id: `p0/${HEX}`,
    meta: payload("meta", 10),
    buffers: { "batch.a": payload("buffer/batch.a", 5) },
    ...changes,
  };
}

function parse(value: unknown, key = KEY): Manifest {
  return parseManifest(key, toBytes(typeof value === "string" ? value : JSON.stringify(value)));
}

/** A manifest whose only buffer is the given payload spec. */
function withBuffer(spec: unknown): unknown {
  return json({ buffers: { "batch.a": spec } });
}

describe("writeManifest()", () => {
  it("writes keys in Python's order, without white space, all ASCII", () => {
    const chunk = { key: `${BASE}/buffer/batch.é😀\u007f`, bytes: 3 };
    const manifest: Manifest = {
      objectId: `p0/${HEX}`,
      meta: { key: `${BASE}/meta`, bytes: 2, chunks: [{ key: `${BASE}/meta`, bytes: 2 }] },
      buffers: new Map([
        ["batch.é😀\u007f", { key: chunk.key, bytes: 3, chunks: [chunk], metadataBytes: 304 }],
        ["1", { key: `${BASE}/buffer/1`, bytes: 0, chunks: [], kind: "tensor" }],
      ]),
      bufferObjectIds: ["p0/a"],
      cleanupKeys: [`${BASE}/rowids`],
    };
    const name = "batch.\\u00e9\\ud83d\\ude00\\u007f";
    assert.equal(
      toText(writeManifest(manifest)),
      `{"version":1,"layout":"bundle","object_id":"p0/${HEX}",` +
        `"meta":{"key":"${BASE}/meta","bytes":2,"chunks":[{"key":"${BASE}/meta","bytes":2}]},` +
        `"buffers":{"${name}":{"key":"${BASE}/buffer/${name}","bytes":3,` +
        `"chunks":[{"key":"${BASE}/buffer/${name}","bytes":3}],"metadata_bytes":304},` +
        `"1":{"key":"${BASE}/buffer/1","bytes":0,"chunks":[]}},` +
        `"buffer_object_ids":["p0/a"],"cleanup_keys":["${BASE}/rowids"]}`,
    );
  });
});

describe("parseManifest()", () => {
  it("reads back what was written", () => {
    const manifest: Manifest = {
      objectId: `p0/${HEX}`,
      meta: { key: `${BASE}/meta`, bytes: 2, chunks: [{ key: `${BASE}/meta`, bytes: 2, crc32: 0xffffffff }] },
      buffers: new Map([["batch.x", { key: `${BASE}/buffer/batch.x`, bytes: 0, chunks: [] }]]),
      cleanupKeys: [`${BASE}/rowids`],
    };
    assert.deepEqual(parseManifest(KEY, writeManifest(manifest)), manifest);
  });

  it("tolerates white space, extra keys, NaN, unequal and empty chunks", () => {
    const key = `${BASE}/buffer/batch.a`;
    const chunks = [80, 0, 40, 80].map((bytes, i) => ({ key: `${key}/chunk/${i}`, bytes, extra: "NAN" }));
    const text = JSON.stringify(
      json({ later: 9, buffers: { "batch.a": { key, bytes: 200, chunks, extra: {} } } }),
      null,
      2,
    )
      .replaceAll('"NAN"', "NaN");
    const { buffers } = parse(text);
    assert.deepEqual(buffers.get("batch.a")!.chunks.map(({ bytes }) => bytes), [80, 0, 40, 80]);
  });

  it("tolerates raw UTF-8 and names that JavaScript objects treat specially", () => {
    const text = JSON.stringify(json({ buffers: { "batch.é": payload("buffer/batch.é", 1) } }))
      .replace('"buffers":{', `"buffers":{"__proto__":${JSON.stringify(payload("buffer/__proto__", 2))},`);
    assert.deepEqual([...parse(text).buffers.keys()], ["__proto__", "batch.é"]);
  });

  it("takes payloads below every object id of an appended bundle", () => {
    const other = `rl/p0/${"f".repeat(32)}`;
    const { buffers } = parse(json({
      buffer_object_ids: [`p0/${"f".repeat(32)}`],
      buffers: { "batch.a": { key: `${other}/buffer/batch.a`, bytes: 0, chunks: [] } },
    }));
    assert.equal(buffers.size, 1);
  });

  const key = `${BASE}/buffer/batch.a`;
  const spec = { key, bytes: 5, chunks: [{ key, bytes: 5 }] };
  const hostile: readonly (readonly [what: string, value: unknown, message: RegExp])[] = [
    ["an empty object", "", /is not JSON/],
    ["half an object", JSON.stringify(json()).slice(0, -1), /is not JSON/],
    ["a list", "[]", /is not an object/],
    ["null", "null", /is not an object/],
    ["no version", json({ version: undefined }), /version of .* is not 1/],
    ["version 2", json({ version: 2 }), /version of .* is not 1/],
    ["version as text", json({ version: "1" }), /version of .* is not 1/],
    ["another layout", json({ layout: "dataproto_stage" }), /layout of .* is not "bundle"/],
    ["no object id", json({ object_id: null }), /object_id of .* is not a string/],
    [
      "the object id of another bundle",
      json({ object_id: `p1/${HEX}` }),
      /object_id of .* not that of its key/,
    ],
    ["no meta", json({ meta: undefined }), /meta of .* is not an object/],
    ["meta of another bundle", json({ meta: { ...spec, key: "rl/p0/x/meta" } }), /none of this bundle/],
    ["meta as text", json({ meta: "x" }), /meta of .* is not an object/],
    ["no buffers", json({ buffers: undefined }), /buffers of .* is not an object/],
    ["buffers as a list", json({ buffers: [] }), /buffers of .* is not an object/],
    ["a buffer name with a slash", json({ buffers: { "a/b": spec } }), /has a name that contains/],
    ["an empty buffer name", json({ buffers: { "": spec } }), /has a name that is empty/],
    ["a buffer name with a control character", json({ buffers: { "a\u0001": spec } }), /control character/],
    [
      "a payload with another prefix",
      withBuffer({ ...spec, key: `xx/p0/${HEX}/buffer/batch.a` }),
      /none of this/,
    ],
    [
      "a payload of another bundle",
      withBuffer({ ...spec, key: `rl/p1/${HEX}/buffer/batch.a` }),
      /none of this/,
    ],
    ["a payload key that is the bundle", withBuffer({ ...spec, key: BASE }), /none of this/],
    [
      "a payload key that only begins like the bundle",
      withBuffer({ ...spec, key: `${BASE}0/x` }),
      /none of this/,
    ],
    ["a key that is no text", withBuffer({ ...spec, key: 3 }), /key of .* is not a string/],
    ["negative bytes", withBuffer({ key, bytes: -1, chunks: [] }), /bytes of .* is not a whole number/],
    ["bytes as text", withBuffer({ ...spec, bytes: "5" }), /bytes of .* is not a whole number/],
    ["bytes with a fraction", withBuffer({ ...spec, bytes: 5.5 }), /bytes of .* is not a whole number/],
    [
      "bytes that chunks do not add up to",
      withBuffer({ ...spec, bytes: 6 }),
      /has 6 bytes, but its chunks have 5/,
    ],
    ["bytes without chunks", withBuffer({ key, bytes: 5, chunks: [] }), /has 5 bytes, but its chunks have 0/],
    ["no chunks at all", withBuffer({ key, bytes: 0 }), /chunks of .* is not an array/],
    ["a chunk that is no object", withBuffer({ ...spec, chunks: [5] }), /chunks\[0\] of .* is not an object/],
    [
      "huge chunks",
      withBuffer({ key, bytes: 5, chunks: [{ key, bytes: 2 ** 53 }] }),
      /chunks\[0\].bytes of .* is not a whole number/,
    ],
    [
      "chunks that add up to more than a number holds",
      withBuffer({ key, bytes: 5, chunks: [1, 2].map((i) => ({ key: `${key}/${i}`, bytes: 2 ** 53 - 1 })) }),
      /has 5 bytes, but its chunks have/,
    ],
    [
      "a chunk of another payload",
      withBuffer({ ...spec, chunks: [{ key: `${key}2`, bytes: 5 }] }),
      /which is not below/,
    ],
    [
      "a chunk twice",
      withBuffer({ key, bytes: 10, chunks: [{ key, bytes: 5 }, { key, bytes: 5 }] }),
      /chunks\[1\] of .* repeats the key/,
    ],
    ["a header longer than the payload", withBuffer({ ...spec, metadata_bytes: 6 }), /metadata_bytes of/],
    [
      "a checksum beyond 32 bits",
      withBuffer({ ...spec, chunks: [{ key, bytes: 5, crc32: 2 ** 32 }] }),
      /crc32 of/,
    ],
    [
      "object ids that are no list",
      json({ buffer_object_ids: {} }),
      /buffer_object_ids of .* is not an array/,
    ],
    ["object ids without the payloads'", json({ buffer_object_ids: ["p0/x"] }), /none of this bundle/],
    ["object ids that are prefixes", json({ buffer_object_ids: ["p0"] }), /none of this bundle/],
    ["cleanup keys that are no list", json({ cleanup_keys: "x" }), /cleanup_keys of .* is not an array/],
    [
      "cleanup keys of another bundle",
      json({ cleanup_keys: ["rl/p9/x/meta"] }),
      /cleanup_keys\[0\] of .* none of this/,
    ],
    [
      "cleanup keys outside the prefix",
      json({ cleanup_keys: ["secrets"] }),
      /cleanup_keys\[0\] of .* none of this/,
    ],
  ];
  for (const [what, value, message] of hostile) {
    it(`refuses ${what}`, () => {
      assert.throws(() => parse(value), (error: Error & { code?: string }) => {
        assert.equal(error.code, "CORRUPT");
        assert.match(error.message, message);
        assert.ok(error.message.includes(KEY), `${error.message} does not name the key`);
        return true;
      });
    });
  }

  it("refuses bytes that are not UTF-8", () => {
    assert.throws(() => parseManifest(KEY, Uint8Array.of(0x7b, 0xff, 0x7d)), { code: "CORRUPT" });
  });

  it("refuses a key that is no manifest key", () => {
    assert.throws(() => parse(json(), `${BASE}/meta`), { code: "CORRUPT" });
  });

  it("is refused, or read, at whatever byte it is cut or changed", () => {
    const bytes = toBytes(JSON.stringify(json()));
    for (let i = 0; i < bytes.length; i++) {
      assert.throws(() => parseManifest(KEY, bytes.subarray(0, i)), { code: "CORRUPT" });
      const changed = bytes.slice();
      changed[i]! ^= 1;
      try {
        parseManifest(KEY, changed);
      } catch (error) {
        assert.equal((error as { code?: string }).code, "CORRUPT");
      }
    }
  });
});
