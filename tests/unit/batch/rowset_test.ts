import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { normalizeRows, normalizeSlice, RowSet } from "../../../src/batch/rowset.ts";
import { CorruptionError, SchemaError } from "../../../src/errors.ts";
import { type Random, random } from "./random.ts";

/** Rows with a mixture of ranges, repeats, steps and noise below `limit`. */
function someRows(rng: Random, limit: number, length: number): number[] {
  const out: number[] = [];
  while (out.length < length) {
    const start = rng.below(limit);
    const count = 1 + rng.below(rng.pick([1, 1, 4, 30]));
    const step = rng.pick([1, 1, 0, -1, 2, -3, 7]);
    for (let i = 0; i < count && out.length < length; i++) {
      const row = start + i * step;
      if (row >= 0 && row < limit) out.push(row);
    }
  }
  return out;
}

function assertRows(set: RowSet, expected: readonly number[], what: string): void {
  assert.equal(set.length, expected.length, what);
  assert.deepEqual([...set], expected, what);
  assert.deepEqual([...set.toIndices()], expected, what);
  const fromRuns = [...set.runs()].flatMap(({ start, count, step }) =>
    Array.from({ length: count }, (_, i) => start + i * step)
  );
  assert.deepEqual(fromRuns, expected, what);
}

