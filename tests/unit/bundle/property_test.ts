/**
 * Encoding and decoding is the identity, for columns of every kind that fast-check can think of.
 *
 * A failure prints its seed and path; BATCHFERRY_TEST_SEED runs a seed again.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import process from "node:process";
import { describe, it } from "node:test";
import fc from "fast-check";
import { bytes, json, ragged, records, scalars, strings } from "../../../src/batch/build.ts";
import type { Column } from "../../../src/batch/column.ts";
import {
  bytesOf,
  type DType,
  DTYPES,
  isNumericDType,
  itemSize,
  newArray,
  type NumericDType,
  type TypedArray,
} from "../../../src/batch/dtype.ts";
import { gather } from "../../../src/batch/gather.ts";
import { parseJson } from "../../../src/batch/json.ts";
import { rowsOf } from "../../../src/batch/rows.ts";
import { RowSet } from "../../../src/batch/rowset.ts";
import { Tensor } from "../../../src/batch/tensor.ts";
import { buildBundle, type BuildOptions } from "../../../src/bundle/build.ts";
import { type BundleInfo, openBundle } from "../../../src/bundle/bundle.ts";
import type { EncodedFields } from "../../../src/bundle/encoded.ts";
import { handleText, parseHandle } from "../../../src/bundle/handle.ts";
import { parseManifest } from "../../../src/bundle/manifest.ts";
import { payloadToChunks, wholePayloadReads } from "../../../src/bundle/ranges.ts";
import { decodeColumn, readTensorInto } from "../../../src/bundle/read.ts";
import { scaled } from "../../support/runtime.ts";
import { BUILD, column as readBack, joined, type Objects, readRanges, run } from "./helpers.ts";

const NUMERIC = DTYPES.filter(isNumericDType);

function check<Ts extends [unknown, ...unknown[]]>(
  property: fc.IPropertyWithHooks<Ts>,
  count = 2000,
): void {
  const seed = process.env.BATCHFERRY_TEST_SEED;
  fc.assert(property, { numRuns: scaled(count), ...(seed === undefined ? {} : { seed: Number(seed) | 0 }) });
}

// comparisons

/** Texts back to back. */
function varlenOf(texts: readonly string[]): { data: Uint8Array; offsets: Uint32Array } {
  const encoder = new TextEncoder();
  const offsets = new Uint32Array(texts.length + 1);
  texts.forEach((text, i) => offsets[i + 1] = offsets[i]! + encoder.encode(text).length);
  return { data: encoder.encode(texts.join("")), offsets };
}

/** Any value as something that deepEqual compares bit by bit; what is stored as the same value is the same. */
function exact(value: unknown): unknown {
  if (value instanceof Tensor) return { dtype: value.dtype, shape: [...value.shape], hex: hex(value.bytes) };
  if (ArrayBuffer.isView(value)) return { array: value.constructor.name, hex: hex(bytesOf(value)) };
  if (Array.isArray(value)) return value.map(exact);
  if (typeof value === "object" && value !== null) {
    // entries, because keys may be __proto__; sorted, because the order of keys is not kept
    return {
      entries: Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1).map(([k, v]) => [k, exact(v)]),
    };
  }
  if (typeof value === "bigint" && Number.isSafeInteger(Number(value))) return Number(value);
  return value;
}

function hex(data: Uint8Array): string {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("hex");
}

function form(column: Column): unknown {
  const { kind, rows } = column;
  if (kind === "tensor") return { kind, rows, ...exact(column) as object };
  const nulls = column.nulls === null ? null : hex(column.nulls);
  if (kind === "records") return { kind, rows, nulls, values: exact(column.values) };
  const base = { kind, rows, nulls, data: hex(column.data) };
  if (kind === "scalars") return { ...base, dtype: column.dtype };
  const offsets = [...column.offsets];
  if (kind !== "ragged") return { ...base, offsets };
  const { dtype, shapes, rowFormat } = column;
  return { ...base, offsets, dtype, shapes, rowFormat };
}

