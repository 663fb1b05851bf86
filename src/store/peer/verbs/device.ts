/**
 * An open RDMA device: the port in use, its GID, and the protection domain that memory is registered in.
 *
 * @module
 */

import { lastErrno } from "../../../../ffi/libc.ts";
import { ENOMEM, errnoName } from "../../../../ffi/errno.ts";
import {
  ACCESS,
  allowFork,
  GID_TYPE,
  type IbverbsLibrary,
  LINK_LAYER,
  loadIbverbs,
  openDevice,
  peek32,
  PORT_STATE,
  STRUCTS,
  VERBS_ARCHITECTURE,
  type VerbsOps,
  verbsOps,
} from "../../../../ffi/ibverbs.ts";
import { BackendUnavailableError, CapacityError, NativeError } from "../../../errors.ts";
import { rdmaObstacle, rdmaPorts, transportUnavailable } from "../../transport.ts";

/** What a device is opened with. */
export interface DeviceOptions {
  /** Names with commas, of which the first is taken; empty for the first with an ACTIVE port. */
  readonly deviceName: string;
  /** Which GID of the port; the IPv4 one of RoCE v2 where absent. */
  readonly gidIndex?: number | undefined;
  readonly libraryPath?: string | undefined;
}

/** A port as queue pairs need it. */
export interface Port {
  readonly number: number;
  /** As the port has it: 1 is 256 bytes, 5 is 4096. */
  readonly activeMtu: number;
  readonly maxMessageBytes: number;
  readonly lid: number;
  readonly gidIndex: number;
  readonly gid: Uint8Array;
}

/** The device's limits that matter here. */
export interface DeviceLimits {
  readonly maxCqe: number;
  readonly maxQpWr: number;
  /** READs under way that a queue pair may answer, and start. */
  readonly maxReadsAnswered: number;
  readonly maxReadsStarted: number;
  readonly ports: number;
}

/** See the module. */
export class Device {
  readonly name: string;
  readonly library: IbverbsLibrary;
  readonly ops: VerbsOps;
  readonly context: bigint;
  readonly protectionDomain: bigint;
  readonly port: Port;
  readonly limits: DeviceLimits;
  #closed = false;

  private constructor(
    name: string,
    library: IbverbsLibrary,
    context: bigint,
    protectionDomain: bigint,
    port: Port,
    limits: DeviceLimits,
  ) {
    this.name = name;
    this.library = library;
    this.context = context;
    this.protectionDomain = protectionDomain;
    this.ops = verbsOps(context);
    this.port = port;
    this.limits = limits;
  }

  /**
   * Opens a device.
   *
   * @throws BackendUnavailableError TRANSPORT_UNAVAILABLE where there is none that can be used, LIBRARY_MISSING
   */
  static open({ deviceName, gidIndex, libraryPath }: DeviceOptions): Device {
    if (!VERBS_ARCHITECTURE) throw transportUnavailable("this processor's layouts are not known", "use TCP");
    const obstacle = rdmaObstacle(deviceName);
    if (obstacle !== undefined) throw transportUnavailable(obstacle.problem, obstacle.hint);
    const named = deviceName.split(",")[0]!.trim();
    const wanted = rdmaPorts().find(({ device, state }) =>
      state === "ACTIVE" && (named === "" || device === named)
    )!;
    const library = loadIbverbs(libraryPath);
    allowFork(library);
    const { symbols } = library;
    const context = openDevice(library, wanted.device);
    if (context === 0n) {
      throw transportUnavailable(
        `libibverbs cannot open ${wanted.device} (${errnoName(lastErrno())})`,
        "install ibverbs-providers, and give the process /dev/infiniband/uverbs*",
      );
    }
    try {
      const limits = queryDevice(library, context);
      const port = queryPort(library, context, wanted.device, Number(wanted.port), limits.ports, gidIndex);
      const domain = symbols.ibv_alloc_pd(context);
      if (domain === 0n) throw failed("ibv_alloc_pd", lastErrno());
      return new Device(wanted.device, library, context, domain, port, limits);
    } catch (error) {
      symbols.ibv_close_device(context);
      throw error;
    }
  }

