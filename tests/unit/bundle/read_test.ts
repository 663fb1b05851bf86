import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { bytes, json, ragged, records, scalars, strings, tensor } from "../../../src/batch/build.ts";
import type { Column } from "../../../src/batch/column.ts";
import {
  DTYPES,
  isBig,
  isNumericDType,
  itemSize,
  newArray,
  type NumericDType,
} from "../../../src/batch/dtype.ts";
import { gather } from "../../../src/batch/gather.ts";
import { RowSet } from "../../../src/batch/rowset.ts";
import { Tensor } from "../../../src/batch/tensor.ts";
import type { BundleInfo } from "../../../src/bundle/bundle.ts";
import type { PayloadRange } from "../../../src/bundle/ranges.ts";
import {
  columnPlaces,
  decodeColumn,
  readColumn,
  readTensorInto,
  tensorPlace,
} from "../../../src/bundle/read.ts";
import { build, column, open, plain, randomBytes, run, seeded, stored } from "./helpers.ts";

const ROWS = 61;

function randomTensor(random: () => number, dtype: typeof DTYPES[number], shape: readonly number[]): Tensor {
  const length = shape.reduce((product, size) => product * size, itemSize(dtype));
  const data = randomBytes(random, length);
  return new Tensor(dtype, shape, dtype === "bool" ? data.map((byte) => byte & 1) : data);
}

function randomNumber(random: () => number, dtype: NumericDType): number | bigint | boolean {
  if (dtype === "bool") return random() % 2 === 0;
  if (dtype.startsWith("float")) return (random() % 512) / 4;
  return isBig(dtype) ? BigInt(random()) * 2n ** 20n : random() % 100;
}

function rows<T>(random: () => number, nullable: boolean, make: () => T): (T | null)[] {
  return Array.from({ length: ROWS }, () => nullable && random() % 4 === 0 ? null : make());
}

function text(random: () => number): string {
  return "aé漢😀".repeat(random() % 9).slice(0, 2 * (random() % 12)).toWellFormed();
}

/** Columns of all kinds and dtypes, with and without nulls. */
function columns(seed: number): Record<string, Column> {
  const random = seeded(seed);
  const out: Record<string, Column> = {
    "zero width": randomTensor(random, "float32", [ROWS, 0]),
    "wide": randomTensor(random, "uint8", [ROWS, 700]),
    "é": randomTensor(random, "int16", [ROWS, 2, 3]),
    "no strings": strings(rows(random, true, () => null)),
    "empty lists": ragged("int64", rows(random, false, () => [])),
    "lists of lists": ragged("int32", rows(random, true, () => [[1, 2], [3, random() % 9]])),
    "arrays of shapes": ragged(
      "float32",
      rows(random, true, () => randomTensor(random, "float32", [random() % 3, 2])),
    ),
  };
  for (const dtype of DTYPES) {
    out[`t ${dtype}`] = randomTensor(random, dtype, [ROWS, 1 + random() % 5]);
    if (!isNumericDType(dtype)) continue;
    const nullable = random() % 2 === 0;
    out[`s ${dtype}`] = scalars(dtype, rows(random, nullable, () => randomNumber(random, dtype)) as number[]);
    out[`l ${dtype}`] = ragged(
      dtype,
      rows(
        random,
        nullable,
        () => Array.from({ length: random() % 6 }, () => randomNumber(random, dtype)),
      ) as number[][],
    );
    out[`a ${dtype}`] = ragged(dtype, rows(random, nullable, () => newArray(dtype, random() % 6)));
  }
  for (const nullable of [true, false]) {
    out[`strings ${nullable}`] = strings(rows(random, nullable, () => text(random)));
    out[`bytes ${nullable}`] = bytes(rows(random, nullable, () => randomBytes(random, random() % 40)));
    out[`json ${nullable}`] = json(rows(random, nullable, () => ({ a: [random(), text(random)], b: null })));
    out[`records ${nullable}`] = records(rows(random, nullable, () => ({
      id: random() % 1000,
      image: randomTensor(random, "uint8", [random() % 3 + 1, 2]),
      ...(random() % 2 === 0 ? { raw: randomBytes(random, 3) } : {}),
      list: Array.from({ length: random() % 3 }, () => ({ x: new Float32Array([random() % 7]) })),
    })));
  }
  return out;
}

