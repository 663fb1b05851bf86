/**
 * libibverbs: the functions it exports, those that its header makes inline, struct layouts, and constants.
 *
 * Source: `infiniband/verbs.h` of rdma-core 44; the layouts in use here are the same up to rdma-core 65. x86_64 and
 * AArch64, little-endian. READ is what this library does with it; the other opcodes are declared only.
 *
 * @module
 */

import process from "node:process";
import { readCString } from "./libc.ts";
import { type LoadedLibrary, loadLibrary } from "./loader.ts";
import { type BoundFunction, native } from "./native.ts";

/** What can wait for another host, or takes long, is called off the event loop and takes addresses only. */
export const IBVERBS = {
  ibv_get_device_list: {
    args: ["buffer"],
    result: "pointer",
    c: "struct ibv_device **ibv_get_device_list(int *num_devices)",
  },
  ibv_free_device_list: {
    args: ["pointer"],
    result: "void",
    c: "void ibv_free_device_list(struct ibv_device **list)",
  },
  ibv_get_device_name: {
    args: ["pointer"],
    result: "pointer",
    c: "const char *ibv_get_device_name(struct ibv_device *device)",
  },
  ibv_get_device_guid: {
    args: ["pointer"],
    result: "u64",
    c: "__be64 ibv_get_device_guid(struct ibv_device *device)",
  },
  ibv_open_device: {
    args: ["pointer"],
    result: "pointer",
    c: "struct ibv_context *ibv_open_device(struct ibv_device *device)",
  },
  ibv_close_device: {
    args: ["pointer"],
    result: "i32",
    c: "int ibv_close_device(struct ibv_context *context)",
  },
  ibv_query_device: {
    args: ["pointer", "buffer"],
    result: "i32",
    c: "int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *device_attr)",
  },
  // the exported one takes the struct of old, and writes 48 bytes
  ibv_query_port: {
    args: ["pointer", "u8", "buffer"],
    result: "i32",
    c: "int ibv_query_port(struct ibv_context *context, uint8_t port_num, struct _compat_ibv_port_attr *port_attr)",
  },
  ibv_query_gid: {
    args: ["pointer", "u8", "i32", "buffer"],
    result: "i32",
    c: "int ibv_query_gid(struct ibv_context *context, uint8_t port_num, int index, union ibv_gid *gid)",
  },
  _ibv_query_gid_table: {
    args: ["pointer", "buffer", "usize", "u32", "usize"],
    result: "isize",
    c: "ssize_t _ibv_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t max_entries, uint32_t flags, size_t entry_size)",
  },
  ibv_query_pkey: {
    args: ["pointer", "u8", "i32", "buffer"],
    result: "i32",
    c: "int ibv_query_pkey(struct ibv_context *context, uint8_t port_num, int index, __be16 *pkey)",
  },
  ibv_alloc_pd: {
    args: ["pointer"],
    result: "pointer",
    c: "struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)",
  },
  ibv_dealloc_pd: { args: ["pointer"], result: "i32", c: "int ibv_dealloc_pd(struct ibv_pd *pd)" },
  ibv_reg_mr: {
    args: ["pointer", "pointer", "usize", "i32"],
    result: "pointer",
    c: "struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)",
  },
  ibv_reg_mr_iova2: {
    args: ["pointer", "pointer", "usize", "u64", "u32"],
    result: "pointer",
    c: "struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned int access)",
  },
  ibv_dereg_mr: {
    args: ["pointer"],
    result: "i32",
    blocking: true,
    c: "int ibv_dereg_mr(struct ibv_mr *mr)",
  },
  ibv_create_comp_channel: {
    args: ["pointer"],
    result: "pointer",
    c: "struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)",
  },
  ibv_destroy_comp_channel: {
    args: ["pointer"],
    result: "i32",
    c: "int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)",
  },
  ibv_get_cq_event: {
    args: ["pointer", "buffer", "buffer"],
    result: "i32",
    c: "int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context)",
  },
  ibv_ack_cq_events: {
    args: ["pointer", "u32"],
    result: "void",
    c: "void ibv_ack_cq_events(struct ibv_cq *cq, unsigned int nevents)",
  },
  ibv_create_cq: {
    args: ["pointer", "i32", "pointer", "pointer", "i32"],
    result: "pointer",
    c: "struct ibv_cq *ibv_create_cq(struct ibv_context *context, int cqe, void *cq_context, struct ibv_comp_channel *channel, int comp_vector)",
  },
  ibv_destroy_cq: { args: ["pointer"], result: "i32", c: "int ibv_destroy_cq(struct ibv_cq *cq)" },
  ibv_create_qp: {
    args: ["pointer", "buffer"],
    result: "pointer",
    c: "struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *qp_init_attr)",
  },
  ibv_modify_qp: {
    args: ["pointer", "pointer", "i32"],
    result: "i32",
    blocking: true,
    c: "int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int attr_mask)",
  },
  ibv_query_qp: {
    args: ["pointer", "buffer", "i32", "buffer"],
    result: "i32",
    c: "int ibv_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int attr_mask, struct ibv_qp_init_attr *init_attr)",
  },
  ibv_destroy_qp: {
    args: ["pointer"],
    result: "i32",
    blocking: true,
    c: "int ibv_destroy_qp(struct ibv_qp *qp)",
  },
  ibv_fork_init: { args: [], result: "i32", c: "int ibv_fork_init(void)" },
  ibv_is_fork_initialized: {
    args: [],
    result: "i32",
    c: "enum ibv_fork_status ibv_is_fork_initialized(void)",
  },
  ibv_wc_status_str: {
    args: ["i32"],
    result: "pointer",
    c: "const char *ibv_wc_status_str(enum ibv_wc_status status)",
  },
  ibv_port_state_str: {
    args: ["i32"],
    result: "pointer",
    c: "const char *ibv_port_state_str(enum ibv_port_state port_state)",
  },
} as const;

