/**
 * What reading costs, counted: blocks that are touched, never history.
 *
 * @module
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type Column,
  concat,
  openTransfer,
  ragged,
  type RemoteBatch,
  scalars,
  strings,
  tensor,
  type TransferBackend,
} from "../../mod.ts";
import { newSeed, Random, temporaryFolder } from "../support/runtime.ts";

/** What a piece of work read. */
async function counted(
  transfer: TransferBackend,
  work: () => Promise<unknown>,
): Promise<{ reads: number; bytes: number }> {
  const before = await transfer.info();
  await work();
  const after = await transfer.info();
  return { reads: after.reads - before.reads, bytes: after.bytesRead - before.bytesRead };
}

/** Rows of 1 KiB: longer than any gap that is read along with its neighbours. */
const WIDTH = 256;

/** Wide rows, each filled with its number. */
function wide(numbers: readonly number[]): Column {
  return tensor("float32", [numbers.length, WIDTH], numbers.flatMap((n) => Array(WIDTH).fill(n)));
}

const ROW_BYTES = WIDTH * 4;

/** Puts `count` bundles of `rows` rows each; as one batch, bound to bundles or to row ids. */
async function fragments(
  transfer: TransferBackend,
  count: number,
  rows: number,
  bound: boolean,
): Promise<RemoteBatch> {
  const parts: RemoteBatch[] = [];
  const ids: string[] = [];
  for (let n = 0; n < count; n++) {
    const numbers = Array.from({ length: rows }, (_, i) => n * rows + i);
    const rowIds = numbers.map((i) => `3b0f6f0e-8a55-4b6e-9d5c-${String(i).padStart(12, "0")}`);
    parts.push(
      await transfer.put(
        "p",
        rowIds,
        { x: wide(numbers), text: strings(numbers.map((i) => `row ${i}`)) },
        rows,
      ),
    );
    ids.push(...rowIds);
  }
  return bound ? transfer.rows("p", ids, ["x", "text"]) : concat(parts);
}

