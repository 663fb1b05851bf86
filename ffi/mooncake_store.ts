/**
 * Mooncake Store's C interface: every function of `store_c.h`, its one struct, and the names of its codes.
 *
 * Source of the prototypes: `store_c.h` of Mooncake 0.3.13; of the codes: `types.h` of the same version.
 *
 * @module
 */

import { quietenMooncake } from "./environment.ts";
import { type LoadedLibrary, loadLibrary } from "./loader.ts";

/** What blocks is called off the event loop and takes addresses only. */
export const MOONCAKE_STORE = {
  mooncake_store_create: {
    args: [],
    result: "pointer",
    c: "mooncake_store_t mooncake_store_create()",
  },
  mooncake_store_destroy: {
    args: ["pointer"],
    result: "void",
    blocking: true,
    c: "void mooncake_store_destroy(mooncake_store_t store)",
  },
  mooncake_store_setup: {
    args: ["pointer", "pointer", "pointer", "u64", "u64", "pointer", "pointer", "pointer"],
    result: "i32",
    blocking: true,
    c: "int mooncake_store_setup(mooncake_store_t store, const char *local_hostname, const char *metadata_server, uint64_t global_segment_size, uint64_t local_buffer_size, const char *protocol, const char *device_name, const char *master_server_addr)",
  },
  mooncake_store_setup_with_tenant: {
    args: ["pointer", "pointer", "pointer", "u64", "u64", "pointer", "pointer", "pointer", "pointer"],
    result: "i32",
    blocking: true,
    c: "int mooncake_store_setup_with_tenant(mooncake_store_t store, const char *local_hostname, const char *metadata_server, uint64_t global_segment_size, uint64_t local_buffer_size, const char *protocol, const char *device_name, const char *master_server_addr, const char *tenant_id)",
  },
  mooncake_store_init_all: {
    args: ["pointer", "pointer", "pointer", "u64"],
    result: "i32",
    blocking: true,
    c: "int mooncake_store_init_all(mooncake_store_t store, const char *protocol, const char *device_name, uint64_t mount_segment_size)",
  },
  mooncake_store_health_check: {
    args: ["pointer"],
    result: "i32",
    blocking: true,
    c: "int mooncake_store_health_check(mooncake_store_t store)",
  },
  mooncake_store_put: {
    args: ["pointer", "pointer", "pointer", "usize", "pointer"],
    result: "i32",
    blocking: true,
    c: "int mooncake_store_put(mooncake_store_t store, const char *key, const void *value, size_t size, const mooncake_replicate_config_t *config)",
  },
  mooncake_store_put_from: {
    args: ["pointer", "pointer", "pointer", "usize", "pointer"],
    result: "i32",
    blocking: true,
    c: "int mooncake_store_put_from(mooncake_store_t store, const char *key, void *buffer, size_t size, const mooncake_replicate_config_t *config)",
  },
  mooncake_store_batch_put_from: {
    args: ["pointer", "pointer", "pointer", "pointer", "usize", "pointer", "pointer"],
    result: "i32",
    blocking: true,
    c: "int mooncake_store_batch_put_from(mooncake_store_t store, const char **keys, void **buffers, const size_t *sizes, size_t count, const mooncake_replicate_config_t *config, int *results_out)",
  },
  mooncake_store_get_into: {
    args: ["pointer", "pointer", "pointer", "usize"],
    result: "i64",
    blocking: true,
    c: "int64_t mooncake_store_get_into(mooncake_store_t store, const char *key, void *buffer, size_t size)",
  },
  mooncake_store_batch_get_into: {
    args: ["pointer", "pointer", "pointer", "pointer", "usize", "pointer"],
    result: "i32",
    blocking: true,
    c: "int mooncake_store_batch_get_into(mooncake_store_t store, const char **keys, void **buffers, const size_t *sizes, size_t count, int64_t *results_out)",
  },
  mooncake_store_is_exist: {
    args: ["pointer", "pointer"],
    result: "i32",
    blocking: true,
    c: "int mooncake_store_is_exist(mooncake_store_t store, const char *key)",
  },
  mooncake_store_batch_is_exist: {
    args: ["pointer", "pointer", "usize", "pointer"],
    result: "i32",
    blocking: true,
    c: "int mooncake_store_batch_is_exist(mooncake_store_t store, const char **keys, size_t count, int *results_out)",
  },
  mooncake_store_get_size: {
    args: ["pointer", "pointer"],
    result: "i64",
    blocking: true,
    c: "int64_t mooncake_store_get_size(mooncake_store_t store, const char *key)",
  },
  mooncake_store_get_hostname: {
    args: ["pointer", "buffer", "usize"],
    result: "i32",
    c: "int mooncake_store_get_hostname(mooncake_store_t store, char *buf_out, size_t buf_len)",
  },
  mooncake_store_remove: {
    args: ["pointer", "pointer", "i32"],
    result: "i32",
    blocking: true,
    c: "int mooncake_store_remove(mooncake_store_t store, const char *key, int force)",
  },
  mooncake_store_remove_by_regex: {
    args: ["pointer", "pointer", "i32"],
    result: "i64",
    blocking: true,
    c: "int64_t mooncake_store_remove_by_regex(mooncake_store_t store, const char *pattern, int force)",
  },
  mooncake_store_remove_all: {
    args: ["pointer", "i32"],
    result: "i64",
    blocking: true,
    c: "int64_t mooncake_store_remove_all(mooncake_store_t store, int force)",
  },
  mooncake_store_register_buffer: {
    args: ["pointer", "pointer", "usize"],
    result: "i32",
    blocking: true,
    c: "int mooncake_store_register_buffer(mooncake_store_t store, void *buffer, size_t size)",
  },
  mooncake_store_unregister_buffer: {
    args: ["pointer", "pointer"],
    result: "i32",
    blocking: true,
    c: "int mooncake_store_unregister_buffer(mooncake_store_t store, void *buffer)",
  },
} as const;