/** A field of a struct: offset and size in bytes. */
export type Field = readonly [offset: number, bytes: number];

/** The structs in use: size, and field by field. */
export const STRUCTS = {
  ibv_context: { size: 328, device: [0, 8], cmd_fd: [264, 4], async_fd: [268, 4] },
  ibv_pd: { size: 16, context: [0, 8], handle: [8, 4] },
  ibv_mr: {
    size: 48,
    context: [0, 8],
    pd: [8, 8],
    addr: [16, 8],
    length: [24, 8],
    lkey: [36, 4],
    rkey: [40, 4],
  },
  ibv_comp_channel: { size: 16, context: [0, 8], fd: [8, 4] },
  ibv_cq: { size: 128, context: [0, 8], channel: [8, 8], cqe: [28, 4] },
  ibv_qp: { size: 160, context: [0, 8], pd: [16, 8], qp_num: [52, 4], state: [56, 4], qp_type: [60, 4] },
  ibv_qp_cap: {
    size: 20,
    max_send_wr: [0, 4],
    max_recv_wr: [4, 4],
    max_send_sge: [8, 4],
    max_recv_sge: [12, 4],
    max_inline_data: [16, 4],
  },
  ibv_qp_init_attr: {
    size: 64,
    qp_context: [0, 8],
    send_cq: [8, 8],
    recv_cq: [16, 8],
    srq: [24, 8],
    cap: [32, 20],
    qp_type: [52, 4],
    sq_sig_all: [56, 4],
  },
  ibv_qp_attr: {
    size: 144,
    qp_state: [0, 4],
    path_mtu: [8, 4],
    rq_psn: [20, 4],
    sq_psn: [24, 4],
    dest_qp_num: [28, 4],
    qp_access_flags: [32, 4],
    ah_attr: [56, 32],
    pkey_index: [120, 2],
    max_rd_atomic: [126, 1],
    max_dest_rd_atomic: [127, 1],
    min_rnr_timer: [128, 1],
    port_num: [129, 1],
    timeout: [130, 1],
    retry_cnt: [131, 1],
    rnr_retry: [132, 1],
  },
  ibv_ah_attr: {
    size: 32,
    grh: [0, 24],
    dlid: [24, 2],
    sl: [26, 1],
    src_path_bits: [27, 1],
    static_rate: [28, 1],
    is_global: [29, 1],
    port_num: [30, 1],
  },
  ibv_global_route: {
    size: 24,
    dgid: [0, 16],
    flow_label: [16, 4],
    sgid_index: [20, 1],
    hop_limit: [21, 1],
    traffic_class: [22, 1],
  },
  ibv_gid_entry: { size: 32, gid: [0, 16], gid_index: [16, 4], port_num: [20, 4], gid_type: [24, 4] },
  ibv_sge: { size: 16, addr: [0, 8], length: [8, 4], lkey: [12, 4] },
  ibv_send_wr: {
    size: 128,
    wr_id: [0, 8],
    next: [8, 8],
    sg_list: [16, 8],
    num_sge: [24, 4],
    opcode: [28, 4],
    send_flags: [32, 4],
    "wr.rdma.remote_addr": [40, 8],
    "wr.rdma.rkey": [48, 4],
  },
  ibv_wc: {
    size: 48,
    wr_id: [0, 8],
    status: [8, 4],
    opcode: [12, 4],
    vendor_err: [16, 4],
    byte_len: [20, 4],
    qp_num: [28, 4],
  },
  ibv_port_attr: {
    size: 52,
    state: [0, 4],
    max_mtu: [4, 4],
    active_mtu: [8, 4],
    gid_tbl_len: [12, 4],
    max_msg_sz: [20, 4],
    lid: [34, 2],
    sm_lid: [36, 2],
    lmc: [38, 1],
    link_layer: [46, 1],
    flags: [47, 1],
  },
  ibv_device_attr: {
    size: 232,
    fw_ver: [0, 64],
    node_guid: [64, 8],
    max_mr_size: [80, 8],
    max_qp: [108, 4],
    max_qp_wr: [112, 4],
    max_sge: [120, 4],
    max_cq: [128, 4],
    max_cqe: [132, 4],
    max_mr: [136, 4],
    max_qp_rd_atom: [144, 4],
    max_qp_init_rd_atom: [156, 4],
    phys_port_cnt: [227, 1],
  },
} as const;

