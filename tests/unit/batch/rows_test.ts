import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Batch } from "../../../src/batch/batch.ts";
import { bytes, json, ragged, scalars, strings } from "../../../src/batch/build.ts";
import type { Column } from "../../../src/batch/column.ts";
import { position, rowsOf } from "../../../src/batch/rows.ts";
import { CorruptionError, SchemaError } from "../../../src/errors.ts";

describe("rowsOf", () => {
  it("reads the same by position, by iteration, as an array, and twice", () => {
    const columns: Column[] = [
      scalars("int64", [1, null, 2n ** 60n]),
      scalars("bool", [true, null, false]),
      ragged("float32", [Float32Array.of(1), null, new Float32Array(0)]),
      strings(["a", null, ""]),
      bytes([Uint8Array.of(1), null, new Uint8Array(0)]),
      json([[1], null, ""]),
    ];
    for (const column of columns) {
      const rows = rowsOf(column);
      const all = rows.toArray();
      assert.equal(all[1], null);
      assert.notEqual(all[2], null);
      assert.deepEqual([...rows], all);
      assert.deepEqual([rows.at(0), rows.at(1), rows.at(2)], all);
      assert.deepEqual([rows.at(-3), rows.at(-2), rows.at(-1)], all);
    }
  });

  it("gives views of the column's memory, not copies", () => {
    const column = bytes([Uint8Array.of(1, 2), Uint8Array.of(3)]);
    const tokens = ragged("int32", [Int32Array.of(1, 2)]);
    const [bytesRow, row] = [rowsOf(column).at(0) as Uint8Array, rowsOf(tokens).at(0) as Int32Array];
    assert.deepEqual([bytesRow, row], [Uint8Array.of(1, 2), Int32Array.of(1, 2)]);
    assert.equal(bytesRow.buffer, column.data.buffer);
    assert.equal(row.buffer, tokens.data.buffer);
  });

  it("reads columns over unaligned memory", () => {
    const shifted = (data: Uint8Array) => {
      const whole = new Uint8Array(data.length + 3);
      whole.set(data, 3);
      return whole.subarray(3);
    };
    const numbers = scalars("float64", [0.5, null, -1]);
    assert.deepEqual(rowsOf({ ...numbers, data: shifted(numbers.data) }).toArray(), [0.5, null, -1]);
    const tokens = ragged("int64", [[1], [2, 3]]);
    assert.deepEqual(rowsOf({ ...tokens, data: shifted(tokens.data) }).toArray(), [[1], [2, 3]]);
    const text = strings(["aé", "😀"]);
    assert.deepEqual(rowsOf({ ...text, data: shifted(text.data) }).toArray(), ["aé", "😀"]);
  });

  it("parses a json row once", () => {
    const rows = new Batch(1, [["x", json([{ a: 1 }])]]).json("x");
    assert.equal(rows.at(0), rows.at(0));
  });

  it("says that stored text is corrupt instead of repairing it", () => {
    const text = { ...strings(["ab", "\ufffd", "cd"]) };
    assert.deepEqual(new Batch(3, [["x", text]]).strings("x").toArray(), ["ab", "\ufffd", "cd"]);
    text.data[0] = 0xff;
    assert.throws(() => new Batch(3, [["x", text]]).strings("x").at(0), CorruptionError);
    assert.equal(new Batch(3, [["x", text]]).strings("x").at(2), "cd");
    const values = json([{ a: 1 }]);
    values.data[0] = 0x20;
    assert.throws(() => new Batch(1, [["x", values]]).json("x").at(0), CorruptionError);
  });

  it("reads 0-dimensional ragged rows, which Python can write, as numbers", () => {
    for (const rowFormat of ["list", "ndarray"] as const) {
      const column: Column = { ...ragged("int64", [[7], [1, 2]]), shapes: [[], [2]], rowFormat };
      assert.equal(new Batch(2, [["x", column]]).ragged("x").at(0), 7);
    }
  });
});

describe("position", () => {
  it("counts negative rows from the end and refuses all others", () => {
    assert.deepEqual([0, 2, -1, -3].map((row) => position(row, 3)), [0, 2, 2, 0]);
    assert.ok(Object.is(position(-0, 3), 0));
    for (const row of [3, -4, 0.5, NaN, Infinity]) assert.throws(() => position(row, 3), SchemaError);
    assert.throws(() => position(0, 0), /no row 0 among 0/);
  });
});
