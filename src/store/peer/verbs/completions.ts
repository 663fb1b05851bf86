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
/**
 * How long the event loop looks itself before another thread waits, in milliseconds: a short READ is over by then. A longer
 * one would be held up, where the kernel needs this processor to move it.
 */
const EAGER_MS = 0.2;
/** How long one wait in another thread lasts, in milliseconds: closing may have to wait for it. */
const WAIT_MS = 200;

/** Who is told of completions. */
export interface CompletionListener {
  /** One has come: the lower half of its `wr_id`. */
  completed(sequence: number, status: number, vendorError: number): void;
  /** There is room in the queue again, for one that was told that there was none. */
  room(): void;
  /** Nothing more will be told: the device has failed. */
  broken(error: unknown): void;
}

interface Listening {
  readonly listener: CompletionListener;
  expected: number;
  wantsRoom: boolean;
}

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
  readonly #listeners = new Map<number, Listening>();
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
  listen(listener: CompletionListener): number {
    const id = this.#nextListener++;
    this.#listeners.set(id, { listener, expected: 0, wantsRoom: false });
    return id;
  }

  /** Ends it; completions that have not come count no more. */
  unlisten(id: number): void {
    this.#expected -= this.#listeners.get(id)?.expected ?? 0;
    this.#listeners.delete(id);
  }

  /** How many more a listener may expect now; where that is none it is told when there is room. */
  roomFor(id: number): number {
    const room = Math.max(0, this.capacity - this.#expected);
    if (room === 0) this.#listeners.get(id)!.wantsRoom = true;
    return room;
  }

  /** Tells that so many more will come for a listener. */
  expect(id: number, count: number): void {
    this.#listeners.get(id)!.expected += count;
    this.#expected += count;
    // not at once: what a poll tells of may expect more
    this.#running ??= Promise.resolve().then(() => this.#run())
      .catch((error) => {
        this.#expected = 0;
        for (const listening of [...this.#listeners.values()]) {
          listening.expected = 0;
          listening.listener.broken(error);
        }
      })
      .finally(() => this.#running = undefined);
  }

  async #run(): Promise<void> {
    const { reqNotifyCq } = this.#device.ops;
    let sinceMs = performance.now();
    while (this.#expected > 0) {
      if (this.#poll()) {
        // others want the event loop too
        await new Promise((resolve) => setImmediate(resolve));
        sinceMs = performance.now();
        continue;
      }
      if (performance.now() - sinceMs < EAGER_MS) {
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
      const listening = this.#listeners.get(this.#view.getUint32(at + 4, true));
      const status = this.#view.getInt32(at + layout.status[0], true);
      const vendorError = this.#view.getUint32(at + layout.vendor_err[0], true);
      if (listening === undefined) continue; // of a queue pair that is gone
      listening.expected--;
      this.#expected--;
      listening.listener.completed(sequence, status, vendorError);
    }
    if (count > 0) {
      for (const listening of this.#listeners.values()) {
        if (!listening.wantsRoom) continue;
        listening.wantsRoom = false;
        listening.listener.room();
      }
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
    try {
      check("ibv_destroy_cq", ibv_destroy_cq(this.address));
    } finally {
      check("ibv_destroy_comp_channel", ibv_destroy_comp_channel(this.#channel));
    }
  }
}
