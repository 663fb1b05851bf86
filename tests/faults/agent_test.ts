/**
 * The node agent with a real cluster: many processes, and what happens when one of them, or the agent, is killed.
 *
 * @module
 */

import assert from "node:assert/strict";
import process from "node:process";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { openTransfer, type TransferConfig } from "../../mod.ts";
import { Deadline } from "../../src/deadline.ts";
import { agentStatus, stopAgent } from "../../src/transfer/agent/client.ts";
import type { AgentStatus } from "../../src/transfer/agent/server.ts";
import { resolveConfig } from "../../src/transfer/config.ts";
import { clientSetup } from "../../src/transfer/mooncake.ts";
import {
  isAlive,
  type Master,
  mooncakeConfig,
  ownRuntimeFolder,
  setUpMooncake,
  startMaster,
  startProvider,
  until,
} from "../support/mooncake.ts";
import { RUNTIMES } from "../support/runtime.ts";
import { Worker } from "../support/worker.ts";

const SCRIPT = fileURLToPath(new URL("./mooncake_worker.ts", import.meta.url));
const { skip } = await setUpMooncake();

/** Settings with agents of their own. */
interface Cluster {
  readonly master: Master;
  readonly config: TransferConfig;
  status(): Promise<AgentStatus | undefined>;
}

/** Runs a test with a master, and stops the agents it has started. */
async function withCluster(
  settings: TransferConfig,
  test: (cluster: Cluster) => Promise<void>,
): Promise<void> {
  using _runtime = ownRuntimeFolder();
  await using master = await startMaster();
  const config = { ...await mooncakeConfig(master), localBufferSize: "32mb", ...settings };
  const setup = clientSetup(resolveConfig(config));
  try {
    await test({ master, config, status: () => agentStatus(setup, new Deadline("status", {})) });
  } finally {
    await stopAgent(setup, new Deadline("stop", {}));
  }
}

function start(count: number): Worker[] {
  return Array.from({ length: count }, (_, i) => new Worker(RUNTIMES[i % 2]!, SCRIPT));
}

describe("the node agent", { skip }, () => {
  it("serves ten processes as one client of the cluster", () =>
    withCluster({ globalSegmentSize: "64mb" }, async ({ master, config, status }) => {
      const workers = start(10);
      // all at once: one of them starts the agent
      await Promise.all(workers.map((worker) => worker.tell({ op: "open", config })));
      assert.equal((await master.segments()).length, 1);
      assert.equal((await status())?.clients.length, 10);
      await Promise.all(
        workers.map((worker, seed) => worker.tell({ op: "put", name: `n${seed}`, seed, rows: 512 })),
      );
      const checked = await Promise.all(
        workers.map((worker, i) =>
          worker.tell({ op: "check", name: `n${(i + 3) % 10}`, seed: (i + 3) % 10, rows: 512 })
        ),
      );
      assert.deepEqual(checked, workers.map(() => true));
      assert.equal((await master.segments()).length, 1);
      for (const worker of workers) await worker[Symbol.asyncDispose]();
      await until(
        "the workers' leaving",
        async () => (await status())?.clients.length === 0 ? true : undefined,
      );
      const after = await status();
      assert.equal(after?.leases, 0);
      assert.equal(after?.pool.free, after?.pool.bytes);
      assert.equal(after?.total.errors, 0);
    }));

  it("frees what a killed worker held, and keeps what it put", () =>
    withCluster({ globalSegmentSize: "64mb" }, async ({ config, status }) => {
      for (const runtime of RUNTIMES) {
        const worker = new Worker(runtime, SCRIPT);
        await worker.tell({ op: "open", config });
        await worker.tell({ op: "put", name: runtime, seed: 7 });
        await worker.tell({ op: "hold" });
        const before = await status();
        assert.equal(before?.leases, 2);
        assert.equal(before.pool.bytes - before.pool.free, 2 << 20);
        await worker.kill();
        await until(
          "freeing the dead worker's slots",
          async () => (await status())?.leases === 0 ? true : undefined,
        );
        const after = await status();
        assert.equal(after?.pool.free, after?.pool.bytes);
        assert.deepEqual(after?.clients, []);
        await using reader = new Worker(runtime, SCRIPT);
        await reader.tell({ op: "open", config });
        assert.equal(await reader.tell({ op: "check", name: runtime, seed: 7 }), true);
      }
    }));

  it("is started again by the next call when it was killed", () =>
    withCluster({ globalSegmentSize: 0 }, async ({ master, config, status }) => {
      await using _provider = await startProvider(master, 64 << 20);
      const transfer = await openTransfer(config);
      const batch = await transfer.put("p", null, { x: new Int32Array([1, 2, 3]) }, 3);
      const first = await status() as AgentStatus;
      process.kill(first.pid, "SIGKILL");
      await until("the agent's end", () => isAlive(first.pid) ? undefined : true);
      // a call that is under way when it goes fails with AGENT_LOST; one that comes later finds a new agent
      const data = await batch.materialize().catch((error) => {
        assert.equal(error.code, "AGENT_LOST");
        return batch.materialize();
      });
      assert.deepEqual([...data.tensor("x").data], [1, 2, 3]);
      const second = await status() as AgentStatus;
      assert.notEqual(second.pid, first.pid);
      await transfer.dropPartition("p");
      await transfer.close();
    }));

  it("fails calls under way with AGENT_LOST", () =>
    withCluster({ globalSegmentSize: 0 }, async ({ master, config, status }) => {
      await using _provider = await startProvider(master, 256 << 20);
      const transfer = await openTransfer(config);
      const rows = 4096;
      const data = new Float32Array(rows * 1024 * 4); // 64 MiB: several batched calls
      const { pid } = await status() as AgentStatus;
      const { promise: moved, resolve } = Promise.withResolvers<void>();
      const put = transfer.put("p", null, { x: data }, data.length, { progress: () => resolve() });
      put.catch(() => {});
      await moved;
      process.kill(pid, "SIGKILL");
      await assert.rejects(put, { code: "AGENT_LOST" });
      // nothing of it is seen, and nothing is left once the store was cleaned
      assert.deepEqual(await transfer.list("p"), []);
      await transfer.dropPartition("p");
      assert.deepEqual(await master.keys(), []);
      await transfer.close();
    }));

  it("tells a worker of another version", () =>
    withCluster({ globalSegmentSize: 0 }, async ({ config }) => {
      const transfer = await openTransfer(config);
      const { agentPlace } = await import("../../src/transfer/agent/place.ts");
      const { receive, send } = await import("../../src/store/wire.ts");
      const { connect } = await import("node:net");
      const { socket: path } = agentPlace(clientSetup(resolveConfig(config)), false);
      const socket = connect({ path });
      const answer = await new Promise<{ error?: { code: string; message: string } }>((resolve, reject) => {
        receive(socket, (frame) => resolve(frame as never), reject);
        send(socket, { id: 1, op: "hello", version: 999, pid: process.pid });
      });
      socket.destroy();
      assert.equal(answer.error?.code, "VERSION_MISMATCH");
      assert.match(answer.error?.message ?? "", /version 1 .*version 999/);
      await transfer.close();
    }));
});
