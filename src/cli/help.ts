/**
 * The help of the command line.
 *
 * @module
 */

import { type Command, COMMON, type Options } from "./command.ts";
import { table } from "./terminal.ts";

/** What `batchferry help` prints. */
export function overview(commands: readonly Command[]): string {
  const lines = commands.filter(({ hidden }) => hidden !== true)
    .map(({ name, synopsis, summary }) => [`  ${name} ${synopsis}`, summary]);
  return `Moves reinforcement-learning batches between processes and machines.

usage: batchferry COMMAND …

${table([...lines, ["  help [COMMAND]", "say more about a command"], ["  version", "print the version"]])}

HANDLE is a file, or - for stdin. Files are .safetensors, .jsonl or .npy.
Settings come from options, BATCHFERRY_*, and batchferry.json in the working folder.`;
}

/** What `batchferry help COMMAND` prints. */
export function details({ name, synopsis, summary, options }: Command): string {
  return `usage: batchferry ${name} ${synopsis}

${summary}

${optionTable(options)}
${optionTable(COMMON)}`;
}

function optionTable(options: Options): string {
  return table(
    Object.entries(options).map(([name, { short, value, help }]) => {
      const flags = `${short === undefined ? "    " : `-${short}, `}--${name}`;
      return [`  ${flags}${value === undefined ? "" : ` ${value}`}`.padEnd(34), help];
    }),
  );
}
