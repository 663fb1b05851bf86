import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import {
  escapeName,
  isBundleFile,
  isOwner,
  locate,
  looseKey,
  splitObjectId,
  unescapeName,
} from "../../../../src/store/shm/names.ts";

const ID = "0190f3a1b2c37d4e8f90a1b2c3d4e5f6";

describe("escapeName()", () => {
  it("leaves letters, digits, underscore and hyphen, and escapes every other byte", () => {
    assert.equal(escapeName("aZ09_-"), "aZ09_-");
    assert.equal(escapeName("bundle/train"), "bundle%2Ftrain");
    assert.equal(escapeName("..~%\0\n"), "%2E%2E%7E%25%00%0A");
    assert.equal(escapeName("ü語"), "%C3%BC%E8%AA%9E");
    assert.equal(escapeName(""), "%");
  });

  it("hashes what would be longer than 200 bytes", () => {
    assert.equal(escapeName("a".repeat(200)), "a".repeat(200));
    const hash = (text: string) => createHash("sha256").update(text).digest("hex").slice(0, 32);
    assert.equal(escapeName("a".repeat(201)), `${"a".repeat(160)}~${hash("a".repeat(201))}`);
    const text = `${"ü".repeat(33)}abcd`; // 33 × 6 + 4 bytes
    assert.equal(escapeName(text), `${escapeName(text.slice(0, 33)).slice(0, 160)}~${hash(text)}`);
    assert.equal(escapeName(text.slice(0, -2)).length, 200);
  });

  it("gives different names for different texts", () => {
    const texts = ["a/b", "a%2Fb", "a~b", "A/B", "", "%", "a".repeat(201), "a".repeat(202), "é", "e\u0301"];
    assert.equal(new Set(texts.map(escapeName)).size, texts.length);
  });
});

describe("unescapeName()", () => {
  it("undoes escapeName()", () => {
    for (const text of ["", "a", "a/b", "ü語", "..", "~", "%41", "\ufeffx", "a".repeat(200)]) {
      assert.equal(unescapeName(escapeName(text)), text);
    }
  });

  it("gives undefined for hashed names and for what is no escaped name", () => {
    for (const name of [escapeName("x".repeat(300)), "a.b", "%4", "%zz", "%c3%bc", "%C3", "a/b", "%%"]) {
      assert.equal(unescapeName(name), undefined, name);
    }
  });
});

describe("locate()", () => {
  it("splits a key at its last segment of 32 hex digits", () => {
    assert.deepEqual(locate(`bundle/train/${ID}/buffer/batch.x`), {
      dir: "bundle/train",
      bundle: ID,
      loose: `${ID}~buffer%2Fbatch%2Ex`,
    });
    assert.deepEqual(locate(`a/${"0".repeat(32)}/${ID}/meta`), {
      dir: `a/${"0".repeat(32)}`,
      bundle: ID,
      loose: `${ID}~meta`,
    });
    assert.deepEqual(locate(`${ID}/meta`), { dir: "", bundle: ID, loose: `${ID}~meta` });
    assert.deepEqual(locate(`a/${ID}`), { dir: "a", bundle: ID, loose: `${ID}~%` });
    assert.equal(locate(`a/${ID.toUpperCase()}/b`).bundle, undefined);
    assert.equal(locate(`a/${ID}0/b`).bundle, undefined);
  });

  it("splits a key without one at its last segment names, else before its last segment", () => {
    const none = { bundle: undefined };
    assert.deepEqual(locate("bundle/train/names/x"), { ...none, dir: "bundle/train", loose: "names~x" });
    assert.deepEqual(locate("p/names/names/x/y"), { ...none, dir: "p/names", loose: "names~x%2Fy" });
    assert.deepEqual(locate("names/x"), { ...none, dir: "", loose: "names~x" });
    assert.deepEqual(locate("p/names"), { ...none, dir: "p", loose: "~names" });
    assert.deepEqual(locate("names"), { ...none, dir: "", loose: "~names" });
    assert.deepEqual(locate("p/q/r.s"), { ...none, dir: "p/q", loose: "~r%2Es" });
    assert.deepEqual(locate("lone"), { ...none, dir: "", loose: "~lone" });
  });

  it("keeps every file name within 255 bytes", () => {
    for (const key of [`${"ü/".repeat(300)}${ID}/${"語".repeat(300)}`, "x".repeat(5000)]) {
      const { dir, loose } = locate(key);
      assert.ok(escapeName(dir).length <= 255 && loose.length <= 255);
    }
  });
});

describe("looseKey()", () => {
  it("gives the key back, unless a part of it was hashed", () => {
    for (const key of ["lone", "a/b", "names/x", "p/names/x/y", `p/q/${ID}/row_ids`, `${ID}/t`, "ü/~%"]) {
      const { dir, loose } = locate(key);
      assert.equal(looseKey(escapeName(dir), loose), key);
    }
    const { dir, loose } = locate(`a/${"x".repeat(300)}`);
    assert.equal(looseKey(escapeName(dir), loose), undefined);
    assert.equal(looseKey(escapeName("y".repeat(300)), "~x"), undefined);
    assert.equal(looseKey("a", ID), undefined);
  });
});

describe("splitObjectId()", () => {
  it("separates the digits from what stands before", () => {
    assert.deepEqual(splitObjectId(`a/b/${ID}`), { dir: "a/b", id: ID });
    assert.deepEqual(splitObjectId(ID), { dir: "", id: ID });
  });
});

describe("isBundleFile() and isOwner()", () => {
  it("know their names", () => {
    assert.ok(isBundleFile(ID));
    for (const name of [`${ID}~meta`, "names~x", ID.slice(1), `${ID}0`]) assert.ok(!isBundleFile(name), name);
    assert.ok(isOwner("123-456789-0123456789abcdef"));
    for (
      const name of [
        "",
        ".",
        "..",
        "../../x",
        "1-2-3",
        "123-456789-0123456789abcdef/..",
        "a-1-0123456789abcdef",
      ]
    ) {
      assert.ok(!isOwner(name), name);
    }
  });
});