/** Rows as values, by JavaScript's own means: what `gather` must give. */
function picked(column: Column, rows: RowSet): unknown {
  const values = rowsOf(column).toArray().map(exact);
  return [...rows].map((row) => values[row]);
}

// how a bundle is written and read

interface Way {
  readonly numpy: boolean;
  readonly chunkBytes: number | null;
  readonly checksums: boolean;
  readonly annotations: boolean;
  /** Positions of rows, as fractions of the row count; repeats are likely. */
  readonly picks: readonly number[];
  readonly slice: readonly [start: number, length: number, step: number];
}

const fraction = fc.integer({ min: 0, max: 999 }).map((n) => n / 1000);
const way: fc.Arbitrary<Way> = fc.record({
  numpy: fc.boolean(),
  chunkBytes: fc.constantFrom(null, 1, 2, 3, 7, 16, 64, 303, 305, 400),
  checksums: fc.boolean(),
  annotations: fc.boolean(),
  picks: fc.array(fraction, { maxLength: 12 }),
  slice: fc.tuple(fraction, fraction, fc.integer({ min: 1, max: 3 })),
});

/** The encodings as a handle carries them: through its text and back. */
function throughHandle(bundle: BundleInfo): EncodedFields {
  const text = handleText({
    batchSize: bundle.rows,
    namespace: bundle.namespace,
    partition: bundle.partition,
    globalIndexes: null,
    stages: new Map([[bundle.stage, bundle.manifestKey]]),
    fields: new Map(),
    metaInfo: {},
    encodedNonTensor: bundle.encoded,
  });
  return parseHandle(parseJson(text)).encodedNonTensor;
}

function roundTrip(columns: ReadonlyMap<string, Column>, how: Way): void {
  const rows = [...columns.values()][0]!.rows;
  const numpy = how.numpy &&
    columns.values().every((column) => column.kind !== "tensor" || isNumericDType(column.dtype));
  const options: BuildOptions = {
    ...BUILD,
    rows,
    columns,
    tensorEncoding: numpy ? "numpy" : "torch",
    chunkBytes: how.chunkBytes,
    checksums: how.checksums,
    annotations: how.annotations,
  };
  const built = buildBundle(options);
  const objects: Objects = new Map(built.objects.map((object) => [object.key, joined(object)]));
  const { manifestKey } = built.bundle;
  const manifestBytes = objects.get(manifestKey)!;
  const meta = wholePayloadReads(parseManifest(manifestKey, manifestBytes).meta);
  readRanges(objects, meta.ranges);
  const encoded = how.annotations ? undefined : throughHandle(built.bundle);
  const bundle = openBundle(manifestKey, manifestBytes, meta.bytes, encoded);
  assert.deepEqual([...bundle.fields.keys()], [...columns.keys()]);
  for (const [field, column] of columns) readField(objects, bundle, field, column, how);
}

