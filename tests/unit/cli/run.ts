/** Runs the command line in a process of its own. */

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import process from "node:process";
import { executable, ROOT, TOOLS } from "../../support/runtime.ts";

const script = join(ROOT, "scripts", "batchferry.ts");

/** The runtimes. */
export type Runtime = "deno" | "bun";

/** The program of a runtime, or undefined where the test tools were not installed. */
export function programOf(runtime: Runtime): string | undefined {
  const path = executable(runtime);
  return existsSync(path) ? path : undefined;
}

/** What a process left. */
export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Where and how a process runs. */
export interface Place {
  /** Its working folder. */
  readonly cwd: string;
  /** The folder of its shm store. */
  readonly store: string;
  readonly runtime?: Runtime;
  readonly environment?: Readonly<Record<string, string>>;
  readonly stdin?: string;
}

/** Runs `batchferry ARGS` to its end; in the runtime of the test unless another one is named. */
export function batchferry(place: Place, ...args: string[]): Outcome {
  const [program, ...before] = commandOf(place.runtime);
  const { status, stdout, stderr } = spawnSync(program, [...before, script, ...args], {
    cwd: place.cwd,
    env: environmentOf(place),
    input: place.stdin ?? "",
    encoding: "utf8",
  });
  return { code: status, stdout, stderr };
}

/** Runs a shell line in which `$BATCHFERRY` stands for the program. */
export function shell(place: Place, line: string): Outcome {
  const words = [...commandOf(place.runtime), script].map((word) => `'${word}'`).join(" ");
  const { status, stdout, stderr } = spawnSync("sh", ["-c", line.replaceAll("$BATCHFERRY", words)], {
    cwd: place.cwd,
    env: environmentOf(place),
    encoding: "utf8",
  });
  return { code: status, stdout, stderr };
}

function commandOf(runtime: Runtime | undefined): [program: string, ...args: string[]] {
  const isDeno = "Deno" in globalThis;
  const wanted = runtime ?? (isDeno ? "deno" : "bun");
  const program = (wanted === "deno") === isDeno ? process.execPath : programOf(wanted)!;
  return wanted === "deno" ? [program, "run", "--allow-all", "--quiet"] : [program];
}

function environmentOf({ store, environment = {} }: Place): Record<string, string> {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(BATCHFERRY|MOONCAKE)_/.test(name));
  return {
    ...Object.fromEntries(inherited) as Record<string, string>,
    NO_COLOR: "1",
    PATH: `${TOOLS}${delimiter}${process.env.PATH ?? ""}`,
    BATCHFERRY_DIRECTORY: store,
    ...environment,
  };
}
