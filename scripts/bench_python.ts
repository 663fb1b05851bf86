/**
 * The same batches by this library and by Mooncake's Python class over the same shared-memory folder, in turn.
 *
 *   deno run -A scripts/bench_python.ts      bun scripts/bench_python.ts
 *
 * @module
 */

import { mkdtempSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { type Batch, type Fields, ragged, strings, tensor, TransferBackend } from "../mod.ts";
import { openShmStore } from "../src/store/shm.ts";
import type { ObjectStore } from "../src/store/store.ts";
import { resolveConfig } from "../src/transfer/config.ts";
import { setUpPython } from "../tests/support/python.ts";
import { median } from "./measure.ts";

const ROUNDS = 7;
const STEPS = ["encode", "write", "read", "decode"] as const;
type Times = Record<(typeof STEPS)[number], number>;

/** What is put, from plain JavaScript values. */
const texts = Array.from({ length: 100_000 }, (_, i) => `${i} `.padEnd(200, "x"));
const rows = Array.from({ length: 100_000 }, (_, i) => new BigInt64Array(i % 513).fill(BigInt(i)));
const cells = BigInt64Array.from({ length: 1024 * 4096 }, (_, i) => BigInt(i));
const labels = cells.slice();
const logprobs = new Float32Array(1024 * 4096).fill(0.5);
const rewards = new Float32Array(1024).fill(1);

const CASES: Record<
  string,
  { readonly rows: number; readonly build: () => Fields; readonly use: (data: Batch) => void }
> = {
  strings: {
    rows: 100_000,
    build: () => ({ c: strings(texts) }),
    use: (data) => data.strings("c").toArray(),
  },
  ragged: {
    rows: 100_000,
    build: () => ({ c: ragged("int64", rows) }),
    use: (data) => data.ragged("c").toArray(),
  },
  big: {
    rows: 1024,
    build: () => ({
      input_ids: tensor("int64", [1024, 4096], cells),
      labels: tensor("int64", [1024, 4096], labels),
      logprobs: tensor("float32", [1024, 4096], logprobs),
      rewards,
    }),
    use: (data) => void data.fields.map((field) => data.tensor(field).data),
  },
};

/** A store whose writes and reads are timed. */
function timed(store: ObjectStore): { readonly store: ObjectStore; take(): number } {
  let spent = 0;
  const time = async <T>(action: () => Promise<T>): Promise<T> => {
    const start = performance.now();
    try {
      return await action();
    } finally {
      spent += performance.now() - start;
    }
  };
  const wrapper = new Proxy(store, {
    get(target, name) {
      const value = Reflect.get(target, name, target) as unknown;
      if (typeof value !== "function") return value;
      const call = (value as (...args: unknown[]) => unknown).bind(target);
      return name === "writeBundle" || name === "read" || name === "size"
        ? (...args: unknown[]) => time(() => call(...args) as Promise<unknown>)
        : call;
    },
  });
  return { store: wrapper, take: () => [spent, spent = 0][0] as number };
}

const directory = mkdtempSync("/dev/shm/batchferry-bench-");
const found = await setUpPython();
if (found.executable === undefined) throw new Error(found.skip);
const script = fileURLToPath(new URL("./python/bench.py", import.meta.url));
const python = spawn(found.executable, [script, directory], { stdio: ["pipe", "pipe", "inherit"] });
const answers = createInterface({ input: python.stdout })[Symbol.asyncIterator]();
try {
  const clock = timed(await openShmStore({ directory, poolBytes: 1 << 30 }));
  const config = resolveConfig({ directory, tensorEncoding: "numpy" });
  const transfer = new TransferBackend(config, clock.store);
  const other = new TransferBackend(config, clock.store);
  console.log(
    `${"Deno" in globalThis ? "Deno" : "Bun"} beside Python, medians of ${ROUNDS} rounds in turn, ms`,
  );
  for (const [name, { rows, build, use }] of Object.entries(CASES)) {
    const ours: Times[] = [];
    const theirs: Times[] = [];
    for (let round = 0; round <= ROUNDS; round++) {
      clock.take();
      let start = performance.now();
      const batch = await transfer.put(name, null, build(), rows);
      let total = performance.now() - start;
      const write = clock.take();
      const encode = total - write;
      const handle = JSON.stringify(batch.toHandle());
      start = performance.now();
      const data = await other.importHandle(handle).materialize();
      use(data);
      total = performance.now() - start;
      const read = clock.take();
      await batch.drop();
      python.stdin.write(`${JSON.stringify({ name })}\n`);
      const line = JSON.parse((await answers.next()).value as string) as Times;
      // the first round of each warms up
      if (round === 0) continue;
      ours.push({ encode, write, read, decode: total - read });
      theirs.push(Object.fromEntries(STEPS.map((step) => [step, line[step] * 1000])) as Times);
    }
    for (const step of [...STEPS, "all"] as const) {
      const of = (times: Times) =>
        step === "all" ? STEPS.reduce((sum, each) => sum + times[each], 0) : times[step];
      const [mine, python] = [median(ours.map(of)), median(theirs.map(of))];
      const ratio = median(ours.map((times, i) => of(theirs[i] as Times) / of(times)));
      console.log(
        `${name.padEnd(8)} ${step.padEnd(7)} ${mine.toFixed(1).padStart(8)} ${
          python.toFixed(1).padStart(9)
        } ` +
          `${ratio.toFixed(1).padStart(6)} times`,
      );
    }
  }
  await other.close();
  await transfer.close();
} finally {
  python.stdin.end();
  await new Promise((resolve) => python.on("close", resolve));
  rmSync(directory, { recursive: true, force: true });
}
process.exit(0);
