/**
 * One completion queue for all queue pairs of a device, and the wait for what arrives in it: polled once, then a few turns
 * of the event loop, then by the channel's descriptor in another thread.
 *
 * @module
 */

import { lastErrno, sys } from "../../../../ffi/libc.ts";
import { peek32, STRUCTS } from "../../../../ffi/ibverbs.ts";
import { check, type Device, failed } from "./device.ts";

/** Completions that one poll takes. */
const POLL_ENTRIES = 32;
/** Turns of the event loop before another thread waits. */
const EAGER_TURNS = 4;
/** How long one wait in another thread lasts, in milliseconds: closing may have to wait for it. */
const WAIT_MS = 200;

/** Told of a completion: the lower half of its `wr_id`. */
export type OnCompletion = (sequence: number, status: number, vendorError: number) => void;

/** See the module. */
export class Completions {
  /** The `ibv_cq`. */
  readonly address: bigint;
  /** How many completions fit. */
  readonly capacity: number;
  readonly #device: Device;
  readonly #channel: bigint;
  readonly #fd: number;
  readonly #entries: Uint8Array<ArrayBuffer> = new Uint8Array(
    new ArrayBuffer(POLL_ENTRIES * STRUCTS.ibv_wc.size),
  );
  readonly #view: DataView<ArrayBuffer> = new DataView(this.#entries.buffer);
  readonly #listeners = new Map<number, OnCompletion>();
  readonly #pointers: [BigUint64Array<ArrayBuffer>, BigUint64Array<ArrayBuffer>] = [
    new BigUint64Array(new ArrayBuffer(8)),
    new BigUint64Array(new ArrayBuffer(8)),
  ];
  #nextListener = 1;
  #expected = 0;
  #running: Promise<void> | undefined;

  constructor(device: Device, capacity: number) {
    this.#device = device;
    const { symbols } = device.library;
    this.#channel = symbols.ibv_create_comp_channel(device.context);
    if (this.#channel === 0n) throw failed("ibv_create_comp_channel", lastErrno());
    this.#fd = peek32(this.#channel + BigInt(STRUCTS.ibv_comp_channel.fd[0]));
    const entries = Math.min(capacity, device.limits.maxCqe);
    this.address = 0n;
    const error = sys.setNonBlocking(this.#fd);
    if (error === 0) {
      this.address = symbols.ibv_create_cq(device.context, entries, 0n, this.#channel, 0);
    }
    if (this.address === 0n) {
      const errno = error === 0 ? lastErrno() : -error;
      symbols.ibv_destroy_comp_channel(this.#channel);
      throw failed("ibv_create_cq", errno);
    }
    this.capacity = entries;
  }

  /** A number for the upper half of `wr_id`s, whose completions `listener` is told. */
  listen(listener: OnCompletion): number {
    const id = this.#nextListener++;
    this.#listeners.set(id, listener);
    return id;
  }

  unlisten(id: number): void {
    this.#listeners.delete(id);
  }

  /** Completions that have not come yet. */
  get expected(): number {
    return this.#expected;
  }

  /** Tells that so many more will come. */
  expect(count: number): void {
    this.#expected += count;
    this.#running ??= this.#run().finally(() => this.#running = undefined);
  }

  /** Tells that so many will not come, because their queue pair is gone. */
  forgo(count: number): void {
    this.#expected -= count;
  }

  async #run(): Promise<void> {
    const { reqNotifyCq } = this.#device.ops;
    let turns = 0;
    while (this.#expected > 0) {
      if (this.#poll()) {
        turns = 0;
        // others want the event loop too
        await new Promise((resolve) => setImmediate(resolve));
        continue;
      }
      if (turns++ < EAGER_TURNS) {
        await new Promise((resolve) => setImmediate(resolve));
        continue;
      }
      check("ibv_req_notify_cq", reqNotifyCq(this.address, 0));
      // what came before raises no event
      if (this.#poll()) continue;
      await sys.waitReadable(this.#fd, WAIT_MS);
      this.#takeEvents();
    }
  }

  /** Takes what has arrived; false where nothing has. */
  #poll(): boolean {
    const layout = STRUCTS.ibv_wc;
    const count = this.#device.ops.pollCq(this.address, POLL_ENTRIES, this.#entries);
    if (count < 0) throw failed("ibv_poll_cq", -count);
    for (let i = 0; i < count; i++) {
      const at = i * layout.size;
      const sequence = this.#view.getUint32(at, true);
      const listener = this.#listeners.get(this.#view.getUint32(at + 4, true));
      const status = this.#view.getInt32(at + layout.status[0], true);
      const vendorError = this.#view.getUint32(at + layout.vendor_err[0], true);
      this.#expected--;
      listener?.(sequence, status, vendorError);
    }
    return count > 0;
  }

  /** Fetches and acknowledges events, one for one: one that is not acknowledged would keep the queue from ever closing. */
  #takeEvents(): void {
    const { ibv_get_cq_event, ibv_ack_cq_events } = this.#device.library.symbols;
    while (ibv_get_cq_event(this.#channel, ...this.#pointers) === 0) ibv_ack_cq_events(this.address, 1);
  }

  /** Gives the queue and its channel back. The queue pairs must be gone. */
  async close(): Promise<void> {
    this.#expected = 0;
    await this.#running;
    this.#takeEvents();
    const { ibv_destroy_cq, ibv_destroy_comp_channel } = this.#device.library.symbols;
    check("ibv_destroy_cq", ibv_destroy_cq(this.address));
    check("ibv_destroy_comp_channel", ibv_destroy_comp_channel(this.#channel));
  }
}
