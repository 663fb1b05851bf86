/**
 * One worker of the simulated step: uploads its rollouts, waits for its shard, puts derived columns over it, publishes.
 *
 *   step_worker.ts DIRECTORY PARTITION RANK [victim | orphan]
 *
 * A `victim` stops before it publishes what it derived, with a borrowed column in its hands, and waits to be killed. An
 * `orphan` puts a batch that lives a millisecond, tells nobody, and waits for the same.
 *
 * @module
 */

import process from "node:process";
import { openTransfer, ragged, type RemoteBatch, scalars, strings, tensor } from "../../mod.ts";

/** Rows that each worker uploads. */
export const ROWS = 12;
/** Workers. */
export const RANKS = 8;
/** Different prompts over all workers; each comes from several of them. */
const PROMPTS = 16;
const WIDTH = 32;

/** One row of the step as plain values. */
export interface PlainRow {
  readonly id: string;
  readonly prompt: string;
  readonly tokens: readonly number[];
  readonly score: number | null;
  readonly hidden: number;
}

/** Row `i` of a worker. */
export function rollout(rank: number, i: number): PlainRow {
  const n = rank * ROWS + i;
  return {
    id: `sample-${n}`,
    prompt: `prompt ${(n * 7) % PROMPTS} ${"é".repeat(n % 3)}`.trimEnd().slice(0, 10).trimEnd(),
    tokens: Array.from({ length: n % 9 }, (_, k) => n * 100 + k),
    score: n % 5 === 4 ? null : n % 3 - 1,
    hidden: n,
  };
}

/** What a worker computes from a row. */
export function derive(
  { tokens, score }: Pick<PlainRow, "tokens" | "score">,
): { advantage: number; total: bigint } {
  return {
    advantage: (score ?? -2) * 2 + tokens.length / 8,
    total: tokens.reduce((sum, n) => sum + BigInt(n), 0n),
  };
}

/** Reads a shard and puts what is derived from it, over its rows. */
export async function putDerived(shard: RemoteBatch): Promise<RemoteBatch> {
  const data = await shard.materialize(["tokens", "score"]);
  const scores = data.scalars("score").toArray();
  const rows = data.ragged("tokens").toArray().map((tokens, i) =>
    derive({ tokens: Array.from(tokens as Int32Array), score: scores[i] as number | null })
  );
  return await shard.put({
    advantage: scalars("float64", rows.map(({ advantage }) => advantage)),
    total: scalars("int64", rows.map(({ total }) => total)),
  });
}

async function waitForTheEnd(): Promise<void> {
  process.stdout.write("waiting\n");
  await new Promise((resolve) => setTimeout(resolve, 600_000));
}

async function orphan(directory: string, partition: string): Promise<void> {
  await using transfer = await openTransfer({ backend: "shm", directory, ttlMs: 1 });
  const batch = await transfer.put(partition, ["a", "b"], { x: new Int32Array([1, 2]) }, 2);
  await transfer.delete(partition, ["a"], []);
  using _lease = await batch.borrow();
  await waitForTheEnd();
}

async function work(directory: string, partition: string, rank: number, victim: boolean): Promise<void> {
  await using transfer = await openTransfer({ backend: "shm", directory, tensorEncoding: "numpy" });
  const rows = Array.from({ length: ROWS }, (_, i) => rollout(rank, i));
  const batch = await transfer.put(
    partition,
    rows.map(({ id }) => id),
    {
      prompt: strings(rows.map(({ prompt }) => prompt)),
      tokens: ragged("int32", rows.map(({ tokens }) => Int32Array.from(tokens))),
      score: scalars("float32", rows.map(({ score }) => score)),
      hidden: tensor(
        "float32",
        [ROWS, WIDTH],
        rows.flatMap(({ hidden }) => Array<number>(WIDTH).fill(hidden)),
      ),
    },
    ROWS,
    { meta: { rank } },
  );
  await transfer.publish(partition, `rollout-${rank}`, batch);
  const shard = await transfer.lookup(partition, `shard-${rank}`);
  const derived = await putDerived(shard);
  if (victim) {
    using _lease = await shard.borrow(["hidden", "prompt"]);
    await waitForTheEnd();
  }
  await transfer.publish(partition, `derived-${rank}`, derived);
  // what this process holds is its own affair; the batch stays
  await transfer.lookup(partition, "done");
}

if (import.meta.main) {
  const [directory, partition, rank, role] = process.argv.slice(2) as [string, string, string, string?];
  if (role === "orphan") await orphan(directory, partition);
  else await work(directory, partition, Number(rank), role === "victim");
  process.exit(0);
}
