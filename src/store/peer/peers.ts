/**
 * Which other processes there are: those of this user on this host by files in the runtime folder, those of other hosts
 * by the configuration, by handles, and by what peers know of each other.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { Deadline } from "../../deadline.ts";
import { BackendUnavailableError } from "../../errors.ts";
import { runtimeFolder } from "../runtime_folder.ts";
import type { Plane } from "./plane.ts";
import { RemotePeer } from "./remote.ts";

/** Where the peers of a kind and prefix announce themselves. */
function announcements(kind: string, group: string): string {
  const hash = createHash("sha256").update(JSON.stringify([kind, group])).digest("hex").slice(0, 16);
  return join(runtimeFolder(), `peers-${hash}`);
}

/** See the module. */
export class Peers {
  readonly #plane: Plane;
  readonly #secret: Uint8Array;
  readonly #folder: string;
  readonly #peers = new Map<string, RemotePeer>();
  /** This process's own address; it does not ask itself. */
  #own: string | undefined;

  constructor(plane: Plane, secret: Uint8Array, group: string) {
    this.#plane = plane;
    this.#secret = secret;
    this.#folder = announcements(plane.kind, group);
  }

  /** Addresses known now. */
  get addresses(): string[] {
    return [...this.#peers.keys()];
  }

  /** Tells the other processes of this user that this one is there. */
  announce(address: string): void {
    this.#own = address;
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    writeFileSync(join(this.#folder, encodeURIComponent(address)), String(process.pid), { mode: 0o600 });
  }

  /** The peer at an address, known from now on. */
  at(address: string): RemotePeer | undefined {
    if (address === this.#own) return undefined;
    let peer = this.#peers.get(address);
    if (peer === undefined) {
      this.#peers.set(address, peer = new RemotePeer(address, this.#plane, this.#secret));
    }
    return peer;
  }

  /** All there are. */
  all(): RemotePeer[] {
    let names: string[] = [];
    try {
      names = readdirSync(this.#folder);
    } catch {
      // nobody has announced itself
    }
    for (const name of names) this.at(decodeURIComponent(name));
    return [...this.#peers.values()];
  }

  /** Learns of the peers that the known ones know; true where one is new. */
  async ask(deadline: Deadline): Promise<boolean> {
    const known = new Set(this.#peers.keys());
    const answers = await this.each((peer) => peer.ask({ op: "peers" }, deadline));
    for (const addresses of answers) {
      if (!Array.isArray(addresses)) continue;
      for (const address of addresses.slice(0, 4096)) {
        if (typeof address === "string" && /^[^\s/]{1,300}:\d{1,5}$/.test(address)) this.at(address);
      }
    }
    return this.#peers.size > known.size;
  }

  /** Asks all peers at once; those that are gone are forgotten and left out. */
  async each<T>(ask: (peer: RemotePeer) => Promise<T>): Promise<T[]> {
    const answers = await Promise.all(
      this.all().map(async (peer) => {
        try {
          return [await ask(peer)];
        } catch (error) {
          if (!(error instanceof BackendUnavailableError) || error.code !== "PEER_LOST") throw error;
          this.#forget(peer);
          return [];
        }
      }),
    );
    return answers.flat();
  }

  #forget(peer: RemotePeer): void {
    this.#peers.delete(peer.address);
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
    if (this.#own !== undefined) rmSync(join(this.#folder, encodeURIComponent(this.#own)), { force: true });
    const peers = [...this.#peers.values()];
    this.#peers.clear();
    await Promise.all(peers.map((peer) => peer.close()));
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
