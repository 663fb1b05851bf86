import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { describe, it } from "node:test";
import { Batch } from "../../../src/batch/batch.ts";
import type { Column } from "../../../src/batch/column.ts";
import { type DType, DTYPES, isNumericDType, itemSize, type NumericDType } from "../../../src/batch/dtype.ts";
import { Tensor } from "../../../src/batch/tensor.ts";
import { readInputs } from "../../../src/cli/inputs.ts";
import { writeOutput } from "../../../src/cli/outputs.ts";
import { SchemaError } from "../../../src/errors.ts";
import { batchOf, patternTensor, seededRandom, survives, TemporaryFolder, typedError } from "./helpers.ts";

/** The batch of a text. */
function read(text: string | Uint8Array): Batch {
  using folder = new TemporaryFolder();
  return batchOf(folder.write("x.jsonl", text));
}

/** One field of a text, its rows given as JSON texts. */
function column(...values: string[]): Column {
  return read(values.map((value) => `{"x":${value}}\n`).join("")).column("x");
}

/** The text of a batch. */
async function written(batch: Batch): Promise<string> {
  using folder = new TemporaryFolder();
  await writeOutput(folder.join("x.jsonl"), batch);
  return folder.text("x.jsonl");
}

/** Kind and dtype. */
function form(made: Column): string {
  return "dtype" in made ? `${made.kind} ${made.dtype}` : made.kind;
}

/** What reading and writing makes of a text, which reading and writing again must not change. */
async function settled(text: string): Promise<string> {
  const once = await written(read(text));
  assert.equal(await written(read(once)), once);
  return once;
}

/** A float column whose rows are finite, or any other column of a dtype. */
function finite(dtype: DType, shape: readonly number[]): Tensor {
  const pattern = patternTensor(dtype, shape, 5);
  if (!dtype.includes("float")) return pattern;
  const bytes = new Uint8Array(pattern.bytes);
  const size = itemSize(dtype);
  const values = pattern.toNumbers();
  values.forEach((value, i) => Number.isFinite(value) || bytes.fill(0x11, i * size, (i + 1) * size));
  return new Tensor(dtype, shape, bytes);
}

