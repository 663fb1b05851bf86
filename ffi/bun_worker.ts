/**
 * A worker that makes blocking C calls for `bun_pool.ts`, one at a time.
 *
 * @module
 */

import type { Request, Response } from "./bun_pool.ts";
import { type BunFfi, bunFunction } from "./bun_types.ts";

interface WorkerScope {
  onmessage: ((event: { readonly data: Request }) => void) | null;
  postMessage(message: Response): void;
}

const ffi = await import("bun:ffi") as unknown as BunFfi;
const scope = globalThis as unknown as WorkerScope;
const bound = new Map<string, (...args: unknown[]) => unknown>();

function call(request: Request): unknown {
  const { path, name, declared, args } = request;
  const key = `${request.library}/${name}`;
  let f = bound.get(key);
  if (f === undefined) {
    const symbol = declared.symbol ?? name;
    f = ffi.dlopen(path, { [symbol]: bunFunction(declared) }).symbols[symbol];
    if (f === undefined) throw new Error(`${path} has no ${symbol}`);
    bound.set(key, f);
  }
  return f(...args);
}

scope.onmessage = ({ data }) => {
  try {
    scope.postMessage({ ok: true, value: call(data) });
  } catch (error) {
    scope.postMessage({ ok: false, error: error instanceof Error ? error.message : String(error) });
  }
};
