/**
 * A training step as it is in life: a driver, workers in both runtimes, one of them killed, Python; and nothing left after.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { concat, openTransfer, type RemoteBatch, type TransferBackend } from "../../mod.ts";
import { bytesOfHex, hexOf } from "../interop/python/neutral.ts";
import { PythonServer, setUpPython } from "../support/python.ts";
import { command, ROOT, type RuntimeName, RUNTIMES, temporaryFolder } from "../support/runtime.ts";
import { derive, type PlainRow, putDerived, RANKS, rollout, ROWS } from "./step_worker.ts";

const WORKER = fileURLToPath(new URL("./step_worker.ts", import.meta.url));
const SERVER = join(ROOT, "tests", "interop", "python", "server.py");
const PARTITION = "step-7";
const VICTIM = 5;
const { executable = "", skip } = await setUpPython();

interface Worker {
  readonly process: ChildProcess;
  /** Rejects where the worker ends first. */
  readonly waiting: Promise<void>;
  readonly ended: Promise<{ status: number | null; signal: string | null; stderr: string }>;
}

function start(directory: string, rank: number, role = rank === VICTIM ? "victim" : ""): Worker {
  const args = [directory, PARTITION, String(rank), role];
  const [file, ...words] = command(RUNTIMES[rank % 2] as RuntimeName, WORKER, args) as [string, ...string[]];
  const worker = spawn(file, words, { stdio: ["ignore", "pipe", "pipe"] });
  let stderr = "";
  worker.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
  const ended = new Promise<Awaited<Worker["ended"]>>((resolve) =>
    worker.on("close", (status, signal) => resolve({ status, signal, stderr }))
  );
  const waiting = new Promise<void>((resolve, reject) => {
    worker.stdout.setEncoding("utf8").on("data", (text: string) => text.includes("waiting") && resolve());
    ended.then(({ stderr }) => reject(new Error(`worker ${rank} ended: ${stderr}`)));
  });
  waiting.catch(() => {});
  return { process: worker, waiting, ended };
}

/** What the driver's side of the step should come to, on plain rows. */
function expectedRows(): { shards: PlainRow[][]; kept: PlainRow[] } {
  const all = Array.from({ length: RANKS * ROWS }, (_, n) => rollout(Math.floor(n / ROWS), n % ROWS));
  const groups = new Map<string, PlainRow[]>();
  for (const row of all) groups.set(row.prompt, [...groups.get(row.prompt) ?? [], row]);
  const order = [...groups.values()].flat();
  return {
    shards: Array.from({ length: RANKS }, (_, rank) => order.slice(rank * ROWS, (rank + 1) * ROWS)),
    kept: order.filter((row) => derive(row).advantage > 0),
  };
}

/** Rows of a batch as plain values. */
async function plainRows(batch: RemoteBatch): Promise<PlainRow[]> {
  const data = await batch.materialize(["prompt", "tokens", "score", "hidden"]);
  const ids = await batch.rowIds();
  const hidden = data.tensor("hidden");
  return ids.map((id, i) => ({
    id,
    prompt: data.strings("prompt").at(i) as string,
    tokens: Array.from(data.ragged("tokens").at(i) as Int32Array),
    score: data.scalars("score").at(i) as number | null,
    hidden: Number(hidden.data[(i + 1) * (hidden.shape[1] as number) - 1]),
  }));
}

/** The driver's side, up to the rows that are kept. */
async function drive(
  transfer: TransferBackend,
  partition: string,
  workers: readonly Worker[],
): Promise<RemoteBatch> {
  const { shards: expected, kept } = expectedRows();
  const ranks = workers.map((_, rank) => rank);
  const find = (name: string, rank: number) =>
    Promise.race([
      transfer.lookup(partition, `${name}-${rank}`),
      (workers[rank] as Worker).ended.then(({ stderr }) =>
        Promise.reject(new Error(`worker ${rank} ended: ${stderr}`))
      ),
    ]);
  const batch = concat(await Promise.all(ranks.map((rank) => find("rollout", rank))));
  assert.equal(batch.rows, RANKS * ROWS);
  const groups = await batch.groupBy(["prompt"]);
  assert.ok(groups.length > RANKS && groups.length < RANKS * ROWS);
  for (const { key, batch: group } of groups) {
    const prompts = (await group.materialize(["prompt"])).strings("prompt").toArray();
    assert.ok(prompts.every((prompt) => prompt === key.prompt));
  }
  const shards = concat(groups.map(({ batch }) => batch)).chunk(RANKS);
  for (const rank of ranks) await transfer.publish(partition, `shard-${rank}`, shards[rank] as RemoteBatch);

  // one dies with its work done and told to nobody, another's memory in its hands
  const victim = workers[VICTIM] as Worker;
  await victim.waiting;
  victim.process.kill("SIGKILL");
  assert.equal((await victim.ended).signal, "SIGKILL");
  const survivors = ranks.filter((rank) => rank !== VICTIM);
  const derived = new Map<number, RemoteBatch>();
  for (const rank of survivors) derived.set(rank, await find("derived", rank));
  // what it had published is as good as before; its work is done again
  assert.deepEqual(
    await plainRows(await transfer.lookup(partition, `rollout-${VICTIM}`)),
    expectedOf(VICTIM),
  );
  const again = await transfer.lookup(partition, `shard-${VICTIM}`);
  assert.deepEqual(await plainRows(again), expected[VICTIM]);
  derived.set(VICTIM, await putDerived(again));

  const all = concat(shards).union(concat(ranks.map((rank) => derived.get(rank) as RemoteBatch)));
  const advantages = (await all.materialize(["advantage"])).scalars("advantage").toArray();
  const filtered = all.selectRows(advantages.map((advantage) => (advantage as number) > 0));
  assert.deepEqual(await plainRows(filtered), kept);
  const data = await filtered.materialize(["advantage", "total"]);
  assert.deepEqual(
    [...data],
    kept.map((row) => {
      const { advantage, total } = derive(row);
      return { advantage, total: Number(total) };
    }),
  );
  // by id the same comes out, whoever computed it
  const byId = await transfer.get(partition, kept.map(({ id }) => id), ["advantage"]);
  assert.deepEqual([...byId], kept.map((row) => ({ advantage: derive(row).advantage })));
  return filtered;
}

