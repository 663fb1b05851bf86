/**
 * The registered memory in which a process keeps its bundles: segments that come when they are needed and stay for the
 * next bundle, because registering and fresh pages cost more than everything else.
 *
 * @module
 */

import { tryEach } from "../../attempts.ts";
import type { Deadline } from "../../deadline.ts";
import { CapacityError, ClosedError } from "../../errors.ts";
import { type MappedMemory, newMemory } from "../registered/memory.ts";
import { StagingPool, type StagingSlot } from "../registered/staging.ts";
import type { Plane, Registration } from "./plane.ts";

/** A segment has as many bytes, or those of one larger block. */
export const SEGMENT_BYTES: number = 64 * 2 ** 20;
/** The most bytes of a segment. */
const MOST_BYTES = 2 ** 32;
const PAGE = 4096;
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
  #nextId = 0;
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

  /** Room for a bundle: blocks of these sizes, all or none. @throws CapacityError where there is none, after a wait */
  async reserve(sizes: readonly number[], deadline: Deadline): Promise<Block[]> {
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    const end = performance.now() + Math.min(ROOM_WAIT_MS, deadline.remainingMs / 2);
    for (;;) {
      deadline.check();
      if (this.#closed) throw new ClosedError("the store was closed");
      const blocks = this.#takeAll(sizes) ?? await this.#grow(sizes);
      if (blocks !== undefined) return blocks;
      if (bytes > this.#limit || performance.now() >= end) throw this.#full(bytes);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  #takeAll(sizes: readonly number[]): Block[] | undefined {
    const blocks: Block[] = [];
    for (const bytes of sizes) {
      const block = this.#take(bytes);
      if (block === undefined) {
        for (const taken of blocks) taken.release();
        return undefined;
      }
      blocks.push(block);
    }
    return blocks;
  }

  #take(bytes: number): Block | undefined {
    for (const { segment, pool } of this.#segments) {
      const slot = pool.fits(bytes) ? pool.tryReserve(bytes) : undefined;
      if (slot !== undefined) return blockOf(segment, slot);
    }
    return undefined;
  }

  /** Takes the blocks, with segments added as they are needed; one call at a time. */
  #grow(sizes: readonly number[]): Promise<Block[] | undefined> {
    const grown = this.#growing.then(async () => {
      const blocks = new Map<number, Block>();
      // the largest first: a small one must not be what keeps an empty segment from making room
      const order = sizes.map((bytes, i) => ({ bytes, i })).sort((a, b) => b.bytes - a.bytes);
      try {
        for (const [place, { bytes, i }] of order.entries()) {
          let block = this.#take(bytes); // another put's segment may have room for this one too
          while (block === undefined) {
            const rest = order.slice(place).reduce((sum, { bytes }) => sum + inPages(bytes), 0);
            if (!await this.#add(inPages(bytes), rest)) return undefined;
            block = this.#take(bytes);
          }
          blocks.set(i, block);
        }
        return sizes.map((_, i) => blocks.get(i)!);
      } finally {
        if (blocks.size < sizes.length) { for (const block of blocks.values()) block.release(); }
      }
    });
    this.#growing = grown.catch(() => {});
    return grown;
  }

  /** Registers one more segment of at least `least` bytes; false where there is no room for it. */
  async #add(least: number, wanted: number): Promise<boolean> {
    await this.#makeRoom(least);
    const room = this.#limit - this.#registered;
    const size = Math.min(Math.max(SEGMENT_BYTES, wanted), MOST_BYTES, room - room % PAGE);
    if (this.#closed || size < least) return false;
    const memory = newMemory(size);
    try {
      await memory.populate();
      const registration = await this.#plane.register(memory.address, size);
      this.#segments.push({
        segment: { id: this.#nextId++, memory, registration },
        pool: new StagingPool(size),
      });
      this.#registered += size;
    } catch (error) {
      memory.close();
      throw error;
    }
    return true;
  }

  /** Gives empty segments back where a larger one is needed. Who reads one of them by an old table finds out. */
  async #makeRoom(bytes: number): Promise<void> {
    for (const each of [...this.#segments]) {
      if (this.#limit - this.#registered >= bytes) return;
      const { pool: { use }, segment } = each;
      if (use.free < use.total || !this.#segments.includes(each)) continue;
      this.#segments.splice(this.#segments.indexOf(each), 1);
      this.#registered -= use.total;
      await closeSegment(segment);
    }
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
    await tryEach(this.#segments.splice(0), async ({ segment, pool }) => {
      pool.close();
      await closeSegment(segment);
    });
  }
}

async function closeSegment({ registration, memory }: Segment): Promise<void> {
  await registration.close();
  memory.close();
}

function inPages(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / PAGE)) * PAGE;
}

function blockOf(segment: Segment, slot: StagingSlot): Block {
  return { segment, offset: slot.offset, bytes: slot.bytes, release: () => slot.release() };
}
