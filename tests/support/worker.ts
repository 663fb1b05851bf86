/**
 * A child process that answers each line of JSON with another.
 *
 * @module
 */

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import process from "node:process";
import { command, type RuntimeName } from "./runtime.ts";

/** What a worker answers. */
export interface Answer {
  readonly result?: unknown;
  readonly code?: string;
  readonly message?: string;
}

/** See the module. */
export class Worker implements AsyncDisposable {
  readonly runtime: RuntimeName;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #waiting: ((answer: Answer) => void)[] = [];
  readonly #ended: Promise<void>;
  #said = "";
  #stderr = "";

  constructor(runtime: RuntimeName, script: string, scriptArgs: readonly string[] = []) {
    this.runtime = runtime;
    const [file, ...args] = command(runtime, script, scriptArgs) as [string, ...string[]];
    this.#child = spawn(file, args, { stdio: ["pipe", "pipe", "pipe"] });
    this.#child.stdin.on("error", () => {}); // told by the end
    this.#child.stderr.setEncoding("utf8").on("data", (text: string) => this.#stderr += text);
    this.#child.stdout.setEncoding("utf8").on("data", (text: string) => {
      const lines = (this.#said + text).split("\n");
      this.#said = lines.pop() ?? "";
      for (const line of lines) this.#waiting.shift()?.(JSON.parse(line) as Answer);
    });
    this.#ended = new Promise((resolve) =>
      this.#child.once("close", () => {
        const answer = { code: "ENDED", message: `the ${runtime} worker ended: ${this.#stderr}` };
        for (const take of this.#waiting.splice(0)) take(answer);
        resolve();
      })
    );
  }

  /** Has it do something; a failure is an answer with a code. */
  ask(order: Readonly<Record<string, unknown>>): Promise<Answer> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#child.stdin.write(`${JSON.stringify(order)}\n`);
    });
  }

  /** Has it do something that must succeed. */
  async tell(order: Readonly<Record<string, unknown>>): Promise<unknown> {
    const { result, code, message } = await this.ask(order);
    if (code !== undefined) {
      throw new Error(`${JSON.stringify(order)} in ${this.runtime}: ${code}: ${message}`);
    }
    return result;
  }

  /** Stops it, or has it go on. */
  signal(name: "SIGSTOP" | "SIGCONT"): void {
    // Deno's kill() of a child does nothing the second time
    process.kill(this.#child.pid!, name);
  }

  /** Ends it with `kill -9`. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#ended;
  }

  /** Lets it end by itself. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin.end();
    await this.#ended;
  }
}