  /** Registers memory to READ into, and to be READ by others. @throws CapacityError */
  register(address: bigint, bytes: number): MemoryRegion {
    const { symbols, missing } = this.library;
    const access = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_READ;
    const mr = missing.has("ibv_reg_mr_iova2")
      ? symbols.ibv_reg_mr(this.protectionDomain, address, BigInt(bytes), access)
      : symbols.ibv_reg_mr_iova2(this.protectionDomain, address, BigInt(bytes), address, access);
    if (mr === 0n) {
      const errno = lastErrno();
      if (errno !== ENOMEM) throw failed("ibv_reg_mr", errno);
      throw new CapacityError(
        `${bytes} bytes cannot be registered with ${this.name}: too much memory would be locked`,
        {
          actual: bytes,
          nativeName: "ENOMEM",
          nativeCode: errno,
          hint: "raise the limit of locked memory (ulimit -l unlimited; in a container --ulimit memlock=-1)",
        },
      );
    }
    return new MemoryRegion(this.library, mr);
  }

  /** Gives the protection domain and the device back. What was made of them must be gone. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const { ibv_dealloc_pd, ibv_close_device } = this.library.symbols;
    try {
      check("ibv_dealloc_pd", ibv_dealloc_pd(this.protectionDomain));
    } finally {
      check("ibv_close_device", ibv_close_device(this.context));
    }
  }
}

/** Registered memory. */
export class MemoryRegion {
  readonly lkey: number;
  readonly rkey: number;
  readonly #library: IbverbsLibrary;
  readonly #address: bigint;
  #closing: Promise<void> | undefined;

  constructor(library: IbverbsLibrary, address: bigint) {
    this.#library = library;
    this.#address = address;
    this.lkey = peek32(address + BigInt(STRUCTS.ibv_mr.lkey[0]));
    this.rkey = peek32(address + BigInt(STRUCTS.ibv_mr.rkey[0]));
  }

