import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { describe, it } from "node:test";
import { Batch } from "../../../src/batch/batch.ts";
import {
  bytes,
  json,
  type NumberArray,
  ragged,
  records,
  scalars,
  strings,
  tensor,
} from "../../../src/batch/build.ts";
import { checkColumn } from "../../../src/batch/check.ts";
import type { Column } from "../../../src/batch/column.ts";
import {
  type DType,
  DTYPES,
  isNumericDType,
  itemSize,
  newArray,
  type NumericDType,
  type TypedArray,
} from "../../../src/batch/dtype.ts";
import { encodeBFloat16 } from "../../../src/batch/narrow.ts";
import { Tensor } from "../../../src/batch/tensor.ts";
import { SchemaError } from "../../../src/errors.ts";
import { random } from "./random.ts";

const NUMERIC = DTYPES.filter(isNumericDType);

/** Values each dtype holds exactly, its extremes among them. */
const EXACT: Readonly<Record<DType, NumberArray>> = {
  bool: [true, false, true],
  int8: [-128, 127, 0],
  int16: [-32768, 32767, 0],
  int32: [-(2 ** 31), 2 ** 31 - 1, 0],
  int64: [
    -(2n ** 63n),
    2n ** 63n - 1n,
    0,
    2 ** 53 - 1,
    1 - 2 ** 53,
    -1,
    -(2 ** 32),
    2 ** 32,
    2 ** 31,
    -(2 ** 31) - 1,
  ],
  uint8: [0, 255, 1],
  uint16: [0, 65535, 1],
  uint32: [0, 2 ** 32 - 1, 1],
  uint64: [0, 2n ** 64n - 1n, 2n ** 63n, 2 ** 53 - 1, 2 ** 32],
  float16: [65504, -Infinity, 2 ** -24],
  float32: [3.4028234663852886e38, -0, 2 ** -149, NaN],
  float64: [1.7976931348623157e308, -Infinity, 5e-324, NaN],
  bfloat16: [3.3895313892515355e38, -Infinity, 2 ** -133],
  float8_e4m3fn: [448, -448, 2 ** -9],
  float8_e5m2: [57344, -Infinity, 2 ** -16],
};

/** Values each dtype cannot hold. */
const WRONG: Readonly<Record<DType, readonly unknown[]>> = {
  bool: [2, -1, 0.5, 1n, "true"],
  int8: [-129, 128, 0.5, 1n, NaN],
  int16: [-32769, 32768, 0.5, 1n, Infinity],
  int32: [-(2 ** 31) - 1, 2 ** 31, 1n, true],
  int64: [2 ** 53, -(2 ** 53), 0.5, NaN, 2n ** 63n, -(2n ** 63n) - 1n, true],
  uint8: [-1, 256, 0.5, 1n],
  uint16: [-1, 65536],
  uint32: [-1, 2 ** 32],
  uint64: [-1, -1n, 2 ** 53, 2n ** 64n, 0.5],
  float16: [1n, "1", true],
  float32: [1n, "1", [1]],
  float64: [1n, "1", {}],
  bfloat16: [1n, "1", true],
  float8_e4m3fn: [1n, "1"],
  float8_e5m2: [1n, "1"],
};

function values(array: NumberArray): unknown[] {
  return array.map((value) => typeof value === "boolean" ? Number(value) : value);
}

function read(column: Column): unknown[] {
  checkColumn("x", column);
  return Array.from(new Batch(column.rows, [["x", column]]), (row) => row["x"]);
}