function readField(objects: Objects, bundle: BundleInfo, field: string, column: Column, how: Way): void {
  const { rows } = column;
  const stored = bundle.fields.get(field)!;
  assert.equal(stored.kind, column.kind);
  assert.deepEqual(form(readBack(objects, bundle, field)), form(column), "whole");

  const payloads = new Map(
    stored.reader.members.map(({ name, payload }) => {
      const into = new Uint8Array(payload.bytes);
      readRanges(objects, payloadToChunks(payload, [{ member: name, offset: 0, into }]));
      return [name, into];
    }),
  );
  assert.deepEqual(form(decodeColumn(bundle, field, payloads)), form(column), "in place");

  const [first, length, step] = how.slice;
  const start = Math.floor(first * rows);
  const count = Math.floor(length * (Math.ceil((rows - start) / step) + 1));
  const slice = RowSet.range(start, Math.min(count, Math.ceil((rows - start) / step)), step);
  const list = RowSet.of(rows === 0 ? [] : how.picks.map((pick) => Math.floor(pick * rows)));
  for (const chosen of [slice, list]) {
    const read = readBack(objects, bundle, field, chosen);
    assert.deepEqual(rowsOf(read).toArray().map(exact), picked(column, chosen), `rows ${[...chosen]}`);
    assert.deepEqual(form(read), form(gather(column, chosen)), `rows ${[...chosen]}`);
  }
  if (column.kind !== "tensor") return;
  // straight to where rows belong, last one first
  const width = rows === 0 ? 0 : column.bytes.byteLength / rows;
  const out = new Uint8Array(list.length * width);
  const backwards = RowSet.range(Math.max(0, list.length - 1), list.length, -1);
  run(objects, bundle, readTensorInto(bundle, field, list, out, backwards));
  assert.equal(hex(out), hex((gather(column, list.select(backwards)) as Tensor).bytes));
}

// columns

const MOST_ROWS = 10;
/** Any well-formed text: NUL, byte order marks, U+FFFD and characters beyond 16 bits too. */
const text = fc.string({ unit: "binary", maxLength: 12 });
const raw = fc.uint8Array({ maxLength: 20 }).map((given) => new Uint8Array(given));

function dataOf(dtype: DType, length: number): fc.Arbitrary<Uint8Array> {
  const size = length * itemSize(dtype);
  return fc.uint8Array({ minLength: size, maxLength: size, ...(dtype === "bool" ? { max: 1 } : {}) })
    .map((given) => new Uint8Array(given));
}

function tensorOf(dtype: DType, shape: readonly number[]): fc.Arbitrary<Tensor> {
  const length = shape.reduce((product, size) => product * size, 1);
  return dataOf(dtype, length).map((data) => new Tensor(dtype, shape, data));
}

/** A number a row of the dtype may be given as. */
function numberOf(dtype: NumericDType): fc.Arbitrary<number | bigint | boolean> {
  if (dtype === "bool") return fc.boolean();
  if (dtype === "int64") return fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
  if (dtype === "uint64") return fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
  if (dtype === "float64") return fc.double();
  if (dtype === "float32") return fc.float();
  if (dtype === "float16") return fc.float({ min: -65504, max: 65504 }).map(Math.f16round);
  const bits = itemSize(dtype) * 8;
  return dtype.startsWith("u")
    ? fc.integer({ min: 0, max: 2 ** bits - 1 })
    : fc.integer({ min: -(2 ** (bits - 1)), max: 2 ** (bits - 1) - 1 });
}

function typedArray(dtype: NumericDType): fc.Arbitrary<TypedArray> {
  return fc.integer({ min: 0, max: 5 }).chain((length) =>
    dataOf(dtype, length).map((data) => {
      const array = newArray(dtype, length);
      bytesOf(array).set(data);
      return array;
    })
  );
}

function nested(dtype: NumericDType): fc.Arbitrary<never[]> {
  const build = (shape: readonly number[]): fc.Arbitrary<unknown> => {
    const [size, ...rest] = shape;
    if (size === undefined) return numberOf(dtype);
    return fc.array(build(rest), { minLength: size, maxLength: size });
  };
  return fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 3 }).chain((shape) => {
    // what is below an empty dimension cannot be seen in nested arrays
    const zero = shape.indexOf(0);
    return build(zero < 0 ? shape : shape.slice(0, zero + 1)) as fc.Arbitrary<never[]>;
  });
}

const shapes = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 });
const numeric = fc.constantFrom(...NUMERIC);

function nullable<T>(rows: number, value: fc.Arbitrary<T>, nulls = 3): fc.Arbitrary<(T | null)[]> {
  return fc.array(fc.option(value, { freq: nulls }), { minLength: rows, maxLength: rows });
}