  /** Ends the registration; READs of it that are under way fail. Idempotent. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    check("ibv_dereg_mr", await this.#library.symbols.ibv_dereg_mr(this.#address));
  }
}

/** Throws where a call gave an error number. EBUSY tells of something that was not given back. */
export function check(call: string, code: number): void {
  if (code !== 0) throw failed(call, code);
}

/** A call that failed with an error number. */
export function failed(call: string, errno: number, problem = ""): NativeError {
  const name = errnoName(errno);
  return new NativeError(`${call} failed with ${name}${problem}`, { nativeName: name, nativeCode: errno });
}

function queryDevice(library: IbverbsLibrary, context: bigint): DeviceLimits {
  const layout = STRUCTS.ibv_device_attr;
  const bytes = new Uint8Array(new ArrayBuffer(512)); // newer libraries may have a longer struct
  check("ibv_query_device", library.symbols.ibv_query_device(context, bytes));
  const view = new DataView(bytes.buffer);
  const count = ([offset]: readonly [number, number]): number => view.getInt32(offset, true);
  return {
    maxCqe: count(layout.max_cqe),
    maxQpWr: count(layout.max_qp_wr),
    maxReadsAnswered: count(layout.max_qp_rd_atom),
    maxReadsStarted: count(layout.max_qp_init_rd_atom),
    ports: view.getUint8(layout.phys_port_cnt[0]),
  };
}

function queryPort(
  library: IbverbsLibrary,
  context: bigint,
  device: string,
  number: number,
  ports: number,
  gidIndex: number | undefined,
): Port {
  const layout = STRUCTS.ibv_port_attr;
  const bytes = new Uint8Array(new ArrayBuffer(64));
  check("ibv_query_port", library.symbols.ibv_query_port(context, number, bytes));
  const view = new DataView(bytes.buffer);
  if (view.getInt32(layout.state[0], true) !== PORT_STATE.ACTIVE) {
    throw transportUnavailable(
      `port ${number} of ${device} is not ACTIVE`,
      "bring its link up (`rdma link`)",
    );
  }
  const gids = queryGids(library, context, number, view.getInt32(layout.gid_tbl_len[0], true), ports);
  const ethernet = bytes[layout.link_layer[0]] === LINK_LAYER.ETHERNET;
  const chosen = gidIndex === undefined
    ? chooseGid(gids, ethernet)
    : gids.find(({ index }) => index === gidIndex);
  if (chosen === undefined) {
    throw transportUnavailable(
      gidIndex === undefined
        ? `port ${number} of ${device} has no GID`
        : `port ${number} of ${device} has no GID ${gidIndex}`,
      `there are ${
        gids.map(({ index }) => index).join(", ") || "none"
      }; set MC_GID_INDEX, or give the interface an address`,
    );
  }
  return {
    number,
    activeMtu: view.getInt32(layout.active_mtu[0], true),
    maxMessageBytes: view.getUint32(layout.max_msg_sz[0], true),
    lid: view.getUint16(layout.lid[0], true),
    gidIndex: chosen.index,
    gid: chosen.gid,
  };
}

/** One entry of a port's GID table that is in use. */
export interface Gid {
  readonly index: number;
  readonly gid: Uint8Array;
  readonly type: number;
}

function queryGids(
  library: IbverbsLibrary,
  context: bigint,
  port: number,
  length: number,
  ports: number,
): Gid[] {
  const { symbols, missing } = library;
  const gids: Gid[] = [];
  if (missing.has("_ibv_query_gid_table")) {
    for (let index = 0; index < length; index++) {
      const gid = new Uint8Array(new ArrayBuffer(16));
      const ok = symbols.ibv_query_gid(context, port, index, gid) === 0;
      if (ok && gid.some((byte) => byte !== 0)) gids.push({ index, gid, type: GID_TYPE.ROCE_V2 });
    }
    return gids;
  }
  const layout = STRUCTS.ibv_gid_entry;
  const room = Math.max(1, length) * Math.max(1, ports); // the table has those of all ports
  const bytes = new Uint8Array(new ArrayBuffer(room * layout.size));
  const count = Number(symbols._ibv_query_gid_table(context, bytes, BigInt(room), 0, BigInt(layout.size)));
  if (count < 0) throw failed("ibv_query_gid_table", -count);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < count; i++) {
    const at = i * layout.size;
    if (view.getUint32(at + layout.port_num[0], true) !== port) continue;
    gids.push({
      index: view.getUint32(at + layout.gid_index[0], true),
      gid: bytes.slice(at, at + 16),
      type: view.getUint32(at + layout.gid_type[0], true),
    });
  }
  return gids;
}

/** The GID that works across routers: RoCE v2 over IPv4; else RoCE v2, else the first. */
export function chooseGid(gids: readonly Gid[], ethernet: boolean): Gid | undefined {
  if (!ethernet) return gids[0];
  const v2 = gids.filter(({ type }) => type === GID_TYPE.ROCE_V2);
  return v2.find(({ gid }) => isIpv4(gid)) ?? v2[0] ?? gids[0];
}

function isIpv4(gid: Uint8Array): boolean {
  return gid.subarray(0, 10).every((byte) => byte === 0) && gid[10] === 0xff && gid[11] === 0xff;
}

/** The other process, or the way to it, is gone. */
export function peerGone(problem: string, nativeName?: string, nativeCode?: number): BackendUnavailableError {
  return new BackendUnavailableError("PEER_LOST", problem, {
    ...(nativeName === undefined ? {} : { nativeName }),
    ...(nativeCode === undefined ? {} : { nativeCode }),
  });
}
