/**
 * What a transfer has moved since it was opened.
 *
 * @module
 */

/** Counts of the store's work, metadata included. */
export interface Counters {
  /** Range reads. */
  reads: number;
  bytesRead: number;
  bytesWritten: number;
  /** Bytes copied for borrows that could not be views. */
  bytesCopied: number;
}

/** All zero. */
export function newCounters(): Counters {
  return { reads: 0, bytesRead: 0, bytesWritten: 0, bytesCopied: 0 };
}
