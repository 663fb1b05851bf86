/**
 * Mooncake Transfer Engine's C interface: every function of `transfer_engine_c.h`, its structs and its codes.
 *
 * Source of the prototypes and layouts: `transfer_engine_c.h` of Mooncake 0.3.13. `submitTransferWithNotify` and
 * `genNotifyInEngine` take a struct of two pointers by value, which the ABIs of x86_64 and AArch64 pass as two pointers.
 *
 * @module
 */

import { type LoadedLibrary, loadLibrary } from "./loader.ts";

/** What may wait for another process, or pins memory, is called off the event loop and takes addresses only. */
export const TRANSFER_ENGINE = {
  createTransferEngine: {
    args: ["pointer", "pointer", "pointer", "u64", "i32"],
    result: "pointer",
    blocking: true,
    c: "transfer_engine_t createTransferEngine(const char *metadata_conn_string, const char *local_server_name, const char *ip_or_host_name, uint64_t rpc_port, int auto_discover)",
  },
  discoverTopology: {
    args: ["pointer"],
    result: "i32",
    blocking: true,
    c: "int discoverTopology(transfer_engine_t engine)",
  },
  getLocalIpAndPort: {
    args: ["pointer", "buffer", "usize"],
    result: "i32",
    c: "int getLocalIpAndPort(transfer_engine_t engine, char *buf_out, size_t buf_len)",
  },
  installTransport: {
    args: ["pointer", "pointer", "pointer"],
    result: "pointer",
    blocking: true,
    c: "transport_t installTransport(transfer_engine_t engine, const char *proto, void **args)",
  },
  uninstallTransport: {
    args: ["pointer", "pointer"],
    result: "i32",
    blocking: true,
    c: "int uninstallTransport(transfer_engine_t engine, const char *proto)",
  },
  openSegment: {
    args: ["pointer", "pointer"],
    result: "i32",
    blocking: true,
    c: "segment_id_t openSegment(transfer_engine_t engine, const char *segment_name)",
  },
  openSegmentNoCache: {
    args: ["pointer", "pointer"],
    result: "i32",
    blocking: true,
    c: "segment_id_t openSegmentNoCache(transfer_engine_t engine, const char *segment_name)",
  },
  closeSegment: {
    args: ["pointer", "i32"],
    result: "i32",
    blocking: true,
    c: "int closeSegment(transfer_engine_t engine, segment_id_t segment_id)",
  },
  warmupEfaSegment: {
    args: ["pointer", "pointer"],
    result: "i32",
    blocking: true,
    c: "int warmupEfaSegment(transfer_engine_t engine, const char *segment_name)",
  },
  removeLocalSegment: {
    args: ["pointer", "pointer"],
    result: "i32",
    blocking: true,
    c: "int removeLocalSegment(transfer_engine_t engine, const char *segment_name)",
  },
  destroyTransferEngine: {
    args: ["pointer"],
    result: "void",
    blocking: true,
    c: "void destroyTransferEngine(transfer_engine_t engine)",
  },
  registerLocalMemory: {
    args: ["pointer", "pointer", "usize", "pointer", "i32"],
    result: "i32",
    blocking: true,
    c: "int registerLocalMemory(transfer_engine_t engine, void *addr, size_t length, const char *location, int remote_accessible)",
  },
  unregisterLocalMemory: {
    args: ["pointer", "pointer"],
    result: "i32",
    blocking: true,
    c: "int unregisterLocalMemory(transfer_engine_t engine, void *addr)",
  },
  registerLocalMemoryBatch: {
    args: ["pointer", "pointer", "usize", "pointer"],
    result: "i32",
    blocking: true,
    c: "int registerLocalMemoryBatch(transfer_engine_t engine, buffer_entry_t *buffer_list, size_t buffer_len, const char *location)",
  },
  unregisterLocalMemoryBatch: {
    args: ["pointer", "pointer", "usize"],
    result: "i32",
    blocking: true,
    c: "int unregisterLocalMemoryBatch(transfer_engine_t engine, void **addr_list, size_t addr_len)",
  },
  allocateBatchID: {
    args: ["pointer", "usize"],
    result: "u64",
    c: "batch_id_t allocateBatchID(transfer_engine_t engine, size_t batch_size)",
  },
  submitTransfer: {
    args: ["pointer", "u64", "pointer", "usize"],
    result: "i32",
    blocking: true,
    c: "int submitTransfer(transfer_engine_t engine, batch_id_t batch_id, struct transfer_request *entries, size_t count)",
  },
  submitTransferWithNotify: {
    args: ["pointer", "u64", "pointer", "usize", "pointer", "pointer"],
    result: "i32",
    blocking: true,
    c: "int submitTransferWithNotify(transfer_engine_t engine, batch_id_t batch_id, struct transfer_request *entries, size_t count, notify_msg_t notify_msg)",
  },
  getNotifsFromEngine: {
    args: ["pointer", "pointer"],
    result: "pointer",
    blocking: true,
    c: "notify_msg_t *getNotifsFromEngine(transfer_engine_t engine, int *size)",
  },
  freeNotifsMsgBuf: {
    args: ["pointer", "i32"],
    result: "i32",
    c: "int freeNotifsMsgBuf(notify_msg_t *msg, int size)",
  },
  genNotifyInEngine: {
    args: ["pointer", "u64", "pointer", "pointer"],
    result: "i32",
    blocking: true,
    c: "int genNotifyInEngine(transfer_engine_t engine, uint64_t target_id, notify_msg_t notify_msg)",
  },
  getTransferStatus: {
    args: ["pointer", "u64", "usize", "buffer"],
    result: "i32",
    c: "int getTransferStatus(transfer_engine_t engine, batch_id_t batch_id, size_t task_id, struct transfer_status *status)",
  },
  freeBatchID: {
    args: ["pointer", "u64"],
    result: "i32",
    c: "int freeBatchID(transfer_engine_t engine, batch_id_t batch_id)",
  },
  syncSegmentCache: {
    args: ["pointer"],
    result: "i32",
    blocking: true,
    c: "int syncSegmentCache(transfer_engine_t engine)",
  },
  getNicLoadStats: {
    args: ["pointer", "buffer", "buffer"],
    result: "i32",
    c: "int getNicLoadStats(transfer_engine_t engine, nic_load_stat_t *stats, size_t *count)",
  },
  enableGracefulShutdown: {
    args: ["pointer"],
    result: "void",
    c: "void enableGracefulShutdown(transfer_engine_t engine)",
  },
  showLinks: {
    args: ["pointer", "buffer", "usize", "i32"],
    result: "i32",
    c: "int showLinks(transfer_engine_t engine, char *buf_out, size_t buf_len, int json)",
  },
} as const;

