import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { freezeJson, type JsonObject, parseJson, stringifyJson } from "../../../src/batch/json.ts";
import { SchemaError } from "../../../src/errors.ts";
import { type Random, random } from "./random.ts";

function someJson(rng: Random, depth: number): unknown {
  const text = () => {
    const parts = [
      "a",
      "é",
      "你",
      "😀",
      '"',
      "\\",
      "\n",
      "\u0000",
      "NaN",
      "12345678901234567890",
      "[",
      "__proto__",
    ];
    return Array.from({ length: rng.below(5) }, () => rng.pick(parts)).join("");
  };
  switch (rng.below(depth > 0 ? 12 : 9)) {
    case 0:
      return null;
    case 1:
      return rng.next() < 0.5;
    case 2:
      return rng.below(1000) - 500;
    case 3:
      return rng.next() * 10 ** (rng.below(60) - 30);
    case 4:
      return (rng.next() < 0.5 ? -1n : 1n) *
        (BigInt(2 ** 53) + BigInt(Math.floor(rng.next() * 2 ** 50)) * 4099n);
    case 5:
      return rng.pick([-0, 2 ** 53, -(2 ** 53), 1e17, 1e20, 1e21, 5e-324, 1.7976931348623157e308]);
    case 6:
      return rng.pick([Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]);
    case 7:
    case 8:
      return text();
    case 9:
      return Array.from({ length: rng.below(5) }, () => someJson(rng, depth - 1));
    default: {
      const entries = Array.from({ length: rng.below(5) }, () => [text(), someJson(rng, depth - 1)] as const);
      return Object.fromEntries(entries);
    }
  }
}

describe("parseJson", () => {
  it("reads integers exactly", () => {
    assert.deepEqual(parseJson("[9007199254740991, 9007199254740992, -9007199254740993]"), [
      9007199254740991,
      9007199254740992n,
      -9007199254740993n,
    ]);
    assert.equal(parseJson("18446744073709551615"), 2n ** 64n - 1n);
    assert.equal(parseJson("-9223372036854775808"), -(2n ** 63n));
    assert.equal(parseJson("12345678901234567890.0"), 12345678901234567890);
    assert.equal(parseJson("1234567890123456789e0"), 1234567890123456789);
    assert.equal(parseJson("0.12345678901234567"), 0.12345678901234567);
    assert.ok(Object.is(parseJson("[-0, 12345678901234567]") instanceof Array, true));
    assert.ok(Object.is((parseJson("[-0, 12345678901234567]") as number[])[0], -0));
    assert.equal(parseJson('{"a":12345678901234567,"b":[1]}' as string) instanceof Object, true);
  });

  it("reads the tokens Python writes", () => {
    assert.deepEqual(parseJson('{"a": NaN, "b": [Infinity, -Infinity]}'), {
      a: NaN,
      b: [Infinity, -Infinity],
    });
    assert.equal(parseJson(" NaN "), NaN);
  });

  it("leaves strings alone", () => {
    const text = '{"NaN":"-Infinity","a\\\\":"12345678901234567890","b\\"NaN":"\\"12345678901234567890"}';
    assert.deepEqual(parseJson(text), JSON.parse(text));
    assert.deepEqual(parseJson(`[${text},NaN]`), [JSON.parse(text), NaN]);
    assert.deepEqual(parseJson(`[12345678901234567890,${text}]`), [12345678901234567890n, JSON.parse(text)]);
  });

  it("refuses what is not JSON, on both paths", () => {
    const wrong = [
      "",
      " ",
      "[",
      "[1,]",
      "[,1]",
      "[1 2]",
      "{a:1}",
      '{"a"}',
      '{"a":1,}',
      '{"a":1 "b":2}',
      "01",
      "+1",
      "1.",
      ".5",
      "1e",
      "--1",
      "nan",
      "Nan",
      "+Infinity",
      "undefined",
      "'a'",
      '"a',
      '"\n"',
      '"\\x"',
      "tru",
      "[1]]",
      "1 2",
      "[1}",
      '{"a":1]',
      "\u00a01",
    ];
    for (const text of wrong) {
      assert.throws(() => parseJson(text), SyntaxError, text);
      // the same behind a token that JSON.parse cannot read
      assert.throws(() => parseJson(`[NaN,${text}]`), SyntaxError, text);
      assert.throws(() => parseJson(`[${text} 12345678901234567`), SyntaxError, text);
    }
    assert.throws(() => parseJson("9".repeat(5000)), SyntaxError);
    assert.throws(() => parseJson("NaNInfinity"), SyntaxError);
    assert.throws(() => parseJson("[012345678901234567]"), SyntaxError);
  });

  it("reads 512 levels and no more, on both paths", () => {
    const nested = (levels: number, inner: string) => "[".repeat(levels) + inner + "]".repeat(levels);
    for (const inner of ["1", "NaN", '"["']) {
      parseJson(nested(512, inner));
      assert.throws(() => parseJson(nested(513, inner)), SyntaxError);
      assert.throws(() => parseJson(nested(100_000, inner)), SyntaxError);
      assert.throws(() => parseJson('{"a":'.repeat(100_000) + inner), SyntaxError);
    }
    // brackets in strings and side by side are no levels
    parseJson(JSON.stringify(["[".repeat(2000), '\\"['.repeat(600)]));
    assert.equal((parseJson(`[${Array(1000).fill("[]").join()}]`) as unknown[]).length, 1000);
  });

  it("reads keys with escapes whatever keys came before", () => {
    const keys = ["\\", "\n", "\t", "\na", '"', "\u0001n", "\\u", "a\\", "a\n", "\\n", "é\n", "é\\"];
    for (const before of keys) {
      for (const key of keys) {
        for (const space of [undefined, 1]) {
          const first = JSON.stringify({ x: 1, [before]: 2 }, null, space);
          const second = JSON.stringify({ x: 1, [key]: 2 }, null, space).replace(/:/g, "\n :");
          assert.deepEqual(Object.keys(parseJson(first) as object), ["x", before], first);
          // so that V8 has seen the other key at this place
          JSON.parse(first);
          assert.deepEqual(Object.keys(parseJson(second) as object), ["x", key], `${first} ${second}`);
        }
      }
    }
    assert.deepEqual(parseJson('["a\\"b", {"c": "\\\\"}]'), ['a"b', { c: "\\" }]);
  });

  it("keeps __proto__ as a key", () => {
    for (const rest of ["1", "NaN"]) {
      const value = parseJson(`{"__proto__":{"a":1},"b":${rest}}`) as Record<string, unknown>;
      assert.deepEqual(Object.keys(value), ["__proto__", "b"]);
      assert.equal(Object.getPrototypeOf(value), Object.prototype);
      assert.equal(value["a"], undefined);
    }
  });
});