describe("RowSet", () => {
  it("behaves as an array of rows, whatever it is made of", () => {
    const rng = random("RowSet");
    for (let round = 0; round < 400; round++) {
      const what = `seed ${rng.seed}, round ${round}`;
      const limit = rng.pick([1, 2, 10, 1000]);
      const rows = someRows(rng, limit, rng.pick([0, 1, 2, 5, 60, 400]));
      const set = RowSet.of(rows);
      assertRows(set, rows, what);
      if (rows.length > 0) {
        for (let i = 0; i < 10; i++) {
          const at = rng.below(rows.length);
          assert.equal(set.at(at), rows[at], what);
        }
        assert.equal(set.min(), Math.min(...rows), what);
        assert.equal(set.max(), Math.max(...rows), what);
      }
      const positions = rows.length === 0 ? [] : someRows(rng, rows.length, rng.pick([0, 1, 3, 80, 500]));
      const picked = positions.map((at) => rows[at]!);
      assertRows(set.select(RowSet.of(positions)), picked, what);
      assert.equal(set.select(RowSet.of(positions)).equals(RowSet.of(picked)), true, what);

      const others = [rows, picked, someRows(rng, limit, 20), [], rows];
      const all = others.flat();
      const joined = RowSet.concat(others.map((part) => RowSet.of(part)));
      assertRows(joined, all, what);
      assert.equal(joined.equals(RowSet.of(all)), true, what);
      const text = JSON.stringify(joined);
      assertRows(RowSet.fromJSON(JSON.parse(text), limit), all, what);

      const increasing = rows.every((row, i) => i === 0 || row > rows[i - 1]!);
      assert.equal(set.isIncreasing(), increasing, what);
      const step = rows.length > 1 ? rows[1]! - rows[0]! : 1;
      const isRange = rows.every((row, i) => row === (rows[0] ?? 0) + i * step);
      assert.equal(set.isRange() !== null, isRange, what);
      if (rows.length > 0) {
        const changed = [...rows];
        changed[rng.below(rows.length)]! += 1;
        assert.equal(set.equals(RowSet.of(changed)), false, what);
        assert.equal(set.equals(RowSet.of(rows.slice(1))), false, what);
      }
      if (set.isBlocks()) { for (const run of set.runs()) assert.equal(run.step, 1, what); }
    }
  });

  it("slices as select does", () => {
    const set = RowSet.of([9, 3, 3, 7, 1]);
    assert.deepEqual([...set.slice(1, 3)], [3, 3, 7]);
    assert.deepEqual([...set.slice(4, 3, -2)], [1, 3, 9]);
    assert.throws(() => set.slice(3, 3), SchemaError);
  });

  it("walks over its runs with any step", () => {
    const rng = random("RowSet runs");
    const pieces = Array.from({ length: 30 }, () => {
      const count = 8 + rng.below(20);
      const step = rng.pick([1, 1, 2, -1, 0]);
      return RowSet.range(step < 0 ? 50 + rng.below(50) : rng.below(100), count, step);
    });
    const set = RowSet.concat(pieces);
    const rows = pieces.flatMap((piece) => [...piece]);
    for (const step of [1, 2, 3, 7, 12, 25, 60, 200]) {
      for (const start of [0, 1, 5, 17]) {
        const count = Math.ceil((rows.length - start) / step);
        const up = Array.from({ length: count }, (_, i) => rows[start + i * step]!);
        assertRows(set.slice(start, count, step), up, `seed ${rng.seed}, ${start} by ${step}`);
        const end = rows.length - 1 - start;
        const down = Array.from({ length: count }, (_, i) => rows[end - i * step]!);
        assertRows(set.slice(end, count, -step), down, `seed ${rng.seed}, ${end} by ${-step}`);
      }
    }
    assertRows(set.slice(33, 50, 0), Array(50).fill(rows[33]), `seed ${rng.seed}`);
  });

  it("knows whether its rows increase across runs", () => {
    const runs = (second: number) => RowSet.concat([RowSet.range(0, 10, 2), RowSet.range(second, 10)]);
    assert.equal(runs(19).isIncreasing(), true);
    assert.equal(runs(18).isIncreasing(), false);
    assert.equal(
      RowSet.concat([RowSet.range(5, 1), RowSet.range(7, 9, 3), RowSet.of([100, 200])]).isIncreasing(),
      true,
    );
    assert.equal(RowSet.range(3, 2, 0).isIncreasing(), false);
    assert.equal(RowSet.range(3, 2, -1).isIncreasing(), false);
    const listed = Array.from({ length: 300 }, (_, i) => i * i);
    assert.equal(RowSet.of(listed).isIncreasing(), true);
    assert.equal(RowSet.of([...listed, 299 * 299]).isIncreasing(), false);
  });

  it("keeps patterns of 1,000,000 rows as few numbers", () => {
    const all = RowSet.all(1_000_000);
    assert.equal(JSON.stringify(all), "[[0,1000000]]");
    assert.equal(JSON.stringify(all.slice(999_999, 1_000_000, -1)), "[[999999,1000000,-1]]");
    assert.equal(JSON.stringify(all.slice(0, 500_000, 2).slice(0, 250_000, 2)), "[[0,250000,4]]");
    const interleaved = RowSet.concat(Array.from({ length: 1000 }, (_, i) => RowSet.range(i, 4, 0)));
    assert.equal(JSON.stringify(interleaved), "[[0,1000,1,4]]");
    const tiled = RowSet.concat([all, all, all]);
    assert.equal(JSON.stringify(tiled), "[[0,1000000],[0,1000000],[0,1000000]]");
    assert.equal(tiled.length, 3_000_000);
    assert.equal(RowSet.fromJSON(JSON.parse(JSON.stringify(tiled)), 1_000_000).equals(tiled), true);
  });

  it("does not change with the arrays it came from or gave", () => {
    const input = Uint32Array.from({ length: 100 }, (_, i) => (i * 37) % 101);
    const expected = [...input];
    const set = RowSet.of(input);
    input.fill(0);
    set.toIndices().fill(0);
    assert.deepEqual([...set], expected);
  });

  it("is empty without rows", () => {
    for (const set of [RowSet.all(0), RowSet.of([]), RowSet.concat([]), RowSet.fromJSON([], 0)]) {
      assert.deepEqual([...set], []);
      assert.deepEqual([set.min(), set.max(), set.isIncreasing()], [0, -1, true]);
      assert.deepEqual(set.isRange(), { start: 0, count: 0, step: 1 });
      assert.equal(set.select(RowSet.all(0)).length, 0);
      assert.throws(() => set.at(0), SchemaError);
    }
  });

  it("refuses what is no row", () => {
    for (const row of [-1, 0.5, NaN, Infinity, 2 ** 32, "1" as unknown as number]) {
      assert.throws(() => RowSet.of([0, row]), SchemaError, String(row));
    }
    assert.throws(() => RowSet.range(0, -1), SchemaError);
    assert.throws(() => RowSet.range(2, 4, -1), SchemaError);
    assert.throws(() => RowSet.range(2 ** 32 - 2, 2), SchemaError);
    assert.throws(() => RowSet.range(2 ** 32 - 1, 2, -1), SchemaError);
    assert.equal(RowSet.range(2 ** 32 - 2, 1).max(), 2 ** 32 - 2);
    assert.throws(() => RowSet.range(0.5, 1), SchemaError);
    assert.throws(() => RowSet.all(3).at(3), SchemaError);
    assert.throws(() => RowSet.all(3).at(-1), SchemaError);
    assert.throws(() => RowSet.all(3).select(RowSet.of([3])), SchemaError);
  });

  it("refuses stored selections that contradict themselves or the limit", () => {
    const hostile: unknown[] = [
      null,
      {},
      "[[0,1]]",
      [null],
      [[0]],
      [[0, 1, 1, 1, 1]],
      [["0", 1]],
      [[0.5, 1]],
      [[0, 0]],
      [[0, -1]],
      [[-1, 1]],
      [-1],
      [10],
      [0.5],
      [[0, 11]],
      [[9, 2]],
      [[3, 5, -1]],
      [[0, 2, 10]],
      [[0, 2, 1, 0]],
      [[0, 1e300]],
      [[0, 2 ** 53, 0]],
      [[0, 10, 1, 2 ** 50]],
    ];
    for (const value of hostile) {
      assert.throws(() => RowSet.fromJSON(value, 10), CorruptionError, JSON.stringify(value));
    }
    // 300 bytes that ask for 4 billion runs
    const bomb = Array.from({ length: 20 }, () => [0, 1_000_000, 1, 3]);
    assert.throws(() => RowSet.fromJSON(bomb, 1_000_000), CorruptionError);
    assert.deepEqual([...RowSet.fromJSON([[0, 2, 1, 3], 9, [8, 2, -8]], 10)], [0, 0, 0, 1, 1, 1, 9, 8, 0]);
  });

  it("takes milliseconds for 1,000,000 rows", () => {
    const rng = random("RowSet speed");
    const rows = Uint32Array.from({ length: 1_000_000 }, () => rng.below(1_000_000));
    const started = performance.now();
    const set = RowSet.of(rows);
    const backwards = set.select(RowSet.range(999_999, 1_000_000, -1));
    const joined = RowSet.concat([set, backwards]);
    assert.equal(joined.at(1_999_999), rows[0]);
    assert.equal(joined.isIncreasing(), false);
    assert.equal(RowSet.all(1_000_000).select(joined).length, 2_000_000);
    // 40 ms on an idle machine; quadratic work would take minutes
    assert.ok(performance.now() - started < 2000);
  });
});

