import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { canonicalJson, objectKeys } from "../../../src/cli/formats/json_text.ts";

// patterns over whole strings ended in a RangeError in Deno, and in no match in Bun
const ESCAPES = "\\n".repeat(4_000_000);

describe("objectKeys()", () => {
  it("gives the keys of the outermost object in the order of the text", () => {
    const text = '{"b" : {"x":1,"7":[{"y":":"}]},"7":"\\"}","\\u0061":["k"] , "":0}';
    assert.deepEqual(objectKeys(text), { keys: ["b", "7", "a", ""], duplicate: undefined });
  });

  it("finds a key that comes twice, at any depth", () => {
    assert.deepEqual(objectKeys('{"a":[{"k":1,"\\u006b":2}]}').duplicate, { key: "k", offset: 13 });
    assert.equal(objectKeys('{"a":{"k":1},"b":{"k":2}}').duplicate, undefined);
  });

  it("reads keys of millions of escapes", () => {
    const { keys, duplicate } = objectKeys(`{"${ESCAPES}":1,"a":2,"a":3}`);
    assert.deepEqual(keys.map((key) => key.length), [4_000_000, 1, 1]);
    assert.equal(duplicate?.key, "a");
  });
});

describe("canonicalJson()", () => {
  it("takes space, loose strings and loose numbers out", () => {
    const text = ' { "a b" : [ 1.50 , -0 , 1e2 , "\\u0041 \\/ 1.50" , "x" ] , "n" : 12345678901234567890 } ';
    assert.equal(canonicalJson(text), '{"a b":[1.5,0,100.0,"A / 1.50","x"],"n":12345678901234567890}');
  });

  it("keeps what is in strings of millions of escapes", () => {
    const text = `["${ESCAPES} 1.50 ", 1.50]`;
    assert.equal(canonicalJson(text), `["${ESCAPES} 1.50 ",1.5]`);
  });
});
