/**
 * Cutting a list of objects into batched calls.
 *
 * @module
 */

/** The bytes of one batched call; two are under way at a time. */
export const WINDOW_BYTES: number = 16 * 2 ** 20;
/** The most objects of one batched call. */
const WINDOW_OBJECTS = 256;
/** Staged objects begin at multiples of it. */
const ALIGNMENT = 64;

/** An object in its place in a staging. */
export interface Placed<T> {
  readonly item: T;
  /** First byte in the staging. */
  readonly offset: number;
  readonly bytes: number;
}

/** The objects of one batched call. */
export interface Window<T> {
  readonly placed: Placed<T>[];
  /** The bytes of the staging it needs. */
  bytes: number;
}

/** Cuts `items` into windows, in order. A window has at least one object, however large that is. */
export function windowsOf<T>(
  items: readonly T[],
  bytesOf: (item: T) => number,
  mostObjects: number = WINDOW_OBJECTS,
): Window<T>[] {
  const windows: Window<T>[] = [];
  let window: Window<T> | undefined;
  for (const item of items) {
    const bytes = bytesOf(item);
    let offset = window === undefined ? 0 : Math.ceil(window.bytes / ALIGNMENT) * ALIGNMENT;
    if (window === undefined || offset + bytes > WINDOW_BYTES || window.placed.length >= mostObjects) {
      windows.push(window = { placed: [], bytes: 0 });
      offset = 0;
    }
    window.placed.push({ item, offset, bytes });
    window.bytes = offset + bytes;
  }
  return windows;
}
