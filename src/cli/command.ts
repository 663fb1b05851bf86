/**
 * What a command is, and the command lines it takes.
 *
 * @module
 */

import { parseArgs, type ParseArgsConfig } from "node:util";
import type { Terminal } from "./terminal.ts";
import { UsageError } from "./usage.ts";

/** Options by name, as `parseArgs` takes them, each with what the help says about it. */
export type Options = Readonly<
  Record<
    string,
    {
      readonly type: "string" | "boolean";
      readonly multiple?: boolean;
      readonly short?: string;
      /** What stands for the value in the help. */
      readonly value?: string;
      readonly help: string;
    }
  >
>;

/** A parsed command line. */
export class Invocation {
  readonly terminal: Terminal;
  /** What is no option. */
  readonly positionals: readonly string[];
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(terminal: Terminal, positionals: readonly string[], values: Readonly<Record<string, unknown>>) {
    this.terminal = terminal;
    this.positionals = positionals;
    this.#values = values;
  }

  /** The value of an option, undefined where it is not given. */
  text(option: string): string | undefined {
    return this.#values[option] as string | undefined;
  }

  /** The values of an option that may be repeated. */
  texts(option: string): readonly string[] | undefined {
    return this.#values[option] as readonly string[] | undefined;
  }

  flag(option: string): boolean {
    return this.#values[option] === true;
  }
}

/** One command. */
export interface Command {
  readonly name: string;
  /** Its arguments, for the help. */
  readonly synopsis: string;
  /** What it does, one line. */
  readonly summary: string;
  readonly options: Options;
  /** How many positional arguments it takes. */
  readonly positionals: readonly [min: number, max: number];
  /** Not shown in the help. */
  readonly hidden?: boolean;
  /** Gives the exit code where that is not 0. */
  run(call: Invocation): Promise<number | void>;
}

/** Options of every command. */
export const COMMON: Options = {
  config: {
    type: "string",
    value: "FILE",
    help: "configuration; default batchferry.json in the working folder",
  },
  json: { type: "boolean", help: "print JSON" },
  quiet: { type: "boolean", short: "q", help: "print results only" },
  help: { type: "boolean", short: "h", help: "print this help" },
};

/** Where the data is; the environment and the configuration say it otherwise. */
export const STORE: Options = {
  backend: { type: "string", value: "NAME", help: "shm, mooncake, …; from a handle where it says so" },
  "key-prefix": { type: "string", value: "PREFIX", help: "first part of every key; default bundle" },
};

/**
 * Parses the arguments of a command.
 *
 * @throws {UsageError}
 */
export function parseCommand(command: Command, args: readonly string[], terminal: Terminal): Invocation {
  const options = { ...COMMON, ...command.options } as unknown as NonNullable<ParseArgsConfig["options"]>;
  let parsed: { values: Record<string, unknown>; positionals: string[] };
  try {
    parsed = parseArgs({ args: joinValues(args, options), options, allowPositionals: true, strict: true });
  } catch (error) {
    throw new UsageError(
      (error as Error).message.split("\n")[0]!.replace(/\.? To specify a positional.*$/, ""),
    );
  }
  const { values, positionals } = parsed;
  if (values.help !== true) {
    const [min, max] = command.positionals;
    const count = positionals.length;
    if (count < min) throw new UsageError(`${command.name}: an argument is missing: ${command.synopsis}`);
    if (count > max) {
      throw new UsageError(`${command.name}: unexpected argument ${JSON.stringify(positionals[max])}`);
    }
  }
  return new Invocation(terminal, positionals, values);
}

/** Joins values that begin with a minus to their option (`--rows -2:`), which parseArgs takes for options. */
function joinValues(args: readonly string[], options: NonNullable<ParseArgsConfig["options"]>): string[] {
  const joined: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--") return [...joined, ...args.slice(i)];
    const next = args[i + 1];
    const isText = arg.startsWith("--") && options[arg.slice(2)]?.type === "string";
    if (isText && next !== undefined && /^-[\d:]/.test(next)) {
      joined.push(`${arg}=${next}`);
      i++;
    } else joined.push(arg);
  }
  return joined;
}
