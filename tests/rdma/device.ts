/**
 * The RDMA device that the tests of this folder run over: a host's own, or the lab's (`deno task test:rdma`).
 *
 * @module
 */

import { existsSync, readFileSync } from "node:fs";
import process from "node:process";
import { runCommand } from "../support/runtime.ts";
import { rdmaObstacle } from "../../src/store/transport.ts";

/** The device of MOONCAKE_DEVICE_NAME; empty for the first there is. */
const name: string = (process.env.MOONCAKE_DEVICE_NAME ?? "").split(",")[0]!.trim();

/** Why there is no RDMA, or false. */
export const skip: string | false = reason();

function reason(): string | false {
  if (process.env.MOONCAKE_PROTOCOL !== "rdma") {
    return "MOONCAKE_PROTOCOL is not rdma: `deno task test:rdma` brings a lab with devices";
  }
  const obstacle = rdmaObstacle(process.env.MOONCAKE_DEVICE_NAME ?? "");
  return obstacle === undefined
    ? false
    : `${obstacle.problem}: \`deno task test:rdma\` brings a lab with devices`;
}

/** Where drivers count the packets that a port has sent: InfiniBand's counter, software RoCE's, erdma's. */
const COUNTERS = ["hw_counters/sent_pkts", "hw_counters/tx_packets_cnt", "counters/port_xmit_packets"];

/**
 * Packets that the device has sent until now. Over a device that talks to itself, what a READ fetches is sent by it as
 * well.
 */
export function sentPackets(device: string = name): number {
  for (const counter of COUNTERS) {
    const file = `/sys/class/infiniband/${device}/ports/1/${counter}`;
    if (existsSync(file)) return Number(readFileSync(file, "utf8"));
  }
  throw new Error(`the RDMA device ${device} counts no packets`);
}

/** No RDMA device sends larger packets, in bytes; the lab's first one sends 1024. */
export function mtuOf(device: string = name): number {
  return device === "rxe0" ? 1024 : 4096;
}

/** What the kernel holds for all processes, by kind; undefined where `rdma` is not installed. */
export async function resources(): Promise<Record<string, number> | undefined> {
  const shown = await runCommand(["rdma", "-j", "resource", "show"]).catch(() => undefined);
  if (shown?.status !== 0) return undefined;
  const devices = JSON.parse(shown.stdout) as Record<string, unknown>[];
  const sums: Record<string, number> = {};
  for (const device of devices) {
    for (const [name, count] of Object.entries(device)) {
      if (typeof count === "number" && name !== "ifindex") sums[name] = (sums[name] ?? 0) + count;
    }
  }
  return sums;
}
