/**
 * Python for tests: a virtual environment with Mooncake's own package, scripts, and a server that is told what to do.
 *
 * @module
 */

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { delimiter, join } from "node:path";
import process from "node:process";
import { type Finished, ROOT, runCommand } from "./runtime.ts";

const VENV = join(ROOT, ".cache", "python");
const REQUIREMENTS = join(ROOT, "scripts", "python", "requirements.txt");
const MODULES = [join(ROOT, "scripts", "python"), join(ROOT, "tests", "interop", "python")];

/** The interpreter of the test environment, or why there is none. */
export type Python = { readonly executable: string; readonly skip: false } | {
  readonly executable: undefined;
  readonly skip: string;
};

let python: Promise<Python> | undefined;

/**
 * Sets up `.cache/python` with what `scripts/python/requirements.txt` names, unless it is there already.
 *
 * @returns the interpreter, or a reason to skip, such as a machine without Python
 */
export function setUpPython(): Promise<Python> {
  return python ??= setUp();
}

async function setUp(): Promise<Python> {
  const script = join(ROOT, "tests", "support", "set_up_python.py");
  try {
    const { status, stdout, stderr } = await runCommand(["python3", script, VENV, REQUIREMENTS]);
    if (status === 0) return { executable: stdout.trim(), skip: false };
    return { executable: undefined, skip: `no Python environment: ${stderr.trim().split("\n").at(-1)}` };
  } catch (error) {
    return { executable: undefined, skip: `no python3: ${(error as Error).message}` };
  }
}

/** What Python programs of the tests start with. */
function environment(): NodeJS.ProcessEnv {
  return {
    ...process.env,
    PYTHONPATH: MODULES.join(delimiter),
    PYTHONDONTWRITEBYTECODE: "1",
    PYTHONFAULTHANDLER: "1",
  };
}

/** Runs a script to its end. */
export function runPython(executable: string, args: readonly string[], input?: string): Promise<Finished> {
  const options = { env: environment() };
  return runCommand([executable, ...args], input === undefined ? options : { ...options, input });
}

/** An error that a Python server answered with. */
export class PythonError extends Error {
  override readonly name = "PythonError";
  /** The Python traceback. */
  readonly trace: string;

  constructor(message: string, trace: string) {
    super(message);
    this.trace = trace;
  }
}

/** A Python program that answers one line of JSON with another, in order: starting one takes longer than most calls. */
export class PythonServer implements AsyncDisposable {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #waiting: { resolve(line: string): void; reject(error: Error): void }[] = [];
  readonly #ended: Promise<number | null>;
  #stderr = "";
  /** A call has failed for the end of the process. */
  #told = false;

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    let line: string[] = []; // in pieces: an answer may be megabytes long
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      const [first = "", ...others] = text.split("\n");
      line.push(first);
      for (const other of others) {
        this.#waiting.shift()?.resolve(line.join(""));
        line = [other];
      }
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => this.#stderr += text);
    child.stdin.on("error", () => {}); // told by the exit
    this.#ended = new Promise((resolve) =>
      child.on("close", (status, signal) => {
        for (const { reject } of this.#waiting.splice(0)) {
          this.#told = true;
          reject(new Error(`the Python server ended with ${signal ?? status}: ${this.#stderr}`));
        }
        resolve(status);
      })
    );
  }

  /** Starts a script that answers lines. */
  static start(executable: string, script: string): PythonServer {
    return new PythonServer(
      spawn(executable, [script], { env: environment(), stdio: ["pipe", "pipe", "pipe"] }),
    );
  }

  /**
   * Has the server do `op`.
   *
   * @throws {PythonError} what Python raised
   */
  async call<T>(op: string, args: Readonly<Record<string, unknown>> = {}): Promise<T> {
    const line = await new Promise<string>((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#child.stdin.write(`${JSON.stringify({ op, ...args })}\n`);
    });
    const answer = JSON.parse(line) as { result?: T; error?: string; trace?: string };
    if (answer.error !== undefined) throw new PythonError(answer.error, answer.trace ?? "");
    return answer.result as T;
  }

  /** Ends the server, as the end of its input does. */
  async close(): Promise<void> {
    this.#child.stdin.end();
    const status = await this.#ended;
    if (status !== 0 && !this.#told) {
      throw new Error(`the Python server ended with ${status}: ${this.#stderr}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
