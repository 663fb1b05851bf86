/**
 * The suite over a peer backend.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import process from "node:process";
import { it } from "node:test";
import type { TransferConfig } from "../../mod.ts";
import { ownRuntimeFolder } from "../support/mooncake.ts";
import { conformance } from "./suite.ts";

/** Registers the suite. */
export function peerConformance(
  settings: TransferConfig & { readonly backend: "verbs" | "transfer-engine" },
): void {
  const name = `${settings.backend}, ${settings.protocol ?? "rdma"}`;
  const runtime = ownRuntimeFolder();
  let stores = 0;
  conformance({
    name,
    shared: true,
    // a store of its own for every test: processes of one prefix find each other
    config: () => ({ localHostname: "127.0.0.1", ...settings, keyPrefix: `test-${stores++}` }),
  });
  it(`backend ${name} leaves nothing behind`, () => {
    const folder = process.env.BATCHFERRY_RUNTIME_DIR!;
    const left = readdirSync(folder, { recursive: true }).filter((file) =>
      !/^(?:peers-\w+|peer-secret)$/.test(String(file))
    );
    runtime[Symbol.dispose]();
    assert.deepEqual(left, [], "an announcement was left");
  });
}
