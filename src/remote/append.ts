/**
 * Appending columns to whole batches the way Mooncake's Python class does: to a stage, as a new stage, or over one.
 *
 * @module
 */

import type { Column } from "../batch/column.ts";
import { RowSet } from "../batch/rowset.ts";
import type { Deadline } from "../deadline.ts";
import { SchemaError } from "../errors.ts";
import { type BatchParts, stageNames, wholeBundles } from "./handle.ts";
import type { FieldPiece, Piece } from "./pieces.ts";
import type { Session } from "./session.ts";
import type { StoredBundle } from "./stored_bundle.ts";

/** Where appended columns go. */
export interface AppendTarget {
  /** A stage's name in the handle; the first stage where absent. */
  readonly stage: string | undefined;
  /** Write the stage anew; all of its fields must be given. */
  readonly overwrite: boolean;
}

/**
 * Writes columns beside those of a whole batch.
 *
 * Into a stage that is there, the new bundle takes over the old one's payloads, which stay where they are: the old handle
 * still reads, and dropping the new batch drops all of it. Of two appends to one handle neither sees the other's columns.
 *
 * @returns the batch with the new columns
 * @throws SchemaError for a batch that is a view, and for fields that are there already
 */
export async function appendColumns(
  session: Session,
  batch: BatchParts,
  columns: ReadonlyMap<string, Column>,
  { stage, overwrite }: AppendTarget,
  deadline: Deadline,
): Promise<Pick<BatchParts, "columns" | "origin">> {
  const { partition } = batch;
  const bundles = wholeBundles(batch);
  if (bundles === undefined) {
    throw new SchemaError("columns can be appended to whole batches only, and this is a view", {
      partition,
      hint: "use batch.union(await batch.put(fields))",
    });
  }
  const names = stageNames(bundles);
  const name = stage ?? names.get(bundles[0] as StoredBundle) as string;
  const target = bundles.find((bundle) => names.get(bundle) === name);
  const replaced = overwrite && target !== undefined ? target.fieldHints : undefined;
  for (const field of columns.keys()) {
    if (!batch.columns.has(field) || replaced?.has(field) === true) continue;
    throw new SchemaError(`the batch has a field ${JSON.stringify(field)} already`, {
      partition,
      field,
      hint: "append it under another name, or overwrite the stage that has it",
    });
  }
  for (const field of replaced?.keys() ?? []) {
    if (columns.has(field)) continue;
    throw new SchemaError(
      `overwriting ${JSON.stringify(name)} would lose its field ${JSON.stringify(field)}`,
      {
        partition,
        field,
        expected: [...(replaced?.keys() ?? [])],
        actual: [...columns.keys()],
      },
    );
  }
  const extend = target !== undefined && !overwrite;
  const origin = batch.origin as readonly Piece<StoredBundle>[];
  const bundle = await session.write({
    partition,
    namespace: target?.namespace ?? (bundles[0] as StoredBundle).namespace,
    stage: target?.stage ?? name,
    rows: batch.rows,
    columns,
    // a stage of its own belongs to the rows of the first; one written anew must not need the one it replaces
    rowIds: target !== undefined && overwrite ? await ids(session, target, deadline) : null,
    origin: target === undefined ? origin : undefined,
    base: extend ? await session.load(target, deadline) : undefined,
    storageGroupId: (target ?? bundles[0])?.storageGroupId,
  }, deadline);
  if (target !== undefined && overwrite) await session.drop(target, deadline);
  const rows = RowSet.all(batch.rows);
  const result = new Map<string, readonly FieldPiece[]>();
  for (const [field, pieces] of batch.columns) {
    result.set(
      field,
      target !== undefined && pieces[0]?.bundle === target ? [{ bundle, field, rows }] : pieces,
    );
  }
  for (const field of columns.keys()) result.set(field, [{ bundle, field, rows }]);
  return { columns: result, origin: origin[0]?.bundle === target ? [{ bundle, rows }] : origin };
}

async function ids(session: Session, bundle: StoredBundle, deadline: Deadline): Promise<string[]> {
  const name = await session.catalog.rowIds(bundle, deadline);
  return Array.from({ length: bundle.rows }, (_, row) => name(row));
}
