/**
 * READs over RDMA beside `ib_read_bw`, alternating, medians of five: 1 MiB at 1, 4 and 16 outstanding by the verbs plane,
 * then whole batches by the peer stores. For the lab's two devices, or one device to itself:
 *
 *   node scripts/lab.mjs bun scripts/bench_rdma.ts
 *   bun scripts/bench_rdma.ts --reader mlx5_0 --writer mlx5_1 --only stores --transfer-engine libtransfer_engine.so
 *
 * @module
 */

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Batch, type ColumnRemoteBatch, openTransfer, tensor, type TransferConfig } from "../mod.ts";
import { Deadline } from "../src/deadline.ts";
import type { Plane, Wire } from "../src/store/peer/plane.ts";
import { openVerbsPlane } from "../src/store/peer/verbs.ts";
import { newMemory } from "../src/store/registered/memory.ts";

const { values } = parseArgs({
  options: {
    reader: { type: "string", default: existsSync("/sys/class/infiniband/rxe1") ? "rxe1" : "" },
    writer: { type: "string", default: existsSync("/sys/class/infiniband/rxe2") ? "rxe2" : "" },
    gid: { type: "string", default: "1" },
    reads: { type: "string", default: "32" },
    rounds: { type: "string", default: "5" },
    "batch-mib": { type: "string", default: "16" },
    "transfer-engine": { type: "string" },
    only: { type: "string" },
    role: { type: "string" },
  },
});
const MIB = 2 ** 20;
const READS = Number(values.reads);
const ROUNDS = Number(values.rounds);
const LIMIT_MS = 300_000;

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1]!;
}

const deadline = (): Deadline => new Deadline("the benchmark", {}, LIMIT_MS);

/** Gb/s of `ib_read_bw`, its server on the writer's device. */
async function perftest(depth: number): Promise<number> {
  const flags = [
    "-x",
    values.gid,
    "-s",
    String(MIB),
    "-n",
    String(READS),
    "-o",
    "16",
    "-t",
    String(depth),
    "-F",
  ];
  const run = (device: string, ...more: string[]) => {
    const child = spawn("ib_read_bw", ["-d", device, ...flags, ...more], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    let said = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => said += text);
    return new Promise<string>((resolve) => child.once("close", () => resolve(said)));
  };
  const server = run(values.writer);
  await new Promise((resolve) => setTimeout(resolve, 2000));
  const said = await run(values.reader, "127.0.0.1");
  await server;
  const [, average] = /^ *1048576 +\d+ +[\d.]+ +([\d.]+)/m.exec(said) ?? [];
  if (average === undefined) throw new Error(`ib_read_bw said: ${said}`);
  return Number(average) * MIB * 8 / 1e9; // it says MiB/s, which has more digits than its Gb/s
}

/** Another process that answers lines of JSON with lines of JSON. */
class Role implements AsyncDisposable {
  readonly #child;
  readonly #lines;

  constructor(role: string) {
    const given = Object.entries(values).filter(([name]) => name !== "role").flatMap(([name, value]) => [
      `--${name}`,
      String(value),
    ]);
    const flags = "Deno" in globalThis ? ["run", "-A", "--no-check", "--quiet"] : [];
    this.#child = spawn(process.execPath, [
      ...flags,
      fileURLToPath(import.meta.url),
      ...given,
      "--role",
      role,
    ], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async ask(question: unknown): Promise<unknown> {
    this.#child.stdin.write(`${JSON.stringify(question)}\n`);
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error("the other process has ended");
    return JSON.parse(value);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin.end();
    await new Promise<void>((resolve) => {
      if (this.#child.exitCode !== null) resolve();
      else this.#child.once("close", () => resolve());
    });
  }
}

/** Answers questions until the input ends. */
async function answer(with_: (question: Record<string, unknown>) => Promise<unknown>): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await with_(JSON.parse(line) as Record<string, unknown>)));
  }
}

async function planeWriter(): Promise<void> {
  const plane = await openVerbsPlane({ deviceName: values.writer });
  const memory = newMemory(MIB);
  memory.bytes.fill(1);
  const registration = await plane.register(memory.address, MIB);
  await answer(async ({ hello }) => ({
    answer: (await plane.accept(hello as Wire, deadline())).answer,
    remote: registration.remote,
  }));
  await plane.close();
}

type Backend = "verbs" | "transfer-engine";

function storeConfig(backend: Backend, side: "reader" | "writer"): TransferConfig {
  return {
    backend,
    localHostname: process.env.MOONCAKE_LOCAL_HOSTNAME ?? "127.0.0.1",
    protocol: "rdma",
    deviceName: values[side],
    globalSegmentSize: "64mb",
    localBufferSize: "16mb",
    timeoutMs: LIMIT_MS,
    ...(backend === "verbs" ? {} : { libraryPath: values["transfer-engine"]! }),
  };
}

