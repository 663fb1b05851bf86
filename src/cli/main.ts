/**
 * The command line: finds the command, runs it, says what went wrong.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { BatchferryError } from "../errors.ts";
import { agent } from "./agent.ts";
import { type Command, parseCommand } from "./command.ts";
import { demo } from "./demo.ts";
import { demoConsumer, demoProducer } from "./demo_roles.ts";
import { doctor } from "./doctor.ts";
import { drop } from "./drop.ts";
import { gc } from "./gc.ts";
import { get } from "./get.ts";
import { details, overview } from "./help.ts";
import { ls } from "./ls.ts";
import { put } from "./put.ts";
import { stat } from "./stat.ts";
import { Terminal } from "./terminal.ts";
import { UsageError } from "./usage.ts";

const COMMANDS: readonly Command[] = [
  put,
  get,
  stat,
  ls,
  drop,
  gc,
  agent,
  doctor,
  demo,
  demoProducer,
  demoConsumer,
];

/**
 * Runs one command line.
 *
 * @param argv the arguments, without runtime and script
 * @returns the exit code: 0 done, 1 failed, 2 wrong usage
 */
export async function main(argv: readonly string[]): Promise<number> {
  const [name = "", ...args] = argv;
  // Known before the arguments are parsed, because that may fail.
  const terminal = new Terminal({
    json: argv.includes("--json"),
    quiet: argv.includes("--quiet") || argv.includes("-q"),
  });
  try {
    switch (name) {
      case "help":
      case "--help":
      case "-h":
        help(terminal, args);
        return 0;
      case "version":
      case "--version":
        terminal.result({ version: version() }, version);
        return 0;
      case "":
        throw new UsageError("a command is missing; batchferry help lists them");
    }
    const command = commandOf(name);
    const call = parseCommand(command, args, terminal);
    if (call.flag("help")) {
      help(terminal, [name]);
      return 0;
    }
    return await command.run(call) ?? 0;
  } catch (error) {
    const known = error instanceof BatchferryError || error instanceof UsageError;
    terminal.error(known ? error.code : "INTERNAL", error instanceof Error ? error.message : String(error));
    return error instanceof UsageError ? 2 : 1;
  }
}

function commandOf(name: string): Command {
  const command = COMMANDS.find((known) => known.name === name);
  if (command !== undefined) return command;
  throw new UsageError(`unknown command ${JSON.stringify(name)}; batchferry help lists the commands`);
}

function help(terminal: Terminal, args: readonly string[]): void {
  const name = args.find((arg) => !arg.startsWith("-"));
  const text = name === undefined ? overview(COMMANDS) : details(commandOf(name));
  terminal.result({ help: text }, () => text);
}

/** The version in package.json, which is beside the code in a checkout and in a package. */
function version(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    try {
      const { name, version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
      if (name === "batchferry") return version;
    } catch {
      // Not in this folder.
    }
    const above = dirname(folder);
    if (above === folder) return "unknown";
    folder = above;
  }
}
