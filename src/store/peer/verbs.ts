/**
 * The plane of libibverbs: READs over reliable connected queue pairs, by an RDMA device and nothing else.
 *
 * @module
 */

import process from "node:process";
import { tryEach, trySteps } from "../../attempts.ts";
import type { Deadline } from "../../deadline.ts";
import { ClosedError } from "../../errors.ts";
import type { Accepted, Offer, Plane, Registration, Wire } from "./plane.ts";
import { describeMemory } from "./remote_memory.ts";
import { Completions } from "./verbs/completions.ts";
import { Device } from "./verbs/device.ts";
import { VerbsLink, type VerbsRegistration } from "./verbs/link.ts";
import { endpointOf, QueuePair } from "./verbs/queue_pair.ts";

/** How the plane is opened. */
export interface VerbsOptions {
  /** Names with commas, of which the first is taken; empty for the first with an ACTIVE port. */
  readonly deviceName?: string;
  /** Which GID of the port; MC_GID_INDEX, or the IPv4 one of RoCE v2, where absent. */
  readonly gidIndex?: number;
  readonly libraryPath?: string;
}

/** Completions that fit the queue; as many READs are under way at most, of all links together. */
const COMPLETIONS = 4096;

/**
 * Opens the plane on a device.
 *
 * @throws BackendUnavailableError TRANSPORT_UNAVAILABLE where there is no device that can be used, with what to do;
 * LIBRARY_MISSING where libibverbs is not installed
 */
// deno-lint-ignore require-await -- errors reach the caller as a rejection
export async function openVerbsPlane(options: VerbsOptions = {}): Promise<Plane> {
  const { deviceName = "", gidIndex = gidIndexOf(process.env.MC_GID_INDEX), libraryPath } = options;
  const device = Device.open({ deviceName, gidIndex, libraryPath });
  try {
    return new VerbsPlane(device, new Completions(device, COMPLETIONS));
  } catch (error) {
    device.close();
    throw error;
  }
}

function gidIndexOf(text: string | undefined): number | undefined {
  return text === undefined || !/^\d{1,4}$/.test(text) ? undefined : Number(text);
}

class VerbsPlane implements Plane {
  readonly kind = "verbs";
  readonly transport = { asked: "rdma", effective: "rdma" };
  readonly #device: Device;
  readonly #completions: Completions;
  /** Queue pairs, then memory: so they are given back. */
  readonly #pairs = new Set<{ close(): Promise<void> }>();
  readonly #regions = new Set<{ close(): Promise<void> }>();
  #closing: Promise<void> | undefined;

  constructor(device: Device, completions: Completions) {
    this.#device = device;
    this.#completions = completions;
  }

  // deno-lint-ignore require-await -- errors reach the caller as a rejection
  async register(address: bigint, bytes: number): Promise<Registration> {
    this.#check();
    const region = this.#device.register(address, bytes);
    const registration: VerbsRegistration = {
      address,
      bytes,
      region,
      remote: { ...describeMemory({ address, bytes }), rkey: region.rkey },
      close: async () => {
        await region.close();
        this.#regions.delete(registration);
      },
    };
    this.#regions.add(registration);
    return registration;
  }

  // deno-lint-ignore require-await -- errors reach the caller as a rejection
  async offer(): Promise<Offer> {
    this.#check();
    const link = new VerbsLink(this.#device, this.#completions, () => this.#pairs.delete(link));
    this.#pairs.add(link);
    let opened = false;
    return {
      hello: { ...link.endpoint },
      open: async (answer: Wire) => {
        await link.connect(endpointOf(answer));
        opened = true;
        return link;
      },
      close: async () => {
        if (!opened) await link.close();
      },
    };
  }

  async accept(hello: Wire, deadline: Deadline): Promise<Accepted> {
    this.#check();
    const other = endpointOf(hello);
    // it answers READs and starts none
    const pair = new QueuePair(this.#device, this.#completions, 1, 0);
    this.#pairs.add(pair);
    const close = async (): Promise<void> => {
      await pair.close();
      this.#pairs.delete(pair);
    };
    try {
      await pair.connect(other, true);
      deadline.check();
      this.#check();
    } catch (error) {
      await close();
      throw error;
    }
    return { answer: { ...pair.endpoint }, close };
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    await trySteps(
      () => tryEach([...this.#pairs], (pair) => pair.close()),
      () => this.#completions.close(),
      () => tryEach([...this.#regions], (region) => region.close()),
      () => this.#device.close(),
    );
  }

  #check(): void {
    if (this.#closing !== undefined) throw new ClosedError("the RDMA device was closed");
  }
}
