/**
 * One deadline for one call: the caller's signal and its time limit together.
 *
 * @module
 */

import { TimeoutError } from "./errors.ts";

/** How long a call may take where nobody says otherwise, in milliseconds. */
export const DEFAULT_TIMEOUT_MS = 60_000;

/** What a caller may say about one call. */
export interface DeadlineOptions {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds. */
  readonly timeoutMs?: number | undefined;
  /** Called with the bytes of every part of a long transfer once that part has moved; by stores that move parts. */
  readonly progress?: ((bytes: number) => void) | undefined;
}

/** Counts down from its making; `check` throws once time is up or the signal has fired. */
export class Deadline {
  readonly #what: string;
  readonly #signal: AbortSignal | undefined;
  readonly #progress: ((bytes: number) => void) | undefined;
  readonly #end: number;
  readonly #timeoutMs: number;

  /**
   * @param what names the call in the error, such as `put`
   * @param options the caller's signal and limit
   * @param defaultMs the limit where the caller gave none
   */
  constructor(what: string, options: DeadlineOptions = {}, defaultMs: number = DEFAULT_TIMEOUT_MS) {
    this.#what = what;
    this.#signal = options.signal;
    this.#progress = options.progress;
    this.#timeoutMs = options.timeoutMs ?? defaultMs;
    this.#end = performance.now() + this.#timeoutMs;
  }

  /** Milliseconds left, at least 0. */
  get remainingMs(): number {
    return Math.max(0, this.#end - performance.now());
  }

  /** What is left, in the form the floors below take. */
  get options(): DeadlineOptions {
    return {
      timeoutMs: this.remainingMs,
      ...(this.#signal === undefined ? {} : { signal: this.#signal }),
      ...(this.#progress === undefined ? {} : { progress: this.#progress }),
    };
  }

  /** Tells the caller that bytes have moved. */
  moved(bytes: number): void {
    this.#progress?.(bytes);
  }

  /**
   * Throws once the call must not go on.
   *
   * @throws TimeoutError with code ABORTED or TIMEOUT
   */
  check(): void {
    if (this.#signal?.aborted) {
      throw new TimeoutError(`${this.#what} was aborted`, { cause: this.#signal.reason }, "ABORTED");
    }
    if (performance.now() >= this.#end) {
      throw new TimeoutError(`${this.#what} took longer than ${this.#timeoutMs} ms`);
    }
  }
}