/** The library, loaded. */
export type TransferEngineLibrary = LoadedLibrary<typeof TRANSFER_ENGINE>;

/** Functions that some versions leave out; nothing here needs them. */
const OPTIONAL = [
  "discoverTopology",
  "warmupEfaSegment",
  "getNicLoadStats",
  "enableGracefulShutdown",
  "showLinks",
] as const;

/**
 * Loads the library: from `path`, `MOONCAKE_TRANSFER_ENGINE_LIBRARY`, the dynamic loader's path, or an installed Python
 * package.
 *
 * @throws BackendUnavailableError LIBRARY_MISSING with what was tried, or VERSION_MISMATCH
 */
export function loadTransferEngine(path?: string): TransferEngineLibrary {
  return loadLibrary({
    name: "Mooncake Transfer Engine",
    sonames: ["libtransfer_engine.so"],
    explicitPath: path,
    environment: "MOONCAKE_TRANSFER_ENGINE_LIBRARY",
    pythonPackages: ["mooncake/libtransfer_engine.so"],
    optional: OPTIONAL,
    // wheels for NPUs are linked to a driver that is needed for NPUs only
    lazy: true,
    install:
      "build Mooncake with -DBUILD_SHARED_LIBS=ON, or install a wheel that has libtransfer_engine.so, and libibverbs1, libnuma1 and libcurl4",
  }, TRANSFER_ENGINE);
}

/** A field of a struct: offset and size in bytes. */
export type Field = readonly [offset: number, bytes: number];

/** The structs, as little-endian LP64 machines lay them out. */
export const TRANSFER_ENGINE_STRUCTS = {
  transfer_request: {
    size: 40,
    opcode: [0, 4],
    source: [8, 8],
    target_id: [16, 4],
    target_offset: [24, 8],
    length: [32, 8],
  },
  transfer_status: { size: 16, status: [0, 4], transferred_bytes: [8, 8] },
  buffer_entry: { size: 16, addr: [0, 8], length: [8, 8] },
  notify_msg: { size: 16, name: [0, 8], msg: [8, 8] },
  nic_load_stat: { size: 80, device_name: [0, 64], inflight_bytes: [64, 8], ewma_bandwidth_bps: [72, 8] },
} as const;

/** What a request does. */
export const OPCODE_READ = 0;
export const OPCODE_WRITE = 1;
/** What `allocateBatchID` gives where there is no batch. */
export const INVALID_BATCH: bigint = 2n ** 64n - 1n;

/** States of a task, by code. */
const STATUS = ["WAITING", "PENDING", "INVALID", "CANCELED", "COMPLETED", "TIMEOUT", "FAILED"] as const;

/** A state's name. */
export type TransferStatus = (typeof STATUS)[number];

/** The name of a state. */
export function transferStatusName(code: number): TransferStatus {
  return STATUS[code] ?? "INVALID";
}

/** One READ. */
export interface ReadRequest {
  /** Where the bytes go, in registered memory. */
  readonly source: bigint;
  readonly targetId: number;
  /** The other process's address of the bytes. */
  readonly targetOffset: bigint;
  readonly length: number;
}

/** READs as C has them, one after the other. */
export function encodeReads(requests: readonly ReadRequest[]): Uint8Array<ArrayBuffer> {
  const { size } = TRANSFER_ENGINE_STRUCTS.transfer_request;
  const bytes = new Uint8Array(new ArrayBuffer(Math.max(1, requests.length) * size));
  const view = new DataView(bytes.buffer);
  requests.forEach(({ source, targetId, targetOffset, length }, i) => {
    view.setInt32(i * size, OPCODE_READ, true);
    view.setBigUint64(i * size + 8, source, true);
    view.setInt32(i * size + 16, targetId, true);
    view.setBigUint64(i * size + 24, targetOffset, true);
    view.setBigUint64(i * size + 32, BigInt(length), true);
  });
  return bytes;
}
