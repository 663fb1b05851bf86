/**
 * Parts that several codecs have in common.
 *
 * @module
 */

import { bytesOf } from "../../batch/dtype.ts";
import type { PartSource } from "../part_source.ts";
import { integerWidth } from "../integers.ts";
import type { PartLayout } from "../parts.ts";
import type { EncodedPart } from "./codec.ts";

/** How a mask depends on rows: a byte a row. */
export function maskLayout(part: string): PartLayout {
  return { part, width: 1 };
}

/** How offsets depend on rows, or on the elements of other offsets. */
export function offsetsLayout(source: PartSource, part: string, of?: string): PartLayout {
  return { part, width: integerWidth(source, part), offsets: true, of };
}

/** The `|b1` part of a mask; rows that are all 0 where there is none. */
export function maskPart(part: string, mask: Uint8Array | null, rows: number): EncodedPart {
  return {
    part,
    spec: { encoding: "ndarray", dtype: "|b1", shape: [rows] },
    bytes: [mask ?? new Uint8Array(new ArrayBuffer(rows))],
    rowBytes: 1,
  };
}

/** The `<i8` part of integers below 2^32. */
export function int64Part(part: string, values: Uint32Array, shape: readonly number[]): EncodedPart {
  const halves = new Uint32Array(new ArrayBuffer(values.length * 8));
  for (let i = 0; i < values.length; i++) halves[2 * i] = values[i]!;
  const perRow = shape.slice(1).reduce((product, size) => product * size, 8);
  return {
    part,
    spec: { encoding: "ndarray", dtype: "<i8", shape },
    bytes: [bytesOf(halves)],
    rowBytes: perRow,
  };
}

/** The part of raw bytes. */
export function bytesPart(part: string, data: Uint8Array): EncodedPart {
  return { part, spec: { encoding: "bytes" }, bytes: [data], rowBytes: null };
}

/**
 * Checks that null rows have no elements.
 *
 * @throws CorruptionError
 */
export function checkNullRows(source: PartSource, nulls: Uint8Array | null, offsets: Uint32Array): void {
  if (nulls === null) return;
  for (let i = 0; i < nulls.length; i++) {
    if (nulls[i] === 1 && offsets[i + 1] !== offsets[i]) {
      throw source.corruption("has a null row with data", { actual: i });
    }
  }
}
