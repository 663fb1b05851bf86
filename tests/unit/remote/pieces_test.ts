import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RowSet } from "../../../src/batch/rowset.ts";
import {
  type FieldPiece,
  gatherPieces,
  joinPieces,
  pieceRows,
  samePieces,
} from "../../../src/remote/pieces.ts";
import type { StoredBundle } from "../../../src/remote/stored_bundle.ts";
import { newSeed, Random, scaled } from "../../support/runtime.ts";
import { bundle, cells, manifestKey, randomPieces, randomRows } from "./helpers.ts";

const ROUNDS = scaled(40_000);

/** Bundles of several sizes, one without rows among them. */
const BUNDLES = [bundle(1, 1), bundle(2, 5), bundle(3, 17), bundle(4, 64), bundle(5, 0)];

function rounds(what: string, test: (random: Random) => void): void {
  const seed = newSeed(what);
  for (let round = 0; round < ROUNDS; round++) {
    try {
      test(new Random(seed + round));
    } catch (error) {
      console.log(`round ${round}`);
      throw error;
    }
  }
}

/** The normal form: no two neighbours that could be one, no idle pieces beside others. */
function assertNormal(pieces: readonly FieldPiece<StoredBundle>[]): void {
  pieces.forEach((piece, i) => {
    const before = pieces[i - 1];
    assert.ok(
      before === undefined || before.bundle !== piece.bundle || before.field !== piece.field,
      "two pieces are one",
    );
    assert.ok(piece.rows.length > 0 || piece.bundle.rows === 0 || pieces.length === 1, "a piece has no rows");
  });
}

describe("joinPieces", () => {
  it("gives the same rows in the fewest pieces", () =>
    rounds("joinPieces", (random) => {
      const lists = Array.from({ length: 1 + random.int(3) }, () => randomPieces(random, BUNDLES));
      const joined = joinPieces(lists);
      assert.deepEqual(cells(joined), lists.flatMap(cells));
      assert.equal(pieceRows(joined), lists.reduce((sum, list) => sum + pieceRows(list), 0));
      if (pieceRows(joined) > 0) assertNormal(joined);
      else assert.ok(joined.length >= 1, "nothing tells the form of the column");
    }));

  it("keeps bundles without rows droppable, and one piece to tell the form", () => {
    const [, five, , , none] = BUNDLES as [
      StoredBundle,
      StoredBundle,
      StoredBundle,
      StoredBundle,
      StoredBundle,
    ];
    const x = (bundle: StoredBundle, rows: RowSet) => ({ bundle, field: "x", rows });
    assert.deepEqual(joinPieces([[x(five, RowSet.all(0))], [x(five, RowSet.all(2))]]), [
      x(five, RowSet.all(2)),
    ]);
    assert.equal(joinPieces([[x(five, RowSet.all(0))], [x(five, RowSet.all(0))]]).length, 1);
    assert.deepEqual(
      joinPieces([[x(none, RowSet.all(0))], [x(five, RowSet.all(1))]]).map(({ bundle }) => bundle),
      [none, five],
    );
    assert.deepEqual(joinPieces([]), []);
  });
});

describe("gatherPieces", () => {
  it("selects as a plain array does", () =>
    rounds("gatherPieces", (random) => {
      const pieces = joinPieces([randomPieces(random, BUNDLES)]);
      const all = cells(pieces);
      const rows = randomRows(random, all.length, 60);
      const gathered = gatherPieces(pieces, rows);
      assert.deepEqual(cells(gathered), Array.from(rows, (row) => all[row]));
      if (gathered.length > 1) assertNormal(gathered);
      assert.ok(gathered.length > 0);
    }));

  it("can be done step by step", () =>
    rounds("gatherPieces twice", (random) => {
      const pieces = joinPieces([randomPieces(random, BUNDLES)]);
      const first = randomRows(random, pieceRows(pieces), 60);
      const second = randomRows(random, first.length, 60);
      const once = gatherPieces(pieces, first.select(second));
      const twice = gatherPieces(gatherPieces(pieces, first), second);
      assert.deepEqual(cells(twice), cells(once));
      assert.ok(samePieces(twice, once));
    }));

  it("takes no more pieces than it touches, however many there are", () => {
    const many = Array.from(
      { length: 10_000 },
      (_, i) => ({ bundle: bundle(i, 100), field: "x", rows: RowSet.all(100) }),
    );
    const chunk = gatherPieces(many, RowSet.range(499_950, 200));
    assert.deepEqual(chunk.map(({ bundle, rows }) => [bundle.manifestKey, rows.toJSON()]), [
      [manifestKey(4999), RowSet.range(50, 50).toJSON()],
      [manifestKey(5000), RowSet.range(0, 100).toJSON()],
      [manifestKey(5001), RowSet.range(0, 50).toJSON()],
    ]);
    const backwards = gatherPieces(many, RowSet.range(999_999, 1_000_000, -1));
    assert.equal(backwards.length, 10_000);
    assert.deepEqual(backwards[0]?.rows.isRange(), { start: 99, count: 100, step: -1 });
    // every tenth row is ten rows of each, as one run
    const tenth = gatherPieces(many, RowSet.range(0, 100_000, 10));
    assert.equal(tenth.length, 10_000);
    assert.deepEqual(tenth[9]?.rows.isRange(), { start: 0, count: 10, step: 10 });
  });
});

describe("samePieces", () => {
  it("sees the same rows whatever they are cut into", () =>
    rounds("samePieces", (random) => {
      const pieces = randomPieces(random, BUNDLES).map((piece) => ({ ...piece, field: "x" }));
      const cut = pieces.flatMap((piece) => {
        const at = random.int(piece.rows.length + 1);
        return [
          { ...piece, rows: piece.rows.slice(0, at) },
          { ...piece, rows: piece.rows.slice(0, 0) },
          { ...piece, rows: piece.rows.slice(at, piece.rows.length - at) },
        ];
      });
      assert.ok(samePieces(pieces, cut));
      assert.ok(samePieces(cut, pieces));
      assert.deepEqual(cells(joinPieces([cut])), cells(pieces));
    }));

  it("sees any difference in bundle, row or order", () =>
    rounds("samePieces, other", (random) => {
      const some = randomPieces(random, BUNDLES).map((piece) => ({ ...piece, field: "x" }));
      const other = random.chance(0.5)
        ? randomPieces(random, BUNDLES).map((piece) => ({ ...piece, field: "x" }))
        : [...gatherPieces(some, randomRows(random, pieceRows(some)))];
      const equal = JSON.stringify(cells(some)) === JSON.stringify(cells(other));
      assert.equal(samePieces(some, other), equal);
    }));
});
