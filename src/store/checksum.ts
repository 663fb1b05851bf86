/**
 * Copying and computing a checksum in one go, in pieces that stay in the processor's cache between the two.
 *
 * @module
 */

import { crc32 } from "node:zlib";

const PIECE_BYTES = 128 * 1024;

/** Copies `from` to the start of `to`; gives the CRC-32 of the bytes, going on from `crc`. */
export function copyWithCrc(from: Uint8Array, to: Uint8Array, crc = 0): number {
  for (let at = 0; at < from.byteLength; at += PIECE_BYTES) {
    const piece = from.subarray(at, at + PIECE_BYTES);
    to.set(piece, at);
    crc = crc32(piece, crc);
  }
  return crc;
}
