/**
 * A real Mooncake cluster for tests: a master, and clients that give it memory. Everything is on loopback, and goes with
 * the process that started it.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { MasterPages } from "../../src/store/mooncake/master.ts";
import { setUpPython } from "./python.ts";
import { ROOT, runCommand, temporaryFolder } from "./runtime.ts";

/** What a cluster is started with, or why there is none. */
export type Mooncake =
  | {
    readonly skip: false;
    readonly python: string;
    readonly master: string;
    readonly library: string;
    readonly transferEngine: string;
  }
  | { readonly skip: string };

let mooncake: Promise<Mooncake> | undefined;

/** Where what has been set up is told to the processes that a test starts, and to those in the lab: looking takes seconds there. */
const TOLD = "BATCHFERRY_TEST_MOONCAKE";

/** Installs Mooncake's C library, its master and its Python class into `.cache`, unless they are there. */
export function setUpMooncake(): Promise<Mooncake> {
  const told = process.env[TOLD];
  return mooncake ??= told === undefined ? setUp() : Promise.resolve(JSON.parse(told) as Mooncake);
}

async function setUp(): Promise<Mooncake> {
  const python = await setUpPython();
  if (python.executable === undefined) return { skip: python.skip };
  const { status, stdout, stderr } = await runCommand(["node", join(ROOT, "scripts", "native.mjs")]);
  if (status !== 0) return { skip: `no native libraries: ${stderr.trim().split("\n").at(-1)}` };
  const { store, transferEngine } = JSON.parse(stdout) as { store: string; transferEngine: string };
  const found: Mooncake = {
    skip: false,
    python: python.executable,
    master: join(dirname(python.executable), "mooncake_master"),
    library: store,
    transferEngine,
  };
  process.env[TOLD] = JSON.stringify(found);
  return found;
}

/** A process that ends when this one does: a shell holds the other end of its standard input. */
function start(command: readonly string[], name: string): Child {
  // a process that does not watch its input is ended by the shell that does
  const guard =
    'exec 3<&0; "$@" </dev/null & child=$!; { cat <&3 >/dev/null; kill -9 $child 2>/dev/null; } & wait $child';
  const child = spawn("sh", ["-c", guard, "sh", ...command], { stdio: ["pipe", "pipe", "pipe"] });
  return new Child(child, name);
}

class Child {
  readonly process: ChildProcess;
  readonly name: string;
  readonly ended: Promise<void>;
  #output = "";