describe("jsonl: inference", () => {
  const cases: [string, string[], string][] = [
    ["strings", ['"a"', '""', "null"], "strings"],
    ["integers", ["1", "-5", "null"], "scalars int64"],
    ["the smallest and largest int64", ["-9223372036854775808", "9223372036854775807"], "scalars int64"],
    ["integers beyond int64", ["18446744073709551615", "1"], "scalars uint64"],
    ["negative ones beside those", ["18446744073709551615", "-1"], "json"],
    ["integers beyond uint64", ["18446744073709551616"], "json"],
    ["one float among integers", ["1", "2.0"], "scalars float64"],
    ["an exponent", ["1e3"], "scalars float64"],
    ["an integer that float64 cannot hold beside a float", ["9007199254740993", "0.5"], "json"],
    ["a large integer that it can hold", ["9007199254740994", "0.5"], "scalars float64"],
    ["digits as JavaScript writes them", ["12345678901234567000", "0.5"], "scalars float64"],
    ["a float beyond float64", ["1e999"], "json"],
    ["booleans", ["true", "null", "false"], "scalars bool"],
    ["lists of integers", ["[1,2]", "[]", "null", "[3]"], "ragged int64"],
    ["lists of equal length", ["[1,2]", "[3,4]"], "ragged int64"],
    ["lists with a float", ["[1,2]", "[3.5]"], "ragged float64"],
    ["lists with integers beyond int64", ["[18446744073709551615]"], "ragged uint64"],
    ["only empty lists", ["[]", "[]"], "ragged int64"],
    ["nested lists", ["[[1]]"], "json"],
    ["lists with null", ["[1,null]"], "json"],
    ["lists of booleans", ["[true]"], "json"],
    ["lists and numbers", ["[1]", "1"], "json"],
    ["strings and numbers", ['"a"', "1"], "json"],
    ["booleans and numbers", ["true", "1"], "json"],
    ["objects", ['{"a":1}'], "json"],
    ["bytes", ['{"$bytes":"AAEC"}', '{"$bytes":""}', "null"], "bytes"],
    ["bytes with space around", ['{ "$bytes" : "AAEC" }'], "bytes"],
    ["bytes beside another key", ['{"$bytes":"AAEC","x":1}'], "json"],
    ["$bytes of a number", ['{"$bytes":1}'], "json"],
    ["only null", ["null", "null"], "json"],
    ["a string with a lone surrogate", ['"\\ud800"', '"a"'], "json"],
  ];
  for (const [what, values, wanted] of cases) {
    it(`${what}: ${wanted}`, () => assert.equal(form(column(...values)), wanted));
  }

  it("gives every value, exactly", () => {
    const batch = read(
      [
        '{"text":"héllo 🦕\\n\\"q\\" \\u00e9","int":9007199254740993,"float":-0.1,"ok":true,"ids":[1,-2,9223372036854775807],"raw":{"$bytes":"AP8="},"any":{"a":[1,{"b":null}]}}',
        '{"text":null,"int":null,"float":null,"ok":null,"ids":null,"raw":null,"any":null}',
        "{}",
        '{"any":12345678901234567890123,"raw":{"$bytes":""},"ids":[],"ok":false,"float":-0.0,"int":-9007199254740993,"text":""}',
      ].join("\r\n"),
    );
    assert.deepEqual(batch.fields, ["text", "int", "float", "ok", "ids", "raw", "any"]);
    assert.equal(batch.rows, 4);
    assert.deepEqual(batch.strings("text").toArray(), ['héllo 🦕\n"q" é', null, null, ""]);
    assert.deepEqual(batch.scalars("int").toArray(), [9007199254740993n, null, null, -9007199254740993n]);
    assert.deepEqual(batch.scalars("float").toArray(), [-0.1, null, null, -0]);
    assert.deepEqual(batch.scalars("ok").toArray(), [true, null, null, false]);
    assert.deepEqual(batch.ragged("ids").toArray(), [[1, -2, 9223372036854775807n], null, null, []]);
    assert.deepEqual(batch.bytes("raw").toArray(), [Uint8Array.of(0, 255), null, null, new Uint8Array(0)]);
    assert.deepEqual(batch.json("any").toArray(), [
      { a: [1, { b: null }] },
      null,
      null,
      12345678901234567890123n,
    ]);
  });

  it("keeps small integers exact on both sides of each half", () => {
    const values = [
      0,
      1,
      -1,
      2 ** 31,
      -(2 ** 31),
      2 ** 32 - 1,
      2 ** 32,
      -(2 ** 32),
      -(2 ** 32) - 1,
      999999999999999,
    ];
    values.push(-999999999999999, 1000000000000000, 2 ** 53 - 1, -(2 ** 53) + 1);
    const batch = read(values.map((value) => `{"x":${value},"l":[${value},${value}]}`).join("\n"));
    assert.deepEqual(batch.scalars("x").toArray(), values);
    assert.deepEqual(batch.ragged("l").toArray(), values.map((value) => [value, value]));
  });

  it("keeps the order of keys, also of those like numbers, and of late ones", () => {
    const batch = read('{"b":1,"10":2,"2":3}\n{"__proto__":4,"b":5}\n{"late":6}\n');
    assert.deepEqual(batch.fields, ["b", "10", "2", "__proto__", "late"]);
    assert.deepEqual(batch.scalars("late").toArray(), [null, null, 6]);
    assert.deepEqual(batch.scalars("__proto__").toArray(), [null, 4, null]);
  });

  it("takes keys in any order and spelling", () => {
    const batch = read('{"a":1,"b":"x"}\n{"b":"y","\\u0061":2}\n\t{ "b" : "z" , "a" : 3 } \n');
    assert.deepEqual(batch.fields, ["a", "b"]);
    assert.deepEqual(batch.scalars("a").toArray(), [1, 2, 3]);
    assert.deepEqual(batch.strings("b").toArray(), ["x", "y", "z"]);
  });

  it("reads files without rows, without fields, with a byte order mark and many rows", () => {
    assert.equal(read("").rows, 0);
    assert.deepEqual([read("{}\n{}\n").rows, read("{}\n{}\n").fields], [2, []]);
    assert.deepEqual(read('\ufeff{"a":1}').fields, ["a"]);
    const many = read(
      Array.from({ length: 5000 }, (_, i) => `{"i":${i}${i > 3000 ? ',"j":[1]' : ""}}`).join("\n"),
    );
    assert.equal(many.scalars("i").at(4999), 4999);
    assert.deepEqual([many.ragged("j").at(3000), many.ragged("j").at(3001)], [null, [1]]);
  });

  it("leaves out space in json, and keeps it in strings", async () => {
    assert.equal(
      await written(read('{"x": {"a" : [1 , 2.50], "b c": " \\" , \\\\"} }\n')),
      '{"x":{"a":[1,2.5],"b c":" \\" , \\\\"}}\n',
    );
  });
});

