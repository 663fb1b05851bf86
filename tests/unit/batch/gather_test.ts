import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Batch } from "../../../src/batch/batch.ts";
import { bytes, json, ragged, records, scalars, strings, tensor } from "../../../src/batch/build.ts";
import { checkColumn } from "../../../src/batch/check.ts";
import type { Column, Kind } from "../../../src/batch/column.ts";
import { arrayOver, type DType, DTYPES, isNumericDType, itemSize } from "../../../src/batch/dtype.ts";
import { concatColumns, emptyLike, gather, gatherFixed } from "../../../src/batch/gather.ts";
import { RowSet } from "../../../src/batch/rowset.ts";
import { Tensor } from "../../../src/batch/tensor.ts";
import { ClosedError, SchemaError } from "../../../src/errors.ts";
import { type Random, random } from "./random.ts";

/** Rows as plain values that compare deeply; Tensors by shape and bytes. */
function plain(column: Column): unknown[] {
  checkColumn("x", column);
  if (column.nulls !== null) assert.ok(column.nulls.includes(1), "nulls without a null row");
  return Array.from(
    new Batch(column.rows, [["x", column]]),
    ({ x }) => x instanceof Tensor ? { dtype: x.dtype, shape: x.shape, bytes: x.bytes.slice() } : x,
  );
}

function randomBytes(rng: Random, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => rng.below(256));
}

/** Columns of one kind, dtype and row shape with their own random content. */
function family(rng: Random): (rows: number) => Column {
  const kind = rng.pick<Kind>([
    "tensor",
    "tensor",
    "scalars",
    "ragged",
    "ragged",
    "strings",
    "bytes",
    "json",
    "records",
  ]);
  const dtype = rng.pick<DType>(DTYPES.filter((name) => kind === "tensor" || isNumericDType(name)));
  const rowShape = rng.pick<readonly number[]>([[], [], [1], [2], [3], [5, 1], [0], [7, 5], [40]]);
  const nullable = rng.next() < 0.5;
  const format = rng.pick(["list", "ndarray"]);
  const dimensions = rng.pick([1, 1, 2]);
  const orNull = <T>(make: () => T): T | null => nullable && rng.next() < 0.3 ? null : make();
  const text = () => "aé你😀".repeat(rng.below(20)).slice(0, 2 * rng.below(20)).toWellFormed();
  const raw = (elements: number) => {
    const data = randomBytes(rng, elements * itemSize(dtype));
    return dtype === "bool" ? data.map((byte) => byte & 1) : data;
  };
  return (rows) => {
    const each = <T>(make: () => T) => Array.from({ length: rows }, () => orNull(make));
    switch (kind) {
      case "tensor": {
        const elements = rowShape.reduce((product, dimension) => product * dimension, rows);
        // at any alignment
        const shift = rng.below(9);
        const data = new Uint8Array(elements * itemSize(dtype) + shift).subarray(shift);
        data.set(raw(elements));
        return new Tensor(dtype, [rows, ...rowShape], data);
      }
      case "scalars": {
        const elements = arrayOver(dtype, raw(rows));
        return scalars(
          dtype as "int64",
          Array.from({ length: rows }, (_, i) => orNull(() => elements[i]!)),
        );
      }
      case "ragged":
        return ragged(
          dtype as "int64",
          each(() => {
            const length = rng.below(rng.pick([1, 4, 60]));
            const isMatrix = dimensions > 1 && rng.next() < 0.5;
            const matrix = new Tensor(
              dtype,
              isMatrix ? [length, 2] : [length],
              raw(length * (isMatrix ? 2 : 1)),
            );
            return (format === "list" ? matrix.toNested() : isMatrix ? matrix : matrix.data) as number[];
          }),
        );
      case "strings":
        return strings(each(text));
      case "bytes":
        return bytes(each(() => randomBytes(rng, rng.below(60))));
      case "json":
        return json(each(() => ({ text: text(), n: rng.below(9) })));
      default:
        return records(each(() => ({ at: rng.below(1000) })));
    }
  };
}

function someRows(rng: Random, limit: number): number[] {
  if (limit === 0) return [];
  switch (rng.below(5)) {
    case 0:
      return [];
    case 1: {
      const start = rng.below(limit);
      return Array.from({ length: 1 + rng.below(limit - start) }, (_, i) => start + i);
    }
    case 2:
      return Array.from({ length: limit }, (_, i) => limit - 1 - i);
    case 3: {
      const block = Array.from({ length: limit }, (_, i) => i);
      return [...block, ...block.slice(limit >> 1), ...block];
    }
    default:
      return Array.from({ length: rng.below(3 * limit) }, () => rng.below(limit));
  }
}

