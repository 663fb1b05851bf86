/**
 * One FFI for both runtimes: `Deno.dlopen` in Deno, `bun:ffi` in Bun, chosen when this module is loaded.
 *
 * Memory rules, the same in both:
 * - A `buffer` argument is C's for the duration of the call. Memory that C keeps is allocated with
 *   `new ArrayBuffer(n)` first (Bun moves small typed arrays made by length when their `.buffer` is first touched), its
 *   address taken once with `addressOf`, and a reference to it kept until C is done.
 * - A blocking call takes addresses only; the caller keeps the memory alive until its promise settles.
 * - `detach` every view before its memory is unmapped: a detached view has length 0, one over unmapped memory kills
 *   the process.
 *
 * @module
 */

import { TimeoutError } from "../src/errors.ts";
import type { NativeRuntime } from "./types.ts";

export type {
  Bound,
  BoundFunction,
  BufferArgument,
  CFunction,
  CType,
  Library,
  NativeRuntime,
  SymbolTable,
} from "./types.ts";

interface Binding {
  readonly runtime: NativeRuntime;
  abandon(call: Promise<unknown>): void;
}

async function choose(): Promise<Binding> {
  if ("Deno" in globalThis) return await import("./deno.ts");
  if ("Bun" in globalThis) return await import("./bun.ts");
  throw new Error("native libraries can be called from Deno and Bun only, and this is neither");
}

const binding: Binding = await choose();

/** The FFI of the runtime this process runs in. */
export const native: NativeRuntime = binding.runtime;

/** Detaches a buffer made by `native.view`: its views have length 0 from here on. Does nothing the second time. */
export function detach(buffer: ArrayBuffer): void {
  if (!buffer.detached) buffer.transfer(0);
}

/** When to give up on a blocking call. */
export interface Deadline {
  /** What is waited for, for the message. */
  readonly what: string;
  /** Milliseconds from now; `undefined` waits for ever. */
  readonly timeoutMs?: number | undefined;
  /** Gives up when it fires. */
  readonly signal?: AbortSignal | undefined;
  /** Called once when the call is given up, before the rejection; the place to quarantine its buffers. */
  readonly onAbandon?: (() => void) | undefined;
}

/**
 * Waits for a blocking call until its deadline.
 *
 * A C call cannot be interrupted. One that is given up goes on in its thread and may still read and write the memory it
 * was given: that memory must be neither reused nor freed until `call` itself settles, if it ever does. In Bun its
 * worker leaves the pool and a new one takes the place; in Deno it keeps one of 32 threads, and the process alive,
 * until C returns.
 *
 * @param call The promise exactly as the bound function returned it.
 * @returns What the call resolves to.
 * @throws {TimeoutError} TIMEOUT past the deadline, ABORTED when the signal fired.
 */
export function withDeadline<T>(call: Promise<T>, deadline: Deadline): Promise<T> {
  const { what, timeoutMs, signal, onAbandon } = deadline;
  if (timeoutMs === undefined && signal === undefined) return call;
  return new Promise<T>((resolve, reject) => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const settle = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    };
    const give = (error: TimeoutError): void => {
      settle();
      call.catch(() => {}); // its fate no longer interests anybody here
      binding.abandon(call);
      onAbandon?.();
      reject(error);
    };
    const abort = (): void =>
      give(new TimeoutError(`${what} was aborted`, { cause: signal?.reason }, "ABORTED"));
    call.then((value) => {
      settle();
      resolve(value);
    }, (error) => {
      settle();
      reject(error);
    });
    if (signal?.aborted === true) return abort();
    signal?.addEventListener("abort", abort);
    if (timeoutMs !== undefined) {
      const late = (): void => give(new TimeoutError(`${what} did not return within ${timeoutMs} ms`));
      // what does not fit a 32-bit timer (25 days) is as good as for ever
      if (timeoutMs < 2 ** 31) timer = setTimeout(late, timeoutMs);
    }
  });
}
