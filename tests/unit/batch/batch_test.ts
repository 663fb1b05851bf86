import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Batch, type Fields, toColumns } from "../../../src/batch/batch.ts";
import { bytes, json, ragged, records, scalars, strings, tensor } from "../../../src/batch/build.ts";
import type { Column, Kind } from "../../../src/batch/column.ts";
import type { TypedArray } from "../../../src/batch/dtype.ts";
import { Tensor } from "../../../src/batch/tensor.ts";
import { ClosedError, SchemaError } from "../../../src/errors.ts";

const KINDS: readonly Kind[] = ["tensor", "scalars", "ragged", "strings", "bytes", "json", "records"];

/** One column of each kind, three rows each, null in the middle where that may be. */
function columns(): Map<Kind, Column> {
  return new Map<Kind, Column>([
    ["tensor", tensor("int64", [3, 2], [1, 2, 3, 4, 5, 6])],
    ["scalars", scalars("float32", [0.5, null, 2])],
    ["ragged", ragged("int64", [[1, 2], null, []])],
    ["strings", strings(["a", null, "é"])],
    ["bytes", bytes([Uint8Array.of(1), null, new Uint8Array(0)])],
    ["json", json([{ a: 1 }, null, [2n ** 60n]])],
    ["records", records([{ x: 1 }, null, "r"])],
  ]);
}

function accessor(batch: Batch, kind: Kind, field: string): unknown {
  return batch[kind](field);
}