describe("stringifyJson", () => {
  it("writes what parseJson reads back", () => {
    const rng = random("json");
    for (let round = 0; round < 3000; round++) {
      const value = someJson(rng, 4);
      assert.deepEqual(parseJson(stringifyJson(value)), value, `seed ${rng.seed}, round ${round}`);
    }
  });

  it("writes bigints as digits and floats as floats", () => {
    const value = { id: 2n ** 63n, small: 5n, list: [1, -0, 1e17, 0.5], text: 'a"b', "": null };
    assert.equal(
      stringifyJson(value),
      '{"id":9223372036854775808,"small":5,"list":[1,-0.0,1e+17,0.5],"text":"a\\"b","":null}',
    );
    assert.equal(stringifyJson([NaN, -Infinity, 1], { allowNonFinite: true }), "[NaN,-Infinity,1]");
  });

  it("names the path of what JSON cannot hold", () => {
    const cycle: unknown[] = [];
    cycle.push({ again: cycle });
    let deep: unknown = 1;
    for (let i = 0; i < 513; i++) deep = [deep];
    const cases: [unknown, RegExp][] = [
      [undefined, /undefined at \$/],
      [{ a: [1, { "b c": undefined }] }, /undefined at \$\.a\[1\]\["b c"\]/],
      [[1, , 2], /undefined at \$\[1\]/],
      [{ f: () => 1 }, /a function at \$\.f/],
      [[Symbol("x")], /a symbol at \$\[0\]/],
      [{ x: NaN }, /NaN at \$\.x/],
      [{ x: -Infinity }, /-Infinity at \$\.x/],
      [{ x: "\ud800" }, /lone surrogate at \$\.x/],
      [{ "\udc00": 1 }, /lone surrogate/],
      [[new Date(0)], /an instance of Date at \$\[0\]/],
      [[new Map()], /an instance of Map/],
      [new Uint8Array(1), /an instance of Uint8Array/],
      [cycle, /a cycle at \$\[0\]\.again\[0\]/],
      [deep, /more than 512 levels/],
      [{ toJSON: () => 1 }, /a function at \$\.toJSON/],
    ];
    for (const [value, message] of cases) {
      assert.throws(() => stringifyJson(value), { name: "SchemaError", message });
    }
    const shared = [1];
    assert.equal(stringifyJson([shared, shared, Object.create(null)]), "[[1],[1],{}]");
  });
});

describe("freezeJson", () => {
  it("copies deeply and freezes", () => {
    const value = { a: [1, { b: 2n, n: NaN }], ["__proto__"]: { x: 1 } };
    const frozen = freezeJson(value);
    assert.deepEqual(frozen, value);
    value.a[0] = 9;
    assert.deepEqual((frozen["a"] as unknown[])[0], 1);
    assert.throws(() => ((frozen["a"] as unknown[])[0] = 2), TypeError);
    assert.ok(Object.isFrozen(frozen) && Object.isFrozen((frozen["a"] as unknown[])[1]));
  });

  it("refuses what is no JSON object", () => {
    for (const value of [null, [], 1, new Map(), { a: undefined }, { a: new Date(0) }]) {
      assert.throws(() => freezeJson(value as unknown as JsonObject), SchemaError);
    }
  });
});