  constructor(child: ChildProcess, name: string) {
    this.process = child;
    this.name = name;
    const keep = (text: string) => void (this.#output = (this.#output + text).slice(-20_000));
    child.stdout?.setEncoding("utf8").on("data", keep);
    child.stderr?.setEncoding("utf8").on("data", keep);
    child.stdin?.on("error", () => {});
    this.ended = new Promise((resolve) => child.once("close", () => resolve()));
  }

  /** What it has said lately. */
  get output(): string {
    return this.#output;
  }

  /** Ends it as `kill -9` would. */
  async kill(): Promise<void> {
    this.process.stdin?.end();
    await this.ended;
  }
}

/** A port that nobody listens on. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** Waits until `ready` gives something; at most `limitMs`. */
export async function until<T>(
  what: string,
  ready: () => Promise<T | undefined> | T | undefined,
  limitMs = 20_000,
): Promise<T> {
  const end = performance.now() + limitMs;
  for (;;) {
    const value = await ready();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > end) throw new Error(`${what}: not within ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Flags of `mooncake_master` that tests set. */
export interface MasterOptions {
  readonly leaseTtlMs?: number;
  readonly clientTtlSeconds?: number;
  readonly evictionHighWatermark?: number;
}

/** A running `mooncake_master`. */
export class Master implements AsyncDisposable {
  /** `HOST:PORT` for clients. */
  readonly address: string;
  /** `HOST:PORT` of its pages. */
  readonly metricsAddress: string;
  readonly #command: readonly string[];
  readonly #pages: MasterPages;
  #child: Child | undefined;

  constructor(command: readonly string[], port: number, metricsPort: number) {
    this.address = `127.0.0.1:${port}`;
    this.metricsAddress = `127.0.0.1:${metricsPort}`;
    this.#pages = new MasterPages(this.address, this.metricsAddress);
    this.#command = command;
  }

  /** Starts it, again after `kill`, on the same ports; returns when its service is up, some time after its pages. */
  async start(): Promise<void> {
    const child = this.#child = start(this.#command, "mooncake_master");
    await until("starting mooncake_master", async () => {
      if (child.process.exitCode !== null) throw new Error(`mooncake_master ended: ${child.output}`);
      return await this.segments().catch(() => undefined);
    }, 60_000);
  }

  /** Ends it with `kill -9`. */
  async kill(): Promise<void> {
    await this.#child?.kill();
    this.#child = undefined;
  }

  /** The clients that give memory, by name. */
  segments(): Promise<string[]> {
    return this.#pages.segments(AbortSignal.timeout(5000));
  }

  /** All keys. */
  keys(): Promise<string[]> {
    return this.#pages.keys(AbortSignal.timeout(5000));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** Starts a master on free ports. */
export async function startMaster(options: MasterOptions = {}): Promise<Master> {
  const found = await setUpMooncake();
  if (found.skip !== false) throw new Error(found.skip);
  const [port, metricsPort] = [await freePort(), await freePort()];
  const flags = {
    rpc_address: "127.0.0.1",
    rpc_port: port,
    metrics_port: metricsPort,
    ...(options.leaseTtlMs === undefined ? {} : { default_kv_lease_ttl: options.leaseTtlMs }),
    ...(options.clientTtlSeconds === undefined ? {} : { client_ttl: options.clientTtlSeconds }),
    ...(options.evictionHighWatermark === undefined
      ? {}
      : { eviction_high_watermark_ratio: options.evictionHighWatermark }),
  };
  const command = [found.master, ...Object.entries(flags).map(([name, value]) => `--${name}=${value}`)];
  const master = new Master(command, port, metricsPort);
  await master.start();
  return master;
}

/**
 * A client of Mooncake's Python class that gives `bytes` of memory to the cluster, over the transport that the standard
 * environment names ask for.
 */
export async function startProvider(
  master: Pick<Master, "address" | "segments">,
  bytes: number,
  limitMs?: number,
): Promise<Provider> {
  const found = await setUpMooncake();
  if (found.skip !== false) throw new Error(found.skip);
  const script = join(ROOT, "tests", "support", "mooncake_provider.py");
  const child = start([found.python, script, master.address, String(bytes)], "provider");
  const provider = new Provider(child);
  await until("starting a client that gives memory", async () => {
    if (child.process.exitCode !== null) throw new Error(`the provider ended: ${child.output}`);
    return (await master.segments()).length > 0 ? true : undefined;
  }, limitMs);
  return provider;
}

/** See {@linkcode startProvider}. */
export class Provider implements AsyncDisposable {
  readonly #child: Child;

  constructor(child: Child) {
    this.#child = child;
  }

  /** Ends it with `kill -9`; its memory and what is in it are gone. */
  kill(): Promise<void> {
    return this.#child.kill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** A runtime folder for the agents of one test: the environment names it until it is disposed. */
export function ownRuntimeFolder(): Disposable {
  const folder = temporaryFolder();
  const before = process.env.BATCHFERRY_RUNTIME_DIR;
  process.env.BATCHFERRY_RUNTIME_DIR = folder.path;
  return {
    [Symbol.dispose]() {
      if (before === undefined) delete process.env.BATCHFERRY_RUNTIME_DIR;
      else process.env.BATCHFERRY_RUNTIME_DIR = before;
      folder[Symbol.dispose]();
    },
  };
}

/** The settings of a transfer over a master, with the library of the tests. */
export async function mooncakeConfig(
  master: Master,
): Promise<
  { backend: "mooncake"; masterServerAddr: string; masterMetricsAddr: string; libraryPath: string }
> {
  const found = await setUpMooncake();
  if (found.skip !== false) throw new Error(found.skip);
  return {
    backend: "mooncake",
    masterServerAddr: master.address,
    masterMetricsAddr: master.metricsAddress,
    libraryPath: found.library,
  };
}

/** Whether a process is there. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
