/**
 * Writing objects through staging memory, and removing them.
 *
 * @module
 */

import {
  NO_AVAILABLE_HANDLE,
  OBJECT_HAS_REPLICATION_TASK,
  REPLICA_IS_NOT_READY,
} from "../../../ffi/mooncake_store.ts";
import type { Deadline } from "../../deadline.ts";
import { partsBytes } from "../checks.ts";
import type { StoreObject } from "../store.ts";
import { copyWithCrc } from "../checksum.ts";
import type { Keeping, MooncakeClient, StagedObject, Staging } from "./client.ts";
import { clusterFull, nativeFailure } from "./failures.ts";
import type { MasterPages } from "./master.ts";
import { isAbsent } from "./reading.ts";
import { windowsOf } from "./windows.ts";

/** What writing needs to know of the store. */
export interface WriteContext {
  readonly client: MooncakeClient;
  readonly pages: MasterPages;
  readonly masterServerAddr: string;
  readonly keeping: Keeping;
  /** How long a put waits for room, in milliseconds. */
  readonly roomWaitMs: number;
}

/** How long a removal waits for objects that are being written or copied, in milliseconds. */
const BUSY_WAIT_MS = 5000;
/** Waits before another try, in milliseconds: the first, and the longest. */
const FIRST_WAIT_MS = 5;
const LONGEST_WAIT_MS = 250;

/**
 * Writes objects; those without bytes are left out, for Mooncake has none. While one window is on its way, the next one
 * is copied into the staging.
 *
 * @throws CapacityError where there is no room, after a wait
 */
export async function writeObjects(
  context: WriteContext,
  objects: readonly StoreObject[],
  deadline: Deadline,
): Promise<void> {
  const sized = objects.map((object) => ({ object, bytes: partsBytes(object.parts) })).filter(({ bytes }) =>
    bytes > 0
  );
  let before: Promise<void> = Promise.resolve();
  try {
    for (const window of windowsOf(sized, ({ bytes }) => bytes)) {
      deadline.check();
      const staging = await context.client.reserve(window.bytes, deadline);
      let call: Promise<void> | undefined;
      try {
        const staged = window.placed.map(({ item, offset, bytes }): StagedObject => {
          fill(item.object, staging.bytes.subarray(offset, offset + bytes));
          return { key: item.object.key, offset, bytes };
        });
        await before;
        call = putStaged(context, staging, staged, deadline).then(() => deadline.moved(window.bytes))
          .finally(() => staging.release());
      } finally {
        if (call === undefined) staging.release();
      }
      before = call;
      before.catch(() => {}); // awaited in the next round, or below
    }
  } finally {
    await before;
  }
}

/** Copies an object, and tells it its checksum where it wants to know. */
function fill(object: StoreObject, to: Uint8Array): void {
  let at = 0;
  let crc = 0;
  for (const part of object.parts) {
    if (object.written === undefined) to.set(part, at);
    else crc = copyWithCrc(part, to.subarray(at), crc);
    at += part.byteLength;
  }
  object.written?.(crc);
}

/** One batched put; what finds no room is tried again for a while. */
async function putStaged(
  context: WriteContext,
  staging: Staging,
  objects: readonly StagedObject[],
  deadline: Deadline,
): Promise<void> {
  const { client, pages, keeping, masterServerAddr } = context;
  const limitMs = Math.min(context.roomWaitMs, deadline.remainingMs / 2);
  const startedMs = performance.now();
  let left = objects;
  for (let wait = FIRST_WAIT_MS;; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    deadline.check();
    const codes = await client.put(staging, left, keeping, deadline);
    const full: StagedObject[] = [];
    left.forEach((object, i) => {
      const code = codes[i] ?? -1;
      if (code === NO_AVAILABLE_HANDLE) full.push(object);
      else if (code !== 0) throw nativeFailure("put", code, masterServerAddr, object.key);
    });
    if (full.length === 0) return;
    left = full;
    const waitedMs = performance.now() - startedMs;
    if (waitedMs + wait > limitMs) {
      const bytes = full.reduce((sum, object) => sum + object.bytes, 0);
      throw clusterFull(bytes, waitedMs, await pages.segmentsIfKnown());
    }
    await sleep(wait);
  }
}

/**
 * Removes objects, forced: leases do not stand in the way, absent is success. Tries all of them, and those that are being
 * written or copied for a while.
 *
 * @throws NativeError for the first that cannot be removed
 */
export async function removeObjects(
  { client, masterServerAddr }: WriteContext,
  keys: readonly string[],
  deadline: Deadline,
): Promise<void> {
  const limitMs = Math.min(BUSY_WAIT_MS, deadline.remainingMs / 2);
  const startedMs = performance.now();
  let left = keys;
  let failed: { readonly key: string; readonly code: number } | undefined;
  for (let wait = FIRST_WAIT_MS; left.length > 0; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    deadline.check();
    const codes = await client.remove(left, deadline);
    const busy: string[] = [];
    const late = performance.now() - startedMs + wait > limitMs;
    left.forEach((key, i) => {
      const code = codes[i] ?? -1;
      if (code >= 0) return;
      const isBusy = code === REPLICA_IS_NOT_READY || code === OBJECT_HAS_REPLICATION_TASK;
      if (isBusy && !late) busy.push(key);
      else if (isBusy || !isAbsent(code)) failed ??= { key, code };
    });
    left = busy;
    if (left.length > 0) await sleep(wait);
  }
  if (failed !== undefined) throw nativeFailure("remove", failed.code, masterServerAddr, failed.key);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
