/**
 * Where the files of other owners go when this process deletes their bundles.
 *
 * Their owner can use them again, so they are put into its pool; but somebody has to see to it that a pool which its
 * owner does not look into stays within bounds. That is the deleter: it counts what it put there, and looks itself now
 * and then.
 *
 * @module
 */

import { Stat, sys } from "../../../ffi/libc.ts";
import { isOwner } from "./names.ts";
import { sweepIfDead } from "./owner.ts";
import { MAX_KEPT } from "./pool.ts";
import { type Folder, join, namesIn, pathBuffer, type Root } from "./root.ts";

const REFRESH_MS = 100;
const OWNERS_CACHED = 256;

const path = pathBuffer();
const to = pathBuffer();
const stat = new Stat();

interface Estimate {
  readonly folder: Folder;
  count: number;
  bytes: number;
  /** When it was last counted. */
  at: number;
  /** Dead, or not there. */
  gone: boolean;
}

/** Estimates of other owners' pools. */
export class ForeignPools {
  readonly #root: Root;
  readonly #maxBytes: number;
  readonly #estimates = new Map<string, Estimate>();

  constructor(root: Root, maxBytes: number) {
    this.#root = root;
    this.#maxBytes = maxBytes;
  }

  /**
   * Moves a bundle's file to the pool of its owner.
   *
   * @returns false where that was not done, because the owner is dead or its pool full, and the file is to be unlinked
   */
  take(folder: Folder, id: string, owner: string, bytes: number): boolean {
    // it comes from a file, and becomes a path
    if (!isOwner(owner)) return false;
    const estimate = this.#estimate(owner);
    if (estimate.gone || estimate.count >= MAX_KEPT || estimate.bytes + bytes > this.#maxBytes) return false;
    if (sys.rename(join(path, folder, id), join(to, estimate.folder, id)) < 0) return false;
    estimate.count++;
    estimate.bytes += bytes;
    return true;
  }

  #estimate(owner: string): Estimate {
    const now = performance.now();
    let estimate = this.#estimates.get(owner);
    if (estimate !== undefined && now - estimate.at < REFRESH_MS) return estimate;
    if (estimate === undefined) {
      if (this.#estimates.size >= OWNERS_CACHED) this.#estimates.clear();
      estimate = {
        folder: this.#root.folderIn(this.#root.pool, owner),
        count: 0,
        bytes: 0,
        at: 0,
        gone: false,
      };
      this.#estimates.set(owner, estimate);
    }
    estimate.at = now;
    estimate.count = 0;
    estimate.bytes = 0;
    // a dead owner never looks into its pool again, and its memory would be held until somebody opens the store
    estimate.gone = sweepIfDead(this.#root, owner);
    if (estimate.gone) return estimate;
    for (const name of namesIn(estimate.folder)) {
      if (sys.lstat(join(path, estimate.folder, name), stat) < 0) continue;
      estimate.count++;
      estimate.bytes += stat.size;
    }
    return estimate;
  }
}
