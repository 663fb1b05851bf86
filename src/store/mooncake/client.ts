/**
 * What the Mooncake store needs of a Mooncake client, wherever that client lives: in this process
 * (`local_client.ts`), or in the node agent that the processes of a host share.
 *
 * Bytes pass through *staging*: memory that is registered with the client and that this process can address. Calls
 * name positions in it, so that with the agent no bytes cross its socket.
 *
 * @module
 */

import type { Deadline } from "../../deadline.ts";

/** A piece of registered memory, until `release`. */
export interface Staging {
  /** This process's view of it. */
  readonly bytes: Uint8Array;
  /**
   * Gives it back; idempotent. While a call that was given up may still write to it, the memory is quarantined: nobody
   * gets it before that call has ended.
   */
  release(): void;
}

/** One object and the part of a staging that holds it. */
export interface StagedObject {
  readonly key: string;
  /** First byte in the staging. */
  readonly offset: number;
  /** For a put the object's size; for a get the room there is, at least the object's size. */
  readonly bytes: number;
}

/** How objects are kept. */
export interface Keeping {
  /** `hard` is never evicted, `soft` late, `none` as the master likes. */
  readonly pin: "hard" | "soft" | "none";
  /** Copies in different segments, as far as there are so many. */
  readonly replicas: number;
}

/** The transport that was asked for, and the one that moves the bytes. */
export interface TransportInUse {
  readonly asked: "tcp" | "rdma" | "auto";
  readonly effective: "tcp" | "rdma";
}

/**
 * Calls of one Mooncake client. Codes are Mooncake's own (`ffi/mooncake_store.ts` has their names): 0 or a count is
 * success, a negative number is an error of that one object; the call as a whole fails only where the client itself
 * cannot be reached.
 *
 * @throws TimeoutError past the deadline, ClosedError after `close`, BackendUnavailableError AGENT_LOST where the
 * client was in an agent that is gone
 */
export interface MooncakeClient {
  /** The client's name among the master's segments: `host:port`. */
  readonly hostname: string;
  readonly transport: TransportInUse;
  /** The most bytes that one staging can have without memory of its own being made for it. */
  readonly poolBytes: number;
  /** Waits for room. More than the pool holds gets memory of its own. */
  reserve(bytes: number, deadline: Deadline): Promise<Staging>;
  /** `batch_put_from`: a code for every object, in order. */
  put(
    staging: Staging,
    objects: readonly StagedObject[],
    keeping: Keeping,
    deadline: Deadline,
  ): Promise<readonly number[]>;
  /** `batch_get_into`: the size of every object, or a code, in order. */
  get(staging: Staging, objects: readonly StagedObject[], deadline: Deadline): Promise<readonly number[]>;
  /** `get_size`: bytes, or a code. */
  size(key: string, deadline: Deadline): Promise<number>;
  /** `remove`, forced: a code for every key, in order. They are removed in this order. */
  remove(keys: readonly string[], deadline: Deadline): Promise<readonly number[]>;
  /** `remove_by_regex`, forced: the number of objects removed, or a code. */
  removeByRegex(pattern: string, deadline: Deadline): Promise<number>;
  close(): Promise<void>;
}

/** What decides which client serves: two configurations that agree in all of it can share one. */
export interface ClientSetup {
  readonly masterServerAddr: string;
  readonly metadataServer: string;
  readonly localHostname: string;
  readonly protocol: "tcp" | "rdma" | "auto";
  readonly deviceName: string;
  /** Memory given to the cluster, in bytes; objects in it die with the process. */
  readonly globalSegmentSize: number;
  /** Registered staging memory in bytes. */
  readonly localBufferSize: number;
  readonly libraryPath: string | undefined;
}
