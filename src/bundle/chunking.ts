/**
 * Cutting payloads into chunks.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import type { StoreObject } from "../store/store.ts";
import type { ChunkSpec, PayloadSpec } from "./manifest.ts";
import { chunkKeyOf } from "./names.ts";

/** How payloads are cut and marked. */
export interface ChunkOptions {
  /** The most bytes a chunk should have; null for one chunk per payload. */
  readonly chunkBytes: number | null;
  /** Whether chunks carry a CRC-32; with `written` the store tells it while it writes them. */
  readonly checksums: boolean | "written";
}

/** A payload to be stored. */
export interface PayloadSource {
  readonly key: string;
  readonly parts: readonly Uint8Array[];
  /** Bytes of the header in front of the rows. */
  readonly metadataBytes?: number;
  /** Bytes of a row, where all rows have as many; chunks then end between rows. */
  readonly rowBytes: number | null;
}

/**
 * Cuts a payload into the objects it is stored as. No bytes are copied.
 *
 * An empty payload has no chunks and no objects.
 */
export function cutPayload(
  source: PayloadSource,
  options: ChunkOptions,
): { payload: PayloadSpec; objects: StoreObject[] } {
  const bytes = source.parts.reduce((sum, part) => sum + part.byteLength, 0);
  const sizes = chunkSizes(bytes, source.metadataBytes ?? 0, source.rowBytes, options.chunkBytes);
  const cutter = new PartsCutter(source.parts);
  const chunks: ChunkSpec[] = [];
  const objects: StoreObject[] = [];
  sizes.forEach((size, index) => {
    const key = chunkKeyOf(source.key, index, sizes.length);
    const parts = cutter.take(size);
    if (options.checksums === "written") {
      const chunk: { -readonly [K in keyof ChunkSpec]: ChunkSpec[K] } = { key, bytes: size };
      chunks.push(chunk);
      objects.push({ key, parts, written: (sum) => void (chunk.crc32 = sum) });
      return;
    }
    const sum = options.checksums ? parts.reduce((crc, part) => crc32(part, crc), 0) : undefined;
    chunks.push({ key, bytes: size, ...(sum === undefined ? {} : { crc32: sum }) });
    objects.push({ key, parts });
  });
  return {
    payload: {
      key: source.key,
      bytes,
      chunks,
      ...(source.metadataBytes === undefined ? {} : { metadataBytes: source.metadataBytes }),
    },
    objects,
  };
}

/**
 * The sizes of the chunks of a payload.
 *
 * Chunks hold whole rows where a row fits into one. A header has a chunk of its own: shards of a power of two of the
 * rows then begin and end with chunks, and are read without their neighbours.
 */
export function chunkSizes(
  bytes: number,
  headerBytes: number,
  rowBytes: number | null,
  chunkBytes: number | null,
): number[] {
  if (bytes === 0) return [];
  if (chunkBytes === null || bytes <= chunkBytes) return [bytes];
  const sizes: number[] = [];
  let left = bytes;
  const push = (size: number): void => {
    sizes.push(size);
    left -= size;
  };
  let step = chunkBytes;
  if (rowBytes !== null && rowBytes > 0 && rowBytes <= chunkBytes) {
    step = chunkBytes - chunkBytes % rowBytes;
    for (let header = headerBytes; header > 0; header -= sizes.at(-1)!) push(Math.min(header, chunkBytes));
  }
  while (left > 0) push(Math.min(left, step));
  return sizes;
}

/** Takes consecutive bytes from a list of parts. */
class PartsCutter {
  readonly #parts: readonly Uint8Array[];
  #index = 0;
  #used = 0;

  constructor(parts: readonly Uint8Array[]) {
    this.#parts = parts;
  }

  take(bytes: number): Uint8Array[] {
    const out: Uint8Array[] = [];
    for (let left = bytes; left > 0;) {
      const part = this.#parts[this.#index]!;
      const length = Math.min(left, part.byteLength - this.#used);
      if (length > 0) out.push(part.subarray(this.#used, this.#used + length));
      left -= length;
      this.#used += length;
      if (this.#used === part.byteLength) {
        this.#index++;
        this.#used = 0;
      }
    }
    return out;
  }
}
