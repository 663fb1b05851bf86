import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  checkSegment,
  chunkKeyOf,
  createdMsOf,
  generatedRowId,
  newObjectId,
  normalizePrefix,
  splitManifestKey,
} from "../../../src/bundle/names.ts";
import { objectIdOf } from "../../../src/store/store.ts";

const HEX = "0123456789abcdef0123456789abcdef";

describe("checkSegment()", () => {
  for (const name of ["a", "a b", "..", "é x", "a.data", "\u007f", "😀", '"', HEX]) {
    it(`takes ${JSON.stringify(name)}`, () => assert.equal(checkSegment("field name", name), name));
  }
  for (const name of ["", "a/b", "/", "a\n", "\0", "\x1f", "\ud800", 1, null, undefined, {}]) {
    it(`refuses ${JSON.stringify(name)}`, () => {
      assert.throws(() => checkSegment("partition", name), { code: "SCHEMA", message: /^the partition / });
    });
  }
});

describe("normalizePrefix()", () => {
  it("strips slashes at both ends only", () => assert.equal(normalizePrefix("//a/b//"), "a/b"));
  for (const prefix of ["", "/", "//", "a\tb", "\udfff"]) {
    it(`refuses ${JSON.stringify(prefix)}`, () => {
      assert.throws(() => normalizePrefix(prefix), { code: "SCHEMA" });
    });
  }
});

describe("splitManifestKey()", () => {
  it("takes a key apart at its partition", () => {
    assert.deepEqual(splitManifestKey(`a/b/step 7/${HEX}/manifest`), {
      objectId: `a/b/step 7/${HEX}`,
      partitionPath: "a/b/step 7",
      prefix: "a/b",
      partition: "step 7",
      hex: HEX,
    });
  });

  it("takes the last 32 hex digits for the id, even where the partition looks like one", () => {
    const key = `bundle/${HEX}/${"f".repeat(32)}/manifest`;
    assert.equal(splitManifestKey(key).partition, HEX);
    assert.equal(splitManifestKey(key).objectId, objectIdOf(key));
  });

  for (
    const key of [
      "",
      "manifest",
      `${HEX}/manifest`,
      `p/${HEX}/manifest`,
      `/p/${HEX}/manifest`,
      `b//${HEX}/manifest`,
      `b/p/${HEX}/meta`,
      `b/p/${HEX}/manifest/`,
      `b/p/${HEX.slice(1)}/manifest`,
      `b/p/${HEX.toUpperCase()}/manifest`,
    ]
  ) {
    it(`refuses ${JSON.stringify(key)}`, () => {
      assert.throws(() => splitManifestKey(key), { code: "CORRUPT" });
    });
  }
});

describe("chunkKeyOf()", () => {
  it("gives a chunk alone the payload's key", () => {
    assert.equal(chunkKeyOf("k", 0, 1), "k");
    assert.equal(chunkKeyOf("k", 11, 12), "k/chunk/11");
  });
});

describe("newObjectId()", () => {
  it("makes UUIDs of version 7 with the time of their making", () => {
    const before = Date.now();
    const id = newObjectId();
    assert.match(id, /^[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}$/);
    const created = createdMsOf(id)!;
    assert.ok(created >= before && created <= Date.now());
  });

  it("makes ids that sort in the order they were made", () => {
    const ids = Array.from({ length: 5000 }, newObjectId);
    assert.equal(new Set(ids).size, ids.length);
    assert.deepEqual(ids.toSorted(), ids);
  });

  it("does not take Python's ids for dated ones", () => {
    assert.equal(createdMsOf("0123456789ab4def8123456789abcdef"), undefined);
  });
});

describe("generatedRowId()", () => {
  it("gives row ids that differ between bundles and rows", () => {
    const [a, b] = [newObjectId(), newObjectId()];
    assert.equal(generatedRowId(a, 12), `${a}-12`);
    assert.equal(new Set([a, b].flatMap((base) => [0, 1].map((i) => generatedRowId(base, i)))).size, 4);
  });
});
