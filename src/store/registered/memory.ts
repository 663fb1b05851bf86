/**
 * Memory for staging: nowhere in the file system, and shared with other processes of the user by its maker's descriptor.
 *
 * A memfd needs no room in `/dev/shm` (64 MB in a Docker container), leaves nothing behind however its maker ends, and
 * its pages come when they are first touched.
 *
 * @module
 */

import process from "node:process";
import {
  cstring,
  EOPNOTSUPP,
  errnoName,
  MAP_SHARED,
  O_CLOEXEC,
  O_RDWR,
  PROT_READ,
  PROT_WRITE,
  sys,
} from "../../../ffi/libc.ts";
import { detach, native } from "../../../ffi/native.ts";
import { CapacityError, ConfigError, NativeError } from "../../errors.ts";

/** The most bytes of one piece: an ArrayBuffer has no more. */
const MOST_BYTES = 2 ** 32;

/** A mapped piece of memory. */
export interface MappedMemory extends Disposable {
  readonly address: bigint;
  /** All of it; of length 0 once it is unmapped. */
  readonly bytes: Uint8Array;
  /** Where another process of this user can open it, as long as this one has it. */
  readonly path: string;
  /**
   * Brings all pages in, off the event loop: pinning pages that are not there takes seconds a GiB. `close` has to wait for it.
   *
   * @throws CapacityError where there is not so much memory
   */
  populate(): Promise<void>;
  close(): void;
}

/** New memory of `bytes` bytes, all zero. @throws CapacityError, ConfigError */
export function newMemory(bytes: number): MappedMemory {
  if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes > MOST_BYTES) {
    throw new ConfigError(`staging memory cannot have ${bytes} bytes`, {
      expected: `1 to ${MOST_BYTES}`,
      actual: bytes,
      hint: 'set localBufferSize to something like "256mb"',
    });
  }
  const fd = sys.memfd(cstring("batchferry"));
  if (fd < 0) throw failure("memfd_create", fd);
  const error = sys.ftruncate(fd, bytes);
  if (error < 0) {
    sys.close(fd);
    throw failure("ftruncate", error);
  }
  return new Mapping(fd, bytes, `/proc/${process.pid}/fd/${fd}`);
}

/** Maps memory that another process made. @throws NativeError where that process is gone */
export function attachMemory(path: string, bytes: number): MappedMemory {
  const fd = sys.open(cstring(path), O_RDWR | O_CLOEXEC);
  if (fd < 0) throw failure(`open of ${path}`, fd);
  return new Mapping(fd, bytes, path);
}

class Mapping implements MappedMemory {
  readonly address: bigint;
  readonly bytes: Uint8Array;
  readonly path: string;
  readonly #buffer: ArrayBuffer;
  readonly #length: number;
  #fd: number;

  constructor(fd: number, bytes: number, path: string) {
    this.#fd = fd;
    this.#length = bytes;
    this.path = path;
    this.address = sys.mmap(bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (this.address < 0n) {
      sys.close(fd);
      throw failure(`mmap of ${bytes} bytes`, Number(this.address));
    }
    this.#buffer = native.view(this.address, bytes);
    this.bytes = new Uint8Array(this.#buffer);
  }

  async populate(): Promise<void> {
    const error = await sys.fallocateAsync(this.#fd, 0, this.#length);
    if (error < 0 && error !== -EOPNOTSUPP) throw failure(`fallocate of ${this.#length} bytes`, error);
  }

  close(): void {
    if (this.#fd < 0) return;
    detach(this.#buffer);
    sys.munmap(this.address, this.#length);
    sys.close(this.#fd);
    this.#fd = -1;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function failure(call: string, errno: number): Error {
  const name = errnoName(errno);
  const details = { nativeName: name, nativeCode: errno };
  if (name === "ENOMEM" || name === "ENOSPC" || name === "EMFILE" || name === "ENFILE") {
    return new CapacityError(`no staging memory: ${call} failed with ${name}`, {
      ...details,
      hint: "free memory or descriptors, or set a smaller localBufferSize",
    });
  }
  return new NativeError(`${call} failed with ${name}`, details);
}
