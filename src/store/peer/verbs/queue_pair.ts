/**
 * A reliable connected queue pair, from RESET to RTS, and to ERR.
 *
 * @module
 */

import { randomBytes } from "node:crypto";
import { lastErrno } from "../../../../ffi/libc.ts";
import { errnoName } from "../../../../ffi/errno.ts";
import {
  ACCESS,
  mtuBytes,
  peek32,
  QP_ATTR,
  QP_STATE,
  QP_TYPE,
  SEND_FLAGS,
  STRUCTS,
  WR_OPCODE,
} from "../../../../ffi/ibverbs.ts";
import { native } from "../../../../ffi/native.ts";
import { CorruptionError } from "../../../errors.ts";
import type { Wire } from "../plane.ts";
import type { Completions } from "./completions.ts";
import { type Device, failed, peerGone } from "./device.ts";

/** Local READs, in units of 4.096 µs × 2^16: with six retries a silent peer is given up after two seconds. */
const ACK_TIMEOUT = 16;
/** 7 would mean for ever on some devices. */
const RETRIES = 6;
const RNR_RETRIES = 7;
const MIN_RNR_TIMER = 12;
const HOP_LIMIT = 64;
/** More READs under way than that gain nothing. */
const MOST_READS = 16;

/** What the two ends of a connection tell each other. */
export interface Endpoint {
  readonly qpn: number;
  readonly psn: number;
  /** 32 hex digits. */
  readonly gid: string;
  readonly lid: number;
  readonly mtu: number;
  /** READs it answers at the same time. */
  readonly reads: number;
}

/** The endpoint that the other side sent. @throws CorruptionError where it is none */
export function endpointOf(value: Wire): Endpoint {
  const given = (value ?? {}) as Readonly<Record<string, unknown>>;
  const within = (name: string, least: number, most: number): number => {
    const number = given[name];
    if (Number.isSafeInteger(number) && (number as number) >= least && (number as number) <= most) {
      return number as number;
    }
    throw new CorruptionError(`the other end of an RDMA connection told a wrong ${name}`, {
      expected: `${least} to ${most}`,
      actual: number,
    });
  };
  const { gid } = given;
  if (typeof gid !== "string" || !/^[0-9a-f]{32}$/.test(gid) || /^0+$/.test(gid)) {
    throw new CorruptionError("the other end of an RDMA connection told no GID", { actual: gid });
  }
  return {
    qpn: within("qpn", 1, 2 ** 24 - 1),
    psn: within("psn", 0, 2 ** 24 - 1),
    gid,
    lid: within("lid", 0, 65535),
    mtu: within("mtu", 1, 5),
    reads: within("reads", 1, 255),
  };
}

/** One READ as it is posted. */
export interface PostedRead {
  /** The lower half of its `wr_id`. */
  readonly sequence: number;
  readonly localAddress: bigint;
  readonly lkey: number;
  readonly remoteAddress: bigint;
  readonly rkey: number;
  readonly bytes: number;
}