function selections(random: () => number): Record<string, RowSet> {
  const some = (count: number): number[] => Array.from({ length: count }, () => random() % ROWS);
  return {
    "all": RowSet.all(ROWS),
    "none": RowSet.all(0),
    "one": RowSet.of(some(1)),
    "a range": RowSet.range(7, 40),
    "every third": RowSet.range(1, 20, 3),
    "backwards": RowSet.range(ROWS - 1, ROWS, -1),
    "one many times": RowSet.range(5, 9, 0),
    "any": RowSet.of(some(100)),
    "a few": RowSet.of(some(3)),
    "ascending": RowSet.of([...new Set(some(20))].sort((a, b) => a - b)),
  };
}

/** No byte of a member is read twice. */
function assertReadOnce(rounds: readonly (readonly PayloadRange[])[]): void {
  const byMember = Map.groupBy(rounds.flat(), ({ member }) => member);
  for (const [member, ranges] of byMember) {
    let end = 0;
    for (const { offset, into } of ranges.toSorted((a, b) => a.offset - b.offset)) {
      assert.ok(offset >= end, `${member} is read twice at ${offset}`);
      assert.ok(into.length > 0, `${member} has an empty read`);
      end = offset + into.length;
    }
  }
}

describe("readColumn()", () => {
  let seed = 100;
  for (const tensorEncoding of ["torch", "numpy"] as const) {
    for (const chunkBytes of [null, 10, 100]) {
      it(`reads back what was built: ${tensorEncoding}, chunks of ${chunkBytes} bytes`, () => {
        const random = seeded(seed++);
        const all = Object.entries(columns(seed))
          .filter(([, column]) =>
            tensorEncoding === "torch" || column.kind !== "tensor" || isNumericDType(column.dtype)
          );
        const built = build(Object.fromEntries(all), {
          tensorEncoding,
          chunkBytes,
          checksums: chunkBytes !== 10,
        });
        const objects = stored(built);
        const bundle = open(objects, built.bundle.manifestKey);
        assert.deepEqual([...bundle.fields.keys()], all.map(([field]) => field));
        for (const [field, original] of all) {
          assert.equal(bundle.fields.get(field)!.kind, original.kind);
          for (const [what, selected] of Object.entries(selections(random))) {
            const { result, rounds } = run(objects, bundle, readColumn(bundle, field, selected));
            assert.deepEqual(plain(result), plain(gather(original, selected)), `${field}, ${what}`);
            assertReadOnce(rounds);
          }
        }
      });
    }
  }

  it("keeps kinds, dtypes and row formats of columns without rows", () => {
    const none = Object.fromEntries(
      Object.entries(columns(1)).map(([field, column]) => [field, gather(column, RowSet.all(0))]),
    );
    const built = build(none);
    const objects = stored(built);
    const bundle = open(objects, built.bundle.manifestKey);
    for (const [field, original] of Object.entries(none)) {
      assert.deepEqual(plain(column(objects, bundle, field)), plain(original));
    }
  });

  const simple = build({
    t: tensor("float32", [ROWS, 64], new Float32Array(ROWS * 64).map((_, i) => i)),
    s: strings(Array.from({ length: ROWS }, (_, i) => `row ${i} `.repeat(100))),
    x: ragged("int64", Array.from({ length: ROWS }, (_, i) => [i, i])),
  });
  const objects = stored(simple);
  const { bundle } = simple;

  it("reads rows that lie side by side at once, and only them", () => {
    const { rounds } = run(objects, bundle, readColumn(bundle, "t", RowSet.range(3, 10)));
    assert.deepEqual(rounds.map((round) => round.map(({ offset, into }) => [offset, into.length])), [
      [[304 + 3 * 256, 10 * 256]],
    ]);
  });

  it("reads one row of a tensor in one read, without its header", () => {
    const { result, rounds } = run(objects, bundle, readColumn(bundle, "t", RowSet.of([60])));
    assert.equal(rounds.flat().length, 1);
    assert.equal((result as Tensor).data[0], 60 * 64);
  });

  it("reads offsets first, then exactly the data of the rows", () => {
    const { rounds } = run(objects, bundle, readColumn(bundle, "s", RowSet.of([20, 50, 20])));
    assert.equal(rounds.length, 2);
    assert.deepEqual(rounds[1]!.map(({ into }) => into.length), [700, 700]);
  });

  it("takes neighbours together", () => {
    const { rounds } = run(objects, bundle, readColumn(bundle, "x", RowSet.range(ROWS - 1, ROWS, -1)));
    assert.deepEqual(rounds.map((round) => round.length), [4, 1]);
  });

  it("reads nothing for no rows", () => {
    for (const field of ["t", "s", "x"]) {
      const { result, rounds } = run(objects, bundle, readColumn(bundle, field, RowSet.all(0)));
      assert.deepEqual([result.rows, rounds], [0, []]);
    }
  });

  it("refuses rows out of range and unknown fields before anything is read", () => {
    assert.throws(() => readColumn(bundle, "t", RowSet.of([ROWS])).next(), { code: "SCHEMA" });
    assert.throws(() => readColumn(bundle, "y", RowSet.of([0])).next(), {
      code: "NOT_FOUND",
      message: /"y"/,
    });
  });

  it("plans a million rows in a few reads", () => {
    const many = build({ v: tensor("float32", [1_000_000], new Float32Array(1_000_000)) });
    const reading = readColumn(many.bundle, "v", RowSet.all(1_000_000));
    assert.equal((reading.next().value as readonly PayloadRange[]).length, 1);
  });
});

