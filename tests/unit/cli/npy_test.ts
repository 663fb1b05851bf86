import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { describe, it } from "node:test";
import { Batch } from "../../../src/batch/batch.ts";
import { DTYPES } from "../../../src/batch/dtype.ts";
import { Tensor } from "../../../src/batch/tensor.ts";
import { readInputs } from "../../../src/cli/inputs.ts";
import { writeOutput } from "../../../src/cli/outputs.ts";
import { CorruptionError, SchemaError } from "../../../src/errors.ts";
import {
  batchOf,
  fromBase64,
  patternTensor,
  seededRandom,
  survives,
  TemporaryFolder,
  throughFile,
  typedError,
} from "./helpers.ts";

/** A version 1.0 header as NumPy pads it: text, then spaces to 127 bytes, then a newline. */
function file(header: string, data: Uint8Array | string = "", version = 1): Uint8Array {
  const start = version === 1 ? 10 : 12;
  const text = new TextEncoder().encode(header.padEnd(127 - start) + "\n");
  const tail = typeof data === "string" ? fromBase64(data) : data;
  const bytes = new Uint8Array(start + text.length + tail.length);
  bytes.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, version, 0, text.length, 0]);
  bytes.set(text, start);
  bytes.set(tail, start + text.length);
  return bytes;
}

