/**
 * A worker process of the Mooncake tests: does what each line of its input says, and answers with a line.
 *
 * @module
 */

import process from "node:process";
import { openTransfer, tensor, type TransferBackend } from "../../mod.ts";
import type { Staging } from "../../src/store/mooncake/client.ts";
import { Deadline } from "../../src/deadline.ts";
import { connectAgent } from "../../src/transfer/agent/client.ts";
import { resolveConfig } from "../../src/transfer/config.ts";
import { clientSetup } from "../../src/transfer/mooncake.ts";
import { rowsOf, WIDTH } from "../support/peer_rows.ts";
import { obeyLines } from "../support/worker_loop.ts";

interface Order {
  readonly op: "open" | "put" | "check" | "hold" | "close";
  readonly config?: Record<string, unknown>;
  readonly partition?: string;
  readonly name?: string;
  readonly seed?: number;
  readonly rows?: number;
}

let transfer: TransferBackend | undefined;
let config: Record<string, unknown> = {};
const held: Staging[] = [];

async function obey(
  { op, partition = "p", name = "", seed = 0, rows = 64, ...order }: Order,
): Promise<unknown> {
  switch (op) {
    case "open":
      config = order.config ?? {};
      transfer = await openTransfer(config);
      return process.pid;
    case "put": {
      const batch = await transfer!.put(partition, null, {
        x: tensor("int32", [rows, WIDTH], rowsOf(seed, rows)),
      }, rows);
      await transfer!.publish(partition, name, batch);
      return batch.rows;
    }
    case "check": {
      const batch = await transfer!.lookup(partition, name, { timeoutMs: 30_000 });
      const data = (await batch.materialize()).tensor("x").data as Int32Array;
      const expected = rowsOf(seed, rows);
      return data.length === expected.length && data.every((value, i) => value === expected[i]);
    }
    case "hold": {
      // what a put holds while it copies, as long as this process lives
      const deadline = new Deadline("hold", {});
      const client = await connectAgent(clientSetup(resolveConfig(config)), deadline);
      held.push(await client.reserve(1 << 20, deadline), await client.reserve(1 << 20, deadline));
      return held.length;
    }
    case "close":
      await transfer!.close();
      return true;
  }
}

await obeyLines(obey);
