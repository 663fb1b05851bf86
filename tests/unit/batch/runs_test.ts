import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { endsOf, fillRun, maxRuns, RunBuilder, runEnd, sameNumbers } from "../../../src/batch/runs.ts";

describe("RunBuilder", () => {
  it("joins runs that continue one another", () => {
    const builder = new RunBuilder(16);
    const added = [[0, 3, 1], [3, 1, 1], [4, 2, 1], [9, 1, 1], [7, 1, 1], [5, 2, -2], [5, 1, 1], [5, 3, 0], [
      1,
      2,
      0,
    ]];
    for (const [start, count, step] of added) builder.add(start!, count!, step!);
    assert.equal(builder.indices, null);
    assert.deepEqual([...builder.runs()], [0, 6, 1, 9, 4, -2, 5, 4, 0, 1, 2, 0]);
  });

  it("turns to indices once they are smaller, in the middle of an array too", () => {
    const rows = Uint32Array.from({ length: 60 }, (_, i) => (i * 7919) % 61);
    const builder = new RunBuilder(200);
    builder.add(0, 70, 1);
    builder.addIndices(rows);
    builder.addIndices(rows);
    builder.add(9, 10, -1);
    const expected = [...Array(70).keys(), ...rows, ...rows, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];
    assert.deepEqual([...builder.indices!], expected);
  });
});

describe("runs", () => {
  it("end where the distance changes", () => {
    const rows = [5, 5, 5, 6, 8, 10, 9];
    assert.deepEqual([0, 1, 2, 3, 5, 6].map((i) => runEnd(rows, i, rows.length)), [3, 3, 4, 6, 7, 7]);
  });

  it("are filled in and counted", () => {
    const out = new Uint32Array(6);
    fillRun(out, 1, 4, 2, -3);
    fillRun(out, 3, 7, 2, 0);
    assert.deepEqual([...out], [0, 4, 1, 7, 7, 0]);
    assert.deepEqual([...endsOf(Float64Array.of(0, 3, 1, 9, 2, 0))], [3, 5]);
    assert.equal(maxRuns(0), 16);
    assert.equal(maxRuns(1_000_000), 125_000);
    assert.equal(sameNumbers(Uint32Array.of(1), Float64Array.of(1)), true);
    assert.equal(sameNumbers(Uint32Array.of(1, 2), Uint32Array.of(1, 3)), false);
    assert.equal(sameNumbers(Uint32Array.of(1), Uint32Array.of(1, 1)), false);
  });
});
