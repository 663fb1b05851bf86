/**
 * The other process's memory as it is described over the connection, and what may be READ of it.
 *
 * @module
 */

import { CorruptionError } from "../../errors.ts";
import type { ReadPiece, Registration, Wire } from "./plane.ts";

/** Memory of another process. */
export interface RemoteMemory {
  readonly address: bigint;
  readonly bytes: number;
}

/** A description as it is sent. */
export function describeMemory({ address, bytes }: RemoteMemory): { address: string; bytes: number } {
  return { address: address.toString(16), bytes };
}

/** The memory that a description names. @throws CorruptionError where it names none */
export function remoteMemoryOf(value: Wire): RemoteMemory {
  const { address, bytes } = (value ?? {}) as { address?: unknown; bytes?: unknown };
  if (typeof address === "string" && /^[0-9a-f]{1,16}$/.test(address) && isPositive(bytes)) {
    return { address: BigInt(`0x${address}`), bytes };
  }
  throw senselessMemory();
}

/** A description that cannot have been meant. */
export function senselessMemory(): CorruptionError {
  return new CorruptionError("a peer described memory that makes no sense");
}

function isPositive(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0;
}

/** @throws CorruptionError where a piece is not within the memory of both sides */
export function checkPieces(
  pieces: readonly ReadPiece[],
  local: Pick<Registration, "bytes">,
  remote: RemoteMemory,
): void {
  for (const { localOffset, remoteOffset, bytes } of pieces) {
    const isWithin = (offset: number, most: number): boolean =>
      Number.isSafeInteger(offset) && offset >= 0 && offset + bytes <= most;
    if (
      Number.isSafeInteger(bytes) && bytes >= 0 && isWithin(localOffset, local.bytes) &&
      isWithin(remoteOffset, remote.bytes)
    ) continue;
    throw new CorruptionError(`${bytes} bytes at ${remoteOffset} are not within the other's memory`, {
      expected: remote.bytes,
      actual: remoteOffset + bytes,
    });
  }
}