/** Columns of `rows` rows, by what they are called in the tests. */
const kinds: Readonly<Record<string, (rows: number) => fc.Arbitrary<Column>>> = {
  "tensor of every dtype": (rows) =>
    fc.tuple(fc.constantFrom(...DTYPES), shapes).chain(([dtype, shape]) => tensorOf(dtype, [rows, ...shape])),
  "scalars": (rows) =>
    numeric.chain((dtype) => nullable(rows, numberOf(dtype)).map((values) => scalars(dtype, values))),
  "ragged lists": (rows) =>
    numeric.chain((dtype) =>
      nullable(rows, fc.array(numberOf(dtype), { maxLength: 5 })).map((values) =>
        ragged(dtype, values as never[])
      )
    ),
  "ragged nested lists": (rows) =>
    numeric.chain((dtype) => nullable(rows, nested(dtype)).map((values) => ragged(dtype, values))),
  "ragged arrays": (rows) =>
    numeric.chain((dtype) => nullable(rows, typedArray(dtype)).map((values) => ragged(dtype, values))),
  "ragged tensors": (rows) =>
    numeric.chain((dtype) => {
      const shape = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 4 });
      const row = fc.oneof(typedArray(dtype), shape.chain((shape) => tensorOf(dtype, shape)));
      return nullable(rows, row).map((values) => ragged(dtype, values));
    }),
  "strings": (rows) => nullable(rows, text).map(strings),
  "bytes": (rows) => nullable(rows, raw).map(bytes),
  "json": (rows) => nullable(rows, jsonValue).map(json),
  "records": (rows) => recordRows(rows).map(records),
  "ragged as tensors": (rows) =>
    numeric.chain((dtype) =>
      nullable(rows, typedArray(dtype)).map((values) => ragged(dtype, values, { storedAs: "ragged_tensor" }))
    ),
  "ragged as one jagged tensor": (rows) =>
    fc.tuple(numeric, fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 2 })).chain(([dtype, inner]) => {
      const row = fc.integer({ min: 0, max: 4 }).chain((length) => tensorOf(dtype, [length, ...inner]));
      return fc.array(row, { minLength: rows, maxLength: rows }).map((values) =>
        ragged(dtype, values, { storedAs: "jagged" })
      );
    }),
  // without rows nothing tells the dtype, nor that rows are images
  "tensors that NumPy lacks as one jagged tensor": (rows) =>
    rows === 0
      ? fc.constant(records([]))
      : fc.constantFrom<DType>("bfloat16", "float8_e4m3fn", "float8_e5m2").chain((dtype) => {
        const row = fc.integer({ min: 0, max: 4 }).chain((length) => tensorOf(dtype, [length, 2]));
        return fc.array(row, { minLength: rows, maxLength: rows }).map((values) =>
          records(values, { storedAs: "jagged" })
        );
      }),
  "records as dicts of tensors": (rows) =>
    fc.uniqueArray(fc.tuple(fc.constantFrom("a", "b c", "é", "__proto__", "0"), numeric), {
      maxLength: 3,
      selector: ([key]) => key,
    }).chain((keys) =>
      nullable(
        rows,
        fc.tuple(
          ...keys.map(([, dtype]) =>
            fc.option(
              fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 3 })
                .chain((shape) => tensorOf(dtype, shape)),
            )
          ),
        ).map((values) =>
          Object.fromEntries(
            keys.map(([key], i) => [key, values[i]] as const).filter(([, value]) => value !== null),
          )
        ),
      ).map((values) => records(values, { storedAs: "ragged_tensor_dict" }))
    ),
  "records as MessagePack": (rows) =>
    nullable(rows, packable).map((values) => records(values, { storedAs: "msgpack_ragged" })),
  "bytes as media": (rows) => nullable(rows, raw).map((values) => bytes(values, { storedAs: "media_bytes" })),
  // at least one image or item: what has none is as well another kind of column
  "images and bytes": (rows) =>
    fc.tuple(nullable(rows, fc.oneof(raw, image)), image).map(([values, first]) =>
      records(rows === 0 ? [] : values.with(0, first))
    ),
  "lists of images and bytes": (rows) =>
    fc.tuple(
      nullable(rows, fc.array(fc.oneof(raw, image, fc.constant(null)), { maxLength: 4 })),
      raw,
    )
      .map(([values, first]) => records(rows === 0 ? [] : values.with(0, [first]))),
};