describe("jsonl: errors", () => {
  const wrong: [string, string | Uint8Array, RegExp][] = [
    ["a list for a line", '{"a":1}\n[1]\n', /:2:1: the line is no JSON object/],
    ["a number for a line", "1\n", /:1:1: the line is no JSON object/],
    ["a blank line between", '{"a":1}\n\n{"a":2}\n', /:2:1: the line is blank/],
    ["text behind the object", '{"a":1} x\n', /:1:9: there is more/],
    ["two objects in a line", '{"a":1}{"a":2}\n', /:1:8: there is more/],
    ["a key twice", '{"a":1,"b":2,"\\u0061":3}\n', /:1:14: the key "a" comes twice/],
    ["a null and the key again", '{"a":null,"a":null}\n', /:1:11: the key "a" comes twice/],
    ["a missing comma", '{"a":1 "b":2}\n', /:1:8: .*comma/],
    ["a comma too many", '{"a":1,}\n', /:1:8: a key is missing/],
    ["no colon", '{"a" 1}\n', /:1:6: a colon is missing/],
    ["no value", '{"a":}\n', /:1:6: a value is missing/],
    ["NaN", '{"é🦕":1,"a":NaN}\n', /:1:14: a value is missing or malformed/],
    ["a leading zero", '{"a":01}\n', /:1:6: a number is malformed/],
    ["a bare point", '{"a":1.}\n', /:1:6: a number is malformed/],
    ["a bare exponent", '{"a":1e}\n', /:1:6: a number is malformed/],
    ["a bare minus", '{"a":-}\n', /:1:6: a number is malformed/],
    ["a plus", '{"a":+1}\n', /:1:6: a value is missing/],
    ["a number with a tail", '{"a":12x}\n', /:1:8: .*comma/],
    ["a word with a tail", '{"a":nullx}\n', /:1:10: .*comma/],
    ["a number in a list", '{"a":[1,02]}\n', /:1:6: a value is no JSON/],
    ["a list with a comma too many", '{"a":[1,]}\n', /:1:6: a value is no JSON/],
    ["a list without an end", '{"a":[1,2\n', /:1:6: an array or object has no end/],
    ["an object over two lines", '{"a":{\n}}\n', /:1:6: an array or object has no end/],
    ["a string without an end", '{"a":"x\n', /:1:6: a string has no end/],
    ["a tab in a string", '{"a":"x\ty"}\n', /:1:8: a string has a control character/],
    ["a malformed escape", '{"a":"\\x"}\n', /:1:6: a string is no JSON/],
    ["a malformed escape in a key", '{"\\x":1}\n', /:1:2: the key is no JSON/],
    ["a lone surrogate in a key", '{"\\ud800":1}\n', /:1:2: the key has a lone surrogate/],
    ["a cut file", '{"a":1}\n{"a":', /:2:6: a value is missing/],
    ["nothing behind a key", '{"a"', /:1:5: a colon is missing/],
    [
      "base64 that is none",
      '{"a":{"$bytes":"AAEC"}}\n{"a":{"$bytes":"A E C="}}\n',
      /:2:6: \$bytes is no base64/,
    ],
    ["base64 without padding", '{"a":{"$bytes":"AAE"}}\n', /:1:6: \$bytes is no base64/],
    ["base64 with bits left", '{"a":{"$bytes":"AAF="}}\n', /:1:6: \$bytes is no base64/],
    ["no UTF-8", new Uint8Array([0x7b, 0x7d, 0x0a, 0x7b, 0x22, 0xff, 0x22]), /:2: the line is no UTF-8/],
    ["zeros at the end", '{"a":1}\n\0\0\0', /:2:1: the line is no JSON object/],
    ["a nest too deep", `{"a":${"[".repeat(600)}${"]".repeat(600)}}\n`, /:1:6: .*512 levels/],
    ["a deep nest without an end", `{"a":${"[".repeat(100_000)}`, /:1:6: .*512 levels/],
    ["an integer of 5,000 digits", `{"a":${"1".repeat(5000)}}\n`, /:1:6: a number is malformed/],
    ["one in an object", `{"a":{"b":${"1".repeat(5000)}}}\n`, /:1:6: .*4300 digits/],
    [
      "too many keys",
      `{"a":1}\n{${Array.from({ length: 5000 }, (_, i) => `"k${i}":1`).join()}}\n`,
      /:2:\d+: .*4096 fields/,
    ],
    [
      "ever new keys",
      Array.from({ length: 5000 }, (_, i) => `{"k${i}":1}`).join("\n"),
      /:\d+:1: there are \d+ fields, and nearly all of them are absent/,
    ],
    [
      "many keys in the first line only",
      `{${Array.from({ length: 4000 }, (_, i) => `"k${i}":1`).join()}}\n${"{}\n".repeat(10_000)}`,
      /: there are 4000 fields, and nearly all of them are absent/,
    ],
  ];
  for (const [what, text, message] of wrong) {
    it(`says where: ${what}`, () => {
      using folder = new TemporaryFolder();
      const path = folder.write("x.jsonl", text);
      const error = typedError(() => readInputs([path]));
      assert.ok(error instanceof SchemaError, `${error.name}: ${error.message}`);
      assert.ok(error.message.startsWith(`${path}:`), error.message);
      assert.match(error.message, message);
    });
  }

  it("meets every truncation and seeded damage with typed errors only", () => {
    using folder = new TemporaryFolder();
    const text =
      '{"s":"a\\u00e9🦕\\n","i":-12,"f":1.5e-3,"b":true,"l":[1,2],"y":{"$bytes":"AAEC"},"j":{"k":[null,"]"]}}\n';
    const bytes = new TextEncoder().encode(text.repeat(2));
    const read = (damaged: Uint8Array) =>
      survives(() => {
        const { rows, columns } = readInputs([folder.write("d.jsonl", damaged)]);
        // What is let in can be read.
        for (const row of new Batch(rows, columns)) JSON.stringify(Object.keys(row));
      });
    const line = bytes.length / 2;
    for (let length = 0; length < bytes.length; length++) {
      const whole = length === 0 || length % line === 0 || length % line === line - 1;
      assert.equal(read(bytes.subarray(0, length)), whole, `truncated to ${length}`);
    }
    const random = seededRandom(22);
    const alphabet = new TextEncoder().encode('{}[]",:\\u0e.-+1 \n\ttfn$');
    for (let round = 0; round < 1500; round++) {
      const damaged = new Uint8Array(bytes);
      for (let i = 0; i <= random() * 3; i++) {
        damaged[Math.floor(random() * damaged.length)] = random() < 0.8
          ? alphabet[Math.floor(random() * alphabet.length)]!
          : Math.floor(random() * 256);
      }
      read(damaged);
    }
  });
});

