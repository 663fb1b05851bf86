/**
 * The master seen without a Mooncake client: whether it listens, and its HTTP pages.
 *
 * @module
 */

import { connect } from "node:net";
import { ConfigError } from "../../errors.ts";

/** Port of the HTTP pages where nothing is configured: `mooncake_master`'s own default. */
const DEFAULT_METRICS_PORT = 9003;
const DEFAULT_RPC_PORT = 50051;

/** Host and port of `HOST:PORT`, `[HOST]:PORT` or `HOST`. @throws ConfigError */
export function splitAddress(
  address: string,
  defaultPort: number = DEFAULT_RPC_PORT,
): { host: string; port: number } {
  const match = /^(?:[a-z0-9+]+:\/\/)?(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/i.exec(address);
  const port = match?.[3] === undefined ? defaultPort : Number(match[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || port < 1 || port > 65535) {
    throw new ConfigError(`${JSON.stringify(address)} is no address`, {
      expected: "HOST:PORT",
      actual: address,
      hint: 'write it as in masterServerAddr: "10.0.0.1:50051"',
    });
  }
  return { host, port };
}

/** `HOST:PORT`, with brackets where the host is an IPv6 address. */
export function joinAddress({ host, port }: { host: string; port: number }): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Whether somebody listens at an address. */
export function listens(address: string, timeoutMs: number): Promise<boolean> {
  const { host, port } = splitAddress(address);
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const end = (answer: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(end, timeoutMs, false);
    socket.once("connect", () => end(true));
    socket.once("error", () => end(false));
  });
}

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
