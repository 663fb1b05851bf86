/**
 * Typed errors: one base class, a stable `code` on each.
 *
 * @module
 */

/** The stable codes; what a program may switch on. */
export type ErrorCode =
  | "CONFIG"
  | "NOT_FOUND"
  | "NOT_READY"
  | "NOT_OWNER"
  | "DROPPED"
  | "DATA_LOST"
  | "CAPACITY"
  | "SCHEMA"
  | "CORRUPT"
  | "TIMEOUT"
  | "ABORTED"
  | "CLOSED"
  | "LIBRARY_MISSING"
  | "VERSION_MISMATCH"
  | "MASTER_UNREACHABLE"
  | "TRANSPORT_UNAVAILABLE"
  | "LEASE_EXPIRED"
  | "AGENT_LOST"
  | "PEER_LOST"
  | "NATIVE";

/** What an error may carry besides its message. All of it is safe to log. */
export interface ErrorDetails {
  readonly partition?: string | undefined;
  readonly field?: string | undefined;
  readonly key?: string | undefined;
  readonly rows?: readonly string[] | undefined;
  readonly expected?: unknown;
  readonly actual?: unknown;
  /** A native status by name and number, such as `OBJECT_NOT_FOUND` and −704. */
  readonly nativeName?: string | undefined;
  readonly nativeCode?: number | undefined;
  /** What to do about it, one sentence. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
}

/** The base of every error this library throws on purpose. */
export class BatchferryError extends Error {
  /** The stable code. */
  readonly code: ErrorCode;
  /** Partition, field, expected and actual where they apply. */
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(
      details.hint === undefined ? message : `${message}; ${details.hint}`,
      details.cause === undefined ? undefined : { cause: details.cause },
    );
    this.name = new.target.name;
    this.code = code;
    this.details = details;
  }
}

/** CONFIG: a configuration that cannot be used as it is. */
export class ConfigError extends BatchferryError {
  constructor(message: string, details?: ErrorDetails) {
    super("CONFIG", message, details);
  }
}

/** NOT_FOUND, NOT_READY: rows, fields, names or partitions that are not there (yet). */
export class NotFoundError extends BatchferryError {
  constructor(message: string, details?: ErrorDetails, code: "NOT_FOUND" | "NOT_READY" = "NOT_FOUND") {
    super(code, message, details);
  }
}

/** DROPPED: the bundle behind a handle was deleted. */
export class DroppedError extends BatchferryError {
  constructor(message: string, details?: ErrorDetails) {
    super("DROPPED", message, details);
  }
}

/** DATA_LOST, LEASE_EXPIRED: the manifest is there, its bytes are not. */
export class DataLostError extends BatchferryError {
  constructor(message: string, details?: ErrorDetails, code: "DATA_LOST" | "LEASE_EXPIRED" = "DATA_LOST") {
    super(code, message, details);
  }
}

/** NOT_OWNER: deleting, or opening a scope over, what belongs to others. */
export class OwnershipError extends BatchferryError {
  constructor(message: string, details?: ErrorDetails) {
    super("NOT_OWNER", message, details);
  }
}

/** CAPACITY: no room; the message says where and what to do. */
export class CapacityError extends BatchferryError {
  constructor(message: string, details?: ErrorDetails) {
    super("CAPACITY", message, details);
  }
}

/** SCHEMA: wrong kind, unequal lengths, rows or masks out of range, values a dtype cannot hold. */
export class SchemaError extends BatchferryError {
  constructor(message: string, details?: ErrorDetails) {
    super("SCHEMA", message, details);
  }
}

/** CORRUPT: stored bytes, handles or files that contradict themselves. */
export class CorruptionError extends BatchferryError {
  constructor(message: string, details?: ErrorDetails) {
    super("CORRUPT", message, details);
  }
}

/** TIMEOUT, ABORTED: the deadline passed, or the caller's signal fired. */
export class TimeoutError extends BatchferryError {
  constructor(message: string, details?: ErrorDetails, code: "TIMEOUT" | "ABORTED" = "TIMEOUT") {
    super(code, message, details);
  }
}

/** CLOSED: used after `close()`, or a view used after its lease was released. */
export class ClosedError extends BatchferryError {
  constructor(message: string, details?: ErrorDetails) {
    super("CLOSED", message, details);
  }
}

/** The codes that say that a backend cannot be used here and now. */
export type UnavailableCode =
  | "LIBRARY_MISSING"
  | "VERSION_MISMATCH"
  | "MASTER_UNREACHABLE"
  | "TRANSPORT_UNAVAILABLE"
  | "AGENT_LOST"
  | "PEER_LOST";

/** LIBRARY_MISSING … TRANSPORT_UNAVAILABLE, AGENT_LOST, PEER_LOST. */
export class BackendUnavailableError extends BatchferryError {
  constructor(code: UnavailableCode, message: string, details?: ErrorDetails) {
    super(code, message, details);
  }
}

/** NATIVE: a native call failed in a way that has no class of its own. */
export class NativeError extends BatchferryError {
  constructor(message: string, details?: ErrorDetails) {
    super("NATIVE", message, details);
  }
}
