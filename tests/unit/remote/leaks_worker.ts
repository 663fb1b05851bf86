/**
 * Puts batches and forgets them in several ways; then has garbage collected until nothing more is reported.
 *
 *   leaks_worker.ts DIRECTORY
 *
 * @module
 */

import process from "node:process";
import { concat, openTransfer, type RemoteBatch } from "../../../mod.ts";

declare const Bun: { gc(synchronous: boolean): void };

const collect = "Bun" in globalThis ? () => Bun.gc(true) : (globalThis as unknown as { gc(): void }).gc;

const transfer = await openTransfer({ backend: "shm", directory: process.argv[2] as string });
const x = () => ({ x: new Int32Array(2) });
const kept: RemoteBatch[] = [];
const forgotten: string[] = [];

const manifestKey = async (partition: string) => (await transfer.list(partition))[0]?.manifestKey as string;

async function forgetPut(): Promise<void> {
  await transfer.put("forgotten", null, x(), 2);
}

async function forgetCompact(): Promise<void> {
  const batch = await transfer.put("source", null, x(), 2);
  await batch.slice(1).compact({ stage: "compacted" });
  await batch.drop();
}

async function forgetDerived(): Promise<void> {
  const batch = await transfer.put("derived", null, x(), 2);
  kept.push(batch);
  await batch.slice(1).put({ y: new Int32Array(1) });
}

async function keepViews(): Promise<void> {
  // each is held by one view only
  const [first, second, third] = await Promise.all([0, 1, 2].map(() => transfer.put("views", null, x(), 2)));
  const derived = await (third as RemoteBatch).put({ y: new Int32Array(2) });
  kept.push(concat([first as RemoteBatch, (second as RemoteBatch).selectRows([0])]).slice(1, 2));
  kept.push((third as RemoteBatch).union(derived).select(["x"]).repeat(2));
}

async function dropAll(): Promise<void> {
  await (await transfer.put("dropped", null, x(), 2)).drop();
  await transfer.put("gone", null, x(), 2);
  await transfer.dropPartition("gone");
  await using scope = await transfer.scope("scoped");
  await scope.put(x());
}

async function dropAppended(): Promise<void> {
  const batch = await transfer.put("appended", null, x(), 2);
  await (await batch.append({ y: new Int32Array(2) })).drop();
}

async function importOnly(): Promise<void> {
  const batch = await transfer.put("imported", null, x(), 2);
  kept.push(batch);
  transfer.importHandle(batch.toHandle());
}

await forgetPut();
forgotten.push(await manifestKey("forgotten"));
await forgetCompact();
forgotten.push(await manifestKey("source"));
await forgetDerived();
forgotten.push((await transfer.list("derived"))[1]?.manifestKey as string);
await keepViews();
await dropAll();
await dropAppended();
await importOnly();

let reports = 0;
const warn = console.warn;
console.warn = (text: string) => {
  reports++;
  warn(text);
};
// collecting is nobody's promise: until all that is forgotten was told of, and a while longer for what must not be
const wanted = process.env.BATCHFERRY_TRACE_LEAKS === "1" ? forgotten.length : 0;
for (let turn = 0, after = 0; turn < 500 && after < 10; turn++) {
  collect();
  await new Promise((resolve) => setTimeout(resolve, 2));
  if (reports >= wanted) after++;
}
console.log(JSON.stringify({ forgotten, reports, kept: kept.length }));
for (const partition of new Set((await transfer.list()).map((bundle) => bundle.partition))) {
  await transfer.dropPartition(partition);
}
await transfer.close();
