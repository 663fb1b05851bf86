import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RowSet } from "../../../src/batch/rowset.ts";
import { orderRows, Spans } from "../../../src/bundle/spans.ts";
import { seeded } from "./helpers.ts";

describe("Spans", () => {
  it("joins what touches and drops what is empty", () => {
    const spans = new Spans();
    for (const [start, end] of [[2, 4], [4, 4], [4, 7], [9, 10]] as const) spans.add(start, end);
    assert.deepEqual([spans.starts, spans.ends, spans.total, spans.end], [[2, 9], [7, 10], 6, 10]);
  });

  it("covers the rows of a selection", () => {
    const spans = Spans.ofRows(RowSet.of([0, 1, 2, 5, 7, 9, 10]));
    assert.deepEqual([spans.starts, spans.ends], [[0, 5, 7, 9], [3, 6, 8, 11]]);
    const rows: number[] = [];
    spans.forEach((row) => rows.push(row));
    assert.deepEqual(rows, [0, 1, 2, 5, 7, 9, 10]);
  });

  it("has none for no rows", () => {
    for (const spans of [Spans.all(0), Spans.ofRows(RowSet.all(0))]) {
      assert.deepEqual([spans.starts, spans.total, spans.end], [[], 0, 0]);
    }
  });
});

describe("orderRows()", () => {
  it("keeps ascending rows as they are", () => {
    const rows = RowSet.range(3, 1000, 2);
    assert.deepEqual(orderRows(rows), { unique: rows, ranks: null });
  });

  for (const [what, limit] of [["dense", 300], ["scattered", 2 ** 31]] as const) {
    it(`sorts ${what} rows and tells where each asked row is`, () => {
      for (let seed = 0; seed < 20; seed++) {
        const random = seeded(seed);
        const asked = Array.from({ length: 2 + random() % 500 }, () => random() % limit);
        asked.push(asked[0]!);
        const { unique, ranks } = orderRows(RowSet.of(asked));
        assert.deepEqual([...unique], [...new Set(asked)].sort((a, b) => a - b));
        assert.deepEqual(Array.from(ranks!, (rank) => unique.at(rank)), asked);
      }
    });
  }
});
