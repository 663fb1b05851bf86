import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Fields, toColumns } from "../../../src/batch/batch.ts";
import { ragged, records, scalars, strings, tensor } from "../../../src/batch/build.ts";
import { describeInput, isColumn } from "../../../src/batch/check.ts";
import { SchemaError } from "../../../src/errors.ts";

describe("checkColumn", () => {
  it("refuses columns whose parts contradict one another", () => {
    const text = strings(["ab", "c"]);
    const numbers = ragged("int32", [[1], [2, 3]]);
    const single = scalars("int32", [1, null]);
    const wrong: unknown[] = [
      { ...text, rows: 3 },
      { ...text, rows: -1 },
      { ...text, nulls: new Uint8Array(1) },
      { ...text, nulls: [0, 0] },
      { ...text, data: "abc" },
      { ...text, data: new Uint8Array(2) },
      { ...text, offsets: Uint32Array.of(0, 2) },
      { ...text, offsets: [0, 2, 3] },
      { ...text, offsets: Uint32Array.of(1, 2, 3) },
      { ...text, offsets: Uint32Array.of(0, 4, 3) },
      { ...numbers, dtype: "bfloat16" },
      { ...numbers, rowFormat: "mixed" },
      { ...numbers, shapes: [[1]] },
      { ...numbers, shapes: [[1], [2, 2]] },
      { ...numbers, shapes: [[1], null] },
      { ...numbers, data: new Uint8Array(11) },
      { ...single, dtype: "int64" },
      { ...single, data: new Uint8Array(12) },
      { ...records([1]), values: [] },
      { ...records([1]), values: "x" },
    ];
    for (const column of wrong) assert.throws(() => toColumns({ x: column } as Fields), SchemaError);
    toColumns({ a: { ...text }, b: { ...numbers, shapes: [[1], [2, 1]] }, c: { ...single } });
  });
});

describe("isColumn", () => {
  it("is true for what says it is one, except tensors of another class", () => {
    assert.equal(isColumn(tensor("int8", [0], [])), true);
    assert.equal(isColumn(strings([])), true);
    for (const value of [null, "strings", { kind: "tensor" }, { kind: "other" }, {}, []]) {
      assert.equal(isColumn(value), false);
    }
  });
});

describe("describeInput", () => {
  it("says what was given in a few words", () => {
    const inputs = [
      null,
      undefined,
      1,
      "x",
      [],
      [1, "a", null],
      [[1]],
      new Map(),
      new Float32Array(1),
      Object.create(null),
    ];
    assert.deepEqual(inputs.map(describeInput), [
      "null",
      "undefined",
      "number",
      "string",
      "an empty array",
      "an array of number and string and null",
      "an array of Array",
      "Map",
      "Float32Array",
      "object",
    ]);
  });
});
