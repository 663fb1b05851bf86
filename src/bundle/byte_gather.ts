/**
 * Gathering pieces of a payload into memory with few reads.
 *
 * @module
 */

import type { PayloadRange } from "./ranges.ts";
import { allocate } from "./ranges.ts";

/** A gap of at most this many bytes is read along rather than making two reads. */
const MAX_GAP = 256;
/** Pieces longer than this are read where they belong; reading them along a gap would copy too much. */
const SHORT = 4096;
/** The most bytes of a read that needs a copy afterwards. */
const MAX_BLOCK = 8 << 20;

/** A read whose bytes have to be copied on: pieces `from` to `to` of the gather. */
interface Block {
  readonly source: number;
  readonly bytes: Uint8Array;
  readonly from: number;
  readonly to: number;
}

/**
 * Collects the pieces wanted of one member, then says what to read.
 *
 * Pieces that continue one another at both ends are one read, straight to where they belong. Short pieces
 * with small gaps between them are read together and copied on by `scatter`.
 */
export class ByteGather {
  readonly #member: string;
  readonly #out: Uint8Array;
  readonly #sources: number[] = [];
  readonly #lengths: number[] = [];
  readonly #targets: number[] = [];
  #blocks: readonly Block[] = [];

  constructor(member: string, out: Uint8Array) {
    this.#member = member;
    this.#out = out;
  }

  /** Wants `length` bytes from `source` at `target` of the output. Sources must ascend and not overlap. */
  add(source: number, length: number, target: number): void {
    if (length === 0) return;
    const last = this.#sources.length - 1;
    if (last >= 0) {
      const known = this.#lengths[last]!;
      if (this.#sources[last]! + known === source && this.#targets[last]! + known === target) {
        this.#lengths[last] = known + length;
        return;
      }
    }
    this.#sources.push(source);
    this.#lengths.push(length);
    this.#targets.push(target);
  }

  /** What to read before `scatter`. */
  ranges(): PayloadRange[] {
    const ranges: PayloadRange[] = [];
    const blocks: Block[] = [];
    const count = this.#sources.length;
    for (let from = 0, to = 0; from < count; from = to) {
      const source = this.#sources[from]!;
      for (to = from + 1; to < count && this.#joins(source, to); to++);
      const length = this.#sources[to - 1]! + this.#lengths[to - 1]! - source;
      let into: Uint8Array;
      if (to === from + 1) {
        const target = this.#targets[from]!;
        into = this.#out.subarray(target, target + length);
      } else {
        into = allocate(length, this.#member);
        blocks.push({ source, bytes: into, from, to });
      }
      ranges.push({ member: this.#member, offset: source, into });
    }
    this.#blocks = blocks;
    return ranges;
  }

  /** True if piece `next` is read together with the one before it, in a block that begins at `source`. */
  #joins(source: number, next: number): boolean {
    const length = this.#lengths[next]!;
    const before = this.#lengths[next - 1]!;
    const gap = this.#sources[next]! - (this.#sources[next - 1]! + before);
    return gap > 0 && gap <= MAX_GAP && length < SHORT && before < SHORT &&
      this.#sources[next]! + length - source <= MAX_BLOCK;
  }

  /** Copies what was read together to where it belongs. */
  scatter(): void {
    for (const { source, bytes, from, to } of this.#blocks) {
      for (let i = from; i < to; i++) {
        copyPiece(bytes, this.#sources[i]! - source, this.#out, this.#targets[i]!, this.#lengths[i]!);
      }
    }
    this.#blocks = [];
  }
}

/** A loop beats `set` for a few bytes. */
function copyPiece(from: Uint8Array, source: number, to: Uint8Array, target: number, length: number): void {
  if (length > 32) {
    to.set(from.subarray(source, source + length), target);
    return;
  }
  for (let i = 0; i < length; i++) to[target + i] = from[source + i]!;
}
