/**
 * TypeScript and Mooncake's own Python class over a real Mooncake cluster, whose memory the Python side gives.
 *
 * @module
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { openTransfer, strings, type TransferConfig } from "../../mod.ts";
import { Deadline } from "../../src/deadline.ts";
import { stopAgent } from "../../src/transfer/agent/client.ts";
import { resolveConfig } from "../../src/transfer/config.ts";
import { clientSetup } from "../../src/transfer/mooncake.ts";
import { mooncakeConfig, ownRuntimeFolder, setUpMooncake, startMaster } from "../support/mooncake.ts";
import { PythonServer } from "../support/python.ts";
import { type Both, pythonInterop, SERVER } from "./python_suite.ts";

const found = await setUpMooncake();
const { skip } = found;

function over(clientScope: "process" | "node"): typeof withBoth {
  return (config, test) => withBoth({ clientScope, ...config }, test);
}

async function withBoth(config: TransferConfig, test: (both: Both) => Promise<void>): Promise<void> {
  if (found.skip !== false) throw new Error(found.skip);
  using _runtime = ownRuntimeFolder();
  await using master = await startMaster();
  const settings = {
    ...await mooncakeConfig(master),
    tensorEncoding: "numpy",
    globalSegmentSize: 0,
    localBufferSize: "32mb",
    chunkBytes: 1000,
    ...config,
  } as const;
  try {
    await using python = PythonServer.start(found.python, SERVER);
    const prefix = config.keyPrefix ?? "bundle";
    await python.call("open", { directory: null, prefix, master: master.address, memory: 256 << 20 });
    const open = () => openTransfer(settings);
    await using transfer = await open();
    await test({ python, transfer, open, left: async () => (await master.keys()).sort() });
    assert.deepEqual(await master.keys(), [], "something is left in the cluster");
  } finally {
    await stopAgent(clientSetup(resolveConfig(settings)), new Deadline("stop", {}));
  }
}

pythonInterop("mooncake, process scope", skip, over("process"));
pythonInterop("mooncake, node scope", skip, over("node"));

describe("a partition of a Mooncake cluster", { skip }, () => {
  it("goes with its scope, Python's bundles included, and leaves the neighbour alone", () =>
    withBoth({ keyPrefix: "a+b" }, async ({ python, transfer, left }) => {
      const field = { name: "t", rows: ["x", "y"], codec: "utf8_ragged" };
      const put = (partition: string) =>
        python.call<{ stage_refs: Record<string, { manifest_key: string }> }>("put", {
          fields: [field],
          partition,
          stage: "s",
          meta: { $d: [] },
        });
      const neighbour = await put("step-70");
      const alike = await put("step.7");
      {
        await using step = await transfer.scope("step-7");
        await step.put({ s: strings(["a", "b"]) });
        const theirs = await put("step-7");
        await python.call("append", {
          handle: theirs,
          stage: "s",
          fields: [{ ...field, name: "u" }],
          meta: { $d: [] },
        });
        assert.ok((await transfer.list("step-7")).length >= 2);
      }
      assert.deepEqual(await transfer.list("step-7"), []);
      assert.deepEqual((await left()).filter((key) => key.startsWith("a+b/step-7/")), []);
      for (const handle of [neighbour, alike]) {
        const batch = transfer.importHandle(handle as never);
        assert.deepEqual((await batch.materialize()).strings("t").toArray(), ["x", "y"]);
        await batch.drop();
      }
    }));
});
