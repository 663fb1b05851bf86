/**
 * A worker process of the peer stores' tests: does what each line of its input says, and answers with a line.
 *
 * @module
 */

import process from "node:process";
import {
  type ColumnRemoteBatch,
  openTransfer,
  tensor,
  type TransferBackend,
  type TransferConfig,
} from "../../mod.ts";
import { rowsOf, WIDTH } from "./peer_rows.ts";
import { obeyLines } from "./worker_loop.ts";

interface Order {
  readonly op: "open" | "put" | "replace" | "read" | "forever" | "close";
  readonly config?: TransferConfig;
  readonly handle?: object;
  readonly seed?: number;
  readonly rows?: number;
}

let transfer: TransferBackend | undefined;
let current: ColumnRemoteBatch | undefined;

async function put(seed: number, rows: number): Promise<object> {
  current = await transfer!.put("p", null, { x: tensor("int32", [rows, WIDTH], rowsOf(seed, rows)) }, rows);
  return current.toHandle();
}

async function obey({ op, config, handle, seed = 0, rows = 64 }: Order): Promise<unknown> {
  switch (op) {
    case "open":
      transfer = await openTransfer(config);
      return process.pid;
    case "put":
      return await put(seed, rows);
    case "replace":
      // the next one takes the memory of the one before
      await current!.drop();
      return await put(seed, rows);
    case "read": {
      const data = (await transfer!.importHandle(handle!).materialize()).tensor("x").data as Int32Array;
      const expected = rowsOf(seed, rows);
      return data.length === expected.length && data.every((value, i) => value === expected[i]);
    }
    case "forever": {
      const batch = transfer!.importHandle(handle!);
      await batch.materialize();
      void (async () => {
        for (;;) await batch.materialize();
      })();
      return true;
    }
    case "close":
      await transfer!.close();
      return true;
  }
}

await obeyLines(obey);
