/**
 * The Bun side of `native.ts`: `bun:ffi` behind the neutral notation, and workers for the calls that block.
 *
 * @module
 */

import { callBlocking, registerLibrary } from "./bun_pool.ts";
import { type BunFfi, type BunFunction, bunFunction } from "./bun_types.ts";
import { checkTable, closable, openError } from "./closable.ts";
import type { BoundFunction, CFunction, Library, NativeRuntime, SymbolTable } from "./types.ts";

const ffi = await import("bun:ffi") as unknown as BunFfi;

// bun:ffi names a function by its exported symbol only. Where a table has one symbol under two names, the library is
// opened once more; the loader counts.
function bind(path: string, table: SymbolTable): Record<string, unknown> {
  const bound: Record<string, unknown> = {};
  let rest = Object.entries(table);
  do {
    const round = new Map<string, string>();
    const functions: Record<string, BunFunction> = {};
    rest = rest.filter(([name, declared]) => {
      const symbol = declared.symbol ?? name;
      if (round.has(symbol)) return true;
      round.set(symbol, name);
      functions[symbol] = bunFunction(declared);
      return false;
    });
    const { symbols } = ffi.dlopen(path, functions);
    for (const [symbol, name] of round) bound[name] = symbols[symbol];
  } while (rest.length > 0);
  return bound;
}

function open<const T extends SymbolTable>(path: string, table: T): Library<T> {
  checkTable(path, table);
  let bound: Record<string, unknown>;
  try {
    // the blocking ones too: a missing symbol has to show here and not in a worker
    bound = bind(path, table);
  } catch (cause) {
    throw openError(path, cause, /^Symbol "/);
  }
  const blocking = Object.entries(table).filter(([, declared]) => declared.blocking === true);
  if (blocking.length > 0) {
    const library = registerLibrary(path, Object.fromEntries(blocking));
    for (const [name, declared] of blocking) {
      const count = declared.args.length;
      bound[name] = (...args: unknown[]) => callBlocking(library, name, count, args);
    }
  }
  return closable(path, table, bound);
}

function bindAt<const F extends CFunction>(address: bigint, declared: F): BoundFunction<F> {
  if (address === 0n) throw new TypeError("there is no function at NULL");
  return ffi.CFunction({ ptr: Number(address), ...bunFunction(declared) }) as BoundFunction<F>;
}

function view(address: bigint, bytes: number): ArrayBuffer {
  if (bytes === 0) return new ArrayBuffer(0);
  if (address === 0n) throw new TypeError(`cannot view ${bytes} bytes at NULL`);
  return ffi.toArrayBuffer(Number(address), 0, bytes);
}

function addressOf(view: ArrayBufferView<ArrayBufferLike>): bigint {
  return view.byteLength === 0 ? 0n : BigInt(ffi.ptr(view));
}

/** Bun's binding. */
export const runtime: NativeRuntime = { name: "bun", open, bind: bindAt, view, addressOf };

export { abandon } from "./bun_pool.ts";
