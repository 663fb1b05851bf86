import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Batch } from "../../../src/batch/batch.ts";
import { type DType, DTYPES } from "../../../src/batch/dtype.ts";
import { readInputs } from "../../../src/cli/inputs.ts";
import { writeOutput } from "../../../src/cli/outputs.ts";
import { readSchemaFile } from "../../../src/cli/schema.ts";
import { parseSchema } from "../../../src/transfer/field_schema.ts";
import { SchemaError } from "../../../src/errors.ts";
import { patternTensor, TemporaryFolder, typedError } from "./helpers.ts";

/** The batch of one field `x`, its rows given as JSON texts, read by a schema. */
function read(schema: unknown, ...values: string[]): Batch {
  using folder = new TemporaryFolder();
  const path = folder.write(
    "x.jsonl",
    values.map((value) => value === "" ? "{}\n" : `{"x":${value}}\n`).join(""),
  );
  const { rows, columns } = readInputs([path], parseSchema({ x: schema }, "test"));
  return new Batch(rows, columns);
}

describe("parseSchema", () => {
  it("takes our form and ROLL's", () => {
    const parsed = parseSchema(
      {
        a: { kind: "tensor", dtype: "bfloat16", shape: [2, 3], nullable: false },
        b: { kind: "strings" },
        c: {
          codec: "typed_ragged",
          nullable: true,
          metadata: { section: "non_tensor_batch", dtype: "int64" },
        },
        d: { codec: "ragged_tensor", metadata: { dtype: "torch.float32" } },
        e: { codec: "auto", nullable: false },
        f: { codec: "ndarray", metadata: { section: "batch", dtype: "float16" } },
        g: { codec: "json_ragged" },
      },
      "test",
    );
    assert.deepEqual(Object.fromEntries(parsed), {
      a: { kind: "tensor", dtype: "bfloat16", shape: [2, 3], nullable: false },
      b: { kind: "strings", nullable: true },
      c: { kind: "ragged", dtype: "int64", nullable: true },
      d: { kind: "ragged", dtype: "float32", nullable: true, storedAs: "ragged_tensor" },
      e: { nullable: false },
      f: { kind: "tensor", dtype: "float16", nullable: true },
      g: { kind: "json", nullable: true },
    });
  });

  for (
    const [what, schema] of [
      ["a list", []],
      ["a string for a field", { x: "strings" }],
      ["no kind", { x: {} }],
      ["an unknown kind", { x: { kind: "array" } }],
      ["an unknown option", { x: { kind: "strings", dtyp: "int8" } }],
      ["an unknown dtype", { x: { kind: "scalars", dtype: "int128" } }],
      ["a dtype that has no text", { x: { kind: "ragged", dtype: { toString: null } } }],
      ["bfloat16 scalars", { x: { kind: "scalars", dtype: "bfloat16" } }],
      ["strings with a dtype", { x: { kind: "strings", dtype: "int8" } }],
      ["ragged with a shape", { x: { kind: "ragged", shape: [1] } }],
      ["a negative extent", { x: { kind: "tensor", shape: [-1] } }],
      ["nullable: 1", { x: { kind: "strings", nullable: 1 } }],
      ["an unknown codec", { x: { codec: "pickle" } }],
      ["an unknown section", { x: { codec: "ndarray", metadata: { section: "b" } } }],
    ] as const
  ) {
    it(`refuses ${what}`, () => assert.equal(typedError(() => parseSchema(schema, "s.json")).code, "CONFIG"));
  }

  it("says which file is no JSON", () => {
    using folder = new TemporaryFolder();
    const path = folder.write("s.json", "{");
    assert.match(typedError(() => readSchemaFile(path)).message, /s\.json/);
    assert.equal(typedError(() => readSchemaFile(folder.join("none.json"))).code, "NOT_FOUND");
  });
});

