import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { arrayOver, type DType, DTYPES, itemSize, newArray } from "../../../src/batch/dtype.ts";
import { safeNumber, Tensor } from "../../../src/batch/tensor.ts";
import { ClosedError, SchemaError } from "../../../src/errors.ts";

describe("Tensor", () => {
  it("keeps shape, rows and bytes of every dtype", () => {
    for (const dtype of DTYPES) {
      const bytes = Uint8Array.from({ length: 6 * itemSize(dtype) }, (_, i) => i % 2);
      const made = new Tensor(dtype, [2, 3], bytes);
      assert.deepEqual([made.kind, made.dtype, made.rows, made.shape, made.nulls], ["tensor", dtype, 2, [
        2,
        3,
      ], null]);
      assert.equal(made.bytes, bytes);
      assert.equal(made.data.length, 6);
      assert.equal(made.data.constructor, newArray(dtype, 0).constructor);
      assert.equal(made.data.buffer, bytes.buffer);
      assert.equal(made.data, made.data);
      assert.equal(made.toNumbers().length, 6);
      assert.equal(made.toFloat32().length, 6);
    }
  });

  it("reads unaligned bytes through one copy", () => {
    const whole = new Uint8Array(1 + 16);
    const bytes = whole.subarray(1);
    bytes.set(new Uint8Array(BigInt64Array.of(-5n, 2n ** 60n).buffer));
    const made = new Tensor("int64", [2], bytes);
    assert.deepEqual([...made.data], [-5n, 2n ** 60n]);
    assert.equal(made.data, made.data);
    assert.deepEqual(made.toNumbers(), [-5, 2n ** 60n]);
  });

  it("may have no elements, and up to eight dimensions", () => {
    for (const shape of [[0], [0, 5], [5, 0], [1, 1, 1, 1, 1, 1, 1, 0]]) {
      const made = new Tensor("float64", shape, new Uint8Array(0));
      assert.equal(made.rows, shape[0]);
      assert.deepEqual(made.toNumbers(), []);
    }
    assert.deepEqual(new Tensor("int8", [2, 0], new Uint8Array(0)).toNested(), [[], []]);
    assert.deepEqual(new Tensor("int8", [0, 2], new Uint8Array(0)).toNested(), []);
  });

  it("refuses shapes and lengths that do not fit", () => {
    const wrong: [DType, readonly number[], number][] = [
      ["int8", [], 1],
      ["int8", [1, 1, 1, 1, 1, 1, 1, 1, 1], 1],
      ["int8", [-1], 0],
      ["int8", [0.5, 2], 1],
      ["int8", [NaN], 0],
      ["int8", ["2" as unknown as number], 2],
      ["int8", [2, 3], 5],
      ["int16", [2, 3], 6],
      ["int64", [2 ** 29 + 1], 0],
      ["int8", [2 ** 52, 2 ** 52], 0],
      ["int5" as DType, [1], 1],
    ];
    for (const [dtype, shape, size] of wrong) {
      assert.throws(() => new Tensor(dtype, shape, new Uint8Array(size)), SchemaError, `${dtype} [${shape}]`);
    }
    assert.throws(
      () => new Tensor("int16", [2, 3], new Uint8Array(6)),
      /int16 tensor of shape \[2,3\] has 12 bytes, not 6/,
    );
  });

  it("does not change with the shape it was given", () => {
    const shape = [2, 2];
    const made = new Tensor("int8", shape, new Uint8Array(4));
    shape[0] = 9;
    assert.deepEqual(made.shape, [2, 2]);
    assert.throws(() => ((made.shape as number[])[0] = 1), TypeError);
  });

  it("gives nested arrays, booleans for bool", () => {
    const bools = new Tensor("bool", [2, 1, 2], Uint8Array.of(1, 0, 0, 1));
    assert.deepEqual(bools.toNested(), [[[true, false]], [[false, true]]]);
    assert.deepEqual(bools.toNumbers(), [1, 0, 0, 1]);
    const halves = new Tensor("float16", [2], new Uint8Array(new Float16Array([0.5, -2]).buffer));
    assert.deepEqual(halves.toNested(), [0.5, -2]);
  });

  it("decodes bfloat16 and float8 to numbers", () => {
    const brain = new Tensor("bfloat16", [3], new Uint8Array(Uint16Array.of(0x3fc0, 0xff80, 0x0001).buffer));
    assert.deepEqual(brain.toNumbers(), [1.5, -Infinity, 2 ** -133]);
    assert.deepEqual([...brain.toFloat32()], [1.5, -Infinity, 2 ** -133]);
    assert.deepEqual([...brain.data], [0x3fc0, 0xff80, 0x0001]);
    assert.deepEqual(new Tensor("float8_e4m3fn", [2], Uint8Array.of(0x7e, 0x38)).toNumbers(), [448, 1]);
    assert.deepEqual(new Tensor("float8_e5m2", [2], Uint8Array.of(0x7b, 0x3c)).toNested(), [57344, 1]);
  });

  it("gives float32 as a copy", () => {
    const made = new Tensor("float32", [1], new Uint8Array(4));
    made.toFloat32()[0] = 1;
    assert.equal(made.data[0], 0);
    const large = new Tensor("uint64", [1], new Uint8Array(BigUint64Array.of(2n ** 63n).buffer));
    assert.deepEqual([...large.toFloat32()], [2 ** 63]);
  });

  it("throws once its memory is released, however it is read", () => {
    const guard = { released: false };
    const made = new Tensor("int8", [2], Uint8Array.of(1, 2), guard);
    assert.deepEqual(made.toNumbers(), [1, 2]);
    guard.released = true;
    const reads = [
      () => made.bytes,
      () => made.data,
      () => made.toNumbers(),
      () => made.toNested(),
      () => made.toFloat32(),
    ];
    for (const read of reads) assert.throws(read, ClosedError);
    assert.deepEqual(made.shape, [2]);
  });
});

describe("safeNumber", () => {
  it("is a number exactly where that is safe", () => {
    const limit = 2n ** 53n;
    assert.deepEqual([limit - 1n, limit, -limit, 1n - limit, 0n].map(safeNumber), [
      Number(limit - 1n),
      limit,
      -limit,
      Number(1n - limit),
      0,
    ]);
    assert.equal(safeNumber(limit + 1n), limit + 1n);
  });
});

describe("arrayOver", () => {
  it("gives a view of aligned bytes and a copy of others", () => {
    const bytes = new Uint8Array(new ArrayBuffer(24));
    assert.equal(arrayOver("float64", bytes.subarray(8)).buffer, bytes.buffer);
    assert.notEqual(arrayOver("float64", bytes.subarray(4, 20)).buffer, bytes.buffer);
  });
});