describe("Batch", () => {
  it("gives columns of the kind they are, and says so where they are of another", () => {
    const batch = new Batch(3, columns());
    assert.equal(batch.rows, 3);
    assert.deepEqual(batch.fields, KINDS);
    for (const field of KINDS) {
      assert.equal(batch.has(field), true);
      assert.equal(batch.column(field).kind, field);
      for (const kind of KINDS) {
        if (kind === field) accessor(batch, kind, field);
        else {
          assert.throws(() => accessor(batch, kind, field), (error: SchemaError) => {
            assert.equal(error.code, "SCHEMA");
            assert.deepEqual([error.details.field, error.details.expected, error.details.actual], [
              field,
              kind,
              field,
            ]);
            return true;
          });
        }
      }
    }
    assert.equal(batch.has("nothing"), false);
    assert.throws(
      () => batch.strings("nothing"),
      /no field "nothing" .* its fields are tensor, scalars, ragged/,
    );
    assert.throws(() => new Batch(0, []).column("x"), /the batch has no fields/);
  });

  it("gives rows by position, from the end too, and all of them", () => {
    const batch = new Batch(3, columns());
    const text = batch.strings("strings");
    assert.deepEqual([text.length, text.at(0), text.at(1), text.at(-1)], [3, "a", null, "é"]);
    assert.deepEqual([...text], ["a", null, "é"]);
    assert.deepEqual(text.toArray(), ["a", null, "é"]);
    assert.deepEqual(batch.scalars("scalars").toArray(), [0.5, null, 2]);
    assert.deepEqual(batch.ragged("ragged").toArray(), [[1, 2], null, []]);
    assert.deepEqual(batch.bytes("bytes").toArray(), [Uint8Array.of(1), null, new Uint8Array(0)]);
    assert.deepEqual(batch.json("json").toArray(), [{ a: 1 }, null, [2n ** 60n]]);
    assert.deepEqual(batch.records("records").toArray(), [{ x: 1 }, null, "r"]);
    for (const row of [3, -4, 0.5, NaN, "0" as unknown as number]) {
      assert.throws(() => text.at(row), SchemaError, String(row));
      assert.throws(() => batch.at(row), SchemaError, String(row));
    }
    const row = batch.at(-3);
    assert.deepEqual(Object.keys(row), KINDS);
    assert.deepEqual((row["tensor"] as Tensor).shape, [2]);
    assert.deepEqual((row["tensor"] as Tensor).toNumbers(), [1, 2]);
    assert.equal((row["tensor"] as Tensor).bytes.buffer, batch.tensor("tensor").bytes.buffer);
    assert.deepEqual([...batch].map(({ strings }) => strings), ["a", null, "é"]);
  });

  it("gives numbers for tensors of shape [rows]", () => {
    const batch = new Batch(2, [
      ["int64", tensor("int64", [2], [5, 2n ** 60n])],
      ["bool", tensor("bool", [2], [true, false])],
      ["bfloat16", tensor("bfloat16", [2], [1.5, -2])],
      ["float8_e4m3fn", tensor("float8_e4m3fn", [2], [448, 1])],
      ["float16", tensor("float16", [2], [0.5, NaN])],
      ["wide", tensor("int8", [2, 1], [1, 2])],
    ]);
    const { wide, ...row } = batch.at(0);
    assert.deepEqual(row, { int64: 5, bool: true, bfloat16: 1.5, float8_e4m3fn: 448, float16: 0.5 });
    assert.ok(wide instanceof Tensor);
    const { wide: _, ...last } = batch.at(-1);
    assert.deepEqual(last, { int64: 2n ** 60n, bool: false, bfloat16: -2, float8_e4m3fn: 1, float16: NaN });
  });

  it("is a normal value without rows, and without fields", () => {
    const none = new Batch(0, [
      ["tensor", tensor("float32", [0, 4], [])],
      ["scalars", scalars("bool", [])],
      ["ragged", ragged("int64", [])],
      ["strings", strings([])],
      ["bytes", bytes([])],
      ["json", json([])],
      ["records", records([])],
    ]);
    assert.deepEqual([...none], []);
    for (const kind of KINDS.slice(1)) {
      assert.equal((accessor(none, kind, kind) as { length: number }).length, 0);
    }
    assert.throws(() => none.at(0), SchemaError);
    assert.deepEqual([...new Batch(2, [])], [{}, {}]);
  });

  it("keeps field names that look like something else", () => {
    const batch = new Batch(1, [["__proto__", strings(["a"])], ["constructor", strings(["b"])]]);
    assert.deepEqual(Object.entries(batch.at(0)), [["__proto__", "a"], ["constructor", "b"]]);
  });

  it("has its own frozen meta, and its own list of columns", () => {
    const meta = { step: 7, seeds: [2n ** 60n] };
    const map = columns();
    const batch = new Batch(3, map, meta);
    meta.seeds[0] = 0n;
    map.clear();
    assert.deepEqual(batch.meta, { step: 7, seeds: [2n ** 60n] });
    assert.equal(batch.has("strings"), true);
    assert.ok(
      Object.isFrozen(batch.meta) && Object.isFrozen(batch.meta["seeds"]) && Object.isFrozen(batch.fields),
    );
    assert.deepEqual(new Batch(0, []).meta, {});
    assert.throws(() => new Batch(0, [], { a: undefined as unknown as null }), SchemaError);
  });

  it("refuses columns of other lengths", () => {
    assert.throws(() => new Batch(2, columns()), /field "tensor" has 3 rows instead of 2/);
  });

  it("throws after borrowed memory is released, whatever was read before", () => {
    const guard = { released: false };
    const borrowed = new Map<string, Column>();
    for (const [kind, column] of columns()) {
      const held = column.kind === "tensor"
        ? new Tensor(column.dtype, column.shape, column.bytes, guard)
        : { ...column, guard };
      borrowed.set(kind, held);
    }
    const batch = new Batch(3, borrowed);
    const rowTensor = batch.at(0)["tensor"] as Tensor;
    const iterators = KINDS.slice(1).map((kind) =>
      (accessor(batch, kind, kind) as Iterable<unknown>)[Symbol.iterator]()
    );
    for (const iterator of iterators) assert.equal(iterator.next().done, false);
    guard.released = true;
    assert.throws(() => rowTensor.data, ClosedError);
    assert.throws(() => batch.tensor("tensor").bytes, ClosedError);
    assert.throws(() => batch.at(0), ClosedError);
    for (const iterator of iterators) assert.throws(() => iterator.next(), ClosedError);
    for (const kind of KINDS.slice(1)) {
      const rows = accessor(batch, kind, kind) as { at(row: number): unknown; toArray(): unknown[] };
      assert.throws(() => rows.at(0), ClosedError, kind);
      assert.throws(() => rows.at(1), ClosedError, kind);
      assert.throws(() => rows.toArray(), ClosedError, kind);
    }
  });
});

