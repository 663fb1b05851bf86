/**
 * READs over one queue pair: those of several calls take turns, as many under way as the device may have.
 *
 * @module
 */

import { WC_STATUS, wcStatusName } from "../../../../ffi/ibverbs.ts";
import { errnoName } from "../../../../ffi/errno.ts";
import type { Deadline } from "../../../deadline.ts";
import { type BatchferryError, TimeoutError } from "../../../errors.ts";
import type { Link, ReadPiece, Registration, Wire } from "../plane.ts";
import { checkPieces, type RemoteMemory, remoteMemoryOf, senselessMemory } from "../remote_memory.ts";
import type { Completions } from "./completions.ts";
import { type Device, MemoryRegion, peerGone } from "./device.ts";
import { type Endpoint, type PostedRead, QueuePair } from "./queue_pair.ts";

/** READs are no longer than that. */
const MOST_READ_BYTES = 2 ** 20;
/** READs under way on one queue pair, and their bytes. */
export const DEPTH = 64;
const MOST_BYTES_UNDER_WAY = 16 * 2 ** 20;
/** READs posted in one go: posting is work on the event loop. */
const CHAIN = 16;
const CHAIN_BYTES = 4 * 2 ** 20;
/** How long the completions of a failed queue pair are waited for, in milliseconds. */
const FLUSH_MS = 3000;

/** Memory registered with a device. */
export interface VerbsRegistration extends Registration {
  readonly region: MemoryRegion;
}

/** The READs of one call. */
interface Job {
  readonly reads: PostedRead[];
  /** The next of `reads` to post. */
  next: number;
  underWay: number;
  /** What it failed with. */
  error: BatchferryError | undefined;
  settle(): void;
}

/** See the module. */
export class VerbsLink implements Link {
  readonly #device: Device;
  readonly #completions: Completions;
  readonly #pair: QueuePair;
  readonly #listener: number;
  readonly #onClose: () => void;
  readonly #jobs: Job[] = [];
  /** By sequence number. */
  readonly #underWay = new Map<number, { readonly job: Job; readonly bytes: number }>();
  #bytesUnderWay = 0;
  #sequence = 0;
  #failed: BatchferryError | undefined;
  #closing: Promise<void> | undefined;
  #drained: (() => void) | undefined;

