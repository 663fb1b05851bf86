/**
 * What the commands print: results on stdout; notes and progress on stderr, and only where somebody sees them.
 *
 * @module
 */

import { writeSync } from "node:fs";
import process from "node:process";
import { stringifyJson } from "../batch/json.ts";

/** How to print. */
export interface TerminalOptions {
  readonly json: boolean;
  readonly quiet: boolean;
}

/** JSON as Python reads it too: integers of any size, NaN in a batch's meta. */
export function toJson(value: unknown): string {
  return stringifyJson(value, { allowNonFinite: true });
}

/** The two streams of a command. */
export class Terminal {
  readonly json: boolean;
  /** Somebody reads notes and progress. */
  readonly #chatty: boolean;
  #status = "";

  constructor({ json, quiet }: TerminalOptions) {
    this.json = json;
    this.#chatty = !json && !quiet && process.stdout.isTTY === true && process.stderr.isTTY === true;
  }

  /** A result: as JSON with --json, else as text. */
  result(value: unknown, text: () => string): void {
    this.#clear();
    print(1, `${this.json ? toJson(value) : text()}\n`);
  }

  /** A result that only --json prints; others get the note. */
  outcome(value: unknown, note: () => string): void {
    if (this.json) this.result(value, note);
    else this.note(note());
  }

  /** A remark for somebody at a terminal. */
  note(text: string): void {
    if (!this.#chatty) return;
    this.#clear();
    print(2, `${text}\n`);
  }

  /** What is being done now; the next line takes its place. */
  status(text: string): void {
    if (!this.#chatty) return;
    this.#clear();
    this.#status = text;
    print(2, text);
  }

  /** Takes the bytes of a long transfer as they move, and shows how many and how fast, ten times a second. */
  progress(text: string): ((bytes: number) => void) | undefined {
    if (!this.#chatty) return undefined;
    const start = performance.now();
    let shown = start;
    let moved = 0;
    return (bytes) => {
      moved += bytes;
      const now = performance.now();
      if (now - shown < 100) return;
      shown = now;
      this.status(`${text} … ${formatBytes(moved)}, ${formatRate(moved, now - start)}`);
    };
  }

  /** An error, on one line. */
  error(code: string, message: string): void {
    this.#clear();
    const line = message.replace(/\s*\n\s*/g, " ");
    print(
      2,
      this.json ? `${JSON.stringify({ error: { code, message } })}\n` : `batchferry: ${code}: ${line}\n`,
    );
  }

  #clear(): void {
    if (this.#status !== "") print(2, "\r\x1b[2K");
    this.#status = "";
  }
}

/**
 * Writes all of a text at once, so that nothing is lost when the process exits. A reader that went away is no error;
 * what it did not want is not written.
 */
export function print(descriptor: 1 | 2, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let done = 0; done < bytes.byteLength;) {
    try {
      done += writeSync(descriptor, bytes, done);
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === "EPIPE") return;
      if (code !== "EAGAIN") throw error;
      // A pipe that its other end made nonblocking, and that is full.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Bytes for people: `1.5 MiB`. */
export function formatBytes(bytes: number): string {
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${UNITS[unit]}`;
}

/** Bytes and seconds as a speed: `1.52 GB/s`. */
export function formatRate(bytes: number, ms: number): string {
  const gigabytes = bytes / ms / 1e6;
  return gigabytes >= 0.1 ? `${gigabytes.toFixed(2)} GB/s` : `${(gigabytes * 1000).toFixed(1)} MB/s`;
}

/** How long ago: `3 min`. */
export function formatAge(ms: number): string {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`;
}

/** A count and what it counts: `1 row`, `2 rows`. */
export function plural(count: number, what: string): string {
  return `${count.toLocaleString("en-US")} ${what}${count === 1 ? "" : "s"}`;
}

/** Rows of text in columns; the columns in `right` are set to the right. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => widths[i] = Math.max(widths[i] ?? 0, cell.length));
  return rows.map((row) =>
    row.map((cell, i) => right.includes(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)).join("  ")
      .trimEnd()
  ).join("\n");
}