describe("readTensorInto()", () => {
  const random = seeded(7);
  for (
    const [shape, dtype] of [[[ROWS, 3], "float32"], [[ROWS], "uint8"], [[ROWS, 300], "int64"], [
      [ROWS, 0],
      "int8",
    ]] as const
  ) {
    it(`scatters rows of ${dtype} [${shape}]`, () => {
      const original = randomTensor(random, dtype, shape);
      const built = build({ t: original }, { chunkBytes: 1000 });
      const objects = stored(built);
      const width = original.bytes.length / ROWS;
      for (const [what, selected] of Object.entries(selections(random))) {
        for (const order of ["in order", "behind", "shuffled"]) {
          const positions = Array.from(
            { length: selected.length },
            (_, i) => i + (order === "behind" ? 5 : 0),
          );
          if (order === "shuffled") positions.sort(() => random() % 3 - 1);
          const out = new Uint8Array((selected.length + 5) * width).fill(7);
          const expected = out.slice();
          positions.forEach((position, i) => {
            const row = selected.at(i);
            expected.set(original.bytes.subarray(row * width, (row + 1) * width), position * width);
          });
          const reading = readTensorInto(built.bundle, "t", selected, out, RowSet.of(positions));
          assertReadOnce(run(objects, built.bundle, reading).rounds);
          assert.deepEqual(out, expected, `${what}, ${order}`);
        }
      }
    });
  }

  const built = build({
    t: randomTensor(random, "float32", [ROWS, 3]),
    s: strings(rows(random, true, () => "x")),
  });
  const { bundle } = built;

  it("reads long runs straight to where they belong", () => {
    const out = new Uint8Array(ROWS * 12);
    const reading = readTensorInto(bundle, "t", RowSet.range(10, 20), out, RowSet.range(30, 20));
    const [range] = reading.next().value as readonly PayloadRange[];
    assert.deepEqual([range!.into.buffer, range!.into.byteOffset, range!.into.length], [
      out.buffer,
      360,
      240,
    ]);
  });

  it("reads long runs in any order with a read each, narrow rows in no order with one read in all", () => {
    const long = build({ t: randomTensor(random, "float32", [2000, 3]) });
    const sets = {
      swapped: RowSet.concat([RowSet.range(1000, 1000), RowSet.range(0, 900)]),
      shuffled: RowSet.of(Array.from({ length: 2000 }, (_, i) => (i * 7) % 2000)),
      backwards: RowSet.range(1999, 2000, -1),
    };
    const reads = Object.entries(sets).map(([what, rows]) => {
      const out = new Uint8Array(rows.length * 12);
      const reading = readTensorInto(long.bundle, "t", rows, out, RowSet.all(rows.length));
      const ranges = reading.next().value as readonly PayloadRange[];
      return [what, ranges.length, ranges.every(({ into }) => into.buffer === out.buffer)];
    });
    assert.deepEqual(reads, [["swapped", 2, true], ["shuffled", 1, false], ["backwards", 1, false]]);
  });

  it("refuses an output that is too short, and other kinds", () => {
    const into = (field: string, bytes: number, count: number) => () =>
      readTensorInto(bundle, field, RowSet.all(2), new Uint8Array(bytes), RowSet.all(count)).next();
    assert.throws(into("t", 23, 2), { code: "SCHEMA" });
    assert.throws(into("t", 24, 1), { code: "SCHEMA" });
    assert.throws(into("s", 24, 2), { code: "SCHEMA", message: /"s" is not a tensor but strings/ });
  });
});