/** Where a context has the functions that the header calls through it. */
export const CONTEXT_OPS = { poll_cq: 96, req_notify_cq: 104, post_send: 208, post_recv: 216 } as const;

/** Enumerations by C name without their prefixes. */
export const QP_TYPE = { RC: 2, UC: 3, UD: 4 } as const;
export const QP_STATE = { RESET: 0, INIT: 1, RTR: 2, RTS: 3, SQD: 4, SQE: 5, ERR: 6 } as const;
export const QP_ATTR = {
  STATE: 0x1,
  ACCESS_FLAGS: 0x8,
  PKEY_INDEX: 0x10,
  PORT: 0x20,
  AV: 0x80,
  PATH_MTU: 0x100,
  TIMEOUT: 0x200,
  RETRY_CNT: 0x400,
  RNR_RETRY: 0x800,
  RQ_PSN: 0x1000,
  MAX_QP_RD_ATOMIC: 0x2000,
  MIN_RNR_TIMER: 0x8000,
  SQ_PSN: 0x10000,
  MAX_DEST_RD_ATOMIC: 0x20000,
  DEST_QPN: 0x100000,
} as const;
export const ACCESS = { LOCAL_WRITE: 1, REMOTE_WRITE: 2, REMOTE_READ: 4, REMOTE_ATOMIC: 8 } as const;
export const WR_OPCODE = {
  RDMA_WRITE: 0,
  RDMA_WRITE_WITH_IMM: 1,
  SEND: 2,
  SEND_WITH_IMM: 3,
  RDMA_READ: 4,
  ATOMIC_CMP_AND_SWP: 5,
  ATOMIC_FETCH_AND_ADD: 6,
} as const;
export const SEND_FLAGS = { FENCE: 1, SIGNALED: 2, SOLICITED: 4, INLINE: 8 } as const;
export const PORT_STATE = { NOP: 0, DOWN: 1, INIT: 2, ARMED: 3, ACTIVE: 4, ACTIVE_DEFER: 5 } as const;
export const LINK_LAYER = { UNSPECIFIED: 0, INFINIBAND: 1, ETHERNET: 2 } as const;
export const GID_TYPE = { IB: 0, ROCE_V1: 1, ROCE_V2: 2 } as const;
export const WC_STATUS = {
  SUCCESS: 0,
  LOC_LEN_ERR: 1,
  LOC_QP_OP_ERR: 2,
  LOC_EEC_OP_ERR: 3,
  LOC_PROT_ERR: 4,
  WR_FLUSH_ERR: 5,
  MW_BIND_ERR: 6,
  BAD_RESP_ERR: 7,
  LOC_ACCESS_ERR: 8,
  REM_INV_REQ_ERR: 9,
  REM_ACCESS_ERR: 10,
  REM_OP_ERR: 11,
  RETRY_EXC_ERR: 12,
  RNR_RETRY_EXC_ERR: 13,
  LOC_RDD_VIOL_ERR: 14,
  REM_INV_RD_REQ_ERR: 15,
  REM_ABORT_ERR: 16,
  INV_EECN_ERR: 17,
  INV_EEC_STATE_ERR: 18,
  FATAL_ERR: 19,
  RESP_TIMEOUT_ERR: 20,
  GENERAL_ERR: 21,
} as const;

/** The name of a completion's status, such as `RETRY_EXC_ERR` for 12. */
export function wcStatusName(status: number): string {
  return Object.entries(WC_STATUS).find(([, code]) => code === status)?.[0] ?? `status ${status}`;
}

