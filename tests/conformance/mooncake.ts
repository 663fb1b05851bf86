/**
 * The suite over a real Mooncake cluster: a master, and a client of Mooncake's Python class that gives the memory.
 *
 * @module
 */

import assert from "node:assert/strict";
import { it } from "node:test";
import { mooncakeConfig, setUpMooncake, startMaster, startProvider } from "../support/mooncake.ts";
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
  let stores = 0;
  conformance({
    name,
    shared: true,
    // a store of its own for every test: a prefix
    config: () => ({
      ...config,
      clientScope,
      keyPrefix: `test-${stores++}`,
      globalSegmentSize: 0,
      localBufferSize: "64mb",
    }),
  });
  it(`backend ${name} leaves nothing in the cluster`, async () => {
    const keys = await master.keys();
    await provider.kill();
    await master.kill();
    assert.deepEqual(keys, []);
  });
}
