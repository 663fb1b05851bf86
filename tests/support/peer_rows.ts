/**
 * Rows that tell which batch they are of.
 *
 * @module
 */

/** Values of one row; a row has 4 KiB. */
export const WIDTH = 1024;

/** The rows of the batch of a seed: no two seeds have a value in the same place. */
export function rowsOf(seed: number, rows: number): Int32Array<ArrayBuffer> {
  return Int32Array.from({ length: rows * WIDTH }, (_, i) => Math.imul(seed + 1, 0x9e3779b1) ^ i);
}
