/**
 * Any batch as handles that Mooncake's Python class can read: one for each stretch of rows that lies in one place.
 *
 * @module
 */

import type { JsonObject } from "../batch/json.ts";
import { RowSet } from "../batch/rowset.ts";
import { SchemaError } from "../errors.ts";
import { type BatchParts, handleOfBundles } from "./handle.ts";
import type { StoredPiece } from "./pieces.ts";
import type { Session } from "./session.ts";
import type { StoredBundle } from "./stored_bundle.ts";

/** A Mooncake handle, and the rows of it that are meant, in order; null for all of them. */
export interface MooncakePart {
  readonly handle: JsonObject;
  readonly rows: readonly number[] | null;
}

/** A batch whose pieces are all of bundles that were loaded. */
export interface LoadedParts extends BatchParts {
  readonly columns: ReadonlyMap<string, readonly StoredPiece[]>;
}

/** Where a new piece begins in any column. */
function boundaries(columns: Iterable<readonly StoredPiece[]>): number[] {
  const starts = new Set<number>();
  for (const pieces of columns) {
    let at = 0;
    for (const { rows } of pieces) {
      starts.add(at);
      at += rows.length;
    }
  }
  return [...starts].sort((a, b) => a - b);
}

/**
 * Cuts a batch into parts, each of which is the same rows of whole bundles.
 *
 * @throws SchemaError where columns of one row lie at different rows of their bundles: one handle of Mooncake's has one
 *   list of rows
 */
export function mooncakeParts(session: Session, batch: LoadedParts): MooncakePart[] {
  const starts = boundaries(batch.columns.values());
  return starts.map((start, i) => {
    const count = (starts[i + 1] ?? batch.rows) - start;
    const columns = new Map<string, { bundle: StoredBundle; field: string; rows: RowSet }>();
    for (const [name, pieces] of batch.columns) columns.set(name, pieceAt(pieces, start, count));
    const [first] = columns.values();
    const rows = first?.rows ?? RowSet.all(0);
    for (const [name, column] of columns) {
      if (column.rows.equals(rows) && column.bundle.rows === first?.bundle.rows) continue;
      throw new SchemaError(
        `field ${JSON.stringify(name)} lies at other rows of its bundle than the fields before it`,
        {
          field: name,
          partition: batch.partition,
          hint: "write the batch as one bundle first: await (await batch.compact()).toMooncake()",
        },
      );
    }
    const handle = handleOfBundles(session, batch, columns, first?.bundle.rows ?? 0);
    const whole = first !== undefined && rows.equals(RowSet.all(first.bundle.rows));
    return { handle, rows: whole ? null : [...rows] };
  });
}

/** The part of a column from row `start`; it lies within one piece. */
function pieceAt(pieces: readonly StoredPiece[], start: number, count: number): StoredPiece {
  let at = 0;
  for (const piece of pieces) {
    if (start < at + piece.rows.length) {
      const inside = piece.rows.length === count && start === at
        ? piece.rows
        : piece.rows.select(RowSet.range(start - at, count));
      return { ...piece, rows: inside };
    }
    at += piece.rows.length;
  }
  throw new RangeError(`row ${start} is beyond the column`);
}