describe("tensor", () => {
  it("holds numbers of every dtype exactly", () => {
    for (const dtype of DTYPES) {
      const data = EXACT[dtype];
      const made = tensor(dtype, [data.length], data);
      assert.equal(made.bytes.byteLength, data.length * itemSize(dtype));
      assert.deepEqual(made.toNumbers(), values(data), dtype);
      assert.deepEqual(tensor(dtype, [0, 3], []).toNumbers(), [], dtype);
    }
  });

  it("takes a typed array of the dtype's class without a copy", () => {
    for (const dtype of DTYPES) {
      const data = newArray(dtype, 6);
      const made = tensor(dtype, [2, 3], data);
      assert.equal(made.data.buffer, data.buffer, dtype);
      assert.equal(made.bytes.constructor, Uint8Array);
    }
    const part = new Float64Array(4).subarray(1, 3);
    part[0] = 7;
    assert.deepEqual(tensor("float64", [2], part).toNumbers(), [7, 0]);
    assert.equal(tensor("uint8", [2], Buffer.from([1, 2])).bytes.constructor, Uint8Array);
  });

  it("refuses typed arrays of other classes and names both", () => {
    for (const dtype of DTYPES) {
      for (const other of DTYPES) {
        const data = newArray(other, 1);
        const same = newArray(dtype, 1).constructor === data.constructor;
        const bothBig = dtype.endsWith("int64") && other.endsWith("int64");
        if (same || bothBig) tensor(dtype, [1], data);
        else {
          assert.throws(() => tensor(dtype, [1], data), (error: SchemaError) => {
            assert.equal(error.code, "SCHEMA");
            assert.equal(error.details.actual, data.constructor.name);
            assert.equal(error.details.expected, newArray(dtype, 0).constructor.name);
            return true;
          });
        }
      }
    }
    assert.throws(
      () => tensor("int64", [1], new Float32Array(1)),
      /int64 data cannot come from a Float32Array/,
    );
    assert.throws(() => tensor("uint8", [1], new Uint8ClampedArray(1) as unknown as TypedArray), SchemaError);
    assert.throws(
      () => tensor("uint8", [1], new DataView(new ArrayBuffer(1)) as unknown as TypedArray),
      SchemaError,
    );
  });

  it("takes 64-bit integers of the other sign where they are the same", () => {
    assert.deepEqual(tensor("int64", [1], BigUint64Array.of(2n ** 63n - 1n)).toNumbers(), [2n ** 63n - 1n]);
    assert.throws(
      () => tensor("int64", [2], BigUint64Array.of(0n, 2n ** 63n)),
      /int64 cannot hold .* at index 1/,
    );
    assert.throws(() => tensor("uint64", [1], BigInt64Array.of(-1n)), SchemaError);
  });

  it("names the index of what a dtype cannot hold", () => {
    for (const dtype of DTYPES) {
      for (const value of WRONG[dtype]) {
        const data = [0, value] as number[];
        assert.throws(() => tensor(dtype, [2], data), {
          name: "SchemaError",
          message: new RegExp(`${dtype} cannot hold .* at index 1`),
        }, `${dtype} ${String(value)}`);
      }
      for (const value of [null, undefined, "0"]) {
        assert.throws(() => tensor(dtype, [1], [value] as unknown as number[]), SchemaError);
      }
    }
    assert.throws(() => tensor("bool", [2], Uint8Array.of(1, 2)), /bool cannot hold 2 at index 1/);
    assert.throws(() => tensor("int64", [1], [2 ** 53]), /use a bigint/);
  });

  it("refuses another number of elements, and what is no array", () => {
    assert.throws(() => tensor("int8", [2, 2], [1, 2, 3]), /has 4 elements, not 3/);
    assert.throws(() => tensor("int8", [2], new Int8Array(3)), /has 2 elements, not 3/);
    assert.throws(() => tensor("int8", [1], 1 as unknown as number[]), SchemaError);
    assert.throws(() => tensor("int8", [1], "1" as unknown as number[]), SchemaError);
    // more than 4 GiB: before anything is allocated
    assert.throws(() => tensor("float64", [2 ** 30], []), /more than 4 GiB/);
  });

  it("rounds numbers to bfloat16 and float8", () => {
    assert.deepEqual([...tensor("bfloat16", [2], [1.00390625, 1e39]).data], [0x3f80, 0x7f80]);
    assert.deepEqual([...tensor("float8_e4m3fn", [2], [449, 500]).data], [0x7e, 0x7f]);
    assert.deepEqual([...tensor("float8_e5m2", [1], [1e6]).data], [0x7c]);
    assert.deepEqual(tensor("bfloat16", [1], encodeBFloat16(Float32Array.of(2.5))).toNumbers(), [2.5]);
  });
});

describe("scalars", () => {
  it("holds numbers of every dtype, nulls among them", () => {
    for (const dtype of NUMERIC) {
      const data = [null, ...EXACT[dtype], null];
      const column = scalars(dtype, data);
      assert.deepEqual(read(column), data, dtype);
      assert.deepEqual([...column.nulls!], data.map((value) => Number(value === null)));
      assert.equal(scalars(dtype, EXACT[dtype]).nulls, null);
      assert.deepEqual(read(scalars(dtype, EXACT[dtype])), [...EXACT[dtype]], dtype);
      assert.deepEqual(read(scalars(dtype, [])), []);
      assert.deepEqual(read(scalars(dtype, [null])), [null]);
    }
  });

  it("takes a typed array without a copy", () => {
    const data = Float32Array.of(1, 2);
    const column = scalars("float32", data);
    assert.equal(column.data.buffer, data.buffer);
    assert.deepEqual(read(column), [1, 2]);
    assert.throws(() => scalars("int32", data), SchemaError);
  });

  it("refuses other dtypes and values, with the row", () => {
    for (const dtype of ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int5", undefined]) {
      assert.throws(() => scalars(dtype as NumericDType, []), SchemaError);
    }
    for (const dtype of NUMERIC) {
      for (const value of [...WRONG[dtype], undefined]) {
        assert.throws(() => scalars(dtype, [null, value as number]), {
          name: "SchemaError",
          message: /in row 1/,
        }, `${dtype} ${String(value)}`);
      }
    }
    assert.throws(() => scalars("int8", new Set([1]) as unknown as number[]), SchemaError);
  });
});

