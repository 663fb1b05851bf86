/**
 * Benchmarks: what is compared alternates within one run, and medians are printed.
 *
 *   deno task bench        bun run bench        both: --json
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { median, timed } from "./measure.ts";
import {
  type ColumnRemoteBatch,
  concat,
  openTransfer,
  ragged,
  strings,
  tensor,
  TransferBackend,
} from "../mod.ts";
import { openMemoryStore } from "../src/store/memory.ts";
import { resolveConfig } from "../src/transfer/config.ts";

const ROUNDS = 9;
const results: Record<string, number | string> = {};

function report(name: string, value: number, unit: string): void {
  results[`${name} (${unit})`] = Number(value.toPrecision(4));
  console.log(`${name.padEnd(58)} ${value.toPrecision(4).padStart(9)} ${unit}`);
}

/** The batch everybody measures with: 1024 × 4096, two int64 fields, one float32, and a float32 vector; 84 MB. */
function bigBatch(): Record<string, ReturnType<typeof tensor> | Float32Array> {
  const cells = 1024 * 4096;
  const ids = new BigInt64Array(cells);
  for (let i = 0; i < cells; i++) ids[i] = BigInt(i);
  return {
    input_ids: tensor("int64", [1024, 4096], ids),
    labels: tensor("int64", [1024, 4096], ids.slice()),
    logprobs: tensor("float32", [1024, 4096], new Float32Array(cells).fill(0.5)),
    rewards: new Float32Array(1024).fill(1),
  };
}

async function benchPut(transfer: TransferBackend): Promise<void> {
  const fields = bigBatch();
  const sources = Object.values(fields).map((field) =>
    field instanceof Float32Array ? new Uint8Array(field.buffer) : field.bytes
  );
  const bytes = sources.reduce((sum, source) => sum + source.byteLength, 0);
  const target = new Uint8Array(bytes);
  const copy = () => {
    let at = 0;
    for (const source of sources) {
      target.set(source, at);
      at += source.byteLength;
    }
  };
  copy();
  const firstMs = await timed(async () => await (await transfer.put("bench", null, fields, 1024)).drop());
  const copies: number[] = [];
  const puts: number[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    copies.push(await timed(copy));
    let batch: Awaited<ReturnType<TransferBackend["put"]>> | undefined;
    puts.push(await timed(async () => batch = await transfer.put("bench", null, fields, 1024)));
    await batch?.drop();
  }
  report("84 MB: warm Uint8Array.set", bytes / median(copies) / 1e6, "GB/s");
  report("84 MB: first put (fresh pages)", bytes / firstMs / 1e6, "GB/s");
  report("84 MB: later puts", bytes / median(puts) / 1e6, "GB/s");
  report(
    "84 MB: later put over set (1 is as fast)",
    median(copies.map((ms, i) => ms / (puts[i] as number))),
    "x",
  );

  const batch = await transfer.put("bench", null, fields, 1024);
  const fresh: number[] = [];
  const reused: number[] = [];
  const rows: number[] = [];
  const into = await batch.materialize();
  for (let i = 0; i < ROUNDS; i++) {
    fresh.push(await timed(() => batch.materialize()));
    reused.push(await timed(() => batch.materialize(undefined, { into })));
    rows.push(await timed(() => batch.slice(256, 384).materialize(["input_ids"])));
  }
  report("84 MB: materialize, new memory", bytes / median(fresh) / 1e6, "GB/s");
  report("84 MB: materialize into memory of before", bytes / median(reused) / 1e6, "GB/s");
  report("128 of 1024 rows of one field", median(rows), "ms");

  // another process borrows whole tensors
  const child = spawnSync(process.execPath, [...process.execArgv, ...self(), "borrow"], {
    input: JSON.stringify(batch.toHandle()),
    encoding: "utf8",
    env: { ...process.env, BATCHFERRY_DIRECTORY: directory },
  });
  if (child.status !== 0) throw new Error(child.stderr);
  const { first, all } = JSON.parse(child.stdout.trim().split("\n").at(-1) as string) as {
    first: number;
    all: number[];
  };
  report("borrow of 84 MB in another process, first", first, "ms");
  report("borrow of 84 MB in another process, later", median(all), "ms");
  await batch.drop();
}

/** How this script is started again by the same runtime. */
function self(): string[] {
  const script = process.argv[1] as string;
  return "Deno" in globalThis ? ["run", "-A", "--no-check", "--quiet", script] : [script];
}

async function borrowChild(): Promise<void> {
  let text = "";
  for await (const part of process.stdin.setEncoding("utf8")) text += part;
  await using transfer = await openTransfer({ backend: "shm" });
  const batch = transfer.importHandle(text);
  const run = () =>
    timed(async () => {
      using lease = await batch.borrow();
      if (lease.batch.tensor("input_ids").data[5] !== 5n) throw new Error("wrong bytes");
    });
  const first = await run();
  const all: number[] = [];
  for (let i = 0; i < 50; i++) all.push(await run());
  console.log(JSON.stringify({ first, all }));
}

async function benchSmall(transfer: TransferBackend): Promise<void> {
  const data = new Float32Array(1024).fill(1);
  const fields = { x: tensor("float32", [16, 64], data) };
  const once = async () => await (await transfer.put("small", null, fields, 16)).drop();
  for (let i = 0; i < 3000; i++) await once();
  const rates: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const ms = await timed(async () => {
      for (let i = 0; i < 2000; i++) await once();
    });
    rates.push(2000 / ms * 1000);
  }
  report("4 KiB: put and drop", median(rates), "a second");
}