for (const backend of ["memory", "shm"] as const) {
  for (const bound of [false, true]) {
    const open = async (
      test: (transfer: TransferBackend, again: () => Promise<TransferBackend>) => Promise<void>,
    ) => {
      using folder = temporaryFolder();
      const config = { backend, directory: folder.path };
      await using transfer = await openTransfer(config);
      await test(transfer, () => openTransfer(config));
      await transfer.dropPartition("p");
    };

    describe(`what reading costs on ${backend}, bound to ${bound ? "row ids" : "bundles"}`, () => {
      it("reads one row of a 64-way concat at once", () =>
        open(async (transfer, again) => {
          const batch = await fragments(transfer, 64, 32, bound);
          const row = batch.slice(1000, 1001);
          assert.deepEqual(
            await counted(transfer, async () => {
              assert.equal((await row.materialize(["x"])).tensor("x").toNumbers()[0], 1000);
            }),
            { reads: 1, bytes: ROW_BYTES },
          );
          const chunk = batch.repeat(2).slice(2032).chunk(33)[7] as RemoteBatch;
          assert.deepEqual(await counted(transfer, () => chunk.materialize(["x"])), {
            reads: 3,
            bytes: chunk.rows * ROW_BYTES,
          });
          if (backend === "memory" || bound) return;
          // in another process a bundle's manifest and meta come before its first row, and of one bundle only
          await using other = await again();
          const imported = other.importHandle(JSON.stringify(row.toHandle()));
          assert.equal((await counted(other, () => imported.materialize(["x"]))).reads, 3);
          assert.deepEqual(await counted(other, () => imported.materialize(["x"])), {
            reads: 1,
            bytes: ROW_BYTES,
          });
        }));

      it("reads a quarter for a quarter of the groups", () =>
        open(async (transfer) => {
          const random = new Random(newSeed("groups"));
          const rows = 1024;
          const prompts = Array.from({ length: rows }, (_, i) => `prompt ${i < 16 ? i : random.int(16)}`);
          const ids = prompts.map((_, i) => `id-${i}`);
          const tokens = prompts.map((_, i) => Int32Array.from({ length: 100 }, () => i));
          const put = await transfer.put("p", ids, {
            prompt: strings(prompts),
            x: wide(prompts.map((_, i) => i)),
            tokens: ragged("int32", tokens),
          }, rows);
          const batch = bound ? transfer.rows("p", ids, put.fields) : put;
          const groups = await batch.groupBy(["prompt"]);
          assert.equal(groups.length, 16);
          const joined = concat(groups.map(({ batch }) => batch));
          const order = groups.flatMap(({ key }) =>
            prompts.flatMap((prompt, i) => prompt === key.prompt ? [i] : [])
          );
          const whole = await counted(transfer, () => batch.materialize(["tokens"]));
          for (const [q, shard] of joined.chunk(4).entries()) {
            const mine = order.slice(q * 256, q * 256 + 256);
            const x = await counted(transfer, async () => {
              const data = (await shard.materialize(["x"])).tensor("x").data;
              assert.deepEqual(mine.map((_, i) => data[i * WIDTH]), mine);
            });
            assert.equal(x.bytes, 256 * ROW_BYTES);
            // what says how long rows are is small, and read by the block
            const t = await counted(transfer, async () => {
              const data = (await shard.materialize(["tokens"])).ragged("tokens");
              assert.deepEqual(Array.from(data, (row) => (row as Int32Array)[0]), mine);
            });
            assert.ok(t.bytes >= 256 * 400, `${t.bytes}`);
            assert.ok(t.bytes <= whole.bytes / 4 + rows * 32, `${t.bytes} of ${whole.bytes}`);
          }
        }));

      it("reads a row once, however often it comes", () =>
        open(async (transfer) => {
          const batch = await fragments(transfer, 4, 32, bound);
          for (const fields of [["x"], ["text"], ["x", "text"]]) {
            const once = await counted(transfer, () => batch.materialize(fields));
            for (const interleave of [false, true]) {
              const view = batch.repeat(8, { interleave });
              assert.equal(view.rows, 1024);
              assert.equal((await counted(transfer, () => view.materialize(fields))).bytes, once.bytes);
            }
            const twice = concat([batch, batch.slice(undefined, undefined, -1)]);
            assert.equal((await counted(transfer, () => twice.materialize(fields))).bytes, once.bytes);
          }
        }));

      it("reads one column of ten", () =>
        open(async (transfer) => {
          const rows = 64;
          const ids = Array.from({ length: rows }, (_, i) => `id-${i}`);
          const names = Array.from({ length: 10 }, (_, i) => `c${i}`);
          const put = await transfer.put(
            "p",
            ids,
            Object.fromEntries(names.map((name) => [name, wide(ids.map((_, i) => i))])),
            rows,
          );
          const batch = bound ? transfer.rows("p", ids, names) : put;
          for (const view of [batch.select(["c3"]), batch.without(names.filter((name) => name !== "c3"))]) {
            assert.deepEqual(await counted(transfer, () => view.materialize()), {
              reads: 1,
              bytes: rows * ROW_BYTES,
            });
          }
          const renamed = batch.rename({ c3: "c0", c0: "c3" });
          assert.deepEqual(await counted(transfer, () => renamed.materialize(["c0"])), {
            reads: 1,
            bytes: rows * ROW_BYTES,
          });
          assert.deepEqual(await counted(transfer, () => batch.materialize([])), { reads: 0, bytes: 0 });
          assert.deepEqual(await counted(transfer, () => batch.slice(0, 0).materialize(["c3"])), {
            reads: 0,
            bytes: 0,
          });
        }));

      it("selects, groups no more than the keys, unites and hands over without reading data", () =>
        open(async (transfer) => {
          const batch = await fragments(transfer, 8, 16, bound);
          const derived = await batch.put({
            score: scalars("float64", Array.from({ length: 128 }, (_, i) => i % 4)),
          });
          assert.deepEqual(
            await counted(transfer, () => {
              const view = batch.slice(3).selectRows([5, 1, 1]).repeat(3).rename({ x: "y" }).chunk(2);
              concat(view).toHandle();
              const both = batch.union(derived);
              transfer.importHandle(JSON.stringify(both.slice(1).toHandle()));
              return Promise.resolve();
            }),
            { reads: 0, bytes: 0 },
          );
          const groups = await counted(transfer, () => batch.union(derived).groupBy(["score"]));
          assert.ok(groups.bytes <= 128 * 16, `${groups.bytes}`);
        }));

      it("hands a chunk of a 64-way concat of 2,048 rows over in under 8 KiB", () =>
        open(async (transfer) => {
          const batch = await fragments(transfer, 64, 32, bound);
          for (
            const chunk of [
              batch.chunk(64)[9],
              batch.chunk(8)[3],
              batch.repeat(2, { interleave: true }).chunk(32)[1],
            ]
          ) {
            const view = chunk as RemoteBatch;
            const handle = JSON.stringify(view.toHandle());
            // 256 rows named one by one take as much as their names
            const limit = 8192 + (bound ? view.rows * 40 : 0);
            assert.ok(handle.length < limit, `${handle.length}`);
            const imported = transfer.importHandle(handle);
            const [mine, theirs] = await Promise.all([view.materialize(), imported.materialize()]);
            assert.deepEqual([...theirs.strings("text")], [...mine.strings("text")]);
            assert.deepEqual(theirs.tensor("x").data, mine.tensor("x").data);
            assert.deepEqual(await imported.rowIds(), await view.rowIds());
          }
          // what a handle names is what its rows lie in
          const few = (batch.slice(320, 330).toHandle() as { bundles: { ids?: string[] }[] }).bundles;
          assert.equal(few.length, 1);
          if (bound) assert.equal(few[0]?.ids?.length, 10);
        }));
    });
  }
}
