/**
 * Rows as the command line names them.
 *
 * @module
 */

import { UsageError } from "./usage.ts";

/** A Python slice, or rows one by one. */
export type RowsArgument =
  | {
    readonly kind: "slice";
    readonly start: number | undefined;
    readonly end: number | undefined;
    readonly step: number | undefined;
  }
  | { readonly kind: "list"; readonly rows: readonly number[] };

/**
 * Parses `0:128`, `-2:`, `::2`, `3,1,2`.
 *
 * @throws {UsageError}
 */
export function parseRows(text: string): RowsArgument {
  if (text.includes(":")) {
    const parts = text.split(":").map((part) => part.trim() === "" ? undefined : integer(part, text));
    if (parts.length > 3) throw wrong(text);
    const [start, end, step] = parts;
    if (step === 0) throw new UsageError(`--rows ${text}: the step is 0`);
    return { kind: "slice", start, end, step };
  }
  return { kind: "list", rows: text.split(",").map((part) => integer(part, text)) };
}

function integer(part: string, text: string): number {
  const value = Number(part);
  if (!/^\s*[+-]?\d+\s*$/.test(part) || !Number.isSafeInteger(value)) throw wrong(text);
  return value;
}

function wrong(text: string): UsageError {
  return new UsageError(`--rows ${text}: write a slice such as 0:128, -2: or ::2, or rows such as 3,1,2`);
}
