/**
 * The suite over a real Mooncake cluster: a master, and a client of Mooncake's Python class that gives the memory.
 *
 * @module
 */

import assert from "node:assert/strict";
import { it } from "node:test";
import { Deadline } from "../../src/deadline.ts";
import { stopAgent } from "../../src/transfer/agent/client.ts";
import { resolveConfig } from "../../src/transfer/config.ts";
import { clientSetup } from "../../src/transfer/mooncake.ts";
import {
  mooncakeConfig,
  ownRuntimeFolder,
  setUpMooncake,
  startMaster,
  startProvider,
} from "../support/mooncake.ts";
import { conformance } from "./suite.ts";

/** Registers the suite for one client scope. */
export async function mooncakeConformance(clientScope: "node" | "process"): Promise<void> {
  const name = `mooncake, client scope ${clientScope}`;
  const { skip } = await setUpMooncake();
  if (skip !== false) {
    it(`backend ${name}`, { skip }, () => {});
    return;
  }
  const master = await startMaster();
  const provider = await startProvider(master, 256 * 2 ** 20);
  const config = await mooncakeConfig(master);
  const runtime = ownRuntimeFolder();
  let stores = 0;
  const settings = { ...config, clientScope, globalSegmentSize: 0, localBufferSize: "64mb" } as const;
  conformance({
    name,
    shared: true,
    // a store of its own for every test: a prefix
    config: () => ({ ...settings, keyPrefix: `test-${stores++}` }),
  });
  it(`backend ${name} leaves nothing in the cluster`, async () => {
    const keys = await master.keys();
    const stopped = await stopAgent(clientSetup(resolveConfig(settings)), new Deadline("stopping", {}));
    await provider.kill();
    await master.kill();
    runtime[Symbol.dispose]();
    assert.deepEqual([keys, stopped], [[], clientScope === "node"]);
  });
}