function expectedOf(rank: number): PlainRow[] {
  return Array.from({ length: ROWS }, (_, i) => rollout(rank, i));
}

/** Runs a step in a new folder; when everybody has closed, nothing may be left in it. */
async function step(
  after: (transfer: TransferBackend, kept: RemoteBatch, directory: string) => Promise<void>,
): Promise<void> {
  using folder = temporaryFolder();
  const open = () => openTransfer({ backend: "shm", directory: folder.path, tensorEncoding: "numpy" });
  const workers: Worker[] = [];
  {
    await using transfer = await open();
    try {
      const neighbour = await transfer.put("step-70", null, { x: new Int32Array([1]) }, 1);
      {
        await using scope = await transfer.scope(PARTITION);
        for (let rank = 0; rank < RANKS; rank++) workers.push(start(folder.path, rank));
        const kept = await drive(transfer, PARTITION, workers);
        await after(transfer, kept, folder.path);
        await scope.publish("done", kept);
        for (const [rank, worker] of workers.entries()) {
          const { status, stderr } = await worker.ended;
          if (rank !== VICTIM) assert.equal(status, 0, stderr);
        }
        assert.ok((await transfer.list(PARTITION)).length >= 2 * RANKS);
      }
      assert.deepEqual((await transfer.list()).map(({ partition }) => partition), ["step-70"]);
      await using fresh = await open();
      assert.deepEqual(await fresh.list(PARTITION), []);
      await neighbour.drop();
    } finally {
      for (const { process } of workers) process.kill("SIGKILL");
    }
  }
  assert.deepEqual(readdirSync(folder.path), []);
}

describe("a training step over shared memory", () => {
  it("outlives producers that were killed for as long as they said", async () => {
    using folder = temporaryFolder();
    const config = { backend: "shm", directory: folder.path } as const;
    {
      await using transfer = await openTransfer(config);
      const kept = await transfer.put(PARTITION, null, { x: new Int32Array([1]) }, 1);
      const orphans = RUNTIMES.map((_, rank) => start(folder.path, rank, "orphan"));
      for (const { waiting, process, ended } of orphans) {
        await waiting;
        process.kill("SIGKILL");
        await ended;
      }
      // readable until somebody cleans up
      assert.equal((await transfer.list(PARTITION)).length, 3);
      assert.deepEqual((await transfer.get(PARTITION, ["b"], ["x"])).tensor("x").toNumbers(), [2]);
      assert.equal(await transfer.gc(), 2);
      assert.deepEqual((await transfer.list()).map(({ rows }) => rows), [1]);
      await using fresh = await openTransfer(config);
      assert.equal(await fresh.gc(), 0);
      await kept.drop();
    }
    assert.deepEqual(readdirSync(folder.path), []);
  });

  it("comes to the right rows with a worker killed, and leaves nothing behind", () =>
    step(async (transfer, kept) => {
      // a second consumer that has nothing but the handle
      const imported = transfer.importHandle(JSON.stringify(kept.toHandle()));
      assert.deepEqual(await plainRows(imported), await plainRows(kept));
    }));

  it(
    "goes on in Python, whose columns are the scope's too",
    { skip },
    () =>
      step(async (transfer, kept, directory) => {
        const compact = await kept.compact({ stage: "train" });
        await using python = PythonServer.start(executable, SERVER);
        await python.call("open", { directory });
        const values = Float32Array.from({ length: kept.rows }, (_, i) => i / 2);
        const handle = await python.call<object>("append", {
          handle: compact.toHandle(),
          fields: [{
            name: "value",
            array: { dtype: "float32", shape: [kept.rows], hex: hexOf(new Uint8Array(values.buffer)) },
          }],
          stage: "critic",
          meta: { $d: [] },
        });
        // Python reads what the workers made
        const read = await python.call<{ columns: { hidden: { array: { hex: string; shape: number[] } } } }>(
          "get",
          {
            handle,
            fields: ["hidden"],
          },
        );
        const { hex, shape } = read.columns.hidden.array;
        const hidden = new Float32Array(bytesOfHex(hex).slice().buffer);
        const rows = await plainRows(kept);
        assert.deepEqual(rows.map((_, i) => hidden[i * (shape[1] as number)]), rows.map((row) => row.hidden));
        // and TypeScript what Python appended, in one batch with the rest
        const both = transfer.importHandle(JSON.stringify(handle));
        assert.deepEqual(both.fields, [...compact.fields, "value"]);
        assert.deepEqual((await both.materialize(["value"])).tensor("value").data, values);
        assert.deepEqual(await plainRows(both), rows);
      }),
  );
});