describe("ragged", () => {
  it("gives back typed arrays of every dtype", () => {
    for (const dtype of NUMERIC) {
      const one = tensor(dtype, [EXACT[dtype].length], EXACT[dtype]).data;
      const rows = [one, newArray(dtype, 0), null, newArray(dtype, 3), one.subarray(1)];
      const column = ragged(dtype, rows);
      assert.equal(column.rowFormat, "ndarray");
      assert.equal(column.shapes, null);
      assert.deepEqual(read(column), rows, dtype);
      assert.deepEqual(read(ragged(dtype, [])), []);
      assert.deepEqual(read(ragged(dtype, [null, null])), [null, null]);
    }
  });

  it("gives back arrays of numbers of every dtype", () => {
    for (const dtype of NUMERIC) {
      const rows = [[...EXACT[dtype]], [], null, [EXACT[dtype][1]!]] as (number[] | null)[];
      const column = ragged(dtype, rows);
      assert.equal(column.rowFormat, "list");
      assert.deepEqual(read(column), rows, dtype);
    }
  });

  it("keeps lists of equal length apart", () => {
    assert.deepEqual(read(ragged("int64", [[1, 2], [3, 4]])), [[1, 2], [3, 4]]);
  });

  it("gives back rows of more dimensions as they were given", () => {
    const nested = [[1, 2], [[1, 2, 3], [4, 5, 6]], null, [[]], [[[7]]], []];
    const column = ragged("int32", nested);
    assert.deepEqual(column.shapes, [[2], [2, 3], null, [1, 0], [1, 1, 1], [0]]);
    assert.deepEqual(read(column), nested);
    assert.deepEqual(read(ragged("bool", [[[true, false]], [true]])), [[[true, false]], [true]]);

    const matrix = tensor("float32", [2, 2], [1, 2, 3, 4]);
    const rows = read(ragged("float32", [Float32Array.of(9), matrix, null, tensor("float32", [1], [8])]));
    assert.deepEqual(rows[0], Float32Array.of(9));
    assert.ok(rows[1] instanceof Tensor);
    assert.deepEqual(rows[1].shape, [2, 2]);
    assert.deepEqual(rows[1].toNumbers(), [1, 2, 3, 4]);
    assert.notEqual(rows[1].bytes.buffer, matrix.bytes.buffer);
    assert.deepEqual(rows.slice(2), [null, Float32Array.of(8)]);
  });

  it("refuses mixed forms, other dtypes, uneven shapes and wrong elements, with the row", () => {
    const wrong: [NumericDType, unknown[], RegExp][] = [
      ["int64", [[1], BigInt64Array.of(1n)], /row 1 .* choose one/],
      ["int64", [null, tensor("int64", [1], [1]), [1]], /row 2 .* choose one/],
      ["int64", [new Float32Array(1)], /Float32Array in row 0/],
      ["int64", [null, tensor("int32", [1], [1])], /row 1 of a int64 column is a int32 tensor/],
      ["int64", [[[1, 2], [3]]], /row 0 .* one shape/],
      ["int64", [[[1], 2]], /row 0 .* one shape/],
      ["int64", [[1, [2]]], /at index 1 of row 0/],
      ["int64", [[[[[[[[[[1]]]]]]]]]], /row 0 .* one shape/],
      ["int64", [[1], [1, null]], /at index 1 of row 1/],
      ["int64", [[1.5]], /cannot hold 1.5 at index 0 of row 0/],
      ["int64", [undefined], /row 0 .* undefined/],
      ["int64", [1], /row 0/],
      ["int64", ["1"], /row 0/],
      ["bool", [Uint8Array.of(2)], /bool cannot hold 2 at index 0 in row 0/],
      ["uint8", [new DataView(new ArrayBuffer(1))], /DataView in row 0/],
    ];
    for (const [dtype, rows, message] of wrong) {
      assert.throws(() => ragged(dtype, rows as number[][]), { name: "SchemaError", message });
    }
    assert.throws(() => ragged("bfloat16" as NumericDType, []), /only a tensor/);
  });
});

