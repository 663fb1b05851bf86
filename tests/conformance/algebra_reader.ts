/**
 * Another process: takes handles, one a line, and answers with the rows they stand for.
 *
 *   algebra_reader.ts DIRECTORY
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { openTransfer } from "../../mod.ts";
import { plain } from "./suite.ts";

await using transfer = await openTransfer({ directory: process.argv[2] as string });
for await (const line of createInterface({ input: process.stdin })) {
  const rows = plain(await transfer.importHandle(line).materialize());
  process.stdout.write(`${JSON.stringify(rows)}\n`);
}
