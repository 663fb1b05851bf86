/**
 * From rows named by id to rows of bundles: done once, when a batch is read.
 *
 * @module
 */

import { RowSet } from "../batch/rowset.ts";
import type { Deadline } from "../deadline.ts";
import { DroppedError } from "../errors.ts";
import { type FieldPiece, gatherPieces, joinPieces, type Piece, type StoredPiece } from "./pieces.ts";
import { RowSource } from "./row_source.ts";
import type { Session } from "./session.ts";
import type { StoredBundle } from "./stored_bundle.ts";

/** True if a piece is of a bundle. */
export function isStored<P extends Piece>(piece: P): piece is P & Piece<StoredBundle> {
  return !(piece.bundle instanceof RowSource);
}

function allStored(
  columns: ReadonlyMap<string, readonly FieldPiece[]>,
): columns is ReadonlyMap<string, readonly StoredPiece[]> {
  for (const pieces of columns.values()) if (!pieces.every(isStored)) return false;
  return true;
}

/** Columns as pieces of bundles: what is named by id is looked up, each list of ids once for all of its fields. */
export async function resolveColumns(
  session: Session,
  columns: ReadonlyMap<string, readonly FieldPiece[]>,
  deadline: Deadline,
): Promise<ReadonlyMap<string, readonly StoredPiece[]>> {
  const wanted = new Map<RowSource, { rows: RowSet[]; fields: Set<string> }>();
  if (allStored(columns)) return columns;
  for (const pieces of columns.values()) {
    for (const { bundle, rows, field } of pieces) {
      if (!(bundle instanceof RowSource)) continue;
      let entry = wanted.get(bundle);
      if (entry === undefined) wanted.set(bundle, entry = { rows: [], fields: new Set() });
      entry.fields.add(field);
      // without rows, one of the others still tells the form of the column
      entry.rows.push(rows.length === 0 && bundle.rows > 0 ? RowSet.all(1) : rows);
    }
  }
  /** For each source and field, the place of every wanted id, in the order of `order`. */
  const found = new Map<
    RowSource,
    { order: Map<number, number>; fields: Map<string, readonly StoredPiece[]> }
  >();
  for (const [source, { rows, fields }] of wanted) {
    const order = new Map<number, number>();
    for (const set of rows) for (const row of set) if (!order.has(row)) order.set(row, order.size);
    const ids = [...order.keys()].map((row) => source.ids[row] as string);
    found.set(source, {
      order,
      fields: await session.catalog.resolve(source.partition, ids, fields, deadline),
    });
  }
  const resolved = new Map<string, readonly StoredPiece[]>();
  for (const [name, pieces] of columns) {
    resolved.set(
      name,
      joinPieces(pieces.map((piece): readonly StoredPiece[] => {
        if (!(piece.bundle instanceof RowSource)) return [piece as StoredPiece];
        const { order, fields } = found.get(piece.bundle) as NonNullable<ReturnType<typeof found.get>>;
        const places = fields.get(piece.field) as readonly StoredPiece[];
        return gatherPieces(places, RowSet.of(Array.from(piece.rows, (row) => order.get(row) as number)));
      })),
    );
  }
  return resolved;
}

/**
 * Does something with columns as pieces of bundles. Where one of these was dropped meanwhile, rows named by id are looked
 * up once more: they may be in others by now.
 */
export async function withResolved<T>(
  session: Session,
  columns: ReadonlyMap<string, readonly FieldPiece[]>,
  deadline: Deadline,
  use: (resolved: ReadonlyMap<string, readonly StoredPiece[]>) => Promise<T>,
): Promise<T> {
  const resolved = await resolveColumns(session, columns, deadline);
  try {
    return await use(resolved);
  } catch (error) {
    const byId = columns.values().some((pieces) => !pieces.every(isStored));
    if (!(error instanceof DroppedError) || !byId) throw error;
    return await use(await resolveColumns(session, columns, deadline));
  }
}