const image = fc.record({
  mode: fc.constantFrom("RGB", "L", "RGBA"),
  size: fc.tuple(fc.nat(9), fc.nat(9)),
  format: fc.constantFrom(null, "PNG"),
  data: fc.uint8Array({ maxLength: 12 }).map((data) => new Uint8Array(data)),
});

const keyText = fc.oneof(
  text,
  fc.constantFrom("", "a", "b", "a.b", "[0]", "a[0].b", "\\", "\\.", "__proto__", "constructor", "0", "7"),
);

const jsonValue: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    fc.oneof(
      fc.constant(null),
      fc.boolean(),
      fc.integer(),
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      fc.bigInt({ min: -(2n ** 200n), max: 2n ** 200n }),
      text,
    ),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(keyText, tie("value"), { maxKeys: 4, noNullPrototype: true }),
  ),
})).value;

/** What MessagePack has a form for and JavaScript reads as the same value: integers of up to 64 bits. */
const packable: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    fc.oneof(
      fc.constant(null),
      fc.boolean(),
      fc.maxSafeInteger(),
      fc.integer({ min: -300, max: 300 }),
      fc.double(),
      fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }),
      fc.bigInt({ min: -(2n ** 63n), max: -(2n ** 53n) }),
      text,
      raw,
      fc.integer({ min: 250, max: 300 }).map((length) => "x".repeat(length)),
    ),
    fc.array(tie("value"), { maxLength: 20 }),
    fc.dictionary(keyText, tie("value"), { maxKeys: 20, noNullPrototype: true }),
  ),
})).value.filter((value) => value !== null);

/**
 * Rows of nested values, each place of one form in all rows: what a records column can hold. `null` is null,
 * and `undefined` stands for a key or an item that is not there.
 */
type Values = readonly unknown[];

function recordRows(rows: number, depth = 2): fc.Arbitrary<unknown[]> {
  const leaf = <T>(value: fc.Arbitrary<T>) => nullable<unknown>(rows, value);
  const leaves = fc.oneof(
    leaf(fc.boolean()),
    leaf(fc.maxSafeInteger()),
    leaf(fc.double()),
    leaf(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })),
    leaf(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
    leaf(text),
    leaf(raw),
    leaf(jsonValue),
    numeric.filter((dtype) => dtype !== "uint8" && dtype !== "bool").chain((dtype) =>
      leaf(typedArray(dtype))
    ),
    numeric.chain((dtype) =>
      leaf(
        fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 3 })
          .chain((shape) => tensorOf(dtype, shape)),
      )
    ),
  );
  if (depth === 0) return leaves as fc.Arbitrary<unknown[]>;
  const child = fc.tuple(
    recordRows(rows, depth - 1),
    fc.array(fc.boolean(), { minLength: rows, maxLength: rows }),
  );
  const present = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: rows, maxLength: rows });
  const dicts = fc.tuple(
    fc.uniqueArray(fc.tuple(keyText, child), { maxLength: 3, selector: ([key]) => key }),
    present,
  )
    .map(([children, present]) =>
      present.map((there, row) => {
        if (there === 0) return null;
        // some values are left out
        const entries = children.filter(([, [, kept]]) => kept[row]).map((
          [key, [values]],
        ) => [key, values[row]]);
        return Object.fromEntries(entries as [string, unknown][]);
      })
    );
  const lists = fc.tuple(fc.array(recordRows(rows, depth - 1), { maxLength: 3 }), present)
    .map(([children, lengths]) =>
      lengths.map((length, row) =>
        length === 0 ? null : children.slice(0, length - 1).map((values) => values[row])
      )
    );
  return fc.oneof(
    { arbitrary: leaves as fc.Arbitrary<Values>, weight: 2 },
    { arbitrary: dicts as fc.Arbitrary<Values>, weight: 2 },
    { arbitrary: lists as fc.Arbitrary<Values>, weight: 1 },
  ) as fc.Arbitrary<unknown[]>;
}