async function storeWriter(backend: Backend): Promise<void> {
  await using transfer = await openTransfer(storeConfig(backend, "writer"));
  await answer(async () => {
    const rows = Number(values["batch-mib"]) * 256;
    const batch = await transfer.put("bench", null, {
      x: tensor("float32", [rows, 1024], new Float32Array(rows * 1024).fill(1)),
    }, rows);
    return batch.toHandle();
  });
}

async function planeReads(): Promise<void> {
  const plane: Plane = await openVerbsPlane({ deviceName: values.reader });
  const memory = newMemory(16 * MIB);
  memory.bytes.fill(0);
  const registration = await plane.register(memory.address, 16 * MIB);
  {
    await using writer = new Role("plane");
    const offer = await plane.offer();
    const { answer, remote } = await writer.ask({ hello: offer.hello }) as { answer: Wire; remote: Wire };
    const link = await offer.open(answer, deadline());
    /** Gb/s of 1 MiB READs, so many under way at a time. */
    const measure = async (depth: number): Promise<number> => {
      let left = READS;
      const startedMs = performance.now();
      await Promise.all(Array.from({ length: depth }, async (_, slot) => {
        while (left-- > 0) {
          const piece = { localOffset: slot * MIB, remoteOffset: 0, bytes: MIB };
          await link.read(registration, remote, [piece], deadline(), () => {});
        }
      }));
      return READS * MIB * 8 / 1e6 / (performance.now() - startedMs);
    };
    await measure(1); // compiles what is measured below
    for (const depth of [1, 4, 16]) {
      const theirs: number[] = [];
      const ours: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        theirs.push(await perftest(depth));
        ours.push(await measure(depth));
      }
      report(`verbs, ${depth} outstanding`, ours, theirs);
    }
    await link.close();
  }
  await plane.close();
  memory.close();
}

/** Reads whole batches, one for each question; answers with Gb/s. */
async function storeReader(backend: Backend): Promise<void> {
  await using transfer = await openTransfer(storeConfig(backend, "reader"));
  let batch: ColumnRemoteBatch | undefined;
  let into: Batch | undefined;
  await answer(async ({ handle }) => {
    if (handle !== undefined) {
      batch = transfer.importHandle(handle as object);
      into = await batch.materialize();
      return true;
    }
    const startedMs = performance.now();
    into = await batch!.materialize(undefined, { into: into! });
    return into.tensor("x").bytes.byteLength * 8 / 1e6 / (performance.now() - startedMs);
  });
  await batch?.drop();
}

/** The stores in turn, each in processes of its own. */
async function storeReads(backends: readonly Backend[]): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const readers = [];
  for (const backend of backends) {
    const writer = stack.use(new Role(`${backend} writer`));
    const handle = await writer.ask({});
    const reader = stack.use(new Role(`${backend} reader`));
    await reader.ask({ handle });
    readers.push({ backend, reader, ours: [] as number[] });
  }
  const theirs: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    theirs.push(await perftest(16));
    for (const { reader, ours } of readers) ours.push(await reader.ask({}) as number);
  }
  for (const { backend, ours } of readers) {
    report(`${backend} store, ${values["batch-mib"]} MiB`, ours, theirs);
  }
  const [verbs, engine] = readers;
  if (verbs === undefined || engine === undefined) return;
  const ratio = median(engine.ours) / median(verbs.ours);
  console.log(`the Transfer Engine's store at ${ratio.toFixed(2)} of the verbs store`);
}

function report(what: string, ours: readonly number[], theirs: readonly number[]): void {
  const show = (all: readonly number[]): string =>
    `${median(all).toFixed(3)} (${Math.min(...all).toFixed(3)} to ${Math.max(...all).toFixed(3)}) Gb/s`;
  const ratio = (median(ours) / median(theirs)).toFixed(2);
  console.log(`${what.padEnd(32)} ${show(ours)}, ib_read_bw ${show(theirs)}: ${ratio}`);
}

const [role, side] = (values.role ?? "").split(" ") as [string, string?];
if (role === "plane") await planeWriter();
else if (side === "writer") await storeWriter(role as Backend);
else if (side === "reader") await storeReader(role as Backend);
else {
  const folder = mkdtempSync(join(tmpdir(), "batchferry-bench-"));
  process.env.BATCHFERRY_RUNTIME_DIR = folder;
  console.log(`${"Deno" in globalThis ? "Deno" : "Bun"}, ${values.reader} reads ${values.writer}`);
  if (values.only !== "stores") await planeReads();
  if (values.only !== "plane") {
    await storeReads(values["transfer-engine"] === undefined ? ["verbs"] : ["verbs", "transfer-engine"]);
  }
  rmSync(folder, { recursive: true });
}
