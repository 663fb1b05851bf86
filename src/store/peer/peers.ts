/**
 * Which other processes there are: those of this user on this host by files in the runtime folder, those of other hosts
 * by the configuration, by handles, and by what peers know of each other.
 *
 * @module
 */

import { createHmac } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { trySteps } from "../../attempts.ts";
import { Deadline } from "../../deadline.ts";
import { TimeoutError } from "../../errors.ts";
import { joinAddress, splitAddress } from "../addresses.ts";
import { runtimeFolder } from "../runtime_folder.ts";
import type { Plane } from "./plane.ts";
import { isLost, RemotePeer } from "./remote.ts";

/** How long one of many that are asked at once may take, in milliseconds, and at most half of the call's time. */
const ASK_MS = 5000;
/** One that took so long to fail is left alone three times as long. */
const SLOW_MS = 500;
/** The most peers that are known at a time. */
const MOST_PEERS = 4096;

/** Where the peers of a kind, prefix and secret announce themselves. */
function announcements(kind: string, group: string, secret: Uint8Array): string {
  const hash = createHmac("sha256", secret).update(JSON.stringify(["announcements", kind, group])).digest(
    "hex",
  );
  return join(runtimeFolder(), `peers-${hash.slice(0, 16)}`);
}

/** What came of asking all. */
export interface Asked<T> {
  readonly answers: readonly T[];
  /** Of those who are there, or may be, and did not answer. Those who have ended are left out. */
  readonly failures: readonly Error[];
}

interface Rest {
  readonly untilMs: number;
  readonly error: Error;
}

/** See the module. */
export class Peers {
  readonly #plane: Plane;
  readonly #secret: Uint8Array;
  readonly #folder: string;
  /** Those of the configuration stay, whatever becomes of them. */
  readonly #configured: ReadonlySet<string>;
  readonly #peers = new Map<string, RemotePeer>();
  readonly #resting = new Map<RemotePeer, Rest>();
  /** This process's own address; it does not ask itself. */
  #own: string | undefined;
  #closed = false;

  constructor(plane: Plane, secret: Uint8Array, group: string, configured: readonly string[]) {
    this.#plane = plane;
    this.#secret = secret;
    this.#folder = announcements(plane.kind, group, secret);
    this.#configured = new Set(configured);
    for (const address of configured) this.at(address);
  }

  /** Addresses known now. */
  get addresses(): string[] {
    return [...this.#peers.keys()];
  }

  /** Tells the other processes of this user that this one is there. */
  announce(address: string): void {
    this.#own = address;
    this.#peers.delete(address);
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    writeFileSync(join(this.#folder, encodeURIComponent(address)), String(process.pid), { mode: 0o600 });
  }

  /** The peer at an address, if it is known. */
  known(address: string): RemotePeer | undefined {
    return this.#peers.get(address);
  }

  /** The peer at an address, known from now on; undefined for this process's own, and for what is no address. */
  at(address: string): RemotePeer | undefined {
    const normal = normalAddress(address);
    if (normal === undefined || normal === this.#own || this.#closed) return undefined;
    let peer = this.#peers.get(normal);
    if (peer === undefined && this.#peers.size < MOST_PEERS) {
      this.#peers.set(normal, peer = new RemotePeer(normal, this.#plane, this.#secret));
    }
    return peer;
  }

  /** All there are. */
  #all(): RemotePeer[] {
    let names: string[] = [];
    try {
      names = readdirSync(this.#folder);
    } catch {
      // nobody has announced itself
    }
    for (const name of names) {
      try {
        this.at(decodeURIComponent(name));
      } catch {
        // not one of ours
      }
    }
    return [...this.#peers.values()];
  }

  /** Learns of the peers that the known ones know; true where one is new. */
  async ask(deadline: Deadline): Promise<boolean> {
    const known = new Set(this.#peers.keys());
    const { answers } = await this.each((peer, within) => peer.ask({ op: "peers" }, within), deadline);
    for (const addresses of answers) {
      if (!Array.isArray(addresses)) continue;
      for (const address of addresses.slice(0, MOST_PEERS)) {
        if (typeof address === "string") this.at(address);
      }
    }
    return this.#peers.keys().some((address) => !known.has(address));
  }

  /**
   * Asks all peers at once. Those that have ended are forgotten; one that is silent keeps nobody longer than five seconds,
   * and is left alone for a while.
   *
   * @throws TimeoutError past the deadline
   */
  async each<T>(
    ask: (peer: RemotePeer, deadline: Deadline) => Promise<T>,
    deadline: Deadline,
  ): Promise<Asked<T>> {
    const answers: T[] = [];
    const failures: Error[] = [];
    const { signal } = deadline.options;
    const limit = { signal, timeoutMs: Math.min(deadline.remainingMs / 2, ASK_MS) };
    await Promise.all(
      this.#all().map(async (peer) => {
        const rest = this.#resting.get(peer);
        const startedMs = performance.now();
        if (rest !== undefined && startedMs < rest.untilMs) return void failures.push(rest.error);
        try {
          answers.push(await ask(peer, new Deadline("asking a peer", limit)));
          this.#resting.delete(peer);
        } catch (error) {
          if (!(error instanceof Error)) throw error;
          if (isLost(error) && peer.state === "gone") return this.#forget(peer);
          // somebody whom a handle named, but not one of ours
          if (peer.state === "refused" && !this.#configured.has(peer.address)) return this.#forget(peer);
          failures.push(error);
          const tookMs = performance.now() - startedMs;
          const isSilent = peer.state === "silent" ||
            (error instanceof TimeoutError && error.code === "TIMEOUT");
          if (isSilent && tookMs >= SLOW_MS) {
            this.#resting.set(peer, { untilMs: performance.now() + 3 * tookMs, error });
          }
        }
      }),
    );
    deadline.check();
    return { answers, failures };
  }

  #forget(peer: RemotePeer): void {
    if (this.#configured.has(peer.address) || this.#peers.get(peer.address) !== peer) return;
    this.#peers.delete(peer.address);
    this.#resting.delete(peer);
    peer.close().catch(() => {});
    const file = join(this.#folder, encodeURIComponent(peer.address));
    try {
      // of a process of this host that has ended; its address may be another one's by now
      if (!isAlive(readFileSync(file, "utf8"))) rmSync(file);
    } catch {
      // not announced here, or removed by another process
    }
  }

  /** Ends all connections, and takes the announcement back. */
  async close(): Promise<void> {
    this.#closed = true;
    const peers = [...this.#peers.values()];
    this.#peers.clear();
    this.#resting.clear();
    // at once: one that is silent keeps nobody waiting
    const closing = Promise.allSettled(peers.map((peer) => peer.close()));
    await trySteps(
      () => {
        if (this.#own !== undefined) {
          rmSync(join(this.#folder, encodeURIComponent(this.#own)), { force: true });
        }
      },
      async () => {
        const failed = (await closing).find(({ status }) => status === "rejected");
        if (failed !== undefined) throw (failed as PromiseRejectedResult).reason;
      },
    );
  }
}

/** `HOST:PORT` as it is written here, or undefined. */
function normalAddress(address: string): string | undefined {
  if (address.length > 300 || /[\s/]/.test(address)) return undefined;
  try {
    return joinAddress(splitAddress(address, 0)); // without a port there is none
  } catch {
    return undefined;
  }
}

function isAlive(pid: string): boolean {
  try {
    process.kill(Number(pid), 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code === "EPERM";
  }
}
