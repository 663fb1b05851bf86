/**
 * The 84 MB batch by this library and by Mooncake's Python class over one Mooncake cluster, in turn, over TCP on
 * loopback; ours once with a client of its own and once through the node agent.
 *
 *   deno run -A scripts/bench_mooncake.ts      bun scripts/bench_mooncake.ts
 *
 * The memory is given by a Python process that does nothing else, so that all sides reach it by the same way. With
 * `--memory python` it is the timed Python process that gives it: its bytes then never leave that process. With
 * `--memory process` or `--memory node` it is ours, in that client scope.
 *
 * @module
 */

import { spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type Batch, openTransfer, tensor, type TransferBackend } from "../mod.ts";
import { Deadline } from "../src/deadline.ts";
import { stopAgent } from "../src/transfer/agent/client.ts";
import { resolveConfig } from "../src/transfer/config.ts";
import { clientSetup } from "../src/transfer/mooncake.ts";
import {
  mooncakeConfig,
  ownRuntimeFolder,
  setUpMooncake,
  startMaster,
  startProvider,
} from "../tests/support/mooncake.ts";
import { median, timed } from "./measure.ts";

const ROUNDS = 7;
const cells = BigInt64Array.from({ length: 1024 * 4096 }, (_, i) => BigInt(i));
const fields = {
  input_ids: tensor("int64", [1024, 4096], cells),
  labels: tensor("int64", [1024, 4096], cells.slice()),
  logprobs: tensor("float32", [1024, 4096], new Float32Array(1024 * 4096).fill(0.5)),
  rewards: new Float32Array(1024).fill(1),
};
const scattered = Array.from({ length: 128 }, (_, i) => i * 37 % 1024);

/** What is timed, and the time of Python's that it is held against. */
const STEPS = {
  put: "put",
  "get, new memory": "get",
  "get, into": "get",
  "128 rows": "rows",
  "128 rows, into": "rows",
  "128 rows scattered": "gather",
  drop: "cleanup",
} as const;
type Step = keyof typeof STEPS;
type Times = Partial<Record<Step, number>>;

let into: Batch | undefined;
let intoRows: Batch | undefined;

/** One round of ours, ms. */
async function round(transfer: TransferBackend, other: TransferBackend): Promise<Times> {
  const times: Times = {};
  let batch!: Awaited<ReturnType<TransferBackend["put"]>>;
  times.put = await timed(async () => batch = await transfer.put("bench", null, fields, 1024));
  const handle = JSON.stringify(batch.toHandle());
  const read = () => other.importHandle(handle);
  let data!: Batch;
  times["get, new memory"] = await timed(async () => data = await read().materialize());
  into ??= data;
  times["get, into"] = await timed(() => read().materialize(undefined, { into: into! }));
  if (into.tensor("input_ids").data[5 * 4096 + 7] !== cells[5 * 4096 + 7]) throw new Error("wrong bytes");
  const rows = () => read().slice(256, 384);
  times["128 rows"] = await timed(async () => data = await rows().materialize(["input_ids"]));
  intoRows ??= data;
  times["128 rows, into"] = await timed(() => rows().materialize(["input_ids"], { into: intoRows! }));
  if (intoRows.tensor("input_ids").data[3 * 4096 + 9] !== cells[259 * 4096 + 9]) {
    throw new Error("wrong bytes");
  }
  times["128 rows scattered"] = await timed(async () =>
    data = await read().selectRows(scattered).materialize(["input_ids"])
  );
  if (data.tensor("input_ids").data[3 * 4096 + 9] !== cells[scattered[3]! * 4096 + 9]) {
    throw new Error("wrong bytes");
  }
  times.drop = await timed(() => batch.drop());
  return times;
}

const found = await setUpMooncake();
if (found.skip !== false) throw new Error(found.skip);
using _runtime = ownRuntimeFolder();
await using master = await startMaster();
const option = process.argv.indexOf("--memory");
const giver = option < 0 ? "other" : process.argv[option + 1];
const own = giver === "python";
await using _provider = giver === "other" ? await startProvider(master, 1 << 30) : undefined;
const script = fileURLToPath(new URL("./python/bench_mooncake.py", import.meta.url));
const python = spawn(found.python, [script, master.address, own ? String(1 << 30) : "0"], {
  stdio: ["pipe", "pipe", "ignore"],
});
const answers = createInterface({ input: python.stdout })[Symbol.asyncIterator]();
const settings = await mooncakeConfig(master);
const given = (scope: string): number => scope === giver ? 1 << 30 : 0;
try {
  await answers.next();
  const all = ["process", "node"] as const;
  // a client that gives memory is faster than one that does not: they are not mixed
  const scopes = all.filter((scope) => !all.includes(giver as "node") || scope === giver);
  const transfers = new Map<string, [TransferBackend, TransferBackend]>();
  for (const clientScope of scopes) {
    const open = () => openTransfer({ ...settings, clientScope, globalSegmentSize: given(clientScope) });
    transfers.set(clientScope, [await open(), await open()]);
  }
  const ours = { process: [] as Times[], node: [] as Times[] };
  const theirs: Record<string, number>[] = [];
  for (let i = 0; i <= ROUNDS; i++) {
    const times = {} as Record<(typeof scopes)[number], Times>;
    for (const scope of i % 2 === 0 ? scopes : scopes.toReversed()) {
      times[scope] = await round(...transfers.get(scope)!);
    }
    python.stdin.write("round\n");
    const line = JSON.parse((await answers.next()).value as string) as Record<string, number>;
    if (i === 0) continue; // warms up
    for (const scope of scopes) ours[scope].push(times[scope]);
    theirs.push(Object.fromEntries(Object.entries(line).map(([step, seconds]) => [step, seconds * 1000])));
  }
  console.log(
    `${
      "Deno" in globalThis ? "Deno" : "Bun"
    }, 84 MB over TCP on loopback, medians of ${ROUNDS} rounds in turn, ms`,
  );
  const both = scopes.length > 1;
  const heads = [...scopes, "Python", ...scopes.map((scope) => `${scope} x`), ...(both ? ["node/proc"] : [])];
  console.log(`${" ".repeat(19)}${heads.map((head) => head.padStart(10)).join("")}`);
  for (const [step, name] of Object.entries(STEPS) as [Step, string][]) {
    const of = (scope: "process" | "node") => ours[scope].map((times) => times[step]!);
    const peer = theirs.map((times) => times[name]!);
    const cells = [
      ...[...scopes.map(of), peer].map((times) => median(times).toFixed(1)),
      // in every round held against that round's
      ...scopes.map((scope) => median(of(scope).map((ms, i) => peer[i]! / ms)).toFixed(2)),
      ...(both ? [median(of("node").map((ms, i) => ms / of("process")[i]!)).toFixed(2)] : []),
    ];
    console.log(`${step.padEnd(19)}${cells.map((cell) => cell.padStart(10)).join("")}`);
  }
  for (const pair of transfers.values()) for (const transfer of pair) await transfer.close();
} finally {
  const ended = new Promise((resolve) => python.on("close", resolve));
  python.kill();
  await ended;
  await stopAgent(
    clientSetup(resolveConfig({ ...settings, globalSegmentSize: 0 })),
    new Deadline("stop", {}),
  );
}
