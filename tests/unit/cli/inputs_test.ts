import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Batch } from "../../../src/batch/batch.ts";
import { readInputs } from "../../../src/cli/inputs.ts";
import { writeOutput } from "../../../src/cli/outputs.ts";
import { UsageError } from "../../../src/cli/usage.ts";
import { SchemaError } from "../../../src/errors.ts";
import { patternTensor, TemporaryFolder, typedError } from "./helpers.ts";

describe("readInputs", () => {
  it("makes one batch of several files, in their order", async () => {
    using folder = new TemporaryFolder();
    await writeOutput(folder.join("mask.npy"), new Batch(2, [["x", patternTensor("bool", [2, 2])]]));
    await writeOutput(
      folder.join("t.safetensors"),
      new Batch(2, [["b", patternTensor("int8", [2])], ["a", patternTensor("int8", [2])]]),
    );
    const jsonl = folder.write("t.jsonl", '{"text":"x"}\n{"text":"y"}\n');
    const { rows, columns } = readInputs([folder.join("t.safetensors"), jsonl, folder.join("mask.npy")]);
    assert.equal(rows, 2);
    assert.deepEqual([...columns.keys()], ["b", "a", "text", "mask"]);
  });

  it("names both files where rows differ or a field comes twice", () => {
    using folder = new TemporaryFolder();
    const one = folder.write("one.jsonl", '{"a":1}\n');
    const two = folder.write("two.jsonl", '{"b":1}\n{"b":2}\n');
    const same = folder.write("same.jsonl", '{"c":1,"a":1}\n');
    for (const [paths, message] of [[[one, two], /1 rows.*has 2/], [[one, same], /"a"/]] as const) {
      const error = typedError(() => readInputs(paths));
      assert.ok(error instanceof SchemaError);
      assert.match(error.message, message);
      for (const path of paths) assert.ok(error.message.includes(path));
    }
  });

  it("goes by the extension, in any case", () => {
    using folder = new TemporaryFolder();
    assert.equal(readInputs([folder.write("A.JSONL", "{}\n")]).rows, 1);
    for (const name of ["x", "x.json", "x.jsonl.gz", ".jsonl", "x.parquet"]) {
      assert.throws(() => readInputs([folder.join(name)]), UsageError, name);
    }
    assert.throws(() => readInputs([folder.join("x.parquet")]), /not supported yet/);
  });

  it("refuses folders", () => {
    using folder = new TemporaryFolder();
    using inner = new TemporaryFolder();
    folder.write("x", "");
    assert.equal(typedError(() => readInputs([`${inner.path}/../.jsonl/x.jsonl`])).code, "NOT_FOUND");
  });
});

describe("writeOutput", () => {
  it("replaces a file, or leaves the old one where it fails", async () => {
    using folder = new TemporaryFolder();
    const path = folder.write("x.safetensors", "old");
    const strings = {
      kind: "strings",
      rows: 0,
      nulls: null,
      data: new Uint8Array(0),
      offsets: Uint32Array.of(0),
    } as const;
    await assert.rejects(writeOutput(path, new Batch(0, [["s", strings]])), SchemaError);
    assert.equal(folder.text("x.safetensors"), "old");
    const bytes = await writeOutput(path, new Batch(1, [["x", patternTensor("int8", [1])]]));
    assert.equal(folder.read("x.safetensors").length, bytes);
  });

  it("says where there is no folder", async () => {
    using folder = new TemporaryFolder();
    await assert.rejects(
      writeOutput(folder.join("no/x.jsonl"), new Batch(0, [])),
      { code: "NOT_FOUND" },
    );
  });
});