describe("strings", () => {
  it("gives back any well-formed text", () => {
    const rng = random("strings");
    const parts = [
      "a",
      "\u0000",
      "é",
      "你",
      "😀",
      "\ufeff",
      "\ufffd",
      "\r\n",
      "x".repeat(300),
      "ß".repeat(100),
    ];
    for (let round = 0; round < 200; round++) {
      const rows = Array.from({ length: rng.below(20) }, () => {
        if (rng.next() < 0.2) return null;
        return Array.from({ length: rng.below(4) }, () => rng.pick(parts)).join("");
      });
      const column = strings(rows);
      assert.deepEqual(read(column), rows, `seed ${rng.seed}, round ${round}`);
      const size = rows.reduce((sum, row) => sum + Buffer.byteLength(row ?? ""), 0);
      assert.equal(column.data.byteLength, size);
    }
  });

  it("refuses lone surrogates and what is no string, with the row", () => {
    for (const text of ["\ud800", "a\udc00b", "\udc00\ud800"]) {
      assert.throws(() => strings(["fine", null, text]), /row 2 .* lone surrogate/);
    }
    for (const row of [undefined, 1, {}, new String("a")]) {
      assert.throws(() => strings([row as string]), /row 0 of a strings column/);
    }
    assert.throws(() => strings("abc" as unknown as string[]), SchemaError);
    assert.throws(() => strings(new Array(2)), /row 0 .* undefined/);
  });
});

describe("bytes", () => {
  it("keeps a copy of any bytes, and gives back views of that", () => {
    const rows = [
      Uint8Array.of(0, 255),
      null,
      new Uint8Array(0),
      new Uint8Array(70_000).fill(7),
      Uint8Array.of(1),
    ];
    const column = bytes(rows);
    rows[0]![0] = 9;
    const got = read(column) as (Uint8Array | null)[];
    assert.deepEqual(got, [Uint8Array.of(0, 255), ...rows.slice(1)]);
    got[0]![0] = 8;
    assert.deepEqual(read(column)[0], Uint8Array.of(8, 255));
    assert.deepEqual(read(bytes([Buffer.from("ab")])), [Uint8Array.of(97, 98)]);
    assert.deepEqual(read(bytes([])), []);
  });

  it("refuses what is no Uint8Array", () => {
    for (const row of [undefined, "a", [1], new ArrayBuffer(1), new Int8Array(1), new Uint8ClampedArray(1)]) {
      assert.throws(() => bytes([row as unknown as Uint8Array]), {
        name: "SchemaError",
        message: /row 0 of a bytes column/,
      });
    }
  });
});

describe("json", () => {
  it("gives back any JSON value, a null row for null", () => {
    const rows = [{ a: [1, { b: null }] }, [], "text", 0.5, true, null, 2n ** 70n, { "": "é😀" }, -0, 1e17];
    const column = json(rows);
    assert.deepEqual(read(column), rows);
    assert.deepEqual([...column.nulls!], rows.map((row) => Number(row === null)));
    assert.deepEqual(read(json([])), []);
  });

  it("refuses what JSON cannot hold, with row and path", () => {
    assert.throws(() => json([1, undefined]), { name: "SchemaError", message: /row 1: .*undefined at \$/ });
    assert.throws(() => json([{ a: [NaN] }]), { name: "SchemaError", message: /row 0: .*NaN at \$\.a\[0\]/ });
    assert.throws(() => json([new Map()]), SchemaError);
  });
});

describe("records", () => {
  it("keeps the values", () => {
    const leaf = tensor("int8", [1], [1]);
    const rows = [
      { a: leaf, b: [new Float32Array(1)] },
      null,
      "x",
      1,
      2n,
      true,
      [1],
      leaf,
      new Uint8Array(1),
    ];
    const column = records(rows);
    const got = read(column);
    for (const [i, row] of rows.entries()) assert.equal(got[i], row);
    assert.deepEqual([...column.nulls!], rows.map((row) => Number(row === null)));
    rows[0] = null;
    assert.notEqual(read(column)[0], null);
  });

  it("refuses what can be no row", () => {
    for (
      const row of [
        undefined,
        () => 1,
        Symbol("x"),
        new Date(0),
        new Map(),
        new DataView(new ArrayBuffer(1)),
      ]
    ) {
      assert.throws(() => records([row]), { name: "SchemaError", message: /row 0 of a records column/ });
    }
  });
});
