/**
 * `stat`: what a handle stands for.
 *
 * @module
 */

import type { Kind } from "../batch/column.ts";
import type { DType } from "../batch/dtype.ts";
import type { BundleInfo } from "../bundle/bundle.ts";
import { Deadline } from "../deadline.ts";
import type { StoredPiece } from "../remote/pieces.ts";
import { type ColumnPieces, fieldOf, loadBundles } from "../remote/planner.ts";
import { type ColumnRemoteBatch, RemoteBatch } from "../remote/remote_batch.ts";
import { type Command, type Invocation, STORE } from "./command.ts";
import { openHandle } from "./connect.ts";
import { formatAge, formatBytes, plural, table } from "./terminal.ts";

/** The command. */
export const stat: Command = {
  name: "stat",
  synopsis: "HANDLE",
  summary: "say what a handle stands for",
  options: STORE,
  positionals: [1, 1],
  run,
};

async function run(call: Invocation): Promise<void> {
  await using open = await openHandle(call, call.positionals[0]!);
  const { batch, transfer } = open;
  const { fields, bundles } = await describe(batch);
  const bytes = bundles.reduce((sum, bundle) => sum + bundle.bytes, 0);
  const created = bundles.map(({ createdMs }) => createdMs).filter((ms) => ms !== null);
  const createdMs = created.length === 0 ? null : Math.min(...created);
  const { partition, rows, meta } = batch;
  const { store } = await transfer.info();
  const keys = bundles.map(({ manifestKey }) => manifestKey);
  call.terminal.result({ store, partition, rows, bytes, createdMs, fields, meta, bundles: keys }, () => {
    const facts = [
      ["store", store],
      ["partition", partition],
      ["rows", String(rows)],
      ["bytes", `${bytes} (${formatBytes(bytes)}) in ${plural(bundles.length, "bundle")}`],
      ["created", createdMs === null ? "unknown" : formatTime(createdMs)],
    ];
    const list = fields.map(({ name, kind, dtype, shape }) => [
      `  ${name}`,
      kind ?? "unknown",
      dtype ?? "",
      shape === null ? "" : `[${shape.join(", ")}]`,
    ]);
    return [table(facts), "fields", ...(list.length === 0 ? [] : [table(list)])].join("\n");
  });
}

function formatTime(ms: number): string {
  return `${new Date(ms).toISOString()} (${formatAge(Date.now() - ms)} ago)`;
}

interface FieldFacts {
  readonly name: string;
  /** Null for a field without rows in any bundle. */
  readonly kind: Kind | null;
  readonly dtype: DType | null;
  /** Of tensors. */
  readonly shape: readonly number[] | null;
}

/** The fields of a batch and the bundles they are in, from manifests alone: no data is read. */
async function describe(batch: ColumnRemoteBatch): Promise<{ fields: FieldFacts[]; bundles: BundleInfo[] }> {
  const { session, columns, origin } = RemoteBatch.stateOf(batch);
  // The batch of a handle has pieces of bundles only.
  const pieces = columns as ColumnPieces;
  const infos = await loadBundles(
    session,
    [...pieces.values(), origin as readonly StoredPiece[]],
    new Deadline("stat"),
  );
  const fields: FieldFacts[] = [];
  for (const [name, [piece]] of pieces) {
    const info = piece === undefined ? undefined : infos.get(piece.bundle);
    const stored = piece === undefined || info === undefined ? undefined : fieldOf(info, piece.field);
    const { kind = null, dtype = null, rowShape } = stored ?? {};
    fields.push({ name, kind, dtype, shape: rowShape === undefined ? null : [batch.rows, ...rowShape] });
  }
  return { fields, bundles: [...infos.values()] };
}