  constructor(device: Device, completions: Completions, onClose: () => void) {
    this.#device = device;
    this.#completions = completions;
    this.#onClose = onClose;
    this.#listener = completions.listen({
      completed: (sequence, status, vendor) => this.#completed(sequence, status, vendor),
      room: () => this.#pump(),
      broken: (error) => {
        this.#fail(peerGone(`the RDMA device has failed: ${(error as Error).message}`));
        this.close().catch(() => {}); // no completions come: only without its queue pair nothing writes any more
      },
    });
    try {
      this.#pair = new QueuePair(device, completions, DEPTH, this.#listener);
    } catch (error) {
      completions.unlisten(this.#listener);
      throw error;
    }
  }

  get endpoint(): Endpoint {
    return this.#pair.endpoint;
  }

  connect(other: Endpoint): Promise<void> {
    return this.#pair.connect(other, false);
  }

  get alive(): boolean {
    return this.#failed === undefined && this.#closing === undefined;
  }

  async read(
    local: Registration,
    remote: Wire,
    pieces: readonly ReadPiece[],
    deadline: Deadline,
    quarantine: (ended: Promise<unknown>) => void,
  ): Promise<void> {
    const source = remoteOf(remote);
    checkPieces(pieces, local, source);
    const { lkey } = (local as VerbsRegistration).region;
    const most = Math.min(MOST_READ_BYTES, this.#device.port.maxMessageBytes);
    const reads: PostedRead[] = [];
    for (const piece of pieces) {
      for (let at = 0; at < piece.bytes; at += most) {
        reads.push({
          sequence: this.#sequence = (this.#sequence + 1) >>> 0,
          localAddress: local.address + BigInt(piece.localOffset + at),
          lkey,
          remoteAddress: source.address + BigInt(piece.remoteOffset + at),
          rkey: source.rkey,
          bytes: Math.min(most, piece.bytes - at),
        });
      }
    }
    if (reads.length === 0) return;
    deadline.check();
    if (!this.alive) throw this.#failed ?? peerGone("the RDMA connection was closed");
    await this.#run(reads, deadline, quarantine);
  }

  async #run(
    reads: PostedRead[],
    deadline: Deadline,
    quarantine: (ended: Promise<unknown>) => void,
  ): Promise<void> {
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const job: Job = { reads, next: 0, underWay: 0, error: undefined, settle: resolve };
    this.#jobs.push(job);
    this.#pump();
    const { signal, timeoutMs } = deadline.options;
    const given = Promise.withResolvers<never>();
    const give = (error: TimeoutError): void => {
      // what has not been posted never will be; what has been may write to our memory until it completes
      job.next = job.reads.length;
      job.error ??= error;
      if (job.underWay === 0) this.#end(job);
      else quarantine(ended);
      given.reject(error);
    };
    const abort = (): void =>
      give(new TimeoutError("the read was aborted", { cause: signal?.reason }, "ABORTED"));
    const timer = setTimeout(
      () => give(new TimeoutError("the READs did not complete within their time")),
      Math.min(timeoutMs ?? 2 ** 31 - 1, 2 ** 31 - 1),
    );
    signal?.addEventListener("abort", abort);
    try {
      await Promise.race([ended, given.promise]);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
    if (job.error !== undefined) throw job.error;
  }

  /** Posts what there is room for. */
  #pump(): void {
    while (this.alive) {
      const chain: { readonly read: PostedRead; readonly job: Job }[] = [];
      let bytes = 0;
      const places = Math.min(CHAIN, this.#completions.roomFor(this.#listener));
      for (const job of this.#jobs) {
        while (job.next < job.reads.length && chain.length < places && bytes < CHAIN_BYTES) {
          const read = job.reads[job.next]!;
          const room = this.#underWay.size + chain.length;
          const full = room >= this.#pair.depth ||
            (room > 0 && this.#bytesUnderWay + bytes + read.bytes > MOST_BYTES_UNDER_WAY);
          if (full) break;
          chain.push({ read, job });
          bytes += read.bytes;
          job.next++;
        }
      }
      if (chain.length === 0) return;
      for (const { read, job } of chain) {
        job.underWay++;
        this.#underWay.set(read.sequence, { job, bytes: read.bytes });
      }
      this.#bytesUnderWay += bytes;
      const { posted, errno } = this.#pair.post(chain.map(({ read }) => read));
      this.#completions.expect(this.#listener, posted);
      if (errno === 0) continue;
      for (const { read, job } of chain.slice(posted)) {
        this.#underWay.delete(read.sequence);
        this.#bytesUnderWay -= read.bytes;
        job.underWay--;
      }
      this.#fail(peerGone(`READs could not be posted: ${errnoName(errno)}`, errnoName(errno), errno));
    }
  }

  #completed(sequence: number, status: number, vendorError: number): void {
    const entry = this.#underWay.get(sequence);
    if (entry === undefined) return;
    this.#underWay.delete(sequence);
    this.#bytesUnderWay -= entry.bytes;
    const { job } = entry;
    job.underWay--;
    if (status !== WC_STATUS.SUCCESS) this.#fail(readFailure(status, vendorError));
    if (job.underWay === 0 && job.next >= job.reads.length) this.#end(job);
    if (this.#underWay.size === 0) this.#drained?.();
    this.#pump();
  }

  /** The queue pair is in ERR, or goes there: everything on it fails. */
  #fail(error: BatchferryError): void {
    if (this.#failed !== undefined) return;
    this.#failed = error;
    for (const job of [...this.#jobs]) {
      job.error ??= error;
      job.next = job.reads.length;
      if (job.underWay === 0) this.#end(job);
    }
    this.#pair.fail().catch(() => {});
  }

  #end(job: Job): void {
    const place = this.#jobs.indexOf(job);
    if (place < 0) return;
    this.#jobs.splice(place, 1);
    job.settle();
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#fail(peerGone("the RDMA connection was closed"));
    await this.#pair.fail().catch(() => {});
    if (this.#underWay.size > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#drained = resolve;
      const timer = setTimeout(resolve, FLUSH_MS);
      await promise;
      clearTimeout(timer);
    }
    // once the pair is gone nothing writes any more, completed or not
    try {
      await this.#pair.close();
    } finally {
      this.#completions.unlisten(this.#listener);
      this.#underWay.clear();
      for (const job of [...this.#jobs]) this.#end(job);
      this.#onClose();
    }
  }
}

function readFailure(status: number, vendorError: number): BatchferryError {
  const name = wcStatusName(status);
  const what = status === WC_STATUS.REM_ACCESS_ERR || status === WC_STATUS.REM_INV_REQ_ERR
    ? "the other process has taken its memory back, or its key is another one"
    : status === WC_STATUS.RETRY_EXC_ERR || status === WC_STATUS.WR_FLUSH_ERR
    ? "the other process does not answer any more"
    : "an RDMA READ failed";
  return peerGone(`${what} (${name}, vendor error ${vendorError})`, name, status);
}

/** The other's memory and the key to it. @throws CorruptionError where they make no sense */
function remoteOf(value: Wire): RemoteMemory & { readonly rkey: number } {
  const { rkey } = (value ?? {}) as { rkey?: unknown };
  if (!Number.isSafeInteger(rkey) || (rkey as number) < 0 || (rkey as number) >= 2 ** 32) {
    throw senselessMemory();
  }
  return { ...remoteMemoryOf(value), rkey: rkey as number };
}
