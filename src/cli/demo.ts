/**
 * `demo`: a producer process and a consumer process, real text between them.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { basename, delimiter, dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseJson } from "../batch/json.ts";
import { BatchferryError, ConfigError, type ErrorCode } from "../errors.ts";
import type { Command, Invocation } from "./command.ts";
import { configOf, connect } from "./connect.ts";
import type { ConsumerReport, ConsumerTask, ProducerReport, ProducerTask } from "./demo_roles.ts";
import { defaultFiles } from "./demo_text.ts";
import { formatBytes, formatRate, plural, table, toJson } from "./terminal.ts";
import { UsageError } from "./usage.ts";

/** The command. */
export const demo: Command = {
  name: "demo",
  synopsis: "[--input FILE]… [--consumer deno|bun]",
  summary: "move text from one process to another and say how fast",
  options: {
    input: {
      type: "string",
      multiple: true,
      value: "FILE",
      help: "text to move; default README.md and docs/",
    },
    consumer: {
      type: "string",
      value: "deno|bun",
      help: "the consumer's runtime; default the one that runs",
    },
  },
  positionals: [0, 0],
  run,
};

async function run(call: Invocation): Promise<void> {
  const { terminal } = call;
  const consumer = call.text("consumer");
  if (consumer !== undefined && consumer !== "deno" && consumer !== "bun") {
    throw new UsageError(`demo: --consumer is deno or bun, not ${JSON.stringify(consumer)}`);
  }
  const config = configOf(call);
  const consumerCommand = consumer === undefined ? ownCommand() : commandOf(consumer);
  const asked = call.texts("input");
  const files = asked ?? defaultFiles();
  const partition = `demo-${randomUUID().slice(0, 8)}`;
  const options = call.text("config") === undefined ? [] : ["--config", call.text("config")!];
  try {
    terminal.status("the producer puts …");
    const task: ProducerTask = { partition, files };
    const put = await runRole<ProducerReport>(ownCommand(), ["demo-producer", ...options], task);
    terminal.status("the consumer reads …");
    const handles: ConsumerTask = { handle: put.handle, timed: put.timed.handle };
    const read = await runRole<ConsumerReport>(consumerCommand, ["demo-consumer", ...options], handles);
    await using transfer = await connect(config);
    const left = (await transfer.list(partition)).length;
    terminal.result(report(put, read, left, files.length), () => show(put, read, left, files.length));
  } catch (error) {
    await using transfer = await connect(config);
    await transfer.dropPartition(partition).catch(() => {});
    throw error;
  }
}

function report(put: ProducerReport, read: ConsumerReport, left: number, files: number): object {
  return {
    store: put.store,
    files,
    producer: {
      runtime: put.runtime,
      pid: put.pid,
      rows: put.rows,
      fields: put.fields,
      bytesWritten: put.bytesWritten,
    },
    handleBytes: toJson(put.handle).length,
    consumer: {
      runtime: read.runtime,
      pid: read.pid,
      rows: read.rows,
      fields: read.fields,
      reads: read.reads,
      bytesRead: read.bytesRead,
    },
    timed: { bytes: put.timed.bytes, putMs: put.timed.putMs, readMs: read.timed.readMs },
    bundlesLeft: left,
  };
}

function show(put: ProducerReport, read: ConsumerReport, left: number, files: number): string {
  const { timed } = put;
  return table([
    ["Batchferry", `${put.store}, ${put.runtime} → ${read.runtime}`],
    [
      "put",
      `${plural(put.rows, "row")}, ${put.fields.length} fields, ${formatBytes(put.bytesWritten)} from ${
        plural(files, "file")
      } (process ${put.pid})`,
    ],
    ["handle", `${formatBytes(toJson(put.handle).length)} of JSON, all that was passed on`],
    [
      "read",
      `${plural(read.rows, "row")} of ${read.fields.join(" and ")}, ${formatBytes(read.bytesRead)} in ` +
      `${plural(read.reads, "read")}; the checksum agrees (process ${read.pid})`,
    ],
    [
      "speed",
      `${formatBytes(timed.bytes)}: put ${formatRate(timed.bytes, timed.putMs)}, ` +
      `read ${formatRate(timed.bytes, read.timed.readMs)} (best of 3)`,
    ],
    [
      "cleaned up",
      left === 0 ? "nothing is left in the store" : `${plural(left, "batch")} left in the store`,
    ],
  ]);
}

/** A program and what comes before the role. */
type RoleCommand = readonly [program: string, ...args: string[]];

/** This program in the runtime that runs. */
function ownCommand(): RoleCommand {
  return [process.execPath, process.argv[1]!];
}

/** This program in the given runtime: the running one, one of PATH, or one of node_modules. */
function commandOf(runtime: "deno" | "bun"): RoleCommand {
  const script = process.argv[1]!;
  if (basename(process.execPath).startsWith(runtime)) return ownCommand();
  const folders = (process.env.PATH ?? "").split(delimiter).filter((folder) => folder !== "");
  for (let folder = dirname(fileURLToPath(import.meta.url));; folder = dirname(folder)) {
    folders.push(join(folder, "node_modules", ".bin"));
    if (dirname(folder) === folder) break;
  }
  const program = folders.map((folder) => join(folder, runtime)).find((path) => existsSync(path));
  if (program === undefined) {
    throw new ConfigError(`demo: ${runtime} is neither on PATH nor in node_modules`, { expected: runtime });
  }
  return runtime === "deno" ? [program, "run", "--allow-all", "--quiet", script] : [program, script];
}

/** Runs a role in a process of its own: one JSON object in, one out. */
function runRole<Report>(
  [program, ...before]: RoleCommand,
  args: readonly string[],
  task: object,
): Promise<Report> {
  const child = spawn(program, [...before, ...args, "--json"], { stdio: ["pipe", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text);
  child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
  // A child that failed early does not read; its exit says why.
  child.stdin.on("error", () => {});
  child.stdin.end(toJson(task));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (code === 0) resolve(parseJson(stdout) as Report);
      else reject(childError(`${args[0]} (${basename(program)}) ended with ${signal ?? code}`, stderr));
    });
  });
}

/** The error a child printed, or that it ended without one. */
function childError(what: string, stderr: string): Error {
  const line = stderr.trim().split("\n").at(-1) ?? "";
  try {
    const { error } = JSON.parse(line) as { error: { code: ErrorCode; message: string } };
    return new BatchferryError(error.code, `${what}: ${error.message}`);
  } catch {
    return new Error(`${what}: ${stderr.trim() || "it printed nothing"}`);
  }
}
