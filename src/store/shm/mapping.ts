/**
 * A mapped file: memory that is detached before it is unmapped.
 *
 * @module
 */

import { detach, native } from "../../../ffi/native.ts";
import {
  MAP_NORESERVE,
  MAP_POPULATE,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ,
  PROT_WRITE,
  sys,
} from "../../../ffi/libc.ts";
import { systemError } from "./failures.ts";

/** The longest mapping that is seen as one ArrayBuffer: Bun's end at 4 GiB. */
const ONE_VIEW_BYTES = 2 ** 31;

/** Mapped memory of a file, from its start. */
export class Mapping implements Disposable {
  readonly bytes: number;
  readonly #address: bigint;
  readonly #views = new Set<ArrayBuffer>();
  #whole: Uint8Array | undefined;
  #open = true;

  private constructor(address: bigint, bytes: number) {
    this.#address = address;
    this.bytes = bytes;
  }

  /** Maps an own file for writing: what is written is the file. */
  static shared(fd: number, bytes: number, path: string): Mapping {
    return Mapping.#map(fd, bytes, MAP_SHARED, path);
  }

  /**
   * Maps a file for reading, from a read-only descriptor. A write stays in this mapping: a read-only one would kill the
   * process at the first write, a shared one would change everybody's bytes.
   */
  static private(fd: number, bytes: number, path: string): Mapping {
    return Mapping.#map(fd, bytes, MAP_PRIVATE | MAP_NORESERVE, path);
  }

  /** Maps a file to copy out of it, never to be handed out. Where most of it is wanted, all its pages come at once. */
  static reading(fd: number, bytes: number, most: boolean, path: string): Mapping {
    return Mapping.#map(fd, bytes, MAP_SHARED | (most ? MAP_POPULATE : 0), path, PROT_READ);
  }

  static #map(
    fd: number,
    bytes: number,
    flags: number,
    path: string,
    access = PROT_READ | PROT_WRITE,
  ): Mapping {
    const address = sys.mmap(bytes, access, flags, fd, 0);
    if (address < 0n) throw systemError(`map ${bytes} bytes of`, path, Number(address));
    return new Mapping(address, bytes);
  }

  /** A buffer of its own over a part of the memory; detached at the latest by `close`. */
  view(offset: number, bytes: number): ArrayBuffer {
    this.#check(offset, bytes);
    if (bytes === 0) return new ArrayBuffer(0);
    const buffer = native.view(this.#address + BigInt(offset), bytes);
    this.#views.add(buffer);
    return buffer;
  }

  /** Copies `from` to `offset`. */
  write(offset: number, from: Uint8Array): void {
    this.#check(offset, from.byteLength);
    if (this.bytes <= ONE_VIEW_BYTES) return this.#all().set(from, offset);
    this.#window(offset, from.byteLength, (window) => window.set(from));
  }

  /** Copies from `offset` to all of `into`. */
  read(offset: number, into: Uint8Array): void {
    this.#check(offset, into.byteLength);
    if (this.bytes <= ONE_VIEW_BYTES) return into.set(this.#all().subarray(offset, offset + into.byteLength));
    this.#window(offset, into.byteLength, (window) => into.set(window));
  }

  /** Detaches all views and unmaps. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const view of this.#views) detach(view);
    this.#views.clear();
    this.#whole = undefined;
    sys.munmap(this.#address, this.bytes);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #all(): Uint8Array {
    return this.#whole ??= new Uint8Array(this.view(0, this.bytes));
  }

  #window(offset: number, bytes: number, use: (window: Uint8Array) => void): void {
    const buffer = this.view(offset, bytes);
    try {
      use(new Uint8Array(buffer));
    } finally {
      this.forget(buffer);
    }
  }

  /** Detaches one view. */
  forget(view: ArrayBuffer): void {
    this.#views.delete(view);
    detach(view);
  }

  // JavaScript checks nothing beyond the view it is given, and a wrong view is somebody else's memory.
  #check(offset: number, bytes: number): void {
    if (this.#open && offset >= 0 && offset + bytes <= this.bytes) return;
    throw new RangeError(
      this.#open
        ? `${bytes} bytes at ${offset} are not within a mapping of ${this.bytes}`
        : "the mapping is closed",
    );
  }
}
