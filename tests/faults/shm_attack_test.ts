/**
 * The shm protocol under attack: one owner at a time, killed at random; deleters and readers in both runtimes.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { openShmStore } from "../../src/store/shm.ts";
import {
  command,
  LEVEL,
  newSeed,
  Random,
  type RuntimeName,
  RUNTIMES,
  temporaryFolder,
} from "../support/runtime.ts";
import { valueOf } from "./shm_attack_worker.ts";

const WORKER = fileURLToPath(new URL("./shm_attack_worker.ts", import.meta.url));

interface Worker {
  readonly process: ChildProcess;
  readonly lines: string[];
  readonly ready: Promise<void>;
  readonly ended: Promise<{ status: number | null; signal: string | null; stderr: string }>;
}

function start(
  runtime: RuntimeName,
  role: string,
  directory: string,
  seconds: number,
  seed: number,
  child = false,
): Worker {
  const [file, ...args] = command(runtime, WORKER, [
    role,
    directory,
    String(seconds),
    String(seed),
    ...(child ? ["child"] : []),
  ]) as [string, ...string[]];
  const worker = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] });
  const lines: string[] = [];
  let stderr = "";
  let rest = "";
  const ready = new Promise<void>((resolve, reject) => {
    worker.stdout.setEncoding("utf8").on("data", (text: string) => {
      const parts = (rest + text).split("\n");
      rest = parts.pop() ?? "";
      for (const line of parts) line === "ready" ? resolve() : lines.push(line);
    });
    worker.on("close", () => reject(new Error(`a ${role} ended before it was ready: ${stderr}`)));
  });
  ready.catch(() => {});
  worker.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
  const ended = new Promise<{ status: number | null; signal: string | null; stderr: string }>((resolve) => {
    worker.on("close", (status, signal) => resolve({ status, signal, stderr }));
  });
  return { process: worker, lines, ready, ended };
}

async function attack(seconds: number): Promise<void> {
  const seed = newSeed(`shm attack, ${seconds} s`);
  const random = new Random(seed);
  using folder = temporaryFolder();
  const children: number[] = [];
  let kills = 0;
  const helpers = RUNTIMES.flatMap((runtime) => [
    start(runtime, "reader", folder.path, seconds, random.int(2 ** 32)),
    start(runtime, "deleter", folder.path, seconds, random.int(2 ** 32)),
  ]);
  await Promise.all(helpers.map(({ ready }) => ready));
  const end = performance.now() + seconds * 1000;
  let wrote = 0;
  while (performance.now() < end - 200) {
    // owners of both runtimes in turn, every other one with a child that goes on when it is killed
    const owner = start(
      RUNTIMES[kills % 2] as RuntimeName,
      "owner",
      folder.path,
      seconds,
      random.int(2 ** 32),
      kills % 4 < 2,
    );
    await owner.ready;
    await new Promise((resolve) =>
      setTimeout(resolve, Math.min(200 + random.int(1500), Math.max(0, end - performance.now())))
    );
    owner.process.kill("SIGKILL");
    const { signal, stderr } = await owner.ended;
    assert.equal(signal, "SIGKILL", `an owner ended by itself: ${stderr}`);
    for (const line of owner.lines) {
      const { child } = JSON.parse(line) as { child?: number };
      if (child !== undefined) children.push(child);
    }
    kills++;
  }
  const total = { deleted: 0, reads: 0, views: 0, dropped: 0, wrong: 0 };
  for (const helper of helpers) {
    const { status, stderr } = await helper.ended;
    assert.equal(status, 0, stderr);
    const counts = JSON.parse(helper.lines.at(-1) ?? "{}") as typeof total & { wrote: number };
    for (const name of Object.keys(total) as (keyof typeof total)[]) total[name] += counts[name];
    wrote += counts.wrote;
  }
  console.log(`${kills} owners killed, ${JSON.stringify(total)}`);
  assert.equal(total.wrong, 0, "wrong bytes were read");
  assert.ok(total.reads > 100 && total.views > 100 && total.deleted > 100, "the attack did not happen");
  assert.ok(kills > 0);

  // the next one to open the store finds dead owners only: their children, still alive, must not hold their locks
  assert.ok(children.some((pid) => isAlive(pid)), "no child of a dead owner was alive at the end");
  const store = await openShmStore({ directory: folder.path });
  const [rootName] = readdirSync(folder.path);
  const root = join(folder.path, rootName as string);
  const owners = readdirSync(join(root, "owners"));
  assert.equal(owners.length, 1, `locks of dead owners are left: ${owners}`);
  const pools = existsSync(join(root, "pool")) ? readdirSync(join(root, "pool")) : [];
  assert.ok(
    pools.every((pool) => pool === owners[0] && readdirSync(join(root, "pool", pool)).length === 0),
    `${pools}`,
  );
  let published = 0;
  for await (const key of store.list?.("bundle/attack/") ?? []) {
    const id = key.slice(0, -"/manifest".length);
    const payload = `${id}/buffer/batch.x`;
    const size = await store.size(payload) as number;
    const words = new Uint32Array(new ArrayBuffer(size));
    await store.read([{ key: payload, offset: 0, into: new Uint8Array(words.buffer) }]);
    assert.ok(words.every((word) => word === valueOf(id.slice(-32))), `${id} reads wrong`);
    published++;
  }
  console.log(`${published} bundles of dead owners read right`);
  await store.deletePrefix("bundle/attack/");
  await store.close();
  for (const pid of children) if (isAlive(pid)) process.kill(pid, "SIGKILL");
  assert.deepEqual(readdirSync(folder.path), [], "something is left in the folder");
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe("shm under attack", () => {
  for (const seconds of LEVEL === "long" ? [12, 60] : [4]) {
    it(`reads nothing wrong for ${seconds} s and leaves nothing behind`, () => attack(seconds));
  }
});