describe("normalizeSlice", () => {
  /** Python's rules, written out position by position. */
  function python(
    start: number | undefined,
    end: number | undefined,
    step: number,
    length: number,
  ): number[] {
    const rows = Array.from({ length }, (_, i) => i);
    const low = step > 0 ? 0 : -1;
    const high = step > 0 ? length : length - 1;
    const bound = (value: number) => {
      if (value < 0) value += length;
      return value < low ? low : value > high ? high : value;
    };
    const out: number[] = [];
    const first = start === undefined ? (step > 0 ? low : high) : bound(start);
    const stop = end === undefined ? (step > 0 ? high : low) : bound(end);
    for (let i = first; step > 0 ? i < stop : i > stop; i += step) out.push(rows[i]!);
    return out;
  }

  it("follows Python for all small cases", () => {
    const bounds = [undefined, -9, -6, -5, -4, -1, 0, 1, 3, 4, 5, 6, 9];
    for (const length of [0, 1, 5]) {
      for (const start of bounds) {
        for (const end of bounds) {
          for (const step of [-7, -2, -1, 1, 2, 7]) {
            const got = [...normalizeSlice(start, end, step, length)];
            assert.deepEqual(got, python(start, end, step, length), `[${start}:${end}:${step}] of ${length}`);
          }
        }
      }
    }
    assert.deepEqual([...normalizeSlice(null, null, null, 3)], [0, 1, 2]);
    // what CPython prints for range(10)[8:2:-3], [-3::2] and [::-4]
    assert.deepEqual([...normalizeSlice(8, 2, -3, 10)], [8, 5]);
    assert.deepEqual([...normalizeSlice(-3, undefined, 2, 10)], [7, 9]);
    assert.deepEqual([...normalizeSlice(undefined, undefined, -4, 10)], [9, 5, 1]);
  });

  it("refuses a step of 0 and what is no integer", () => {
    assert.throws(() => normalizeSlice(0, 1, 0, 2), SchemaError);
    assert.throws(() => normalizeSlice(0.5, 1, 1, 2), SchemaError);
    assert.throws(() => normalizeSlice(0, NaN, 1, 2), SchemaError);
    assert.throws(() => normalizeSlice(0, 1, "1" as unknown as number, 2), SchemaError);
  });
});

describe("normalizeRows", () => {
  it("takes positions, negative ones from the end, and masks", () => {
    assert.deepEqual([...normalizeRows([3, 1, -1, 0, 3], 4)], [3, 1, 3, 0, 3]);
    assert.deepEqual([...normalizeRows(Uint32Array.of(2, 0), 3)], [2, 0]);
    assert.deepEqual([...normalizeRows([true, false, true], 3)], [0, 2]);
    assert.deepEqual([...normalizeRows([], 3)], []);
    assert.deepEqual([...normalizeRows([], 0)], []);
  });

  it("refuses at the call what is out of range, no integer, or a mask of the wrong length", () => {
    const wrong: [readonly unknown[], RegExp][] = [
      [[4], /row 4 at position 0 is out of range for 4 rows/],
      [[0, -5], /row -5 at position 1/],
      [[0.5], /no integer/],
      [[NaN], /no integer/],
      [["1"], /no integer/],
      [[null], /no integer/],
      [[0, true], /no integer/],
      [[true, false], /mask of 2 rows does not fit 4/],
      [[true, false, true, false, true], /mask of 5 rows/],
      [[true, 1, false, true], /no boolean/],
    ];
    for (const [rows, message] of wrong) {
      assert.throws(() => normalizeRows(rows as number[], 4), { name: "SchemaError", message }, String(rows));
    }
    for (const rows of [new Float64Array(0), new Uint8Array([1, 0, 1, 0]), "0", null]) {
      assert.throws(() => normalizeRows(rows as unknown as number[], 4), SchemaError);
    }
  });
});
