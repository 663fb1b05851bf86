/**
 * `ls`: what is in the store.
 *
 * @module
 */

import { type Command, type Invocation, STORE } from "./command.ts";
import { configOf, connect } from "./connect.ts";
import { formatAge, formatBytes, table } from "./terminal.ts";

/** The command. */
export const ls: Command = {
  name: "ls",
  synopsis: "[PARTITION]",
  summary: "list the batches in the store",
  options: STORE,
  positionals: [0, 1],
  run,
};

async function run(call: Invocation): Promise<void> {
  await using transfer = await connect(configOf(call));
  const bundles = await transfer.list(call.positionals[0]);
  const now = Date.now();
  call.terminal.result({ bundles }, () =>
    table([
      ["PARTITION", "ID", "STAGE", "ROWS", "FIELDS", "BYTES", "AGE"],
      ...bundles.map((bundle) => [
        bundle.partition,
        bundle.objectId,
        bundle.stage,
        String(bundle.rows),
        String(bundle.fields.length),
        formatBytes(bundle.bytes),
        bundle.createdMs === null ? "?" : formatAge(now - bundle.createdMs),
      ]),
    ], [3, 4, 5, 6]));
}
