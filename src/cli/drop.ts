/**
 * `drop`: a batch out of the store.
 *
 * @module
 */

import { type Command, type Invocation, STORE } from "./command.ts";
import { openHandle } from "./connect.ts";
import { plural } from "./terminal.ts";

/** The command. */
export const drop: Command = {
  name: "drop",
  synopsis: "HANDLE",
  summary: "delete the batch of a handle; one that is gone already is fine",
  options: STORE,
  positionals: [1, 1],
  run,
};

async function run(call: Invocation): Promise<void> {
  await using open = await openHandle(call, call.positionals[0]!);
  const { partition, rows } = open.batch;
  await open.batch.drop();
  call.terminal.outcome(
    { dropped: true, partition, rows },
    () => `dropped ${plural(rows, "row")} of ${partition}`,
  );
}
