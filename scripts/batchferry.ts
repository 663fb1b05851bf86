#!/usr/bin/env bun
/**
 * The command line's entry: `deno run -A scripts/batchferry.ts COMMAND …`, or the same with `bun`.
 *
 * @module
 */

import process from "node:process";
import { main } from "../src/cli/main.ts";

// Everything is written by now; whatever still runs in the background must not keep the process alive.
process.exit(await main(process.argv.slice(2)));
