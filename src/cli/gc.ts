/**
 * `gc`: bundles whose time to live is over, out of the store.
 *
 * @module
 */

import { type Command, type Invocation, STORE } from "./command.ts";
import { configOf, connect } from "./connect.ts";
import { plural } from "./terminal.ts";

/** The command. */
export const gc: Command = {
  name: "gc",
  synopsis: "",
  summary: "drop bundles whose time to live is over, and what dead processes left",
  options: STORE,
  positionals: [0, 0],
  run,
};

async function run(call: Invocation): Promise<void> {
  // opening the store already removes what dead processes left
  await using transfer = await connect(configOf(call));
  const dropped = await transfer.gc();
  call.terminal.outcome({ dropped }, () => `dropped ${plural(dropped, "bundle")}`);
}
