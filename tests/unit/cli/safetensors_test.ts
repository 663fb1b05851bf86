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

/** A file from a header and the data behind it. */
function file(header: unknown, data = new Uint8Array(0)): Uint8Array {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(data, 8 + text.length);
  return bytes;
}

const F32 = (shape: unknown, data_offsets: unknown) => ({ dtype: "F32", shape, data_offsets });

describe("safetensors", () => {
  for (const dtype of DTYPES) {
    it(`keeps every bit of ${dtype}`, async () => {
      using folder = new TemporaryFolder();
      const wanted = patternTensor(dtype, [3, 5], 7);
      const columns = await throughFile(folder.join("x.safetensors"), new Batch(3, [["x", wanted]]));
      const got = columns.get("x") as Tensor;
      assert.equal(got.dtype, dtype);
      assert.deepEqual(got.shape, [3, 5]);
      assert.deepEqual(got.bytes, wanted.bytes);
      assert.equal(got.data.length, 15);
    });
  }

  it("keeps column order, names and aligned data", async () => {
    using folder = new TemporaryFolder();
    const names = ["zeta", "10", "2", "ünï", "__proto__", 'qu"ote'];
    const batch = new Batch(2, names.map((name, i) => [name, patternTensor("int16", [2, i], i)]));
    await writeOutput(folder.join("a.safetensors"), batch);
    const bytes = folder.read("a.safetensors");
    assert.equal(new DataView(bytes.buffer).getBigUint64(0, true) % 8n, 0n);
    const again = batchOf(folder.join("a.safetensors"));
    assert.deepEqual(again.fields, names);
    await writeOutput(folder.join("b.safetensors"), again);
    assert.deepEqual(folder.read("b.safetensors"), bytes);
    assert.deepEqual(readdirSync(folder.path).sort(), ["a.safetensors", "b.safetensors"]);
  });

  it("writes no rows and no columns", async () => {
    using folder = new TemporaryFolder();
    const none = await throughFile(folder.join("a.safetensors"), new Batch(0, []));
    assert.equal(none.size, 0);
    const empty = await throughFile(
      folder.join("b.safetensors"),
      new Batch(0, [["x", patternTensor("float64", [0, 4])], ["y", patternTensor("bool", [0])]]),
    );
    assert.deepEqual((empty.get("x") as Tensor).shape, [0, 4]);
    assert.deepEqual((empty.get("y") as Tensor).shape, [0]);
  });

  it("reads a file of the Python library, metadata included", () => {
    using folder = new TemporaryFolder();
    const path = folder.write(
      "py.safetensors",
      fromBase64(
        "yAAAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJwdCJ9LCJhIjp7ImR0eXBlIjoiRjY0Iiwic2hhcGUiOlsyXSwiZGF0YV9vZmZz" +
          "ZXRzIjpbMCwxNl19LCJiIjp7ImR0eXBlIjoiSTE2Iiwic2hhcGUiOlsyLDJdLCJkYXRhX29mZnNldHMiOlsxNiwyNF19LCJjIjp7ImR0eXBl" +
          "IjoiQk9PTCIsInNoYXBlIjpbMl0sImRhdGFfb2Zmc2V0cyI6WzI0LDI2XX19IAAAAAAAAPg/AAAAAAAABEABAAIAAwAEAAEA",
      ),
    );
    const batch = batchOf(path);
    assert.deepEqual(batch.fields, ["a", "b", "c"]);
    assert.deepEqual(batch.tensor("a").toNested(), [1.5, 2.5]);
    assert.deepEqual(batch.tensor("b").toNested(), [[1, 2], [3, 4]]);
    assert.deepEqual(batch.tensor("c").toNested(), [true, false]);
  });

  it("writes scalars without nulls as tensors, and refuses what has no form", async () => {
    using folder = new TemporaryFolder();
    const data = new Uint8Array(Float32Array.of(1, 2).buffer);
    const scalars = { kind: "scalars", rows: 2, nulls: null, dtype: "float32", data } as const;
    const columns = await throughFile(folder.join("a.safetensors"), new Batch(2, [["s", scalars]]));
    assert.deepEqual((columns.get("s") as Tensor).toNested(), [1, 2]);
    const nulls = Uint8Array.of(0, 1);
    await assert.rejects(
      writeOutput(folder.join("b.safetensors"), new Batch(2, [["s", { ...scalars, nulls }]])),
      (error) => error instanceof SchemaError && /"s": row 1 is null/.test(error.message),
    );
    const strings = { kind: "strings", rows: 0, nulls: null, data, offsets: Uint32Array.of(0) } as const;
    await assert.rejects(
      writeOutput(folder.join("b.safetensors"), new Batch(0, [["text", strings]])),
      (error) => error instanceof SchemaError && /"text".*strings/.test(error.message),
    );
    assert.deepEqual(readdirSync(folder.path), ["a.safetensors"]);
  });

  const eight = new Uint8Array(8);
  const hostile: [string, Uint8Array, typeof CorruptionError | typeof SchemaError, RegExp][] = [
    ["an empty file", new Uint8Array(0), CorruptionError, /offset 0/],
    ["seven bytes", new Uint8Array(7), CorruptionError, /offset 0/],
    [
      "a header longer than the file",
      Uint8Array.of(0xff, 0, 0, 0, 0, 0, 0, 0, 0x7b),
      CorruptionError,
      /offset 0/,
    ],
    ["a header length of 2^64-1", new Uint8Array(16).fill(0xff), CorruptionError, /offset 0/],
    ["no JSON", file("{"), CorruptionError, /offset 8.*no JSON/],
    ["no UTF-8", file("{}").with(8, 0xff), CorruptionError, /no UTF-8/],
    ["a list", file("[]"), CorruptionError, /no JSON object/],
    ["a number for a tensor", file('{"x":1}'), CorruptionError, /"x"/],
    [
      "no dtype",
      file({ x: { shape: [2], data_offsets: [0, 8] } }, eight),
      CorruptionError,
      /"x" has no dtype/,
    ],
    [
      "an unknown dtype",
      file({ x: { dtype: "C64", shape: [1], data_offsets: [0, 8] } }, eight),
      SchemaError,
      /C64/,
    ],
    ["a negative extent", file({ x: F32([-2], [0, 8]) }, eight), CorruptionError, /shape/],
    ["a fractional extent", file({ x: F32([1.5], [0, 6]) }, eight), CorruptionError, /shape/],
    ["extents beyond 2^53", file({ x: F32([2 ** 53], [0, 8]) }, eight), CorruptionError, /shape/],
    [
      "a product that overflows",
      file({ x: F32([2 ** 32, 2 ** 32], [0, 0]) }),
      CorruptionError,
      /do not match/,
    ],
    [
      "a product of 2^64 + 8",
      file({ x: F32([2 ** 31, 2 ** 31, 2], [0, 8]) }, eight),
      CorruptionError,
      /do not match/,
    ],
    ["a span that is not the shape", file({ x: F32([3], [0, 8]) }, eight), CorruptionError, /do not match/],
    ["offsets behind the file", file({ x: F32([4], [0, 16]) }, eight), CorruptionError, /outside the file/],
    [
      "offsets the wrong way round",
      file({ x: F32([2], [8, 0]) }, eight),
      CorruptionError,
      /outside the file/,
    ],
    ["one offset", file({ x: F32([2], [8]) }, eight), CorruptionError, /data_offsets/],
    [
      "an overlap",
      file({ a: F32([1], [0, 4]), b: F32([1], [0, 4]) }, new Uint8Array(4)),
      CorruptionError,
      /overlaps/,
    ],
    ["a hole", file({ a: F32([1], [4, 8]) }, eight), CorruptionError, /hole.*offset \d+/],
    ["bytes behind the last tensor", file({ a: F32([1], [0, 4]) }, eight), CorruptionError, /goes on/],
    [
      "a key twice",
      file(
        '{"é":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"é":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        eight,
      ),
      CorruptionError,
      /"é" twice \(offset 62\)/,
    ],
    [
      "an inner key twice",
      file('{"x":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', eight),
      CorruptionError,
      /"dtype" twice/,
    ],
    ["metadata that is a list", file('{"__metadata__":[]}'), CorruptionError, /__metadata__/],
    [
      "a tensor without rows",
      file({ w: F32([], [0, 4]) }, new Uint8Array(4)),
      SchemaError,
      /"w" at offset \d+/,
    ],
    [
      "nine dimensions",
      file({ w: F32([1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 4]) }, new Uint8Array(4)),
      SchemaError,
      /"w".*9 dim/,
    ],
    [
      "unequal rows",
      file({ a: F32([1], [0, 4]), b: F32([2], [4, 12]) }, new Uint8Array(12)),
      SchemaError,
      /"a" and "b" have unequal rows \(1 and 2\)/,
    ],
  ];
  for (const [what, bytes, type, message] of hostile) {
    it(`refuses ${what}`, () => {
      using folder = new TemporaryFolder();
      const path = folder.write("h.safetensors", bytes);
      const error = typedError(() => readInputs([path]));
      assert.ok(error instanceof type, `${error.name}: ${error.message}`);
      assert.match(error.message, message);
      assert.ok(error.message.includes(path));
    });
  }

  it("names the file that is not there", () => {
    assert.equal(typedError(() => readInputs(["/nowhere/x.safetensors"])).code, "NOT_FOUND");
  });

  it("meets every truncation and seeded damage with typed errors only", async () => {
    using folder = new TemporaryFolder();
    const batch = new Batch(3, [["a", patternTensor("int32", [3, 2])], [
      "b",
      patternTensor("bfloat16", [3]),
    ]]);
    await writeOutput(folder.join("ok.safetensors"), batch);
    const bytes = folder.read("ok.safetensors");
    const read = (damaged: Uint8Array) =>
      survives(() => readInputs([folder.write("d.safetensors", damaged)]));
    for (let length = 0; length < bytes.length; length++) {
      assert.equal(read(bytes.subarray(0, length)), false, `truncated to ${length}`);
    }
    const random = seededRandom(20);
    let refused = 0;
    for (let round = 0; round < 600; round++) {
      const damaged = new Uint8Array(bytes);
      const changes = 1 + Math.floor(random() * 3);
      for (let i = 0; i < changes; i++) {
        damaged[Math.floor(random() * damaged.length)] = Math.floor(random() * 256);
      }
      if (!read(damaged)) refused++;
    }
    assert.ok(refused > 300, `${refused} of 600 refused`);
  });
});
