import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RowSet } from "../../../../src/batch/rowset.ts";
import { decodeMsgpack } from "../../../../src/bundle/codecs/msgpack.ts";
import { fromHex, handField, ndarray, rawBytes, values } from "../helpers.ts";

const repeat = (hex: string, count: number): string => hex.repeat(count);

describe("decodeMsgpack()", () => {
  const cases: readonly (readonly [hex: string, value: unknown])[] = [
    ["c0", null],
    ["c2", false],
    ["c3", true],
    ["00", 0],
    ["7f", 127],
    ["e0", -32],
    ["ff", -1],
    ["ccff", 255],
    ["cdffff", 65535],
    ["ceffffffff", 4294967295],
    ["cf001fffffffffffff", 9007199254740991],
    ["cf0020000000000000", 9007199254740992n],
    ["cfffffffffffffffff", 18446744073709551615n],
    ["d080", -128],
    ["d18000", -32768],
    ["d280000000", -2147483648],
    ["d3ffe0000000000001", -9007199254740991],
    ["d38000000000000000", -9223372036854775808n],
    ["ca3fc00000", 1.5],
    ["cb3ff0000000000000", 1],
    ["cb7ff8000000000000", NaN],
    ["a0", ""],
    ["a3e6bca2", "漢"],
    ["d901" + "61", "a"],
    ["da0002" + "c3a9", "é"],
    ["db00000001" + "61", "a"],
    ["bf" + repeat("61", 31), "a".repeat(31)],
    ["c400", new Uint8Array(0)],
    ["c40200ff", Uint8Array.of(0, 255)],
    ["c5000107", Uint8Array.of(7)],
    ["c60000000107", Uint8Array.of(7)],
    ["90", []],
    ["93c201a161", [false, 1, "a"]],
    ["dc000201" + "02", [1, 2]],
    ["dd00000001c0", [null]],
    ["80", {}],
    ["82a16101a16290", { a: 1, b: [] }],
    ["de0001a16101", { a: 1 }],
    ["df00000001a16101", { a: 1 }],
    [repeat("91", 512) + "c0", undefined],
  ];
  for (const [hex, value] of cases) {
    it(`decodes ${hex.slice(0, 40)}`, () => {
      const decoded = decodeMsgpack(fromHex(hex));
      if (value !== undefined) assert.deepEqual(decoded, value);
    });
  }

  it("keeps a key that is __proto__", () => {
    const value = decodeMsgpack(fromHex("81a95f5f70726f746f5f5f01"));
    assert.deepEqual(Object.keys(value as object), ["__proto__"]);
    assert.equal(Object.getPrototypeOf(value), Object.prototype);
  });

  it("gives bytes that are not a view", () => {
    const bytes = fromHex("c40107");
    const value = decodeMsgpack(bytes) as Uint8Array;
    bytes.fill(0);
    assert.deepEqual([...value], [7]);
  });

  const wrong: readonly (readonly [what: string, hex: string])[] = [
    ["nothing", ""],
    ["the type that is never used", "c1"],
    ["extension types", "d40100"],
    ["timestamps", "d6ff00000000"],
    ["bytes too many", "0101"],
    ["text that is cut", "a261"],
    ["text that is not UTF-8", "a1ff"],
    ["numbers that are cut", "cf00"],
    ["lists that are cut", "9201"],
    ["map keys that are numbers", "810102"],
    ["map keys that are bytes", "81c4010102"],
    ["a huge list of nothing", "ddffffffff"],
    ["a huge map of nothing", "dfffffffff"],
    ["huge text of nothing", "dbffffffff"],
    ["huge bytes of nothing", "c6ffffffff"],
    ["huge lists in huge lists", repeat("ddffffffff", 100_000)],
    ["lists too deep", repeat("91", 100_000)],
  ];
  for (const [what, hex] of wrong) {
    it(`refuses ${what}`, () => assert.throws(() => decodeMsgpack(fromHex(hex)), SyntaxError));
  }
});

describe("msgpack_ragged", () => {
  const parts = {
    data: rawBytes(fromHex("01" + "a161" + "c0")),
    offsets: ndarray("<i8", [5], [0, 1, 1, 3, 4]),
    nulls: ndarray("|b1", [4], [0, 1, 0, 0]),
  };

  it("is read by rows; nil and null are the same", () => {
    const made = handField(4, "msgpack_ragged", {}, parts);
    assert.deepEqual(values(made), [1, null, "a", null]);
    assert.deepEqual(values(made, RowSet.of([2, 3, 2])), ["a", null, "a"]);
  });

  it("names the field of a row that is no MessagePack", () => {
    const made = handField(4, "msgpack_ragged", {}, { ...parts, data: rawBytes(fromHex("c1a161c0")) });
    assert.throws(() => values(made), { code: "CORRUPT", message: /field "f" .* not MessagePack/ });
    assert.deepEqual(values(made, RowSet.of([2])), ["a"]);
  });
});
