/**
 * From a system call's −errno to the error a caller can act on.
 *
 * @module
 */

import { statfsSync } from "node:fs";
import { EDQUOT, EFBIG, EMFILE, ENFILE, ENOMEM, ENOSPC, errnoName, errnoText } from "../../../ffi/libc.ts";
import { type BatchferryError, CapacityError, NativeError } from "../../errors.ts";

/** Whether the call failed for want of room. */
export function isFull(status: number): boolean {
  return status === -ENOSPC || status === -EDQUOT || status === -ENOMEM || status === -EFBIG;
}

/** A call that failed for no everyday reason. */
export function systemError(what: string, path: string, status: number): BatchferryError {
  const details = { nativeName: errnoName(status), nativeCode: status };
  const message = `cannot ${what} ${path}: ${errnoText(status)}`;
  if (status === -EMFILE || status === -ENFILE) {
    return new CapacityError(message, { ...details, hint: "raise the limit of open files (ulimit -n)" });
  }
  if (status === -ENOMEM) {
    return new CapacityError(message, { ...details, hint: "release leases, or raise vm.max_map_count" });
  }
  return new NativeError(message, details);
}

/** The file system is full: how much was asked for, how much there is, and what to do. */
export function fullError(directory: string, needed: number, status: number): CapacityError {
  const free = freeBytes(directory);
  return new CapacityError(
    `no room in ${directory}: ${sizeText(needed)} needed` +
      (free === undefined ? "" : `, ${sizeText(free)} free`),
    {
      expected: needed,
      actual: free,
      nativeName: errnoName(status),
      nativeCode: status,
      hint:
        "drop batches that are done with, enlarge it (docker run --shm-size=8g; mount -o remount,size=8g), " +
        'or set "directory" to a larger file system',
    },
  );
}

function freeBytes(directory: string): number | undefined {
  try {
    const { bavail, bsize } = statfsSync(directory);
    return bavail * bsize;
  } catch {
    return undefined; // only a number for the message
  }
}

function sizeText(bytes: number): string {
  if (bytes < 2 ** 10) return `${bytes} bytes`;
  const exponent = Math.min(3, Math.floor(Math.log2(bytes) / 10));
  return `${(bytes / 2 ** (10 * exponent)).toFixed(1)} ${["", "KiB", "MiB", "GiB"][exponent]}`;
}
