/**
 * What every object store offers to the floors above it.
 *
 * Keys are Mooncake's: `PREFIX/PARTITION/OBJECT-ID/…`, where OBJECT-ID is 32 lowercase hex digits. A bundle is all the
 * objects below one object id; it becomes visible at once, when its manifest (the last object) is written.
 *
 * @module
 */

/** What a store can do; the floors above choose by these and by nothing else. */
export interface StoreCapabilities {
  /** Byte ranges can be read; otherwise whole objects only. */
  readonly rangeReads: boolean;
  readonly list: boolean;
  /** The store crosses a network: chunks carry a checksum. */
  readonly checksums: boolean;
  /** The size at which payloads are split, or null for one chunk per payload. */
  readonly chunkBytes: number | null;
}

/** The last, optional argument of every store call. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds; the store's default where absent. */
  readonly timeoutMs?: number | undefined;
  /** Called with the bytes of every part of a long transfer once that part has moved. */
  readonly progress?: ((bytes: number) => void) | undefined;
}

/** One object of a bundle: its bytes are the concatenation of `parts`. */
export interface StoreObject {
  readonly key: string;
  /** Asked for when the object's turn comes: a manifest's bytes have the checksums of what was written before it. */
  readonly parts: readonly Uint8Array[];
  /** Called by a store whose `checksums` is true with the CRC-32 of the bytes, once it has them. */
  readonly written?: ((crc32: number) => void) | undefined;
}

/** `into.byteLength` bytes of object `key`, from `offset`. */
export interface ReadRange {
  readonly key: string;
  readonly offset: number;
  readonly into: Uint8Array;
  /** What the manifest says of the whole object; a store that reads whole objects needs it. */
  readonly object?: { readonly bytes: number; readonly crc32?: number | undefined } | undefined;
}

/**
 * Payloads of one bundle, in place and without a copy, until `release`.
 *
 * Each payload has an ArrayBuffer of its own, exactly as long as the payload. `release` detaches them (length 0) and is
 * idempotent. A write through a view is seen by nobody else.
 */
export interface Lease extends Disposable {
  readonly payloads: ReadonlyMap<string, ArrayBuffer>;
  readonly released: boolean;
  /** Bytes that had to be copied to make this lease (0 where the store hands out its own memory). */
  readonly copiedBytes: number;
  release(): void;
}

/**
 * Memory for a bundle that is written in place and then published without a copy.
 *
 * Until `publish` nobody sees it; `release` without a publish gives it back.
 */
export interface BundleLease extends Disposable {
  /** One buffer per requested payload, in order. */
  readonly payloads: readonly Uint8Array[];
  /**
   * Makes the bundle visible under `objectId` (`PREFIX/PARTITION/HEX`). `placed[i]` says under which key payload i is
   * stored and how many of its bytes are used; with an empty key it is left out. `objects` are the small rest (meta,
   * side objects), the manifest last.
   */
  publish(
    objectId: string,
    placed: readonly { readonly key: string; readonly bytes: number }[],
    objects: readonly StoreObject[],
    options?: CallOptions,
  ): Promise<void>;
  release(): void;
}

/**
 * A place where objects live.
 *
 * Errors: DroppedError for `read` and `view` of an object that is not there, CapacityError for a full store,
 * CorruptionError for damaged files, ClosedError after `close`.
 */
export interface ObjectStore extends AsyncDisposable {
  /** `shm:…`, `memory:…`; a hint that handles carry. */
  readonly uri: string;
  readonly capabilities: StoreCapabilities;
  /** Writes all objects of one bundle, the manifest last: all or none. `objectId` is the full `PREFIX/PARTITION/HEX`. */
  writeBundle(objectId: string, objects: readonly StoreObject[], options?: CallOptions): Promise<void>;
  /** A small loose object (row ids, tombstones, names); replaces an existing one. */
  put(key: string, value: Uint8Array, options?: CallOptions): Promise<void>;
  /** Reads all ranges, in one batch. */
  read(ranges: readonly ReadRange[], options?: CallOptions): Promise<void>;
  /** The size of an object, or undefined where it is absent. */
  size(key: string, options?: CallOptions): Promise<number | undefined>;
  /** A whole small object, or undefined where it is absent; where that is one call instead of two. */
  get?(key: string, options?: CallOptions): Promise<Uint8Array | undefined>;
  /** Payloads of the bundle `objectId`, in place. */
  view?(objectId: string, keys: readonly string[]): Lease;
  /**
   * Forced; absent is success. A store that keeps a bundle as one unit (memory, shm) deletes the whole bundle when any
   * of its keys is named, so a caller that deletes a bundle names all of its keys.
   */
  delete(keys: readonly string[], options?: CallOptions): Promise<void>;
  /** Deletes everything below `prefix` (which ends in `/`); gives the number of bundles and loose objects deleted. */
  deletePrefix(prefix: string, options?: CallOptions): Promise<number>;
  /** Keys below a prefix: every bundle's manifest key, and loose keys. In no particular order. */
  list?(prefix: string): AsyncIterable<string>;
  allocate?(payloadBytes: readonly number[], options?: CallOptions): Promise<BundleLease>;
  /** Object ids (`PREFIX/PARTITION/HEX`) below a prefix that have objects and no manifest; where a store can have such. */
  leftovers?(prefix: string): Promise<string[]>;
  /**
   * Told where the objects of `keys` are said to be: the `uri` of the store that a handle was made in. For stores without
   * one common place.
   */
  learn?(uri: string, keys: readonly string[]): void;
  /** The `uri` that a handle of these objects names, where they may be elsewhere than here. */
  uriOf?(keys: readonly string[]): string;
  /** Addresses of the other processes that this store knows of; undefined where all share one place. */
  readonly peers?: readonly string[];
  /** The transport that was asked for, and the one that moves the bytes; where there is one. */
  readonly transport?: { readonly asked: string; readonly effective: string };
  close(): Promise<void>;
}

/** The object id of a key: everything up to its last segment of 32 hex digits, or undefined. */
export function objectIdOf(key: string): string | undefined {
  return /^(.*(?:^|\/)[0-9a-f]{32})(?:\/|$)/s.exec(key)?.[1];
}