describe("jsonl: writing", () => {
  for (const dtype of DTYPES) {
    it(`writes ${dtype} so that reading it again changes nothing`, async () => {
      const tensors: [string, Column][] = [
        ["flat", finite(dtype, [4])],
        ["rows", finite(dtype, [4, 3])],
        ["deep", finite(dtype, [4, 2, 2])],
        ["none", finite(dtype, [4, 0])],
      ];
      if (isNumericDType(dtype)) tensors.push(...numericColumns(dtype));
      const text = await written(new Batch(4, tensors));
      const again = read(text);
      assert.equal(await written(again), text);
      const wanted = (finite(dtype, [4]).toNested() as (number | bigint | boolean)[]).map(Number);
      assert.deepEqual(again.scalars("flat").toArray().map(Number), wanted);
    });
  }

  /** Scalars and ragged columns of four rows, one of them null. */
  function numericColumns(dtype: NumericDType): [string, Column][] {
    const nulls = Uint8Array.of(0, 1, 0, 0);
    const offsets = Uint32Array.of(0, 2, 2, 2, 6);
    const data = finite(dtype, [6]).bytes;
    const ragged = { kind: "ragged", dtype, rows: 4, nulls, offsets, data, rowFormat: "list" } as const;
    return [
      ["scalars", { kind: "scalars", dtype, rows: 4, nulls, data: finite(dtype, [4]).bytes }],
      ["ragged", { ...ragged, shapes: null }],
      ["shaped", { ...ragged, shapes: [[1, 2], null, [0], [2, 2]] }],
    ];
  }

  it("writes compactly, in column order, floats as floats", async () => {
    const float = (values: number[]) => new Uint8Array(Float64Array.from(values).buffer);
    const text = new TextEncoder().encode('a"é🦕\n');
    const batch = new Batch(2, [
      ["z", { kind: "scalars", dtype: "float64", rows: 2, nulls: Uint8Array.of(0, 1), data: float([1, 0]) }],
      ["7", {
        kind: "strings",
        rows: 2,
        nulls: Uint8Array.of(0, 1),
        data: text,
        offsets: Uint32Array.of(0, 9, 9),
      }],
      ["b", {
        kind: "bytes",
        rows: 2,
        nulls: null,
        data: Uint8Array.of(0, 255),
        offsets: Uint32Array.of(0, 2, 2),
      }],
      ["f", new Tensor("float64", [2, 3], float([0.1, -0, 1e21, 1e-7, 1e20, -3]))],
      ["h", new Tensor("float32", [2], new Uint8Array(Float32Array.of(0.1, 2).buffer))],
    ]);
    assert.equal(
      await written(batch),
      '{"z":1.0,"7":"a\\"é🦕\\n","b":{"$bytes":"AP8="},"f":[0.1,-0.0,1e+21],"h":0.10000000149011612}\n' +
        '{"z":null,"7":null,"b":{"$bytes":""},"f":[1e-7,100000000000000000000.0,-3.0],"h":2.0}\n',
    );
    assert.equal(await written(new Batch(2, [])), "{}\n{}\n");
    assert.equal(await written(new Batch(0, [["x", patternTensor("int8", [0])]])), "");
  });

  it("writes 64-bit integers with all their digits", async () => {
    for (
      const list of [
        ["18446744073709551615", "0", "4294967296", "9223372036854775808"],
        ["-9223372036854775808", "-9007199254740993", "-9007199254740992", "-1", "-4294967297"],
        ["9223372036854775807", "9007199254740991", "9007199254740992"],
      ]
    ) {
      const text = list.map((value) => `{"x":${value},"l":[${list}],"m":[${value}]}\n`).join("");
      assert.equal(await settled(text), text);
    }
  });

  for (const value of [NaN, Infinity, -Infinity]) {
    it(`refuses ${value}, and says where`, async () => {
      using folder = new TemporaryFolder();
      const data = new Uint8Array(Float32Array.of(1, 2, 3, value).buffer);
      const columns: Column[] = [
        new Tensor("float32", [2, 2], data),
        {
          kind: "ragged",
          dtype: "float32",
          rows: 2,
          nulls: null,
          data,
          offsets: Uint32Array.of(0, 1, 4),
          shapes: null,
          rowFormat: "list",
        },
        { kind: "scalars", dtype: "float32", rows: 2, nulls: null, data: data.slice(8) },
        { kind: "records", rows: 2, nulls: null, values: [{}, { a: [value] }] },
        jsonTexts(["1", String(value)]),
      ];
      for (const made of columns) {
        await assert.rejects(
          writeOutput(folder.join("x.jsonl"), new Batch(2, [["reward", made]])),
          (error) => error instanceof SchemaError && /"reward", row 1/.test(error.message),
        );
      }
      assert.deepEqual(readdirSync(folder.path), []);
    });
  }

  function jsonTexts(texts: string[]): Column {
    const encoded = texts.map((text) => new TextEncoder().encode(text));
    const offsets = new Uint32Array(texts.length + 1);
    encoded.forEach((text, i) => offsets[i + 1] = offsets[i]! + text.length);
    const data = new Uint8Array(offsets.at(-1)!);
    encoded.forEach((text, i) => data.set(text, offsets[i]));
    return { kind: "json", rows: texts.length, nulls: null, data, offsets };
  }

  const texts: [string, string[], string[]][] = [
    ["spelling", ['{"a" : [1, 2.50, 1E2]}', '"\\u00e9\\/"', "-0"], ['{"a":[1,2.5,100.0]}', '"é/"', "0"]],
    ["only strings", ['"\\u0041"', '"\\ud83e\\udd95"'], ['"A"', '"🦕"']],
    ["lone surrogates", ['"\\uD800"'], ['"\\ud800"']],
    ["only numbers, one a float", ["1", "2.5"], ["1.0", "2.5"]],
    ["only lists, one float", ["[1,2]", "[]", "[0.5]"], ["[1.0,2.0]", "[]", "[0.5]"]],
    ["numbers that must stay exact", ["9007199254740993", "0.5"], ["9007199254740993", "0.5"]],
    ["floats beyond float64", ["1e999", "1"], ["1e999", "1"]],
    ["integers of any length", ["123456789012345678901234567890"], ["123456789012345678901234567890"]],
    ["numbers and words", ["1", "2.5", '"x"'], ["1", "2.5", '"x"']],
    ["lines in a text", ['{"a":\n1}'], ['{"a":1}']],
    ["null as a value", ["null", "[null]"], ["null", "[null]"]],
    ["deep floats", ["[[1.0,2],[3]]"], ["[[1.0,2],[3]]"]],
    ["keys twice", ['{"a":1,"a":2.0}'], ['{"a":1,"a":2.0}']],
  ];
  for (const [what, given, wanted] of texts) {
    it(`writes json in one form: ${what}`, async () => {
      const text = await written(new Batch(given.length, [["x", jsonTexts(given)]]));
      assert.equal(text, wanted.map((value) => `{"x":${value}}\n`).join(""));
      assert.equal(await settled(text), text);
    });
  }

  it("writes records with bytes, tensors and typed arrays", async () => {
    const values = [
      {
        image: Uint8Array.of(1, 2),
        t: new Tensor("float32", [2], new Uint8Array(Float32Array.of(1, 0.5).buffer)),
      },
      { ids: BigInt64Array.of(1n, -2n), f: Float64Array.of(1), n: [null, true, 5n, -0, "x"] },
    ];
    const text = await written(new Batch(2, [["r", { kind: "records", rows: 2, nulls: null, values }]]));
    assert.equal(
      text,
      '{"r":{"image":{"$bytes":"AQI="},"t":[1.0,0.5]}}\n{"r":{"ids":[1,-2],"f":[1.0],"n":[null,true,5,-0.0,"x"]}}\n',
    );
    assert.equal(await settled(text), text);
  });

  it("settles at once, whatever the file", async () => {
    const random = seededRandom(23);
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
    const leaves = [
      "1",
      "-0",
      "2.50",
      "1e5",
      "true",
      "null",
      '"\\u0041"',
      "[]",
      "[1,2]",
      "[1,2.5]",
      '{"b":[1.0]}',
      "12345678901234567890",
      "-9007199254740993",
      '{"$bytes":"AAEC"}',
      "1e400",
      "[1e5,12345678901234567]",
    ];
    for (let round = 0; round < 300; round++) {
      const some = Array.from({ length: 1 + Math.floor(random() * 3) }, () => pick(leaves));
      const lines = Array.from({ length: 4 }, () => `{"x": ${pick(some)}, "y":${pick(some)}}`);
      await settled(lines.join("\n"));
    }
  });
});
