/**
 * What needs the rows' ids or their values: aligning batches, and grouping rows.
 *
 * @module
 */

import type { Batch } from "../batch/batch.ts";
import { stringifyJson } from "../batch/json.ts";
import { RowSet } from "../batch/rowset.ts";
import type { Deadline } from "../deadline.ts";
import { NotFoundError, SchemaError } from "../errors.ts";
import type { Piece } from "./pieces.ts";
import { RowSource } from "./row_source.ts";
import type { Session } from "./session.ts";

/** The ids of rows given by their origin. */
export async function idsOf(
  session: Session,
  origin: readonly Piece[],
  deadline: Deadline,
): Promise<string[]> {
  const ids: string[] = [];
  for (const { bundle, rows } of origin) {
    const name = bundle instanceof RowSource
      ? (row: number) => bundle.ids[row] as string
      : await session.catalog.rowIds(bundle, deadline);
    for (const row of rows) ids.push(name(row));
  }
  return ids;
}

/**
 * The rows of `from` in the order of `to`, by id.
 *
 * @throws NotFoundError naming ids of `to` that `from` does not have; SchemaError where `from` has an id twice
 */
export function alignment(from: readonly string[], to: readonly string[]): RowSet {
  const positions = new Map<string, number>();
  from.forEach((id, row) => {
    if (positions.has(id)) {
      throw new SchemaError("a batch that has a row twice cannot be aligned", {
        actual: id,
        hint: "align before rows are repeated",
      });
    }
    positions.set(id, row);
  });
  const missing = to.filter((id) => !positions.has(id));
  if (missing.length > 0) {
    throw new NotFoundError(`${missing.length} of ${to.length} rows are not in the batch to be aligned`, {
      rows: missing,
      actual: missing.slice(0, 5),
    });
  }
  return RowSet.of(to.map((id) => positions.get(id) as number));
}

/** One group of {@linkcode groupRows}. */
export interface RowGroup {
  readonly key: Readonly<Record<string, unknown>>;
  readonly rows: RowSet;
}

/** Rows with equal values in all columns of `keys`, in the order in which the values first come. */
export function groupRows(keys: Batch): RowGroup[] {
  const groups = new Map<string, { key: Record<string, unknown>; rows: number[] }>();
  let row = 0;
  for (const key of keys) {
    const id = Object.values(key).map(identity).join("\u0000");
    let group = groups.get(id);
    if (group === undefined) groups.set(id, group = { key, rows: [] });
    group.rows.push(row++);
  }
  return [...groups.values()].map(({ key, rows }) => ({ key, rows: RowSet.of(rows) }));
}

/** Text that is the same for equal values of one column only. */
function identity(value: unknown): string {
  if (value === null) return "null";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "number") return Object.is(value, -0) ? "0" : `${value}`;
  if (typeof value !== "object") return `${typeof value} ${String(value)}`;
  if (ArrayBuffer.isView(value)) {
    const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    return `bytes ${bytes.toHex()}`;
  }
  if ("toNested" in value) {
    return stringifyJson((value as { toNested(): unknown }).toNested(), { allowNonFinite: true });
  }
  return stringifyJson(value, { allowNonFinite: true });
}
