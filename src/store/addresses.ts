/**
 * Addresses of TCP services: how they are written, and whether somebody listens.
 *
 * @module
 */

import { connect } from "node:net";
import { networkInterfaces } from "node:os";
import { ConfigError } from "../errors.ts";

/** Hosts that only this one reaches. */
export const LOOPBACK: RegExp = /^(?:127\.|localhost$|::1$)/;
/** The port of `mooncake_master` where none is written. */
const MASTER_PORT = 50051;

/** Host and port of `HOST:PORT`, `[HOST]:PORT` or `HOST`. @throws ConfigError */
export function splitAddress(
  address: string,
  defaultPort: number = MASTER_PORT,
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

/**
 * The first address of this host that is not loopback.
 *
 * @throws ConfigError where it has none
 */
export function ownAddress(): string {
  for (const addresses of Object.values(networkInterfaces())) {
    for (const { address, family, internal } of addresses ?? []) {
      if (family === "IPv4" && !internal) return address;
    }
  }
  throw new ConfigError("this host's address cannot be told", {
    hint: "set localHostname or MOONCAKE_LOCAL_HOSTNAME to an address that the other hosts reach",
  });
}

/** Whether somebody listens at an address. */
export function listens(address: string, timeoutMs: number): Promise<boolean> {
  return accepts(splitAddress(address), timeoutMs);
}

/** Whether somebody accepts connections at an address or a socket's path. */
export function accepts(
  where: { readonly host: string; readonly port: number } | { readonly path: string },
  timeoutMs: number,
): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(where);
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
