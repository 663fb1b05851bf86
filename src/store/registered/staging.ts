/**
 * Handing out parts of one piece of memory, first come, first served.
 *
 * @module
 */

import type { Deadline } from "../../deadline.ts";
import { ClosedError, SchemaError, TimeoutError } from "../../errors.ts";

/** Slots begin at multiples of it and are multiples of it long. */
const UNIT = 4096;

/** A part of the memory, until `release`. */
export interface StagingSlot {
  readonly offset: number;
  /** As many as were asked for. */
  readonly bytes: number;
  /** Keeps the slot from being handed out again before `ended` has settled, released or not. */
  hold(ended: Promise<unknown>): void;
  /** Gives it back; idempotent. */
  release(): void;
}

/** How the memory is used, in bytes. */
export interface StagingUse {
  readonly total: number;
  readonly free: number;
  /** Released, but a call that was given up may still write to it. */
  readonly quarantined: number;
  readonly slots: number;
  /** Requests that wait for room. */
  readonly waiting: number;
}

interface Waiter {
  readonly bytes: number;
  give(offset: number): void;
  fail(error: Error): void;
}

/** Free and taken parts of `total` bytes. */
export class StagingPool {
  readonly total: number;
  /** Free parts: first byte → length, in ascending order, never touching each other. */
  #free: { offset: number; bytes: number }[];
  readonly #waiters: Waiter[] = [];
  #slots = 0;
  #quarantined = 0;
  #closed = false;

  constructor(total: number) {
    this.total = total;
    this.#free = [{ offset: 0, bytes: total - total % UNIT }];
  }

  /** How it is used now. */
  get use(): StagingUse {
    const free = this.#free.reduce((sum, { bytes }) => sum + bytes, 0);
    return {
      total: this.total,
      free,
      quarantined: this.#quarantined,
      slots: this.#slots,
      waiting: this.#waiters.length,
    };
  }

  /** Whether a request of so many bytes can ever be met. */
  fits(bytes: number): boolean {
    return bytes <= this.total - this.total % UNIT;
  }

  /**
   * Waits for room. Requests are met in the order they came: a large one is not passed by smaller ones for ever.
   *
   * @throws TimeoutError past the deadline, SchemaError for more than there is, ClosedError
   */
  async reserve(bytes: number, deadline: Deadline): Promise<StagingSlot> {
    deadline.check();
    if (this.#closed) throw new ClosedError("the staging memory was given up");
    if (!this.fits(bytes)) {
      throw new SchemaError(`${bytes} bytes are more than the staging memory has`, {
        expected: this.total,
        actual: bytes,
      });
    }
    const rounded = Math.max(UNIT, Math.ceil(bytes / UNIT) * UNIT);
    const offset = this.#waiters.length === 0 ? this.#take(rounded) : undefined;
    return this.#slot(offset ?? await this.#wait(rounded, deadline), bytes, rounded);
  }

  /** As `reserve`, at once: undefined where there is no room now. */
  tryReserve(bytes: number): StagingSlot | undefined {
    if (this.#closed) throw new ClosedError("the staging memory was given up");
    const rounded = Math.max(UNIT, Math.ceil(bytes / UNIT) * UNIT);
    const offset = this.#waiters.length === 0 ? this.#take(rounded) : undefined;
    return offset === undefined ? undefined : this.#slot(offset, bytes, rounded);
  }

  #wait(bytes: number, deadline: Deadline): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const { signal, timeoutMs } = deadline.options;
    const leave = (error: Error): void => {
      const place = this.#waiters.indexOf(waiter);
      if (place >= 0) this.#waiters.splice(place, 1);
      stop();
      reject(error);
      this.#serve(); // it may have stood in the way of a smaller one
    };
    const abort = (): void =>
      leave(new TimeoutError("waiting for staging memory was aborted", { cause: signal?.reason }, "ABORTED"));
    const late = (): void =>
      leave(
        new TimeoutError(`no ${bytes} bytes of staging memory became free in time`, {
          actual: this.use,
          hint: "raise localBufferSize, or run fewer transfers at once",
        }),
      );
    const timer = timeoutMs === undefined ? undefined : setTimeout(late, Math.min(timeoutMs, 2 ** 31 - 1));
    const stop = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    };
    const waiter: Waiter = {
      bytes,
      give: (offset) => {
        stop();
        resolve(offset);
      },
      fail: (error) => {
        stop();
        reject(error);
      },
    };
    this.#waiters.push(waiter);
    signal?.addEventListener("abort", abort);
    return promise;
  }

  /** Fails all that wait. What is taken can still be released. */
  close(): void {
    this.#closed = true;
    for (const waiter of this.#waiters.splice(0)) {
      waiter.fail(new ClosedError("the staging memory was given up"));
    }
  }

  #slot(offset: number, bytes: number, rounded: number): StagingSlot {
    this.#slots++;
    const holds = new Set<Promise<unknown>>();
    let released = false;
    const giveBack = (): void => {
      this.#giveBack(offset, rounded);
      this.#serve();
    };
    return {
      offset,
      bytes,
      hold: (ended) => {
        const settled = ended.then(() => {}, () => {}).then(() => {
          holds.delete(settled);
          if (!released || holds.size > 0) return;
          this.#quarantined -= rounded;
          giveBack();
        });
        holds.add(settled);
      },
      release: () => {
        if (released) return;
        released = true;
        this.#slots--;
        if (holds.size === 0) giveBack();
        else this.#quarantined += rounded;
      },
    };
  }

  /** First fit. */
  #take(bytes: number): number | undefined {
    const index = this.#free.findIndex((part) => part.bytes >= bytes);
    if (index < 0) return undefined;
    const part = this.#free[index]!;
    const { offset } = part;
    part.offset += bytes;
    part.bytes -= bytes;
    if (part.bytes === 0) this.#free.splice(index, 1);
    return offset;
  }

  #giveBack(offset: number, bytes: number): void {
    const index = this.#free.findIndex((part) => part.offset > offset);
    const at = index < 0 ? this.#free.length : index;
    const before = this.#free[at - 1];
    const after = this.#free[at];
    const joinsAfter = after !== undefined && offset + bytes === after.offset;
    if (before !== undefined && before.offset + before.bytes === offset) {
      before.bytes += bytes + (joinsAfter ? after.bytes : 0);
      if (joinsAfter) this.#free.splice(at, 1);
    } else if (joinsAfter) {
      after.offset = offset;
      after.bytes += bytes;
    } else {
      this.#free.splice(at, 0, { offset, bytes });
    }
  }

  #serve(): void {
    for (let first = this.#waiters[0]; first !== undefined; first = this.#waiters[0]) {
      const offset = this.#take(first.bytes);
      if (offset === undefined) return;
      this.#waiters.shift();
      first.give(offset);
    }
  }
}