describe("toColumns", () => {
  it("takes columns, bare typed arrays and batches", () => {
    const made = toColumns({
      a: strings(["x", "y"]),
      b: Float32Array.of(1, 2),
      c: tensor("int8", [2, 1], [1, 2]),
    });
    assert.deepEqual([...made.keys()], ["a", "b", "c"]);
    const bare = made.get("b") as Tensor;
    assert.deepEqual([bare.kind, bare.dtype, bare.shape], ["tensor", "float32", [2]]);
    const batch = new Batch(2, made);
    assert.deepEqual([...toColumns(batch).values()], [...made.values()]);
    assert.deepEqual([...toColumns(batch, 2).keys()], ["a", "b", "c"]);
    assert.equal(toColumns({}, 5).size, 0);
    assert.equal(toColumns({}, 0).size, 0);
    assert.equal(toColumns({}).size, 0);
    for (const array of [new Int8Array(1), new BigUint64Array(1), new Float16Array(1), new Uint16Array(1)]) {
      assert.equal((toColumns({ x: array }).get("x") as Tensor).data.buffer, array.buffer);
    }
  });

  it("names the constructor for what is no column", () => {
    const wrong: [unknown, RegExp][] = [
      [[1, 2], /tensor\(dtype, \[rows\], data\), or scalars/],
      [[null, 1n], /scalars/],
      [["a"], /use strings\(rows\)/],
      [[null, "a"], /use strings\(rows\)/],
      [[[1], [2]], /use ragged/],
      [[new Float32Array(1)], /use ragged/],
      [[new Uint8Array(1)], /use bytes/],
      [[{ a: 1 }], /use json\(rows\), or records/],
      [new DataView(new ArrayBuffer(1)), /use tensor\("uint8"/],
      [new Uint8ClampedArray(1), /use tensor\("uint8"/],
      [new ArrayBuffer(1), /use tensor\("uint8"/],
      ["text", /is no column/],
      [null, /is no column/],
      [undefined, /is no column/],
      [7, /is no column/],
      [{ kind: "unknown" }, /is no column/],
      [{ kind: "tensor", rows: 1 }, /is no column/],
    ];
    for (const [value, message] of wrong) {
      assert.throws(() => toColumns({ field: value } as Fields), (error: SchemaError) => {
        assert.match(error.message, message);
        assert.equal(error.details.field, "field");
        return error.code === "SCHEMA";
      });
    }
    for (const fields of [null, undefined, [], "x", 1, new Map([["a", strings([])]])]) {
      assert.throws(() => toColumns(fields as unknown as Fields), SchemaError);
    }
  });

  it("names field, expected and actual of unequal lengths", () => {
    const check = (message: RegExp, expected: number) => (error: SchemaError) => {
      assert.match(error.message, message);
      assert.deepEqual([error.details.field, error.details.expected, error.details.actual], [
        "b",
        expected,
        1,
      ]);
      return true;
    };
    const fields = { a: strings(["x", "y"]), b: strings(["x"]) };
    assert.throws(() => toColumns(fields), check(/field "b" has 1 rows instead of 2/, 2));
    assert.throws(() => toColumns({ b: fields.b }, 3), check(/field "b" has 1 rows instead of 3/, 3));
    assert.throws(() => toColumns(new Batch(1, []), 2), SchemaError);
    for (const rows of [-1, 0.5, NaN]) assert.throws(() => toColumns({}, rows), SchemaError);
  });

  it("refuses unusable field names", () => {
    for (const name of ["", "a/b", "a\nb", "\u0000", "\u001f", "\ud800"]) {
      assert.throws(() => toColumns({ [name]: strings([]) }), SchemaError, JSON.stringify(name));
      assert.throws(() => toColumns(new Batch(0, [[name, strings([])]])), SchemaError, JSON.stringify(name));
    }
    for (const name of ["a.b", "a b", "é", "__proto__", "a.data"]) {
      assert.deepEqual([...toColumns({ [name]: strings([]) }).keys()], [name]);
    }
  });

  it("is fast for 100,000 rows of text and tokens", () => {
    const texts = Array.from({ length: 100_000 }, (_, i) => "abcdefghij".repeat(20).slice(0, 190) + i);
    const tokens: TypedArray[] = texts.map((_, i) => new BigInt64Array(i % 64));
    const started = performance.now();
    const batch = new Batch(100_000, toColumns({ texts: strings(texts), tokens: ragged("int64", tokens) }));
    assert.equal(batch.strings("texts").toArray()[99_999], texts[99_999]);
    assert.equal((batch.ragged("tokens").at(-1) as TypedArray).length, 99_999 % 64);
    // about 150 ms on an idle machine
    assert.ok(performance.now() - started < 5000);
  });
});
