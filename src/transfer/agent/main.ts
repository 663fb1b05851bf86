/**
 * The process of the node agent. Its one argument says what to serve; its one line on standard output whether it does.
 *
 * @module
 */

import process from "node:process";
import { openNativeClient } from "../../store/mooncake/native_client.ts";
import type { ClientSetup } from "../../store/mooncake/client.ts";
import { toWire } from "../../store/wire.ts";
import type { AgentPlace } from "./place.ts";
import { serveAgent } from "./server.ts";

interface Task {
  readonly setup: ClientSetup;
  readonly place: AgentPlace;
  readonly timeoutMs: number;
}

function say(line: unknown): Promise<void> {
  process.stdout.on("error", () => {}); // who started it may be gone
  return new Promise((resolve) => process.stdout.write(`${JSON.stringify(line)}\n`, () => resolve()));
}

const { setup, place, timeoutMs } = JSON.parse(process.argv[2] ?? "{}") as Task;
try {
  const agent = await serveAgent({ setup, place, timeoutMs, open: openNativeClient });
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => void agent.stop());
  await say({ ready: true });
  await agent.stopped;
} catch (error) {
  await say({ error: toWire(error) });
}
process.exit(0);
