import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CorruptionError } from "../../../src/errors.ts";
import { RowSet } from "../../../src/batch/rowset.ts";
import { objectIdOf } from "../../../src/store/store.ts";
import { isTombstoneKey, newTombstone, readTombstone, Tombstones } from "../../../src/transfer/tombstones.ts";

const OBJECT = `bundle/p/${"0123456789abcdef".repeat(2)}`;
const text = (value: unknown) =>
  new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));

describe("tombstones", () => {
  it("say which cells of which bundle", () => {
    const rows = RowSet.of([1, 3, 5, 6]);
    const { key, value } = newTombstone(OBJECT, ["x", "é \ud83d\ude00"], rows);
    assert.ok(isTombstoneKey(key));
    // it lies below its bundle, and is no bundle
    assert.equal(objectIdOf(key), OBJECT);
    const read = readTombstone(key, value);
    assert.deepEqual([read.manifestKey, read.fields], [`${OBJECT}/manifest`, ["x", "é \ud83d\ude00"]]);
    assert.deepEqual([...read.rows(7)], [1, 3, 5, 6]);
    assert.throws(() => read.rows(6), CorruptionError);
    // two never overwrite each other
    assert.notEqual(newTombstone(OBJECT, ["x"], rows).key, key);
  });

  it("are not taken for other keys", () => {
    for (
      const key of [
        `${OBJECT}/manifest`,
        `${OBJECT}/tombstones`,
        `${OBJECT}/tombstones/`,
        "bundle/p/tombstones/t1",
        "",
      ]
    ) {
      assert.ok(!isTombstoneKey(key), key);
    }
  });

  it("that are damaged are CorruptionErrors", () => {
    const { key } = newTombstone(OBJECT, ["x"], RowSet.all(1));
    const whole = { v: 1, fields: ["x"], rows: [0] };
    const wrong = [
      "",
      "{",
      "null",
      "[]",
      "1",
      { ...whole, v: 2 },
      { ...whole, v: "1" },
      { ...whole, fields: "x" },
      { ...whole, fields: [1] },
      { fields: ["x"], rows: [0] },
    ];
    for (const value of wrong) {
      assert.throws(() => readTombstone(key, text(value)), CorruptionError, JSON.stringify(value));
    }
    assert.throws(() => readTombstone(key, Uint8Array.of(0x22, 0xff, 0x22)), CorruptionError);
    for (const rows of [undefined, 3, "all", [[0, 9]], [-1], [0.5], [[0, 1, 1, 1, 1]], [null]]) {
      assert.throws(
        () => readTombstone(key, text({ ...whole, rows })).rows(4),
        CorruptionError,
        JSON.stringify(rows),
      );
    }
  });

  it("add up until every cell of a field is dead", () => {
    const dead = new Tombstones(4);
    dead.add(["x", "y"], RowSet.of([0, 2]));
    assert.deepEqual([dead.has("x", 0), dead.has("x", 1), dead.has("y", 2), dead.has("z", 0)], [
      true,
      false,
      true,
      false,
    ]);
    dead.add(["x"], RowSet.of([2, 1, 1]));
    assert.ok(!dead.covers("x"));
    dead.add(["x"], RowSet.of([3]));
    assert.ok(dead.covers("x"));
    assert.ok(!dead.covers("y"));
    assert.ok(!dead.covers("z"));
    // nothing is all of nothing
    const none = new Tombstones(0);
    none.add(["x"], RowSet.all(0));
    assert.ok(none.covers("x"));
  });
});