describe("gather and concatColumns", () => {
  it("do with every kind of column what index and concat do with arrays", () => {
    const rng = random("gather");
    for (let round = 0; round < 600; round++) {
      const what = `seed ${rng.seed}, round ${round}`;
      const make = family(rng);
      const column = make(rng.pick([0, 1, 2, 7, 40]));
      const values = plain(column);
      const rows = someRows(rng, column.rows);
      const gathered = gather(column, RowSet.of(rows));
      assert.deepEqual(plain(gathered), rows.map((row) => values[row]), what);
      assert.equal(gathered.kind, column.kind);

      const parts = [gathered, make(rng.below(5)), make(0), column, emptyLike(column)];
      const joined = concatColumns(parts);
      assert.deepEqual(plain(joined), parts.flatMap(plain), what);
      // back to what it was made of
      const tail = RowSet.range(joined.rows - column.rows, column.rows);
      assert.deepEqual(plain(gather(joined, tail)), values, what);
      assert.deepEqual(plain(emptyLike(column)), [], what);
      if (column.kind === "tensor") {
        assert.deepEqual((gathered as Tensor).shape, [rows.length, ...column.shape.slice(1)], what);
        assert.deepEqual((emptyLike(column) as Tensor).shape, [0, ...column.shape.slice(1)], what);
      }
    }
  });

  it("give new memory", () => {
    const source = tensor("int32", [3], [1, 2, 3]);
    const all = gather(source, RowSet.all(3)) as Tensor;
    assert.notEqual(all.bytes.buffer, source.bytes.buffer);
    const text = strings(["a", "b"]);
    const copy = gather(text, RowSet.all(2));
    assert.ok(copy.kind === "strings" && copy.data.buffer !== text.data.buffer);
  });

  it("refuse rows that are not there", () => {
    assert.throws(() => gather(strings(["a"]), RowSet.of([1])), SchemaError);
    assert.throws(() => gather(tensor("int8", [0], []), RowSet.of([0])), SchemaError);
    assert.throws(() => gather(records([]), RowSet.of([0])), SchemaError);
  });

  it("refuse columns that differ", () => {
    const different: Column[] = [
      tensor("int8", [1], [1]),
      tensor("int16", [1], [1]),
      tensor("int8", [1, 1], [1]),
      tensor("int8", [0, 2], []),
      scalars("int8", [1]),
      scalars("uint8", [1]),
      ragged("int8", [[1]]),
      ragged("uint8", [[1]]),
      strings(["a"]),
      bytes([null]),
      json([1]),
      records([1]),
    ];
    for (const first of different) {
      for (const second of different) {
        if (first !== second) assert.throws(() => concatColumns([first, second]), SchemaError);
        else concatColumns([first, second]);
      }
    }
    assert.throws(() => concatColumns([]), SchemaError);
    assert.throws(
      () => concatColumns([different[0]!, different[2]!]),
      /int8 tensor of rows of shape \[1\] cannot follow a int8 tensor of rows of shape \[\]/,
    );
  });

  it("let lists win over typed arrays", () => {
    const joined = concatColumns([ragged("int8", [Int8Array.of(1)]), ragged("int8", [[2]])]);
    assert.deepEqual(plain(joined), [[1], [2]]);
  });

  it("make an owned column of a borrowed one, and throw after its release", () => {
    const guard = { released: false };
    const borrowed: Column[] = [
      new Tensor("int8", [2], Uint8Array.of(1, 2), guard),
      { ...strings(["a", "b"]), guard },
      { ...scalars("int8", [1, null]), guard },
      { ...ragged("int8", [[1], []]), guard },
      { ...records([1, 2]), guard },
    ];
    const owned = borrowed.map((column) => concatColumns([column]));
    for (const column of owned) assert.equal(column.guard, undefined);
    const plainColumn = strings(["a"]);
    assert.equal(concatColumns([plainColumn]), plainColumn);
    guard.released = true;
    for (const column of borrowed) {
      assert.throws(() => gather(column, RowSet.all(1)), ClosedError);
      assert.throws(() => concatColumns([column, column]), ClosedError);
    }
    assert.deepEqual(owned.map(plain), [[1, 2], ["a", "b"], [1, null], [[1], []], [1, 2]]);
  });

  it("keep the bits of NaNs", () => {
    const bits = Uint32Array.of(0x7fa00001, 0xffc12345, 0x7ff00002, 0xfff00000);
    for (const dtype of ["float32", "float64"] as const) {
      const size = 16 / itemSize(dtype);
      const source = new Tensor(dtype, [size], new Uint8Array(bits.buffer.slice(0)));
      const backwards = gather(source, RowSet.range(size - 1, size, -1));
      const again = gather(backwards, RowSet.range(size - 1, size, -1)) as Tensor;
      assert.deepEqual(again.bytes, source.bytes);
    }
  });

  it("refuse results of more than 4 GiB before they allocate", () => {
    const wide = new Uint8Array(1 << 20);
    assert.throws(() => gatherFixed(wide, 1 << 20, RowSet.range(0, 4097, 0)), /more than 4 GiB/);
    const text = strings(["x".repeat(1 << 20)]);
    assert.throws(() => gather(text, RowSet.range(0, 4096, 0)), /more than 4 GiB/);
  });
});
