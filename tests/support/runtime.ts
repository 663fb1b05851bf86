/**
 * What tests need to know about the runtime they run in, and how to start another process.
 *
 * @module
 */

import { spawn, type SpawnOptions } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** The repository's root folder. */
export const ROOT: string = fileURLToPath(new URL("../..", import.meta.url));

/** The runtimes by name. */
export type RuntimeName = "deno" | "bun";

/** The runtime this test runs in. */
export const RUNTIME: RuntimeName = "Deno" in globalThis ? "deno" : "bun";

/** Both runtimes. */
export const RUNTIMES: readonly RuntimeName[] = ["deno", "bun"];

/** How much is asked of the tests: `quick`, `normal` (a twentieth of the counts) or `long`. */
export const LEVEL: string = process.env.BATCHFERRY_TEST_LEVEL ?? "normal";

/** A count: whole in the long tests, a twentieth of it otherwise. */
export function scaled(count: number): number {
  return LEVEL === "long" ? count : Math.max(1, Math.ceil(count / 20));
}

/** Where the runtimes that the tests run under are installed. */
export const TOOLS: string = join(ROOT, "scripts", "tools", "node_modules", ".bin");

/** A runtime's executable: this one's own, or the one installed for the tests. */
export function executable(runtime: RuntimeName): string {
  return runtime === RUNTIME ? process.execPath : join(TOOLS, runtime);
}

/** The command that runs a script under a runtime. */
export function command(runtime: RuntimeName, script: string, args: readonly string[] = []): string[] {
  return runtime === "deno"
    ? [executable("deno"), "run", "-A", "--no-check", "--quiet", script, ...args]
    : [executable("bun"), script, ...args];
}

/** What a process printed and how it ended. */
export interface Finished {
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a script to its end. */
export function runScript(
  runtime: RuntimeName,
  script: string,
  args: readonly string[] = [],
  options: SpawnOptions & { readonly input?: string | Uint8Array } = {},
): Promise<Finished> {
  return runCommand(command(runtime, script, args), options);
}

/** Runs a command to its end. */
export function runCommand(
  words: readonly string[],
  { input, ...options }: SpawnOptions & { readonly input?: string | Uint8Array } = {},
): Promise<Finished> {
  const [file, ...args] = words as [string, ...string[]];
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { ...options, stdio: ["pipe", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout?.setEncoding("utf8").on("data", (text: string) => stdout += text);
    child.stderr?.setEncoding("utf8").on("data", (text: string) => stderr += text);
    child.on("error", reject);
    child.on("close", (status, signal) => resolve({ status, signal, stdout, stderr }));
    child.stdin?.on("error", () => {});
    child.stdin?.end(input);
  });
}

/** A new folder in shared memory where there is one, gone after the test when disposed. */
export function temporaryFolder(prefix = "batchferry-test-"): { readonly path: string } & Disposable {
  const parent = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
  const path = mkdtempSync(join(parent, prefix));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** Small fast random numbers from a seed (mulberry32), for tests that can be run again. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** At least 0, below 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer of at least 0, below `limit`. */
  int(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  /** One of a list. */
  pick<T>(list: readonly T[]): T {
    return list[this.int(list.length)] as T;
  }

  /** True with the given chance. */
  chance(probability: number): boolean {
    return this.next() < probability;
  }
}

/** A seed for this run, printed so that a failure can be repeated with BATCHFERRY_TEST_SEED. */
export function newSeed(what: string): number {
  const given = process.env.BATCHFERRY_TEST_SEED;
  const seed = given === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(given);
  console.log(`${what}: BATCHFERRY_TEST_SEED=${seed}`);
  return seed;
}