/** See the module. */
export class QueuePair {
  /** READs that may be under way. */
  readonly depth: number;
  readonly endpoint: Endpoint;
  readonly #device: Device;
  readonly #address: bigint;
  readonly #listener: number;
  readonly #requests: Uint8Array<ArrayBuffer>;
  readonly #requestsView: DataView<ArrayBuffer>;
  readonly #requestsAddress: bigint;
  readonly #bad: BigUint64Array<ArrayBuffer> = new BigUint64Array(new ArrayBuffer(8));
  #state: number = QP_STATE.RESET;
  /** Changes of state and the end come one after the other: they are made in other threads. */
  #last: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  /** @param listener the upper half of the `wr_id`s of its READs */
  constructor(device: Device, completions: Completions, depth: number, listener: number) {
    this.#device = device;
    this.#listener = listener;
    this.depth = Math.min(depth, device.limits.maxQpWr);
    const layout = STRUCTS.ibv_qp_init_attr;
    const attributes = new Uint8Array(new ArrayBuffer(layout.size));
    const view = new DataView(attributes.buffer);
    view.setBigUint64(layout.send_cq[0], completions.address, true);
    view.setBigUint64(layout.recv_cq[0], completions.address, true);
    const cap = layout.cap[0];
    view.setUint32(cap + STRUCTS.ibv_qp_cap.max_send_wr[0], this.depth, true);
    view.setUint32(cap + STRUCTS.ibv_qp_cap.max_recv_wr[0], 1, true);
    view.setUint32(cap + STRUCTS.ibv_qp_cap.max_send_sge[0], 1, true);
    view.setUint32(cap + STRUCTS.ibv_qp_cap.max_recv_sge[0], 1, true);
    view.setInt32(layout.qp_type[0], QP_TYPE.RC, true);
    this.#address = device.library.symbols.ibv_create_qp(device.protectionDomain, attributes);
    if (this.#address === 0n) throw failed("ibv_create_qp", lastErrno());
    const each = STRUCTS.ibv_send_wr.size + STRUCTS.ibv_sge.size;
    this.#requests = new Uint8Array(new ArrayBuffer(this.depth * each));
    this.#requestsView = new DataView(this.#requests.buffer);
    this.#requestsAddress = native.addressOf(this.#requests);
    const { port, limits } = device;
    this.endpoint = {
      qpn: peek32(this.#address + BigInt(STRUCTS.ibv_qp.qp_num[0])),
      psn: randomBytes(3).readUIntLE(0, 3),
      gid: port.gid.toHex(),
      lid: port.lid,
      mtu: port.activeMtu,
      reads: Math.max(1, Math.min(MOST_READS, limits.maxReadsAnswered, 255)),
    };
  }

  /**
   * Connects it with the other side's.
   *
   * @param readable whether the other side may READ this process's memory over it
   * @throws BackendUnavailableError PEER_LOST where the device finds no way there
   */
  async connect(other: Endpoint, readable: boolean): Promise<void> {
    const { port, limits } = this.#device;
    const { ibv_qp_attr: attr, ibv_ah_attr: ah, ibv_global_route: grh } = STRUCTS;
    const init = attributes((view) => {
      view.setInt32(attr.qp_state[0], QP_STATE.INIT, true);
      view.setUint8(attr.port_num[0], port.number);
      view.setInt32(attr.qp_access_flags[0], readable ? ACCESS.REMOTE_READ : 0, true);
    });
    await this.#modify(QP_STATE.INIT, init, ["STATE", "PKEY_INDEX", "PORT", "ACCESS_FLAGS"]);
    const route = attributes((view, bytes) => {
      view.setInt32(attr.qp_state[0], QP_STATE.RTR, true);
      view.setInt32(attr.path_mtu[0], Math.min(port.activeMtu, other.mtu), true);
      view.setUint32(attr.dest_qp_num[0], other.qpn, true);
      view.setUint32(attr.rq_psn[0], other.psn, true);
      view.setUint8(attr.max_dest_rd_atomic[0], this.endpoint.reads);
      view.setUint8(attr.min_rnr_timer[0], MIN_RNR_TIMER);
      const at = attr.ah_attr[0];
      bytes.set(Uint8Array.fromHex(other.gid), at + ah.grh[0] + grh.dgid[0]);
      view.setUint8(at + ah.grh[0] + grh.sgid_index[0], port.gidIndex);
      view.setUint8(at + ah.grh[0] + grh.hop_limit[0], HOP_LIMIT);
      view.setUint16(at + ah.dlid[0], other.lid, true);
      view.setUint8(at + ah.is_global[0], 1);
      view.setUint8(at + ah.port_num[0], port.number);
    });
    await this.#modify(QP_STATE.RTR, route, [
      "STATE",
      "AV",
      "PATH_MTU",
      "DEST_QPN",
      "RQ_PSN",
      "MAX_DEST_RD_ATOMIC",
      "MIN_RNR_TIMER",
    ]);
    const ready = attributes((view) => {
      view.setInt32(attr.qp_state[0], QP_STATE.RTS, true);
      view.setUint32(attr.sq_psn[0], this.endpoint.psn, true);
      view.setUint8(attr.timeout[0], ACK_TIMEOUT);
      view.setUint8(attr.retry_cnt[0], RETRIES);
      view.setUint8(attr.rnr_retry[0], RNR_RETRIES);
      // 0 would make READs wait for ever
      view.setUint8(
        attr.max_rd_atomic[0],
        Math.max(1, Math.min(MOST_READS, limits.maxReadsStarted, other.reads)),
      );
    });
    await this.#modify(QP_STATE.RTS, ready, [
      "STATE",
      "SQ_PSN",
      "TIMEOUT",
      "RETRY_CNT",
      "RNR_RETRY",
      "MAX_QP_RD_ATOMIC",
    ]);
  }

  /** What is under way ends with an error, soon. Idempotent. */
  async fail(): Promise<void> {
    if (this.#closing !== undefined || this.#state === QP_STATE.ERR) return;
    const attr = attributes((view) => view.setInt32(STRUCTS.ibv_qp_attr.qp_state[0], QP_STATE.ERR, true));
    await this.#modify(QP_STATE.ERR, attr, ["STATE"]);
  }

  /**
   * Posts READs, all of which are signaled.
   *
   * @returns how many were taken; the rest was refused, with the error number
   */
  post(reads: readonly PostedRead[]): { readonly posted: number; readonly errno: number } {
    const { ibv_send_wr: wr, ibv_sge: sge } = STRUCTS;
    const view = this.#requestsView;
    const sges = this.depth * wr.size;
    const count = Math.min(reads.length, this.depth);
    this.#requests.fill(0, 0, count * wr.size);
    for (let i = 0; i < count; i++) {
      const read = reads[i]!;
      const at = i * wr.size;
      const list = sges + i * sge.size;
      view.setUint32(at, read.sequence, true);
      view.setUint32(at + 4, this.#listener, true);
      if (i + 1 < count) {
        view.setBigUint64(at + wr.next[0], this.#requestsAddress + BigInt(at + wr.size), true);
      }
      view.setBigUint64(at + wr.sg_list[0], this.#requestsAddress + BigInt(list), true);
      view.setInt32(at + wr.num_sge[0], 1, true);
      view.setInt32(at + wr.opcode[0], WR_OPCODE.RDMA_READ, true);
      view.setUint32(at + wr.send_flags[0], SEND_FLAGS.SIGNALED, true);
      view.setBigUint64(at + wr["wr.rdma.remote_addr"][0], read.remoteAddress, true);
      view.setUint32(at + wr["wr.rdma.rkey"][0], read.rkey, true);
      view.setBigUint64(list + sge.addr[0], read.localAddress, true);
      view.setUint32(list + sge.length[0], read.bytes, true);
      view.setUint32(list + sge.lkey[0], read.lkey, true);
    }
    const errno = this.#device.ops.postSend(this.#address, this.#requestsAddress, this.#bad);
    if (errno === 0) return { posted: count, errno };
    // those before the one that was refused are under way
    const posted = Number(this.#bad[0]! - this.#requestsAddress) / wr.size;
    return { posted: Number.isInteger(posted) && posted >= 0 && posted < count ? posted : 0, errno };
  }

  /** Gives it back, once it changes its state no more; its completions are lost. Idempotent. */
  close(): Promise<void> {
    return this.#closing ??= this.#inTurn(async () => {
      const code = await this.#device.library.symbols.ibv_destroy_qp(this.#address);
      if (code !== 0) throw failed("ibv_destroy_qp", code);
    });
  }

  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const made = this.#last.then(change);
    this.#last = made.catch(() => {});
    return made;
  }

  #modify(
    state: number,
    attr: Uint8Array<ArrayBuffer>,
    names: readonly (keyof typeof QP_ATTR)[],
  ): Promise<void> {
    return this.#inTurn(() => this.#modifyNow(state, attr, names));
  }

  async #modifyNow(
    state: number,
    attr: Uint8Array<ArrayBuffer>,
    names: readonly (keyof typeof QP_ATTR)[],
  ): Promise<void> {
    if (this.#closing !== undefined) throw peerGone("the RDMA connection was closed");
    if (state === QP_STATE.ERR && (this.#state === QP_STATE.ERR || this.#state === QP_STATE.RESET)) return;
    const mask = names.reduce((bits, name) => bits | QP_ATTR[name], 0);
    const code = await this.#device.library.symbols.ibv_modify_qp(
      this.#address,
      native.addressOf(attr),
      mask,
    );
    attr.fill(0); // kept alive until here
    if (code === 0) {
      this.#state = state;
      return;
    }
    const target = Object.entries(QP_STATE).find(([, value]) => value === state)?.[0];
    if (state === QP_STATE.ERR) throw failed("ibv_modify_qp", code, " on the way to ERR");
    throw peerGone(
      `the RDMA connection could not be made: ibv_modify_qp to ${target} failed with ${errnoName(code)}; ` +
        `attributes ${names.join(", ")}, path MTU ${
          mtuBytes(this.endpoint.mtu)
        }, GID ${this.#device.port.gidIndex}`,
      errnoName(code),
      code,
    );
  }
}

function attributes(
  fill: (view: DataView<ArrayBuffer>, bytes: Uint8Array<ArrayBuffer>) => void,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new ArrayBuffer(STRUCTS.ibv_qp_attr.size));
  fill(new DataView(bytes.buffer), bytes);
  return bytes;
}
