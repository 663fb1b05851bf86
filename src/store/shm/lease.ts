/**
 * Leases: payloads in place, until they are released.
 *
 * @module
 */

import type { BundleLease, CallOptions, Lease, StoreObject } from "../store.ts";
import { ClosedError } from "../../errors.ts";
import { checkPlaced, type Placed } from "../checks.ts";
import type { Extent } from "./format.ts";
import type { Mapping } from "./mapping.ts";
import type { Slot } from "./pool.ts";

/** Payloads over private mappings of their files: one mapping for a bundle, one for each key put alone. */
export class ShmLease implements Lease {
  readonly payloads: ReadonlyMap<string, ArrayBuffer>;
  readonly copiedBytes = 0;
  readonly #mappings: readonly Mapping[];
  readonly #onRelease: (lease: ShmLease) => void;
  #released = false;

  constructor(
    payloads: ReadonlyMap<string, ArrayBuffer>,
    mappings: readonly Mapping[],
    onRelease: (lease: ShmLease) => void,
  ) {
    this.payloads = payloads;
    this.#mappings = mappings;
    this.#onRelease = onRelease;
  }

  get released(): boolean {
    return this.#released;
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#onRelease(this);
    for (const mapping of this.#mappings) mapping.close();
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** What the store does for a lease that is written in place. */
export interface Publisher {
  publish(
    objectId: string,
    slot: Slot,
    placed: readonly (readonly [key: string, extent: Extent])[],
    objects: readonly StoreObject[],
    options: CallOptions | undefined,
  ): void;
  giveBack(slot: Slot): void;
  forget(lease: ShmBundleLease): void;
}

/** Memory in a file of the pool. */
export class ShmBundleLease implements BundleLease {
  readonly payloads: readonly Uint8Array[];
  readonly #slot: Slot;
  readonly #offsets: readonly number[];
  readonly #sizes: readonly number[];
  readonly #publisher: Publisher;
  #ended: "released" | "published" | undefined;

  constructor(
    slot: Slot,
    place: { readonly offsets: readonly number[]; readonly sizes: readonly number[] },
    publisher: Publisher,
  ) {
    this.#slot = slot;
    this.#offsets = place.offsets;
    this.#sizes = place.sizes;
    this.#publisher = publisher;
    // buffers of their own: they are detached at the end, while the file's mapping stays
    this.payloads = place.sizes.map((bytes, i) =>
      new Uint8Array(slot.file.mapping.view(place.offsets[i]!, bytes))
    );
  }

  // deno-lint-ignore require-await -- errors reach the caller as a rejection, as they do from every store
  async publish(
    objectId: string,
    placed: readonly Placed[],
    objects: readonly StoreObject[],
    options?: CallOptions,
  ): Promise<void> {
    if (this.#ended !== undefined) {
      throw new ClosedError(`this memory was ${this.#ended} before`, { key: objectId });
    }
    checkPlaced(placed, this.#sizes);
    const extents = placed
      .map(({ key, bytes }, i) => [key, { offset: this.#offsets[i]!, bytes }] as const)
      .filter(([key]) => key !== "");
    this.#publisher.publish(objectId, this.#slot, extents, objects, options);
    this.#end("published");
  }

  release(): void {
    if (this.#ended !== undefined) return;
    this.#end("released");
    this.#publisher.giveBack(this.#slot);
  }

  [Symbol.dispose](): void {
    this.release();
  }

  #end(how: "released" | "published"): void {
    this.#ended = how;
    // from here on others read the memory, or get it for another bundle
    for (const { buffer } of this.payloads) this.#slot.file.mapping.forget(buffer as ArrayBuffer);
    this.#publisher.forget(this);
  }
}
