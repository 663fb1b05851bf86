/**
 * Damaged inputs: manifests, metas, payloads, handles, files in shared memory, and the files of the command line.
 *
 * Whatever an input says, reading it gives a right result or an error of ours, within two seconds, and asks for no more
 * memory than the input warrants. Inputs that found bugs are kept in `corpus/`, large ones made in `fuzz/grown.ts`; they
 * are read first.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readdirSync, readFileSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { grown } from "./fuzz/grown.ts";
import { installMeter, startMeter, stopMeter } from "./fuzz/meter.ts";
import { inputBytes, type Parts, setFolder, type Target, targets } from "./fuzz/targets.ts";
import type { Shared } from "./fuzz/watchdog.ts";
import { LEVEL, newSeed, Random, scaled, temporaryFolder } from "../support/runtime.ts";

const INPUTS = scaled(200_000);
const TIMEOUT_MS = 2000;
/** No input may take as long as this, however busy the machine is. */
const HANG_MS = 60_000;
/** What an input may cost: the numbers of a JSON text, say, become eight bytes each, in several copies. */
const BYTES_PER_BYTE = 64;
const FREE_BYTES = 8 << 20;

/** How an input is written down: parts that are text as text, others as base64. */
interface CorpusFile {
  readonly target: string;
  readonly bug: string;
  readonly parts: Readonly<Record<string, string | { readonly base64: string }>>;
}

function toCorpus(target: string, parts: Parts): CorpusFile {
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const entries = [...parts].map(([name, bytes]) => {
    try {
      return [name, strict.decode(bytes)];
    } catch {
      return [name, { base64: Buffer.from(bytes).toString("base64") }];
    }
  });
  return { target, bug: "?", parts: Object.fromEntries(entries) };
}

function fromCorpus({ parts }: CorpusFile): Parts {
  return new Map(
    Object.entries(parts).map(([name, part]) => [
      name,
      new Uint8Array(typeof part === "string" ? Buffer.from(part) : Buffer.from(part.base64, "base64")),
    ]),
  );
}

function targetNamed(name: string): Target {
  const target = targets.find((target) => target.name === name);
  assert.ok(target, `there is no target ${name}`);
  return target;
}

const state = new Int32Array(new SharedArrayBuffer(8));
const current = new Uint8Array(new SharedArrayBuffer(1 << 20));
let inputs = 0;
let slowest = 0;

async function once(target: Target, parts: Parts): Promise<number> {
  startMeter(inputBytes(parts) * BYTES_PER_BYTE + FREE_BYTES);
  const start = performance.now();
  try {
    const running = target.run(parts);
    if (running !== undefined) await running;
  } finally {
    stopMeter();
  }
  return performance.now() - start;
}

/** Reads one input under all rules. */
async function attack(target: Target, parts: Parts, origin: string): Promise<void> {
  let at = 0;
  for (const part of parts.values()) {
    const room = part.subarray(0, current.length - at);
    current.set(room, at);
    at += room.length;
  }
  Atomics.store(state, 1, at);
  Atomics.store(state, 0, ++inputs);
  try {
    let took = await once(target, parts);
    // a busy machine is not a slow reader
    if (took > TIMEOUT_MS) took = Math.min(took, await once(target, parts));
    assert.ok(took <= TIMEOUT_MS, `it took ${Math.round(took)} ms`);
    slowest = Math.max(slowest, took);
  } catch (cause) {
    const input = Buffer.from(JSON.stringify(toCorpus(target.name, parts))).toString("base64");
    throw new Error(`${origin}: ${(cause as Error).message}\ninput for ${target.name}, base64: ${input}`, {
      cause,
    });
  } finally {
    Atomics.store(state, 0, 0);
  }
}

describe("damaged inputs", () => {
  const folder = temporaryFolder("batchferry-fuzz-");
  const watchdog = new Worker(new URL("./fuzz/watchdog.ts", import.meta.url), { type: "module" });

  let meter: Disposable | undefined;

  before(() => {
    meter = installMeter();
    setFolder(folder.path);
    const shared: Shared = {
      state: state.buffer as SharedArrayBuffer,
      input: current.buffer as SharedArrayBuffer,
      timeoutMs: HANG_MS,
    };
    watchdog.postMessage(shared);
  });

  after(() => {
    meter?.[Symbol.dispose]();
    watchdog.terminate();
    folder[Symbol.dispose]();
  });

  const corpus = new URL("./corpus/", import.meta.url);
  for (const name of readdirSync(corpus).filter((name) => name.endsWith(".json")).sort()) {
    it(`that found a bug: ${name}`, async () => {
      const file = JSON.parse(readFileSync(new URL(name, corpus), "utf8")) as CorpusFile;
      await attack(targetNamed(file.target), fromCorpus(file), file.bug);
    });
  }

  for (const { bug, target, make } of grown) {
    it(`that cost more than they weigh: ${bug}`, () => attack(targetNamed(target), make(), bug));
  }

  it("are sound before they are damaged", async () => {
    for (const target of targets) {
      for (const parts of target.seeds) await attack(target, parts, "a seed");
    }
  });

  it(`of random kinds: ${INPUTS}`, async () => {
    const seed = newSeed("fuzz");
    const weights = targets.reduce((sum, { weight }) => sum + weight, 0);
    const counts = new Map<string, number>();
    for (let i = 0; i < INPUTS; i++) {
      const random = new Random(seed + i);
      let left = random.next() * weights;
      const target = targets.find(({ weight }) => (left -= weight) < 0) ?? targets[0]!;
      const parts = target.mutate(random, random.pick(target.seeds), random.pick(target.seeds));
      await attack(target, parts, `input ${i} of seed ${seed}`);
      counts.set(target.name, (counts.get(target.name) ?? 0) + 1);
    }
    const list = [...counts].map(([name, count]) => `${name} ${count}`).join(", ");
    console.log(`${INPUTS} inputs at level ${LEVEL}: ${list}; the slowest took ${slowest.toFixed(1)} ms`);
  });
});
