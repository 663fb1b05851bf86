/**
 * Dropping: which bundles a batch covers, and deleting them.
 *
 * @module
 */

import type { BundleInfo } from "../bundle/bundle.ts";
import type { Deadline } from "../deadline.ts";
import { DroppedError, OwnershipError } from "../errors.ts";
import type { Piece, StoredPiece } from "./pieces.ts";
import type { Session } from "./session.ts";
import type { StoredBundle } from "./stored_bundle.ts";

/** True if `pieces` name every row of a bundle with `rows` rows, in any order. */
function coversRows(pieces: readonly Piece[], rows: number): boolean {
  if (pieces.some(({ rows: set }) => set.length === rows && set.isIncreasing())) return true;
  const seen = new Uint8Array(rows);
  let count = 0;
  for (const piece of pieces) {
    for (const row of piece.rows) {
      if (seen[row] === 0) {
        seen[row] = 1;
        count++;
      }
    }
  }
  return count === rows;
}

/** Deletes the bundles that the columns cover completely; deletes nothing where they cover one partly. */
export async function dropCovered(
  session: Session,
  columns: ReadonlyMap<string, readonly StoredPiece[]>,
  origin: readonly Piece<StoredBundle>[],
  deadline: Deadline,
): Promise<void> {
  const touched = new Map<StoredBundle, Map<string, StoredPiece[]>>();
  for (const pieces of columns.values()) {
    for (const piece of pieces) {
      if (piece.rows.length === 0 && piece.bundle.rows > 0) continue;
      let fields = touched.get(piece.bundle);
      if (fields === undefined) touched.set(piece.bundle, fields = new Map());
      const list = fields.get(piece.field);
      if (list === undefined) fields.set(piece.field, [piece]);
      else list.push(piece);
    }
  }
  const infos = new Map<StoredBundle, BundleInfo>();
  const load = async (bundle: StoredBundle): Promise<BundleInfo | undefined> => {
    if (bundle.dropped) return undefined;
    try {
      const info = await session.load(bundle, deadline);
      infos.set(bundle, info);
      return info;
    } catch (error) {
      if (error instanceof DroppedError) return undefined;
      throw error;
    }
  };
  for (const { bundle, rows } of origin) {
    // a bundle without fields is nobody's piece; its rows alone cover it
    if (touched.has(bundle)) continue;
    const info = await load(bundle);
    if (info !== undefined && bundle.fieldNames.length === 0 && rows.length === info.rows) {
      touched.set(bundle, new Map());
    }
  }
  for (const [bundle, fields] of touched) {
    const info = infos.get(bundle) ?? await load(bundle);
    if (info === undefined) continue;
    for (const field of bundle.fieldNames) {
      const pieces = fields.get(field);
      if (pieces === undefined || !coversRows(pieces, info.rows)) {
        throw new OwnershipError(
          `this batch holds ${pieces === undefined ? "nothing" : "some rows only"} of field ${
            JSON.stringify(field)
          } of ${bundle.manifestKey}`,
          {
            partition: bundle.partition,
            field,
            key: bundle.manifestKey,
            hint: "drop the batch that put or importHandle gave, or the whole partition",
          },
        );
      }
    }
  }
  let failed = false;
  let first: unknown;
  for (const bundle of infos.keys()) {
    if (!touched.has(bundle)) continue;
    try {
      await session.drop(bundle, deadline);
    } catch (error) {
      if (!failed) first = error;
      failed = true;
    }
  }
  if (failed) throw first;
}
