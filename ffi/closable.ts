/**
 * What both runtimes do alike when a library is opened and closed.
 *
 * @module
 */

import { BackendUnavailableError, ClosedError } from "../src/errors.ts";
import type { Bound, Library, SymbolTable } from "./types.ts";

/**
 * Refuses a table that one of the runtimes could not bind.
 *
 * @throws {TypeError} for an empty one, and for blocking functions that take a buffer: nothing would keep it in place.
 */
export function checkTable(path: string, table: SymbolTable): void {
  if (Object.keys(table).length === 0) throw new TypeError(`no function of ${path} is declared`);
  for (const [name, { blocking, args }] of Object.entries(table)) {
    if (blocking === true && args.includes("buffer")) {
      throw new TypeError(
        `${name} is declared blocking and takes a buffer; declare a pointer and keep its memory alive`,
      );
    }
  }
}

/** A runtime's refusal to open or bind, as this library says it. */
export function openError(path: string, cause: unknown, missingSymbol: RegExp): BackendUnavailableError {
  const text = cause instanceof Error ? cause.message : String(cause);
  return missingSymbol.test(text)
    ? new BackendUnavailableError("VERSION_MISMATCH", `cannot bind ${path}: ${text}`, { cause })
    : new BackendUnavailableError("LIBRARY_MISSING", `cannot open ${path}: ${text}`, { cause });
}

/**
 * Wraps bound functions as a `Library`.
 *
 * The functions are the runtime's own: a call through `symbols` goes through no layer of ours. `close()` replaces each
 * by one that throws. It does not unload the code: the library's own threads, blocking calls still under way and
 * functions taken out of `symbols` before may run it yet, and a call into unloaded code kills the process.
 */
export function closable<T extends SymbolTable>(
  path: string,
  table: T,
  bound: Readonly<Record<string, unknown>>,
): Library<T> {
  const symbols: Record<string, unknown> = {};
  for (const name of Object.keys(table)) symbols[name] = bound[name];
  let closed = false;
  const close = (): void => {
    if (closed) return;
    closed = true;
    for (const [name, declared] of Object.entries(table)) {
      const refuse = (): never => {
        throw new ClosedError(`${name} called after ${path} was closed`);
      };
      // a blocking function answers by its promise, always
      symbols[name] = declared.blocking === true ? () => Promise.try(refuse) : refuse;
    }
  };
  return { path, symbols: symbols as Bound<T>, close, [Symbol.dispose]: close };
}