describe("schemas of JSONL", () => {
  for (const dtype of DTYPES) {
    it(`makes a ${dtype} tensor`, () => {
      const values = dtype === "bool" ? ["[true,false]", "[false,true]"] : ["[1,0]", "[2,4]"];
      const tensor = read({ kind: "tensor", dtype }, ...values).tensor("x");
      assert.deepEqual([tensor.dtype, tensor.shape], [dtype, [2, 2]]);
      assert.deepEqual(tensor.toNumbers(), dtype === "bool" ? [1, 0, 0, 1] : [1, 0, 2, 4]);
    });
  }

  it("makes scalars and ragged rows of any dtype, with nulls", () => {
    for (const dtype of ["int8", "uint16", "uint64", "float16", "float32", "float64"] as DType[]) {
      const scalars = read({ kind: "scalars", dtype }, "1", "null", "", "3.0").column("x");
      assert.equal((scalars as { dtype: DType }).dtype, dtype);
      assert.deepEqual(read({ kind: "scalars", dtype }, "1", "null", "3.0").scalars("x").toArray(), [
        1,
        null,
        3,
      ]);
      const ragged = read({ kind: "ragged", dtype }, "[1,2]", "[]", "null", "[3]");
      assert.equal((ragged.column("x") as { dtype: DType }).dtype, dtype);
      assert.deepEqual(ragged.ragged("x").toArray(), [[1, 2], [], null, [3]]);
    }
    assert.deepEqual(read({ kind: "scalars", dtype: "bool" }, "true", "null").scalars("x").toArray(), [
      true,
      null,
    ]);
    assert.deepEqual(read({ kind: "scalars", dtype: "int32" }, "null").scalars("x").toArray(), [null]);
    assert.deepEqual(read({ kind: "ragged", dtype: "bool" }, "[true]").column("x").kind, "ragged");
  });

  it("keeps rows of several dimensions, and infers a dtype that is not said", () => {
    const ragged = read({ kind: "ragged" }, "[[1,2],[3,4]]", "[[5.5]]").column("x");
    assert.equal((ragged as { dtype: DType }).dtype, "float64");
    assert.deepEqual((ragged as { shapes: unknown }).shapes, [[2, 2], [1, 1]]);
    assert.equal(read({ kind: "tensor" }, "[[1],[2]]").tensor("x").dtype, "int64");
    assert.equal(read({ kind: "tensor" }, "18446744073709551615").tensor("x").dtype, "uint64");
    assert.equal(read({ kind: "tensor" }, "[true]").tensor("x").dtype, "bool");
  });

  it("keeps what would be inferred otherwise", () => {
    assert.deepEqual(read({ kind: "json" }, '"a"', "1.0").json("x").toArray(), ["a", 1]);
    assert.deepEqual(read({ kind: "json" }, "1", "2").column("x").kind, "json");
    assert.deepEqual(read({ kind: "strings" }, "null").column("x").kind, "strings");
    assert.deepEqual(read({ kind: "bytes" }, "null").column("x").kind, "bytes");
    const records = read({ kind: "records" }, '{"a":[{"$bytes":"AQI="}],"n":12345678901234567890}', "null");
    assert.deepEqual(records.records("x").toArray(), [
      { a: [Uint8Array.of(1, 2)], n: 12345678901234567890n },
      null,
    ]);
  });

  for (
    const [schema, values, row] of [
      [{ kind: "strings" }, ['"a"', "1"], 1],
      [{ kind: "bytes" }, ['{"$bytes":""}', '"a"'], 1],
      [{ kind: "scalars" }, ["1", "[1]"], 1],
      [{ kind: "scalars", dtype: "int8" }, ["127", "128"], 1],
      [{ kind: "scalars", dtype: "uint8" }, ["255", "-1"], 1],
      [{ kind: "scalars", dtype: "int32" }, ["1", "1.5"], 1],
      [{ kind: "scalars", dtype: "int64" }, ["1", "9223372036854775808"], 1],
      [{ kind: "scalars", dtype: "float16" }, ["65504", "65520"], 1],
      [{ kind: "scalars", dtype: "float32" }, ["1", "1e39"], 1],
      [{ kind: "scalars", dtype: "float64" }, ["1", "1e309"], 1],
      [{ kind: "scalars", dtype: "bool" }, ["true", "1"], 1],
      [{ kind: "scalars", dtype: "int8" }, ["1", "true"], 1],
      [{ kind: "ragged", dtype: "int8" }, ["[1]", "2"], 1],
      [{ kind: "ragged", dtype: "int8" }, ["[1]", "[[1],[2,3]]"], 1],
      [{ kind: "ragged", dtype: "int8" }, ["[1]", '["a"]'], 1],
      [{ kind: "ragged" }, ["[1]", "[1,null]"], 1],
      [{ kind: "tensor" }, ["[1]", "null"], 1],
      [{ kind: "tensor" }, ["[1]", "[1,2]"], 1],
      [{ kind: "tensor", dtype: "float8_e4m3fn" }, ["448", "1000"], 1],
      [{ kind: "tensor", shape: [2] }, ["[1]"], 0],
      [{ kind: "strings", nullable: false }, ['"a"', "null"], 1],
      [{ codec: "auto", nullable: false }, ['"a"', ""], 1],
    ] as const
  ) {
    it(`says which row is no ${JSON.stringify(schema)}: ${values[row]}`, () => {
      const error = typedError(() => read(schema, ...values));
      assert.ok(error instanceof SchemaError, `${error}`);
      assert.match(error.message, new RegExp(`x\\.jsonl:${row + 1}: field "x", row ${row} `));
      assert.equal(error.details.field, "x");
    });
  }
});

describe("schemas of tensor files", () => {
  it("makes scalars and ragged rows of tensors", async () => {
    using folder = new TemporaryFolder();
    const path = folder.join("t.safetensors");
    const tensor = patternTensor("int16", [2, 3]);
    await writeOutput(path, new Batch(2, [["s", patternTensor("int16", [2])], ["r", tensor]]));
    const { columns } = readInputs(
      [path],
      parseSchema({ s: { kind: "scalars", dtype: "int16" }, r: { kind: "ragged" } }, "test"),
    );
    const batch = new Batch(2, columns);
    assert.deepEqual(batch.scalars("s").length, 2);
    assert.deepEqual(batch.ragged("r").toArray().map((row) => [...row as Int16Array]), tensor.toNested());
  });

  it("refuses another form", async () => {
    using folder = new TemporaryFolder();
    const path = folder.join("t.safetensors");
    await writeOutput(path, new Batch(2, [["x", patternTensor("bfloat16", [2, 3])]]));
    for (
      const schema of [
        { kind: "tensor", dtype: "float32" },
        { kind: "tensor", shape: [4] },
        { kind: "ragged" },
        { kind: "scalars" },
        { kind: "strings" },
      ]
    ) {
      const error = typedError(() => readInputs([path], parseSchema({ x: schema }, "test")));
      assert.ok(
        error instanceof SchemaError && /t\.safetensors: field "x".*row 0/.test(error.message),
        `${error}`,
      );
    }
  });
});