const rowCount = fc.oneof({ arbitrary: fc.integer({ min: 0, max: MOST_ROWS }), weight: 9 }, {
  arbitrary: fc.integer({ min: 30, max: 60 }),
  weight: 1,
});

/** Names that are hard on keys, JSON and JavaScript's objects. */
const suffix = fc.constantFrom("", "a", "é😀", "a.data", ".x", "__proto__", " b", "\\", '"', "[0]", "\u2028");

describe("encoding and decoding is the identity:", () => {
  for (const [name, columnOf] of Object.entries(kinds)) {
    it(name, () => {
      check(
        fc.property(rowCount.chain(columnOf), way, (column, how) => roundTrip(new Map([["f", column]]), how)),
      );
    });
  }

  it("json as MessagePack, integers and fractions told apart", () => {
    check(fc.property(rowCount.chain((rows) => nullable(rows, jsonValue)), (values) => {
      let column: Column;
      try {
        column = { ...json(values), storedAs: "msgpack_ragged" };
        buildBundle({ ...BUILD, rows: column.rows, columns: new Map([["f", column]]) });
      } catch (error) {
        // integers of more than 64 bits
        assert.match((error as Error).message, /more than 64 bits/);
        return;
      }
      const built = buildBundle({ ...BUILD, rows: column.rows, columns: new Map([["f", column]]) });
      const objects: Objects = new Map(built.objects.map((object) => [object.key, joined(object)]));
      const read = readBack(objects, built.bundle, "f");
      assert.equal(read.kind, "records");
      assert.deepEqual(rowsOf(read).toArray().map(exact), rowsOf(column).toArray().map(exact));
    }));
    const texts = ["1", "1.0", "-0", "1e3", "[1.5,2.0,3]", '{"a\\u0022b":[]}', " [ 1 , 2 ] "];
    const column = { ...json(texts.map(() => 0)), ...varlenOf(texts) } as Column;
    const built = buildBundle({
      ...BUILD,
      rows: texts.length,
      columns: new Map([["f", { ...column, storedAs: "msgpack_ragged" } as Column]]),
    });
    const data = built.objects.find(({ key }) => key.endsWith("/buffer/non_tensor_batch.f.data"))!;
    const float = (n: number) =>
      `cb${hex(bytesOf(new BigUint64Array([new DataView(Float64Array.of(n).buffer).getBigUint64(0)])))}`;
    assert.equal(
      hex(joined(data)),
      `01${float(1)}00${float(1000)}93${float(1.5)}${float(2)}0381a361226290920102`,
    );
  });

  it("many columns in one bundle", () => {
    const columnsOf = (rows: number) =>
      fc.array(
        fc.tuple(suffix, fc.constantFrom(...Object.values(kinds)).chain((columnOf) => columnOf(rows))),
        { minLength: 1, maxLength: 5 },
      ).map((columns) => new Map(columns.map(([suffix, column], i) => [`${i}${suffix}`, column])));
    check(fc.property(rowCount.chain(columnsOf), way, roundTrip), 1000);
  });

  it("a column whose field is called as objects have it", () => {
    check(
      fc.property(
        fc.constantFrom("__proto__", "constructor", "0", "toString", "a.data"),
        kinds.strings!(3),
        way,
        (
          field,
          column,
          how,
        ) => roundTrip(new Map([[field, column]]), how),
      ),
      200,
    );
  });
});