/** Bytes of an MTU as the port has it (1 is 256, 5 is 4096). */
export function mtuBytes(mtu: number): number {
  return 128 << mtu;
}

/** The library, loaded. */
export type IbverbsLibrary = LoadedLibrary<typeof IBVERBS>;

let loaded: { readonly path: string | undefined; readonly library: IbverbsLibrary } | undefined;

/**
 * Loads the library: from `path`, `IBVERBS_LIBRARY`, or the dynamic loader's path.
 *
 * @throws BackendUnavailableError LIBRARY_MISSING with what was tried, or VERSION_MISMATCH
 */
export function loadIbverbs(path?: string): IbverbsLibrary {
  if (loaded !== undefined && loaded.path === path) return loaded.library;
  const library = loadLibrary({
    name: "libibverbs",
    sonames: ["libibverbs.so.1", "libibverbs.so"],
    explicitPath: path,
    environment: "IBVERBS_LIBRARY",
    optional: ["ibv_reg_mr_iova2", "_ibv_query_gid_table", "ibv_is_fork_initialized"],
    install: "install libibverbs1 and ibverbs-providers (Debian, Ubuntu) or rdma-core (Fedora)",
  }, IBVERBS);
  loaded = { path, library };
  return library;
}

const POST_SEND = {
  args: ["pointer", "pointer", "buffer"],
  result: "i32",
  c: "int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad_wr)",
} as const;
const POLL_CQ = {
  args: ["pointer", "i32", "buffer"],
  result: "i32",
  c: "int poll_cq(struct ibv_cq *cq, int num_entries, struct ibv_wc *wc)",
} as const;
const REQ_NOTIFY_CQ = {
  args: ["pointer", "i32"],
  result: "i32",
  c: "int req_notify_cq(struct ibv_cq *cq, int solicited_only)",
} as const;

/** The functions of a context. */
export interface VerbsOps {
  readonly postSend: BoundFunction<typeof POST_SEND>;
  readonly pollCq: BoundFunction<typeof POLL_CQ>;
  readonly reqNotifyCq: BoundFunction<typeof REQ_NOTIFY_CQ>;
}

/** What the header's inline functions call. */
export function verbsOps(context: bigint): VerbsOps {
  const at = (offset: number): bigint => peek64(context + BigInt(offset));
  return {
    postSend: native.bind(at(CONTEXT_OPS.post_send), POST_SEND),
    pollCq: native.bind(at(CONTEXT_OPS.poll_cq), POLL_CQ),
    reqNotifyCq: native.bind(at(CONTEXT_OPS.req_notify_cq), REQ_NOTIFY_CQ),
  };
}

/** A field of 4 bytes of a struct of the library's. */
export function peek32(address: bigint): number {
  return new Uint32Array(native.view(address, 4))[0]!;
}

function peek64(address: bigint): bigint {
  return new BigUint64Array(native.view(address, 8))[0]!;
}

/** The devices that the library sees, by name; none where the kernel has no RDMA. */
export function deviceNames(library: IbverbsLibrary): string[] {
  return withDevices(library, (devices) => [...devices.keys()]);
}

/** Opens a device. 0 where there is none of that name, or it cannot be opened; `lastErrno` says why. */
export function openDevice(library: IbverbsLibrary, name: string): bigint {
  return withDevices(library, (devices) => {
    const device = devices.get(name);
    return device === undefined ? 0n : library.symbols.ibv_open_device(device);
  });
}

function withDevices<T>(library: IbverbsLibrary, use: (devices: ReadonlyMap<string, bigint>) => T): T {
  const { ibv_get_device_list, ibv_free_device_list, ibv_get_device_name } = library.symbols;
  const count = new Int32Array(new ArrayBuffer(4));
  const list = ibv_get_device_list(count);
  if (list === 0n) return use(new Map());
  try {
    const devices = new Map<string, bigint>();
    if (count[0]! > 0) {
      for (const device of new BigUint64Array(native.view(list, count[0]! * 8))) {
        const name = readCString(ibv_get_device_name(device));
        if (name !== null) devices.set(name, device);
      }
    }
    return use(devices);
  } finally {
    ibv_free_device_list(list);
  }
}

/** Lets a process that uses verbs start others, on kernels that need it. */
export function allowFork(library: IbverbsLibrary): void {
  if (library.missing.has("ibv_is_fork_initialized")) return;
  if (library.symbols.ibv_is_fork_initialized() === 0) library.symbols.ibv_fork_init();
}

/** The machines whose layouts these are. */
export const VERBS_ARCHITECTURE: boolean = process.arch === "x64" || process.arch === "arm64";
