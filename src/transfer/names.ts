/**
 * Published batches: handles under a name in the store, so that a consumer needs no other channel.
 *
 * @module
 */

import { stringifyJson } from "../batch/json.ts";
import { checkSegment } from "../bundle/names.ts";
import type { Deadline } from "../deadline.ts";
import { BackendUnavailableError, DroppedError, TimeoutError } from "../errors.ts";
import type { RemoteBatch } from "../remote/remote_batch.ts";
import type { Session } from "../remote/session.ts";

/** How long to wait before looking again, in milliseconds: at first, and at most. */
const FIRST_WAIT_MS = 1;
const LONGEST_WAIT_MS = 50;

function nameKey(session: Session, partition: string, name: string): string {
  checkSegment("partition", partition);
  checkSegment("name", name);
  return `${session.settings.prefix}/${partition}/names/${name}`;
}

/** Puts a batch's handle under a name, in place of an earlier one. */
export async function publishHandle(
  session: Session,
  partition: string,
  name: string,
  batch: RemoteBatch,
  deadline: Deadline,
): Promise<void> {
  const value = new TextEncoder().encode(stringifyJson(batch.toHandle()));
  await session.store.put(nameKey(session, partition, name), value, deadline.options);
  session.counters.bytesWritten += value.byteLength;
}

/**
 * The handle under a name; waits until there is one.
 *
 * @throws TimeoutError once the deadline has passed
 */
export async function lookupHandle(
  session: Session,
  partition: string,
  name: string,
  deadline: Deadline,
  signal: AbortSignal | undefined,
): Promise<string> {
  const key = nameKey(session, partition, name);
  let cause: unknown;
  for (let wait = FIRST_WAIT_MS;; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    try {
      const bytes = await session.readObject(key, deadline);
      if (bytes !== undefined) return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch (error) {
      // replaced by a name of another length, or deleted, while it was read; or one process is silent, and another may
      // publish it yet: look again
      if (!(error instanceof DroppedError) && !isSilence(error)) throw error;
      deadline.check();
      cause = error;
    }
    if (deadline.remainingMs <= wait) {
      throw new TimeoutError(
        `nothing was published as ${JSON.stringify(name)} in ${JSON.stringify(partition)} in time`,
        {
          partition,
          key,
          cause,
        },
      );
    }
    await sleep(wait, signal);
    deadline.check();
  }
}

function isSilence(error: unknown): boolean {
  return (error instanceof BackendUnavailableError && error.code === "PEER_LOST") ||
    (error instanceof TimeoutError && error.code === "TIMEOUT");
}

/** Waits, but not beyond the signal. */
function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
  });
}
