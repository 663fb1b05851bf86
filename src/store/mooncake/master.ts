/**
 * The master seen without a Mooncake client: its HTTP pages.
 *
 * @module
 */

import { joinAddress, splitAddress } from "../addresses.ts";

/** Port of the HTTP pages where nothing is configured: `mooncake_master`'s own default. */
const DEFAULT_METRICS_PORT = 9003;

/** The master's HTTP pages. */
export class MasterPages {
  /** `HOST:PORT`. */
  readonly address: string;

  constructor(masterServerAddr: string, masterMetricsAddr: string | undefined) {
    this.address = joinAddress(
      masterMetricsAddr === undefined
        ? { host: splitAddress(masterServerAddr).host, port: DEFAULT_METRICS_PORT }
        : splitAddress(masterMetricsAddr, DEFAULT_METRICS_PORT),
    );
  }

  /** All keys of the store, also of objects that are being written. */
  keys(signal: AbortSignal): Promise<string[]> {
    return this.#lines("get_all_keys", signal);
  }

  /** The names (`HOST:PORT`) of the clients that give memory, one for each segment. */
  segments(signal: AbortSignal): Promise<string[]> {
    return this.#lines("get_all_segments", signal);
  }

  /** The segments, or undefined where the page cannot be had within a second. */
  async segmentsIfKnown(): Promise<string[] | undefined> {
    try {
      return await this.segments(AbortSignal.timeout(1000));
    } catch {
      return undefined;
    }
  }

  async #lines(page: string, signal: AbortSignal): Promise<string[]> {
    const response = await fetch(`http://${this.address}/${page}`, { signal });
    const text = await response.text();
    if (!response.ok) throw new Error(`http://${this.address}/${page} answered ${response.status}`);
    return text.split("\n").map((line) => line.replace(/\r$/, "")).filter((line) => line !== "");
  }
}
