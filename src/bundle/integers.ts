/**
 * Stored integers of any width, as numbers.
 *
 * @module
 */

import { arrayOver, itemSize } from "../batch/dtype.ts";
import { parseNumpyCode, type StoredType, swapBytes } from "./dtype_names.ts";
import type { PartSource, StoredMember } from "./part_source.ts";

/** The element type of a member that has to be numbers. */
export function numericType(source: PartSource, member: StoredMember): StoredType {
  const { encoding, dtype } = member.spec;
  const stored = encoding === "ndarray" && dtype !== undefined ? parseNumpyCode(dtype) : undefined;
  if (stored !== undefined) return stored;
  throw source.unsupported(`has ${member.name} of the unsupported dtype ${dtype ?? encoding}`, {
    expected: "numbers",
    actual: dtype ?? encoding,
  });
}

/** Bytes of one element of a member that has to be integers. */
export function integerWidth(source: PartSource, part: string): number {
  const member = source.member(part);
  const { dtype } = numericType(source, member);
  if (dtype.startsWith("float")) {
    throw source.corruption(`has ${JSON.stringify(part)} that are not integers`, {
      actual: member.spec.dtype,
    });
  }
  return itemSize(dtype);
}

/** The elements of an integer member; exact up to 2^53. */
export function readIntegers(source: PartSource, member: StoredMember, bytes: Uint8Array): ArrayLike<number> {
  const { dtype, swap } = numericType(source, member);
  const width = itemSize(dtype);
  let own = bytes;
  if (swap) {
    own = bytes.slice();
    swapBytes(own, width);
  }
  if (width < 8) {
    return arrayOver(dtype, own) as Exclude<ReturnType<typeof arrayOver>, BigInt64Array | BigUint64Array>;
  }
  return dtype === "int64" ? int64Numbers(own) : pairs(own, false);
}

/** Elements of int64 as numbers; exact up to 2^53. */
export function int64Numbers(bytes: Uint8Array): Float64Array {
  return pairs(bytes, true);
}

/** Pairs of 32 bits are several times faster than bigints. */
function pairs(bytes: Uint8Array, signed: boolean): Float64Array {
  const halves = arrayOver("uint32", bytes) as Uint32Array;
  const out = new Float64Array(halves.length / 2);
  for (let i = 0; i < out.length; i++) {
    const high = halves[2 * i + 1]!;
    out[i] = high === 0 ? halves[2 * i]! : (signed ? high | 0 : high) * 2 ** 32 + halves[2 * i]!;
  }
  return out;
}
