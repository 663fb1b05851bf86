/**
 * `doctor`: what this host and this configuration have, what is wrong with them, and what mends it.
 *
 * Nothing is started that stays, nothing is written, and nobody but the configured master is asked.
 *
 * @module
 */

import { existsSync } from "node:fs";
import process from "node:process";
import { ConfigError } from "../errors.ts";
import { splitAddress } from "../store/addresses.ts";
import type { Command, Invocation } from "./command.ts";
import { type Check, type Host, spaceOf, type State } from "./doctor/check.ts";
import { checkAgent, checkMaster } from "./doctor/cluster.ts";
import {
  checkLockedMemory,
  checkMemoryLimit,
  checkOpenFiles,
  checkRuntime,
  checkSharedMemory,
  checkShmRoot,
} from "./doctor/host.ts";
import { checkLibraries, configuredPaths, type Libraries, probeLibraries } from "./doctor/libraries.ts";
import { askDevinfo, checkRdma, type DeviceInfo, readPorts } from "./doctor/rdma.ts";
import { type Asked, checkSettings, type Needs } from "./doctor/settings.ts";
import { plural } from "./terminal.ts";
import { UsageError } from "./usage.ts";

/** The command. */
export const doctor: Command = {
  name: "doctor",
  synopsis: "",
  summary: "say what this host and this configuration lack, and what mends it",
  options: {
    backend: { type: "string", value: "NAME", help: "look with this backend: shm, mooncake, …" },
    master: { type: "string", value: "HOST:PORT", help: "look at this Mooncake master" },
  },
  positionals: [0, 0],
  run,
};

/** What was found. */
export interface Report {
  /** The configured backend, or null where the configuration cannot be used. */
  readonly backend: string | null;
  /** Nothing stands in the way of the configured backend. */
  readonly ok: boolean;
  readonly checks: readonly Check[];
}

/** What a report is made with; tests give their own. */
export interface Examination {
  readonly asked: Asked;
  readonly host: Host;
  /** How long everything may take, in milliseconds. */
  readonly timeoutMs: number;
  readonly libraries: (needs: Needs, timeoutMs: number) => Promise<Libraries>;
  readonly devices: (timeoutMs: number) => Promise<ReadonlyMap<string, DeviceInfo>>;
}

/** All is said within 5 s of the process's start; the rest is for the runtime's own start and end. */
const LIMIT_MS = 3500;
const FEWEST_MS = 1000;

async function run(call: Invocation): Promise<number> {
  const asked = { backend: call.text("backend"), config: call.text("config"), master: call.text("master") };
  checkUsage(asked);
  const report = await examine({
    asked,
    host: {
      sys: "/sys",
      proc: "/proc",
      dev: "/dev",
      environment: (name) => process.env[name] || undefined,
      space: spaceOf,
    },
    timeoutMs: Math.max(FEWEST_MS, LIMIT_MS - performance.now()),
    libraries: (needs, timeoutMs) => probeLibraries(configuredPaths(needs), timeoutMs),
    devices: askDevinfo,
  });
  call.terminal.result(toData(report), () => toText(report));
  return report.ok ? 0 : 1;
}

function checkUsage({ config, master }: Asked): void {
  if (config !== undefined && !existsSync(config)) {
    throw new UsageError(`--config ${config}: there is no such file`);
  }
  try {
    if (master !== undefined) splitAddress(master);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new UsageError(`doctor: --master ${master} is no address HOST:PORT`);
  }
}

/** Looks at everything. */
export async function examine({ asked, host, timeoutMs, libraries, devices }: Examination): Promise<Report> {
  const { check, needs } = checkSettings(asked, host.environment);
  const [found, infos, master, agent] = await Promise.all([
    libraries(needs, timeoutMs),
    devices(Math.min(timeoutMs, 2000)),
    checkMaster(needs, Math.min(timeoutMs, 2000)),
    checkAgent(host, needs, Math.min(timeoutMs, 2000)),
  ]);
  const ports = readPorts(host, infos);
  const checks = [
    checkRuntime(),
    check,
    checkSharedMemory(host, needs),
    checkShmRoot(needs),
    checkMemoryLimit(host, needs),
    checkLockedMemory(host, needs),
    checkOpenFiles(host),
    ...checkRdma(host, needs, ports),
    ...checkLibraries(found, needs, ports),
    master,
    ...agent,
  ];
  return {
    backend: needs.config?.backend ?? null,
    ok: checks.every(({ state }) => state !== "problem"),
    checks,
  };
}

/** A report as `--json` prints it. */
export function toData({ backend, ok, checks }: Report): Record<string, unknown> {
  return {
    backend,
    ok,
    checks: checks.map(({ name, state, says, fix, facts }) => ({
      name,
      state,
      says,
      fix: fix ?? null,
      facts,
    })),
  };
}

/** A report for people. */
export function toText({ backend, checks }: Report): string {
  const width = Math.max(...checks.map(({ name }) => name.length));
  const indent = " ".repeat("warning  ".length);
  const lines = checks.flatMap(({ name, state, says, more = [], fix }) => [
    `${state.padEnd(7)}  ${name.padEnd(width)}  ${says}`,
    ...more.map((line) => `${indent}${" ".repeat(width)}    ${line}`),
    ...(fix === undefined ? [] : [`${indent}${" ".repeat(width)}  → ${fix}`]),
  ]);
  const count = (wanted: State): number => checks.filter(({ state }) => state === wanted).length;
  const subject = backend === null ? "the configuration" : `the backend ${backend}`;
  const [problems, warnings] = [count("problem"), count("warning")];
  const sum = problems === 0
    ? `no problem with ${subject}`
    : `${plural(problems, "problem")} with ${subject}`;
  return [...lines, "", warnings === 0 ? sum : `${sum}, ${plural(warnings, "warning")}`].join("\n");
}