describe("decodeColumn()", () => {
  const all = columns(9);
  const built = build(all);
  const objects = stored(built);
  const bundle: BundleInfo = open(objects, built.bundle.manifestKey);

  it("makes columns of whole payloads that are views of them", () => {
    for (const [field, original] of Object.entries(all)) {
      const places = columnPlaces(bundle, field)!;
      const payloads = new Map(places.map(({ member, key, bytes }) => {
        const payload = objects.get(key)!;
        assert.equal(payload.length, bytes);
        return [member, payload];
      }));
      const guard = { released: false };
      const borrowed = decodeColumn(bundle, field, payloads, guard);
      assert.deepEqual(plain(borrowed), plain(gather(original, RowSet.all(ROWS))), field);
      if (borrowed.kind === "records") continue;
      assert.equal(borrowed.guard, guard);
      const data = borrowed.kind === "tensor" ? borrowed.bytes : borrowed.data;
      const buffers = [...payloads.values()].map(({ buffer }) => buffer);
      assert.ok(data.length === 0 || buffers.includes(data.buffer), `${field} was copied`);
    }
  });

  it("does not hand out nulls that go away with the lease", () => {
    const payloads = new Map(
      columnPlaces(bundle, "bytes true")!.map(({ member, key }) => [member, objects.get(key)!]),
    );
    const { nulls } = decodeColumn(bundle, "bytes true", payloads, { released: false });
    assert.ok(![...payloads.values()].some(({ buffer }) => buffer === nulls!.buffer));
  });

  it("refuses payloads of another length", () => {
    const [place] = columnPlaces(bundle, "wide")!;
    for (const payload of [new Uint8Array(3), new Uint8Array(place!.bytes + 1)]) {
      assert.throws(() => decodeColumn(bundle, "wide", new Map([[place!.member, payload]])), {
        code: "CORRUPT",
      });
    }
    assert.throws(() => decodeColumn(bundle, "wide", new Map()), { code: "CORRUPT" });
  });
});

describe("tensorPlace()", () => {
  const t = randomTensor(seeded(8), "float32", [ROWS, 2, 3]);
  it("tells where rows lie", () => {
    for (const [tensorEncoding, dataOffset] of [["torch", 304], ["numpy", 0]] as const) {
      const { bundle } = build({ t }, { tensorEncoding });
      assert.deepEqual(tensorPlace(bundle, "t"), {
        member: "batch.t",
        key: `${bundle.objectId}/buffer/batch.t`,
        dtype: "float32",
        rowShape: [2, 3],
        rowBytes: 24,
        dataOffset,
      });
    }
  });

  it("has no place for tensors in chunks, empty ones, and other kinds", () => {
    assert.equal(tensorPlace(build({ t }, { chunkBytes: 400 }).bundle, "t"), undefined);
    assert.equal(columnPlaces(build({ t }, { chunkBytes: 400 }).bundle, "t"), undefined);
    assert.equal(tensorPlace(build({ t: gather(t, RowSet.all(0)) }).bundle, "t"), undefined);
    assert.equal(tensorPlace(build({ t: randomTensor(seeded(1), "int8", [2, 0]) }).bundle, "t"), undefined);
    assert.equal(tensorPlace(build({ t: strings(["a"]) }).bundle, "t"), undefined);
  });
});
