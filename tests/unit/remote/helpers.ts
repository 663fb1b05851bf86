/**
 * Bundles without a store, and plain arrays to compare pieces with.
 *
 * @module
 */

import { RowSet } from "../../../src/batch/rowset.ts";
import type { FieldPiece } from "../../../src/remote/pieces.ts";
import { StoredBundle } from "../../../src/remote/stored_bundle.ts";
import type { Random } from "../../support/runtime.ts";

/** A manifest key by a small number. */
export function manifestKey(n: number, partition = "p"): string {
  return `bundle/${partition}/${n.toString(16).padStart(32, "0")}/manifest`;
}

/** A bundle that nothing is stored of. */
export function bundle(n: number, rows: number): StoredBundle {
  return new StoredBundle(manifestKey(n), { partition: "p", namespace: "default", stage: "default", rows });
}

/** Which row of what one row of some pieces is. */
export type Cell = readonly [key: string, field: string, row: number];

/** Pieces as a plain array of what each row is. */
export function cells(pieces: readonly FieldPiece[]): Cell[] {
  return pieces.flatMap(({ bundle, field, rows }) =>
    Array.from(rows, (row): Cell => [(bundle as StoredBundle).manifestKey, field, row])
  );
}

/** A random selection of `length` rows: ranges, steps backwards, repeats and scattered rows. */
export function randomRows(random: Random, length: number, most = 40): RowSet {
  if (length === 0) return RowSet.all(0);
  const sets = Array.from({ length: random.int(5) }, () => {
    const start = random.int(length);
    switch (random.int(5)) {
      case 0:
        return RowSet.range(start, 1 + random.int(length - start));
      case 1:
        return RowSet.range(start, 1 + random.int(start + 1), -1);
      case 2:
        return RowSet.range(start, random.int(6), 0);
      case 3: {
        const step = 1 + random.int(3);
        return RowSet.range(start, 1 + Math.floor((length - 1 - start) / step), step);
      }
      default:
        return RowSet.of(Array.from({ length: random.int(8) }, () => random.int(length)));
    }
  });
  const rows = RowSet.concat(sets);
  return rows.length <= most ? rows : rows.slice(random.int(rows.length - most), most);
}

/** Random pieces of some bundles, empty ones among them. */
export function randomPieces(random: Random, bundles: readonly StoredBundle[]): FieldPiece<StoredBundle>[] {
  return Array.from({ length: 1 + random.int(7) }, () => {
    const bundle = random.pick(bundles);
    return { bundle, field: random.pick(["x", "y"]), rows: randomRows(random, bundle.rows) };
  });
}
