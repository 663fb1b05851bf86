/**
 * Mooncake's codes as errors that say what to do.
 *
 * @module
 */

import { mooncakeCodeName, NO_AVAILABLE_HANDLE, RPC_FAIL, RPC_TIMEOUT } from "../../../ffi/mooncake_store.ts";
import {
  BackendUnavailableError,
  type BatchferryError,
  CapacityError,
  DataLostError,
  type ErrorDetails,
  NativeError,
} from "../../errors.ts";

/** Codes that say that the master, not an object, is the matter. */
export function isMasterCode(code: number): boolean {
  return code === RPC_FAIL || code === RPC_TIMEOUT;
}

/** Native name and number of a code, for an error's details. */
export function nativeDetails(code: number): Pick<ErrorDetails, "nativeName" | "nativeCode"> {
  return { nativeName: mooncakeCodeName(code), nativeCode: code };
}

/** The master does not answer. */
export function masterUnreachable(address: string, details: ErrorDetails = {}): BackendUnavailableError {
  return new BackendUnavailableError(
    "MASTER_UNREACHABLE",
    `the Mooncake master at ${address} cannot be reached`,
    {
      expected: address,
      hint: "start it with `mooncake_master`, or set masterServerAddr or MOONCAKE_MASTER to where it runs",
      ...details,
    },
  );
}

/** A call whose code has no error of its own. */
export function nativeFailure(what: string, code: number, address: string, key?: string): BatchferryError {
  const details = { ...nativeDetails(code), ...(key === undefined ? {} : { key }) };
  if (isMasterCode(code)) return masterUnreachable(address, details);
  const of = key === undefined ? "" : ` of ${key}`;
  return new NativeError(`${what}${of} failed: ${mooncakeCodeName(code)} (${code})`, details);
}

/** No room after waiting, with what is known of the cluster's memory. */
export function clusterFull(
  bytes: number,
  waitedMs: number,
  segments: readonly string[] | undefined,
): CapacityError {
  const details = { expected: bytes, ...nativeDetails(NO_AVAILABLE_HANDLE) };
  if (segments?.length === 0) {
    return new CapacityError(
      `no Mooncake client gives memory to the cluster, so ${bytes} bytes have no place`,
      {
        ...details,
        actual: [],
        hint: "start one that does, such as `batchferry agent --global-segment-size 8gb`",
      },
    );
  }
  return new CapacityError(
    `the Mooncake cluster had no room for ${bytes} bytes within ${(waitedMs / 1000).toFixed(1)} s`,
    {
      ...details,
      ...(segments === undefined ? {} : { actual: segments }),
      hint:
        "drop what is no longer needed, or give more memory (globalSegmentSize, `batchferry agent`); batches " +
        'that may be evicted are put with pin "none"',
    },
  );
}

/** Memory of a process that is gone. */
export function transferFailed(key: string, code: number): DataLostError {
  return new DataLostError(`the bytes of ${key} cannot be fetched: ${mooncakeCodeName(code)} (${code})`, {
    key,
    ...nativeDetails(code),
    hint: "the process whose memory held them is gone or cannot be reached; put the batch again",
  });
}
