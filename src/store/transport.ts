/**
 * Which transport moves the bytes. Mooncake falls back to TCP silently, and takes 21 s over a device that is not there;
 * so devices are looked at before set-up, and the process's open ones after it.
 *
 * @module
 */

import { accessSync, constants, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { BackendUnavailableError } from "../errors.ts";

/** A port of an RDMA device as the kernel tells it. */
export interface RdmaPort {
  readonly device: string;
  readonly port: string;
  /** `ACTIVE`, `DOWN`, … */
  readonly state: string;
  /** Its character device, such as `uverbs0`, or undefined where the process cannot open one. */
  readonly verbs: string | undefined;
}

const SYSTEM = "/sys/class";

function names(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

function line(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return "";
  }
}

/** All ports of all RDMA devices of this host. `system` is where the kernel shows them. */
export function rdmaPorts(system: string = SYSTEM, devices = "/dev/infiniband"): RdmaPort[] {
  const verbs = new Map<string, string>();
  for (const name of names(`${system}/infiniband_verbs`)) {
    const device = line(`${system}/infiniband_verbs/${name}/ibdev`);
    if (device !== "" && usable(`${devices}/${name}`)) verbs.set(device, name);
  }
  return names(`${system}/infiniband`).flatMap((device) =>
    names(`${system}/infiniband/${device}/ports`).map((port) => ({
      device,
      port,
      state: line(`${system}/infiniband/${device}/ports/${port}/state`).replace(/^\d+:\s*/, "") || "UNKNOWN",
      verbs: verbs.get(device),
    }))
  );
}

function usable(file: string): boolean {
  try {
    accessSync(file, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** What stands against using RDMA over `deviceName` (a list with commas; empty for any), or undefined. */
export function rdmaObstacle(
  deviceName: string,
  ports: readonly RdmaPort[] = rdmaPorts(),
): { readonly problem: string; readonly hint: string } | undefined {
  const wanted = deviceName.split(",").map((name) => name.trim()).filter((name) => name !== "");
  const there = [...new Set(ports.map(({ device }) => device))];
  if (there.length === 0) {
    return {
      problem: "this host has no RDMA device",
      hint: 'load its driver and pass /dev/infiniband into the container, or use protocol "tcp"',
    };
  }
  for (const name of wanted.length === 0 ? [undefined] : wanted) {
    const own = name === undefined ? ports : ports.filter(({ device }) => device === name);
    const label = name ?? there.join(", ");
    if (own.length === 0) {
      return {
        problem: `there is no RDMA device ${label}`,
        hint: `set deviceName or MOONCAKE_DEVICE_NAME to one of ${there.join(", ")}`,
      };
    }
    const active = own.filter(({ state }) => state === "ACTIVE");
    if (active.length === 0) {
      return {
        problem: `no port of the RDMA device ${label} is ACTIVE (${
          own.map(({ state }) => state).join(", ")
        })`,
        hint: "bring its link up (`rdma link`, `ibv_devinfo`)",
      };
    }
    if (active.every(({ verbs }) => verbs === undefined)) {
      return {
        problem: `the RDMA device ${label} has no character device this process can open`,
        hint: "give it /dev/infiniband/uverbs* (in a container: --device=/dev/infiniband)",
      };
    }
  }
  return undefined;
}

/** RDMA that was asked for and cannot be had. */
export function transportUnavailable(problem: string, hint: string): BackendUnavailableError {
  return new BackendUnavailableError("TRANSPORT_UNAVAILABLE", `RDMA was asked for, but ${problem}`, {
    expected: "rdma",
    hint,
  });
}

/**
 * The transport to set a client up with.
 *
 * @throws BackendUnavailableError TRANSPORT_UNAVAILABLE, at once, where RDMA is asked for and not to be had
 */
export function chooseTransport(asked: "tcp" | "rdma" | "auto", deviceName: string): "tcp" | "rdma" {
  if (asked === "tcp") return "tcp";
  const obstacle = rdmaObstacle(deviceName);
  if (obstacle === undefined) return "rdma";
  if (asked === "auto") return "tcp";
  throw transportUnavailable(obstacle.problem, obstacle.hint);
}

/** Whether this process holds an RDMA device open: whoever uses one does. */
export function holdsRdmaDevice(): boolean {
  return names("/proc/self/fd").some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith("/dev/infiniband/uverbs");
    } catch {
      return false;
    }
  });
}
