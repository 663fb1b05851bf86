/**
 * What moves bytes between the registered memory of two processes: one-sided READs of exact ranges.
 *
 * The reading side makes an offer, the other process accepts it, and the answer turns the offer into a link:
 *
 * ```
 * reader                                   writer
 * offer = await plane.offer()
 *   offer.hello            ──(TCP)──▶      accepted = await plane.accept(hello)
 *   link = await offer.open(answer) ◀──    accepted.answer
 * await link.read(pieces, deadline)        (nothing to do)
 * await link.close()       ──(TCP ends)──▶ await accepted.close()
 * ```
 *
 * @module
 */

import type { Deadline } from "../../deadline.ts";

/** Anything that JSON holds; what two planes of one kind tell each other. */
export type Wire = string | number | boolean | null | readonly Wire[] | { readonly [key: string]: Wire };

/** Memory that is registered with a plane: its own process may read into it, others may READ it. */
export interface Registration {
  readonly address: bigint;
  readonly bytes: number;
  /** What another process needs to READ from it; told over the connection, after the handshake. */
  readonly remote: Wire;
  /** Ends the registration, before the memory goes away. READs of it that are under way fail. Idempotent. */
  close(): Promise<void>;
}

/** One READ: `bytes` bytes at `remoteOffset` of the other's memory, to `localOffset` of ours. */
export interface ReadPiece {
  readonly localOffset: number;
  readonly remoteOffset: number;
  readonly bytes: number;
}

/** A connection to one process, for reading. */
export interface Link {
  /**
   * READs all pieces, and returns when every byte is there.
   *
   * @param local memory registered with the same plane; nobody else may write to the pieces meanwhile
   * @param remote `Registration.remote` of the other side
   * @throws BackendUnavailableError PEER_LOST where the other process does not answer (any more), or has taken its memory
   * back; TimeoutError past the deadline. Either way nothing writes to `local` any more when it has thrown, unless
   * `quarantine` has been called with a promise: then not before that settles.
   */
  read(
    local: Registration,
    remote: Wire,
    pieces: readonly ReadPiece[],
    deadline: Deadline,
    quarantine: (ended: Promise<unknown>) => void,
  ): Promise<void>;
  /** False once it has failed; the next read needs a new link. */
  readonly alive: boolean;
  /** Gives everything back; what is under way fails. Idempotent. */
  close(): Promise<void>;
}

/** The reading side of a connection that is being made. */
export interface Offer {
  readonly hello: Wire;
  /** @throws CorruptionError for an answer that is none; BackendUnavailableError PEER_LOST where it cannot be reached */
  open(answer: Wire, deadline: Deadline): Promise<Link>;
  /** Gives it up; idempotent, nothing after `open`. */
  close(): Promise<void>;
}

/** The side whose memory is read. */
export interface Accepted {
  readonly answer: Wire;
  /** Gives back what belongs to this connection; idempotent. */
  close(): Promise<void>;
}

/** A kind of one-sided READ, opened on this process's device. */
export interface Plane {
  /** `verbs` or `transfer-engine`. */
  readonly kind: string;
  readonly transport: { readonly asked: string; readonly effective: string };
  /** @throws CapacityError where memory cannot be pinned, with the command that allows it */
  register(address: bigint, bytes: number): Promise<Registration>;
  offer(): Promise<Offer>;
  /** @throws CorruptionError for a hello that is none */
  accept(hello: Wire, deadline: Deadline): Promise<Accepted>;
  /** Closes links, connections and registrations that are open, then the device. Idempotent. */
  close(): Promise<void>;
}