/** The functions of Mooncake Store, bound. */
export type MooncakeStoreLibrary = LoadedLibrary<typeof MOONCAKE_STORE>;

const INSTALL =
  "install a Mooncake that has the C library: `pip install tokenspeed-mooncake nvidia-cuda-runtime` (the wheels " +
  "mooncake-transfer-engine, -non-cuda and -cuda13 have none), the Debian packages libibverbs1, ibverbs-providers, " +
  "libnuma1 and libcurl4, and CUDA's driver library (Debian's libcuda1; no GPU needed, and a copy of its libcuda.so.1 " +
  "beside libcudart.so.13 will do); or build Mooncake with -DWITH_STORE_C_SHARED=ON; then name the file in libraryPath or MOONCAKE_STORE_LIBRARY";

/**
 * Loads `libmooncake_store.so`.
 *
 * Looked for at `explicitPath`, else in `MOONCAKE_STORE_LIBRARY`, else by the dynamic loader, else in installed Python
 * packages. What it needs is opened by path where the loader would not find it: no `LD_LIBRARY_PATH` is needed.
 *
 * @throws {BackendUnavailableError} LIBRARY_MISSING, VERSION_MISMATCH
 */
export function loadMooncakeStore(explicitPath?: string): MooncakeStoreLibrary {
  quietenMooncake();
  return loadLibrary({
    name: "Mooncake Store",
    sonames: ["libmooncake_store.so"],
    explicitPath,
    environment: "MOONCAKE_STORE_LIBRARY",
    pythonPackages: ["mooncake/libmooncake_store.so"],
    preload: [
      {
        name: "libcuda.so.1",
        sonames: ["libcuda.so.1"],
        pythonPackages: ["nvidia/cu13/lib/libcuda.so.1"],
      },
      {
        name: "libcudart.so.13",
        sonames: ["libcudart.so.13"],
        pythonPackages: ["nvidia/cu13/lib/libcudart.so.13"],
      },
      { name: "libibverbs.so.1", sonames: ["libibverbs.so.1"], environment: "IBVERBS_LIBRARY" },
      { name: "libmlx5.so.1", sonames: ["libmlx5.so.1"] },
      { name: "libnuma.so.1", sonames: ["libnuma.so.1"] },
      { name: "libcurl.so.4", sonames: ["libcurl.so.4"] },
    ],
    optional: ["mooncake_store_setup_with_tenant"],
    install: INSTALL,
  }, MOONCAKE_STORE);
}

/** How `batch_put_from` keeps objects. */
export interface ReplicateConfig {
  readonly replicas: number;
  readonly softPin: boolean;
  readonly hardPin: boolean;
}

/**
 * `struct mooncake_replicate_config` (LP64): `size_t replica_num; int with_soft_pin; int with_hard_pin;
 * const char **preferred_segments; size_t preferred_segments_count`. 32 bytes; no segment is preferred.
 */
export function encodeReplicateConfig(config: ReplicateConfig): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(32));
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(config.replicas), true);
  view.setInt32(8, config.softPin ? 1 : 0, true);
  view.setInt32(12, config.hardPin ? 1 : 0, true);
  return bytes;
}

/** Codes that the store above acts on. */
export const NO_AVAILABLE_HANDLE = -200;
export const INVALID_PARAMS = -600;
export const REPLICA_IS_NOT_READY = -703;
export const OBJECT_NOT_FOUND = -704;
export const OBJECT_ALREADY_EXISTS = -705;
export const LEASE_EXPIRED = -707;
export const OBJECT_HAS_REPLICATION_TASK = -708;
export const REPLICA_IS_GONE = -712;
export const TRANSFER_FAIL = -800;
export const CHECKSUM_MISMATCH = -801;
export const RPC_FAIL = -900;
export const RPC_TIMEOUT = -901;