/** Files written by NumPy 2.4: header text and data. */
const NUMPY: [string, Uint8Array, string, number[], unknown][] = [
  [
    "float32 in rows",
    file("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", "AAAAAAAAgD4AAAA/AABAPwAAgD8AAKA/"),
    "float32",
    [2, 3],
    [[0, 0.25, 0.5], [0.75, 1, 1.25]],
  ],
  [
    "big-endian int32",
    file("{'descr': '>i4', 'fortran_order': False, 'shape': (3,), }", "AAAAAf////4AAAAD"),
    "int32",
    [3],
    [1, -2, 3],
  ],
  [
    "big-endian float64",
    file("{'descr': '>f8', 'fortran_order': False, 'shape': (2,), }", "P/gAAAAAAADAAgAAAAAAAA=="),
    "float64",
    [2],
    [1.5, -2.25],
  ],
  [
    "big-endian uint16",
    file("{'descr': '>u2', 'fortran_order': False, 'shape': (2,), }", "AAH//w=="),
    "uint16",
    [2],
    [1, 65535],
  ],
  [
    "columns first, three dimensions",
    file(
      "{'descr': '<i8', 'fortran_order': True, 'shape': (2, 3, 4), }",
      "AAAAAAAAAAAMAAAAAAAAAAQAAAAAAAAAEAAAAAAAAAAIAAAAAAAAABQAAAAAAAAAAQAAAAAAAAANAAAAAAAAAAUAAAAAAAAAEQAAAAAAAAAJAAAA" +
        "AAAAABUAAAAAAAAAAgAAAAAAAAAOAAAAAAAAAAYAAAAAAAAAEgAAAAAAAAAKAAAAAAAAABYAAAAAAAAAAwAAAAAAAAAPAAAAAAAAAAcAAAAAAAAA" +
        "EwAAAAAAAAALAAAAAAAAABcAAAAAAAAA",
    ),
    "int64",
    [2, 3, 4],
    [
      [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
      [[12, 13, 14, 15], [16, 17, 18, 19], [20, 21, 22, 23]],
    ],
  ],
  [
    "columns first, bool",
    file("{'descr': '|b1', 'fortran_order': True, 'shape': (3, 2), }", "AQABAAAB"),
    "bool",
    [3, 2],
    [[true, false], [false, false], [true, true]],
  ],
  [
    "version 2",
    file("{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }", "AQI=", 2),
    "uint8",
    [2],
    [1, 2],
  ],
  [
    "version 3",
    file("{'descr': '<f2', 'fortran_order': False, 'shape': (2,), }", "ADwAQA==", 3),
    "float16",
    [2],
    [1, 2],
  ],
  ["no rows", file("{'descr': '<i2', 'fortran_order': False, 'shape': (0, 3), }"), "int16", [0, 3], []],
  [
    "Python 2 longs and another key order",
    file('{"shape": (2L,), "fortran_order": False, "descr": "<u4"}', "AQAAAAIAAAA="),
    "uint32",
    [2],
    [1, 2],
  ],
];

describe("npy", () => {
  for (const dtype of DTYPES.filter((name) => name !== "bfloat16" && !name.startsWith("float8"))) {
    it(`keeps every bit of ${dtype}`, async () => {
      using folder = new TemporaryFolder();
      const wanted = patternTensor(dtype, [4, 2, 3], 3);
      const columns = await throughFile(folder.join("reward.v2.npy"), new Batch(4, [["anything", wanted]]));
      assert.deepEqual([...columns.keys()], ["reward.v2"]);
      const got = columns.get("reward.v2") as Tensor;
      assert.deepEqual([got.dtype, got.shape], [dtype, [4, 2, 3]]);
      assert.deepEqual(got.bytes, wanted.bytes);
      await writeOutput(folder.join("again.npy"), new Batch(4, columns));
      assert.deepEqual(folder.read("again.npy"), folder.read("reward.v2.npy"));
    });
  }

  for (const [what, bytes, dtype, shape, values] of NUMPY) {
    it(`reads ${what}`, () => {
      using folder = new TemporaryFolder();
      const tensor = batchOf(folder.write("x.npy", bytes)).tensor("x");
      assert.equal(tensor.dtype, dtype);
      assert.deepEqual(tensor.shape, shape);
      assert.deepEqual(tensor.toNested(), values);
    });
  }

  it("writes what NumPy writes", async () => {
    using folder = new TemporaryFolder();
    for (const [what, bytes, dtype, , values] of NUMPY) {
      if (what !== "float32 in rows" && what !== "no rows") continue;
      const tensor = batchOf(folder.write("x.npy", bytes)).tensor("x");
      await writeOutput(folder.join("y.npy"), new Batch(tensor.rows, [["x", tensor]]));
      assert.deepEqual(folder.read("y.npy"), bytes, `${what} ${dtype} ${values}`);
    }
  });

  it("swaps and re-lays every size", () => {
    using folder = new TemporaryFolder();
    for (const [code, size] of [["i1", 1], ["u2", 2], ["f4", 4], ["f8", 8]] as const) {
      const data = patternTensor("uint8", [6 * size]).bytes;
      const little = batchOf(
        folder.write("x.npy", file(`{'descr': '<${code}', 'fortran_order': True, 'shape': (2, 3), }`, data)),
      ).tensor("x").bytes;
      const expected: number[] = [];
      for (const element of [0, 2, 4, 1, 3, 5]) {
        expected.push(...data.subarray(element * size, (element + 1) * size));
      }
      assert.deepEqual([...little], expected, code);
      const big = batchOf(
        folder.write("x.npy", file(`{'descr': '>${code}', 'fortran_order': False, 'shape': (6,), }`, data)),
      ).tensor("x").bytes;
      const swapped: number[] = [];
      for (let i = 0; i < 6; i++) swapped.push(...data.slice(i * size, (i + 1) * size).reverse());
      assert.deepEqual([...big], swapped, code);
    }
  });

  it("holds one field", async () => {
    using folder = new TemporaryFolder();
    const x = patternTensor("int8", [1]);
    await assert.rejects(
      writeOutput(folder.join("x.npy"), new Batch(1, [["a", x], ["b", x]])),
      (error) => error instanceof SchemaError && /one field, not 2; choose one of a, b/.test(error.message),
    );
    await assert.rejects(writeOutput(folder.join("x.npy"), new Batch(1, [])), SchemaError);
    await assert.rejects(
      writeOutput(folder.join("x.npy"), new Batch(1, [["a", patternTensor("bfloat16", [1])]])),
      (error) => error instanceof SchemaError && /bfloat16/.test(error.message),
    );
    assert.deepEqual(readdirSync(folder.path), []);
  });

  const good = "{'descr': '<i4', 'fortran_order': False, 'shape': (1,), }";
  const four = new Uint8Array(4);
  const hostile: [string, Uint8Array, typeof CorruptionError | typeof SchemaError, RegExp][] = [
    ["another magic", file(good, four).with(0, 0x92), CorruptionError, /offset 0/],
    ["version 4", file(good, four).with(6, 4), SchemaError, /4\.0/],
    ["a header longer than the file", file(good, four).with(9, 0xff), CorruptionError, /offset 10/],
    ["a header that ends early", file("{'descr': '<i4', ", four), CorruptionError, /offset 10.*literal/],
    [
      "a call",
      file("{'descr': f(), 'fortran_order': False, 'shape': (1,)}", four),
      CorruptionError,
      /literal/,
    ],
    ["a deep nest", file("(".repeat(100), four), CorruptionError, /literal/],
    ["no dictionary", file("(1, 2)", four), CorruptionError, /dictionary/],
    ["a missing key", file("{'descr': '<i4', 'shape': (1,)}", four), CorruptionError, /fortran_order/],
    ["a key too many", file(good.replace("}", "'a': 1}"), four), CorruptionError, /not one of/],
    ["a key twice", file(good.replace("}", "'descr': '<i4'}"), four), CorruptionError, /literal/],
    ["a negative extent", file(good.replace("1,", "-1,"), four), CorruptionError, /not one of/],
    [
      "an extent beyond 2^53",
      file(good.replace("1,", "9007199254740993,"), four),
      CorruptionError,
      /not one of/,
    ],
    [
      "a product that overflows",
      file(good.replace("1,", "4294967296, 4294967296"), four),
      CorruptionError,
      /offset 128/,
    ],
    ["missing data", file(good, four.subarray(1)), CorruptionError, /3 bytes.*4/],
    ["data too many", file(good, new Uint8Array(5)), CorruptionError, /5 bytes.*4/],
    ["no rows dimension", file(good.replace("1,", ""), four), SchemaError, /offset 128/],
    ["complex numbers", file(good.replace("<i4", "<c8"), four), SchemaError, /<c8/],
    ["pickled objects", file(good.replace("<i4", "|O"), four), SchemaError, /pickled/],
    ["strings", file(good.replace("<i4", "<U1"), four), SchemaError, /<U1/],
    [
      "structured types",
      file("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,), }", four),
      SchemaError,
      /structured/,
    ],
  ];
  for (const [what, bytes, type, message] of hostile) {
    it(`refuses ${what}`, () => {
      using folder = new TemporaryFolder();
      const path = folder.write("h.npy", bytes);
      const error = typedError(() => readInputs([path]));
      assert.ok(error instanceof type, `${error.name}: ${error.message}`);
      assert.match(error.message, message);
      assert.ok(error.message.includes(path));
    });
  }

  it("meets every truncation and seeded damage with typed errors only", () => {
    using folder = new TemporaryFolder();
    const bytes = file("{'descr': '<i4', 'fortran_order': True, 'shape': (2, 2), }", new Uint8Array(16));
    const read = (damaged: Uint8Array) => survives(() => readInputs([folder.write("d.npy", damaged)]));
    assert.equal(read(bytes), true);
    for (let length = 0; length < bytes.length; length++) {
      assert.equal(read(bytes.subarray(0, length)), false, `truncated to ${length}`);
    }
    const random = seededRandom(21);
    for (let round = 0; round < 600; round++) {
      const damaged = new Uint8Array(bytes);
      damaged[Math.floor(random() * 80)] = Math.floor(random() * 256);
      damaged[Math.floor(random() * 80)] = 32 + Math.floor(random() * 96);
      read(damaged);
    }
  });
});
