/**
 * Batchferry moves reinforcement-learning batches between processes and machines: put once, pass a handle on, read only
 * the columns and rows you need.
 *
 * @module
 */

export { openTransfer } from "./src/transfer/open.ts";
export {
  type BundleInfo,
  type DeleteResult,
  type PutOptions,
  TransferBackend,
  type TransferInfo,
} from "./src/transfer/backend.ts";
export { type ScopePutOptions, TransferScope } from "./src/transfer/scope.ts";
export type { AllocationSchema, BatchAllocation } from "./src/transfer/allocation.ts";
export type { BackendName, Size, TransferConfig } from "./src/transfer/config.ts";
export {
  type BatchGroup,
  ColumnRemoteBatch,
  concat,
  type MaterializeOptions,
  RemoteBatch,
  RowRemoteBatch,
} from "./src/remote/remote_batch.ts";
export type { MooncakePart } from "./src/remote/mooncake_parts.ts";
export type { BatchLease } from "./src/remote/borrow.ts";
export type { DeadlineOptions } from "./src/deadline.ts";
export { Batch, type ColumnRows, type Fields } from "./src/batch/batch.ts";
export { Tensor } from "./src/batch/tensor.ts";
export { bytes, json, ragged, records, scalars, strings, tensor } from "./src/batch/build.ts";
export type { Column, Kind, StoredAs } from "./src/batch/column.ts";
export type { StoredImage } from "./src/bundle/codecs/media.ts";
export type { DType, NumericDType, TypedArray } from "./src/batch/dtype.ts";
export type { Json, JsonObject } from "./src/batch/json.ts";
export {
  BackendUnavailableError,
  BatchferryError,
  CapacityError,
  ClosedError,
  ConfigError,
  CorruptionError,
  DataLostError,
  DroppedError,
  type ErrorCode,
  type ErrorDetails,
  NativeError,
  NotFoundError,
  OwnershipError,
  SchemaError,
  TimeoutError,
} from "./src/errors.ts";
