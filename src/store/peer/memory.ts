/**
 * The registered memory in which a process keeps its bundles: segments that come when they are needed and stay for the
 * next bundle, because registering and fresh pages cost more than everything else.
 *
 * @module
 */

import type { Deadline } from "../../deadline.ts";
import { CapacityError, ClosedError } from "../../errors.ts";
import { type MappedMemory, newMemory } from "../registered/memory.ts";
import { StagingPool, type StagingSlot } from "../registered/staging.ts";
import type { Plane, Registration } from "./plane.ts";

/** A segment has as many bytes, or those of one larger bundle. */
const SEGMENT_BYTES = 64 * 2 ** 20;
/** How long a put waits for room at most, and how often it looks, in milliseconds. */
const ROOM_WAIT_MS = 5000;
const LOOK_MS = 10;

/** One registered piece of memory. */
export interface Segment {
  readonly id: number;
  readonly memory: MappedMemory;
  readonly registration: Registration;
}

/** A part of a segment, until `release`. */
export interface Block {
  readonly segment: Segment;
  readonly offset: number;
  readonly bytes: number;
  release(): void;
}

/** How it is used, in bytes. */
export interface MemoryUse {
  readonly limit: number;
  readonly registered: number;
  readonly used: number;
}

/** See the module. */
export class PeerMemory {
  readonly #plane: Plane;
  readonly #limit: number;
  readonly #segments: { readonly segment: Segment; readonly pool: StagingPool }[] = [];
  #growing: Promise<unknown> = Promise.resolve();
  #registered = 0;
  #closed = false;

  /** @param limit the most bytes of all segments together */
  constructor(plane: Plane, limit: number) {
    this.#plane = plane;
    this.#limit = limit;
  }

  get use(): MemoryUse {
    const free = this.#segments.reduce((sum, { pool }) => sum + pool.use.free, 0);
    return { limit: this.#limit, registered: this.#registered, used: this.#registered - free };
  }

  /** Room for a bundle. @throws CapacityError where there is none, after a wait */
  async reserve(bytes: number, deadline: Deadline): Promise<Block> {
    const end = performance.now() + Math.min(ROOM_WAIT_MS, deadline.remainingMs / 2);
    for (;;) {
      deadline.check();
      if (this.#closed) throw new ClosedError("the store was closed");
      const block = this.#take(bytes) ?? await this.#grow(bytes);
      if (block !== undefined) return block;
      if (bytes > this.#limit || performance.now() >= end) throw this.#full(bytes);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  #take(bytes: number): Block | undefined {
    for (const { segment, pool } of this.#segments) {
      const slot = pool.fits(bytes) ? pool.tryReserve(bytes) : undefined;
      if (slot !== undefined) return blockOf(segment, slot);
    }
    return undefined;
  }

  /** Registers one more segment and takes the block from it; one at a time. */
  #grow(bytes: number): Promise<Block | undefined> {
    const grown = this.#growing.then(async () => {
      const block = this.#take(bytes); // another put's segment may have room for this one too
      if (block !== undefined) return block;
      const room = this.#limit - this.#registered;
      const least = Math.ceil(bytes / 4096) * 4096;
      const size = Math.min(Math.max(SEGMENT_BYTES, least), room - room % 4096);
      if (this.#closed || size < least) return undefined;
      const memory = newMemory(size);
      try {
        const registration = await this.#plane.register(memory.address, size);
        const segment = { id: this.#segments.length, memory, registration };
        this.#segments.push({ segment, pool: new StagingPool(size) });
        this.#registered += size;
      } catch (error) {
        memory.close();
        throw error;
      }
      return this.#take(bytes);
    });
    this.#growing = grown.catch(() => {});
    return grown;
  }

  #full(bytes: number): CapacityError {
    const { limit, used } = this.use;
    return new CapacityError(`${bytes} bytes have no place: ${used} of ${limit} bytes are in use`, {
      expected: bytes,
      actual: limit - used,
      hint: "drop batches that are done with, or set a larger globalSegmentSize",
    });
  }

  /** Gives all memory back; READs under way fail. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#growing;
    for (const { segment, pool } of this.#segments.splice(0)) {
      pool.close();
      await segment.registration.close();
      segment.memory.close();
    }
  }
}

function blockOf(segment: Segment, slot: StagingSlot): Block {
  return { segment, offset: slot.offset, bytes: slot.bytes, release: () => slot.release() };
}
