/**
 * The pool of workers in which Bun makes blocking C calls; `bun:ffi` has no asynchronous ones of its own.
 *
 * A worker opens the same library again, which the loader answers with the same code and data, so addresses mean the
 * same there. Only numbers, bigints and booleans travel; the caller keeps the memory behind an address alive.
 *
 * @module
 */

import { NativeError, TimeoutError } from "../src/errors.ts";
import type { CFunction, SymbolTable } from "./types.ts";

/** One call, as a worker gets it. */
export interface Request {
  readonly library: number;
  readonly path: string;
  readonly name: string;
  readonly declared: CFunction;
  readonly args: readonly unknown[];
}

/** What came of it. */
export type Response = { readonly ok: true; readonly value: unknown } | {
  readonly ok: false;
  readonly error: string;
};

interface PoolWorker {
  onmessage: ((event: { readonly data: Response }) => void) | null;
  onerror: ((event: { readonly message?: string; preventDefault?(): void }) => void) | null;
  postMessage(message: Request): void;
  ref(): void;
  unref(): void;
  terminate(): void;
}

interface Job {
  readonly request: Request;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

interface Slot {
  readonly worker: PoolWorker;
  job: Job | null;
  abandoned: boolean;
}

const WORKERS = 4;

const libraries: { readonly path: string; readonly table: SymbolTable }[] = [];
const jobs = new WeakMap<Promise<unknown>, Job>();
const slots = new Set<Slot>();
const idle: Slot[] = [];
let queue: Job[] = [];

/** Remembers a library's blocking functions; the number is for `callBlocking`. */
export function registerLibrary(path: string, table: SymbolTable): number {
  return libraries.push({ path, table }) - 1;
}

/** Queues one call. The promise settles when C has returned, and not before, even where nobody waits any more. */
export function callBlocking(
  library: number,
  name: string,
  count: number,
  args: readonly unknown[],
): Promise<unknown> {
  const { path, table } = libraries[library]!;
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  if (args.length !== count) {
    // bun:ffi takes what is missing for 0
    reject(new TypeError(`${name} takes ${count} arguments, ${args.length} given`));
    return promise;
  }
  const job: Job = { request: { library, path, name, declared: table[name]!, args }, resolve, reject };
  jobs.set(promise, job);
  queue.push(job);
  pump();
  return promise;
}

/**
 * Gives up on a call: one still queued never starts and its promise rejects; one under way loses its worker, which
 * ends when C returns, no longer keeps the process alive, and is replaced in the pool.
 */
export function abandon(call: Promise<unknown>): void {
  const job = jobs.get(call);
  if (job === undefined) return;
  if (queue.includes(job)) {
    queue = queue.filter((other) => other !== job);
    job.reject(new TimeoutError(`${job.request.name} was given up before it started`));
    return;
  }
  for (const slot of slots) {
    if (slot.job !== job) continue;
    slot.abandoned = true;
    slots.delete(slot);
    slot.worker.unref();
    pump();
    return;
  }
}

function pump(): void {
  while (queue.length > 0) {
    const slot = idle.pop() ?? (slots.size < WORKERS ? startWorker() : undefined);
    if (slot === undefined) return;
    const job = queue.shift()!;
    slot.job = job;
    slot.worker.ref();
    try {
      slot.worker.postMessage(job.request);
    } catch (error) {
      slot.job = null;
      release(slot);
      job.reject(error);
    }
  }
}

function release(slot: Slot): void {
  if (slot.abandoned) {
    slot.worker.terminate();
    return;
  }
  slot.worker.unref();
  idle.push(slot);
}

function startWorker(): Slot {
  // `.ts` in a checkout, `.js` in the npm tarball
  const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."));
  const worker = new Worker(new URL(`./bun_worker${extension}`, import.meta.url), {
    type: "module",
  }) as unknown as PoolWorker;
  const slot: Slot = { worker, job: null, abandoned: false };
  slots.add(slot);
  worker.onmessage = ({ data }) => {
    const job = slot.job;
    slot.job = null;
    release(slot);
    pump();
    if (job === null) return;
    if (data.ok) job.resolve(data.value);
    else {job.reject(
        new NativeError(`${job.request.name} in ${job.request.path} could not be called: ${data.error}`),
      );}
  };
  worker.onerror = (event) => {
    event.preventDefault?.();
    const job = slot.job;
    slot.job = null;
    slots.delete(slot);
    const place = idle.indexOf(slot);
    if (place >= 0) idle.splice(place, 1);
    worker.terminate();
    job?.reject(
      new NativeError(`the worker that called ${job.request.name} failed: ${event.message ?? "no message"}`),
    );
    pump();
  };
  return slot;
}