async function benchColumns(transfer: TransferBackend): Promise<void> {
  const texts = Array.from({ length: 100_000 }, (_, i) => `${i} `.padEnd(200, "abcdefghij"));
  const rows = Array.from({ length: 100_000 }, (_, i) => new BigInt64Array(i % 513).fill(BigInt(i)));
  for (
    const [name, build, read] of [
      ["100,000 strings of 200 bytes", () => strings(texts), "strings"],
      ["100,000 int64 rows of 0 to 512", () => ragged("int64", rows), "ragged"],
    ] as const
  ) {
    const times: Record<"encode" | "write" | "read" | "decode", number[]> = {
      encode: [],
      write: [],
      read: [],
      decode: [],
    };
    for (let i = 0; i < 7; i++) {
      let column = build();
      times.encode.push(await timed(() => column = build()));
      let batch = await transfer.put(`columns-${read}`, null, { c: column }, 100_000);
      await batch.drop();
      times.write.push(
        await timed(async () => batch = await transfer.put(`columns-${read}`, null, { c: column }, 100_000)),
      );
      let data = await batch.materialize();
      times.read.push(await timed(async () => data = await batch.materialize()));
      times.decode.push(await timed(() => data[read]("c").toArray()));
      await batch.drop();
    }
    for (const [step, ms] of Object.entries(times)) report(`${name}: ${step}`, median(ms), "ms");
  }
}

/** Index work: 64 bundles in 10,000 pieces of 100 rows, five operations on them, and the plan of reading the result. */
async function benchAlgebra(): Promise<void> {
  const store = await openMemoryStore();
  let asked = 0;
  let askedAt = 0;
  const planned = new Proxy(store, {
    get(target, name) {
      // what would be read is counted and not read: the plan alone is timed
      if (name === "read") {
        return (ranges: readonly unknown[]) => {
          if (asked === 0) askedAt = performance.now();
          asked += ranges.length;
          return Promise.resolve();
        };
      }
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const transfer = new TransferBackend(resolveConfig({ backend: "memory" }), planned);
  const uploads: ColumnRemoteBatch[] = [];
  for (let i = 0; i < 64; i++) {
    const columns = { x: new Float32Array(15_625), y: new Int32Array(15_625) };
    uploads.push(await transfer.put("plan", null, columns, 15_625));
  }
  const ordered = concat(uploads).chunk(10_000);
  const parts = ordered.map((_, i) => ordered[(i * 7919) % ordered.length] as ColumnRemoteBatch);
  const mask = Array.from({ length: 1_000_000 }, (_, i) => i % 10 !== 3);
  const operations: number[] = [];
  const plans: number[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    let batch = parts[0] as ColumnRemoteBatch;
    operations.push(
      await timed(() => {
        batch = concat(parts).slice(undefined, undefined, -1).selectRows(mask).rename({ x: "z" }).slice(1000);
      }),
    );
    asked = 0;
    const start = performance.now();
    await batch.materialize(["z"]);
    plans.push(askedAt - start);
  }
  report("10,000 pieces, 1,000,000 rows: five operations", median(operations), "ms");
  report("10,000 pieces, 1,000,000 rows: plan until the first read", median(plans), "ms");
  if (asked === 0) throw new Error("nothing was planned");

  const ranks: ColumnRemoteBatch[] = [];
  for (let i = 0; i < 64; i++) ranks.push(await transfer.put("ranks", null, { x: new Float32Array(32) }, 32));
  const chunk = concat(ranks).chunk(8)[3] as ColumnRemoteBatch;
  report(
    "handle of an eighth of a 64-way concat of 2,048 rows",
    JSON.stringify(chunk.toHandle()).length / 1024,
    "KiB",
  );
  await transfer.close();
}

/** Rows in random order into memory of before, beside a plain gather of the same rows from the same kind of memory. */
async function benchGather(transfer: TransferBackend): Promise<void> {
  const [rows, width] = [16_384, 1024];
  const source = new Float32Array(rows * width).fill(1);
  const order = Array.from({ length: rows }, (_, i) => (i * 7919) % rows);
  const batch = await transfer.put("gather", null, { x: tensor("float32", [rows, width], source) }, rows);
  const shuffled = batch.selectRows(order);
  const into = await shuffled.materialize();
  const target = new Float32Array(rows * width).fill(0);
  const plain: number[] = [];
  const ours: number[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    plain.push(
      await timed(() => {
        order.forEach((row, at) => target.set(source.subarray(row * width, (row + 1) * width), at * width));
      }),
    );
    ours.push(await timed(() => shuffled.materialize(undefined, { into })));
  }
  report("64 MiB of shuffled rows of 4 KiB: plain gather", median(plain), "ms");
  report("64 MiB of shuffled rows of 4 KiB: materialize into", median(ours), "ms");
  report("materialize over plain gather", median(ours.map((ms, i) => ms / (plain[i] as number))), "x");
  await batch.drop();
}

const directory = process.env.BATCHFERRY_DIRECTORY ?? mkdtempSync(join("/dev/shm", "batchferry-bench-"));

if (process.argv[2] === "borrow") {
  await borrowChild();
} else {
  console.log(`${"Deno" in globalThis ? "Deno" : "Bun"}, medians of ${ROUNDS}`);
  try {
    const transfer = await openTransfer({ backend: "shm", directory, poolBytes: "512mb" });
    await benchPut(transfer);
    await benchSmall(transfer);
    await benchColumns(transfer);
    await benchGather(transfer);
    await benchAlgebra();
    await transfer.close();
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  if (process.argv.includes("--json")) console.log(JSON.stringify(results));
}