const NAMES: Readonly<Record<number, string>> = {
  0: "OK",
  [-1]: "INTERNAL_ERROR",
  [-10]: "BUFFER_OVERFLOW",
  [-100]: "SHARD_INDEX_OUT_OF_RANGE",
  [-101]: "SEGMENT_NOT_FOUND",
  [-102]: "SEGMENT_ALREADY_EXISTS",
  [-103]: "CLIENT_NOT_FOUND",
  [-200]: "NO_AVAILABLE_HANDLE",
  [-300]: "INVALID_VERSION",
  [-400]: "INVALID_KEY",
  [-500]: "WRITE_FAIL",
  [-600]: "INVALID_PARAMS",
  [-601]: "ILLEGAL_CLIENT",
  [-700]: "INVALID_WRITE",
  [-701]: "INVALID_READ",
  [-702]: "INVALID_REPLICA",
  [-703]: "REPLICA_IS_NOT_READY",
  [-704]: "OBJECT_NOT_FOUND",
  [-705]: "OBJECT_ALREADY_EXISTS",
  [-706]: "OBJECT_HAS_LEASE",
  [-707]: "LEASE_EXPIRED",
  [-708]: "OBJECT_HAS_REPLICATION_TASK",
  [-709]: "OBJECT_NO_REPLICATION_TASK",
  [-710]: "REPLICA_NOT_FOUND",
  [-711]: "REPLICA_ALREADY_EXISTS",
  [-712]: "REPLICA_IS_GONE",
  [-713]: "REPLICA_NOT_IN_LOCAL_MEMORY",
  [-714]: "OBJECT_REPLICA_BUSY",
  [-800]: "TRANSFER_FAIL",
  [-801]: "CHECKSUM_MISMATCH",
  [-900]: "RPC_FAIL",
  [-901]: "RPC_TIMEOUT",
  [-1000]: "ETCD_OPERATION_ERROR",
  [-1001]: "ETCD_KEY_NOT_EXIST",
  [-1002]: "ETCD_TRANSACTION_FAIL",
  [-1003]: "ETCD_CTX_CANCELLED",
  [-1004]: "OPLOG_ENTRY_NOT_FOUND",
  [-1005]: "K8S_LEASE_OPERATION_ERROR",
  [-1006]: "K8S_LEASE_NOT_FOUND",
  [-1007]: "INCOMPLETE_OPLOG_CATCH_UP",
  [-1010]: "UNAVAILABLE_IN_CURRENT_STATUS",
  [-1011]: "UNAVAILABLE_IN_CURRENT_MODE",
  [-1012]: "NOT_SUPPORTED",
  [-1100]: "FILE_NOT_FOUND",
  [-1101]: "FILE_OPEN_FAIL",
  [-1102]: "FILE_READ_FAIL",
  [-1103]: "FILE_WRITE_FAIL",
  [-1104]: "FILE_INVALID_BUFFER",
  [-1105]: "FILE_LOCK_FAIL",
  [-1106]: "FILE_INVALID_HANDLE",
  [-1200]: "BUCKET_NOT_FOUND",
  [-1201]: "BUCKET_ALREADY_EXISTS",
  [-1202]: "KEYS_EXCEED_BUCKET_LIMIT",
  [-1203]: "KEYS_ULTRA_LIMIT",
  [-1300]: "UNABLE_OFFLOAD",
  [-1301]: "UNABLE_OFFLOADING",
  [-1400]: "TASK_NOT_FOUND",
  [-1401]: "TASK_PENDING_LIMIT_EXCEEDED",
  [-1402]: "JOB_NOT_FOUND",
  [-1500]: "SERIALIZE_UNSUPPORTED",
  [-1501]: "SERIALIZE_FAIL",
  [-1502]: "DESERIALIZE_FAIL",
  [-1503]: "PERSISTENT_FAIL",
  [-1600]: "DFS_NETWORK_TIMEOUT",
  [-1601]: "DFS_SERVICE_UNAVAILABLE",
  [-1602]: "DFS_QUOTA_EXCEEDED",
  [-1603]: "DFS_PERMISSION_DENIED",
  [-1604]: "DFS_STALE_HANDLE",
  [-1605]: "DFS_PARTIAL_WRITE",
  [-1700]: "TENANT_QUOTA_EXCEEDED",
  [-1701]: "TENANT_NOT_REGISTERED",
  [-1702]: "TENANT_NOT_EMPTY",
};

/** The name of a code, such as `OBJECT_NOT_FOUND` for −704. */
export function mooncakeCodeName(code: number): string {
  return NAMES[code] ?? `code ${code}`;
}
