/**
 * RDMA devices: their ports, GIDs and character devices.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { statSync } from "node:fs";
import { rdmaObstacle, type RdmaPort, rdmaPorts } from "../../store/transport.ts";
import { formatBytes } from "../terminal.ts";
import { type Check, type Host, namesIn, type State, textOf } from "./check.ts";
import type { Needs } from "./settings.ts";

/** An address of a port. */
export interface Gid {
  readonly index: number;
  readonly gid: string;
  /** `RoCE v2`, `IB/RoCE v1`, … */
  readonly type: string;
  readonly interface: string | null;
  /** The IPv4 address that it stands for. */
  readonly ipv4: string | null;
}

/** What `ibv_devinfo -v` says about a device. */
export interface DeviceInfo {
  readonly maxMrSize: bigint | null;
  /** By port. */
  readonly activeMtu: ReadonlyMap<string, number>;
}

/** Everything that can be read about a port. */
export interface Port extends RdmaPort {
  readonly linkLayer: string;
  readonly rate: string;
  readonly gids: readonly Gid[];
  /** The index of the RoCE v2 GID of an IPv4 address: the one that routers pass on. */
  readonly roceV2Ipv4: number | null;
  readonly activeMtu: number | null;
  /** The MTU of the network interface. */
  readonly interfaceMtu: number | null;
  readonly maxMrSize: bigint | null;
  /** Its character device by the kernel's name, whether it may be opened or not. */
  readonly character:
    | { readonly file: string; readonly mode: string | null; readonly owner: string | null }
    | null;
}

const NO_GID = /^[0:]*$/;

/** Reads all ports of all devices. */
export function readPorts(host: Host, devices: ReadonlyMap<string, DeviceInfo> = new Map()): Port[] {
  const characters = new Map<string, string>();
  for (const name of namesIn(`${host.sys}/class/infiniband_verbs`)) {
    const device = textOf(`${host.sys}/class/infiniband_verbs/${name}/ibdev`);
    if (device !== "") characters.set(device, name);
  }
  return rdmaPorts(`${host.sys}/class`, `${host.dev}/infiniband`).map((port) => {
    const folder = `${host.sys}/class/infiniband/${port.device}/ports/${port.port}`;
    const gids = readGids(folder);
    const roceV2Ipv4 = gids.find(isRoutable)?.index ?? null;
    const network = gids.find((gid) => gid.interface !== null)?.interface ??
      namesIn(`${host.sys}/class/infiniband/${port.device}/device/net`)[0];
    const character = characters.get(port.device);
    const info = devices.get(port.device);
    return {
      ...port,
      linkLayer: textOf(`${folder}/link_layer`) || "unknown",
      rate: textOf(`${folder}/rate`),
      gids,
      roceV2Ipv4,
      activeMtu: info?.activeMtu.get(port.port) ?? null,
      interfaceMtu: network === undefined
        ? null
        : Number(textOf(`${host.sys}/class/net/${network}/mtu`)) || null,
      maxMrSize: info?.maxMrSize ?? null,
      character: character === undefined ? null : characterOf(`${host.dev}/infiniband/${character}`),
    };
  });
}

function isRoutable({ type, ipv4 }: Gid): boolean {
  return type === "RoCE v2" && ipv4 !== null;
}

function readGids(folder: string): Gid[] {
  return namesIn(`${folder}/gids`).flatMap((name) => {
    const gid = textOf(`${folder}/gids/${name}`);
    if (NO_GID.test(gid)) return [];
    return [{
      index: Number(name),
      gid,
      type: textOf(`${folder}/gid_attrs/types/${name}`) || "unknown",
      interface: textOf(`${folder}/gid_attrs/ndevs/${name}`) || null,
      ipv4: ipv4Of(gid),
    }];
  });
}

/** The address of a GID that stands for an IPv4 one (`…:ffff:0a00:020f`). */
function ipv4Of(gid: string): string | null {
  const match = /^(?:0000:){5}ffff:([0-9a-f]{2})([0-9a-f]{2}):([0-9a-f]{2})([0-9a-f]{2})$/i.exec(gid);
  return match === null ? null : match.slice(1).map((byte) => parseInt(byte, 16)).join(".");
}

function characterOf(file: string): NonNullable<Port["character"]> {
  try {
    const { mode, uid, gid } = statSync(file);
    return { file, mode: `0${(mode & 0o777).toString(8)}`, owner: `${uid}:${gid}` };
  } catch {
    return { file, mode: null, owner: null };
  }
}

/** Asks `ibv_devinfo -v`, where it is installed; nothing where it is not, or does not answer in time. */
export function askDevinfo(timeoutMs: number): Promise<ReadonlyMap<string, DeviceInfo>> {
  return new Promise((resolve) => {
    let text = "";
    const child = spawn("ibv_devinfo", ["-v"], { stdio: ["ignore", "pipe", "ignore"] });
    const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
    child.stdout.setEncoding("utf8").on("data", (more: string) => text += more);
    const end = (): void => {
      clearTimeout(timer);
      resolve(parseDevinfo(text));
    };
    child.once("error", end);
    child.once("close", end);
  });
}

/** What the output of `ibv_devinfo -v` says about each device. */
export function parseDevinfo(text: string): Map<string, DeviceInfo> {
  const devices = new Map<string, { maxMrSize: bigint | null; activeMtu: Map<string, number> }>();
  let device: { maxMrSize: bigint | null; activeMtu: Map<string, number> } | undefined;
  let port = "";
  for (const line of text.split("\n")) {
    const [, key, value] = /^\s*(\w+):\s+(\S+)/.exec(line) ?? [];
    if (key === "hca_id") devices.set(value!, device = { maxMrSize: null, activeMtu: new Map() });
    else if (key === "port") port = value!;
    else if (key === "max_mr_size" && /^(?:0x[0-9a-f]+|\d+)$/i.test(value!)) {
      device!.maxMrSize = BigInt(value!);
    } else if (key === "active_mtu") device?.activeMtu.set(port, Number(value));
  }
  return devices;
}

const EVERYTHING = 2n ** 64n - 1n;

/** All about RDMA: whether it can be used as configured, each port, and the index of the GID. */
export function checkRdma(host: Host, needs: Needs, ports: readonly Port[]): Check[] {
  const obstacle = rdmaObstacle(needs.devices.join(","), ports);
  const wrong: State = needs.rdma === "required" ? "problem" : "warning";
  const name = "RDMA";
  const devices = [...new Set(ports.map(({ device }) => device))];
  const facts = { use: needs.rdma, devices, configured: needs.devices };
  const rest = [
    ...ports.map((port) => checkPort(port, needs)),
    ...(needs.rdma === "unused" || ports.length === 0 ? [] : [checkGidIndex(host, needs, ports)]),
  ];
  if (obstacle !== undefined && needs.rdma !== "unused") {
    const instead = needs.rdma === "preferred" ? " (TCP is used instead)" : "";
    const says = `${obstacle.problem}${instead}`;
    const nearest = ports.filter((port) => isWanted(needs, port)).map((port) => troubleWith(port, needs))
      .find((trouble) => trouble !== undefined);
    return [{ name, state: wrong, says, fix: nearest?.fix ?? obstacle.hint, facts }, ...rest];
  }
  const use = needs.rdma === "unused"
    ? "not configured"
    : `${needs.rdma}${needs.devices.length === 0 ? "" : `: ${needs.devices.join(", ")}`}`;
  if (ports.length === 0) return [{ name, state: "absent", says: `no device; ${use}`, facts }];
  return [{ name, state: "ok", says: `${devices.join(", ")}; ${use}`, facts }, ...rest];
}

function isWanted({ devices }: Needs, { device }: Port): boolean {
  return devices.length === 0 || devices.includes(device);
}

function checkPort(port: Port, needs: Needs): Check {
  const { device, state, linkLayer, rate, activeMtu, interfaceMtu, maxMrSize, character, gids, verbs } = port;
  const mtu = activeMtu !== null
    ? `MTU ${activeMtu}`
    : interfaceMtu !== null
    ? `interface MTU ${interfaceMtu}`
    : undefined;
  const facts = [
    state,
    linkLayer,
    rate,
    mtu,
    character?.mode === null || character === null ? undefined : `${character.file} ${character.mode}`,
    maxMrSize === null
      ? undefined
      : maxMrSize === EVERYTHING
      ? "registrations of any size"
      : `registrations up to ${formatBytes(Number(maxMrSize))}`,
  ].filter((fact) => fact !== undefined && fact !== "");
  const trouble = troubleWith(port, needs);
  return {
    name: `RDMA ${device}/${port.port}`,
    // one port that does is enough: what is missing altogether is told above
    state: trouble === undefined ? "ok" : "warning",
    says: `${facts.join(", ")}${trouble === undefined ? "" : `: ${trouble.says}`}`,
    fix: trouble?.fix,
    more: gids.map((gid) =>
      `GID ${gid.index}  ${gid.ipv4 ?? gid.gid}  ${gid.type}${
        gid.interface === null ? "" : `  ${gid.interface}`
      }` +
      (gid.index === port.roceV2Ipv4 ? "  ← the RoCE v2 IPv4 one" : "")
    ),
    facts: { ...port, verbs: verbs ?? null },
  };
}

function troubleWith(
  { device, port, state, linkLayer, verbs, character, gids, roceV2Ipv4, maxMrSize }: Port,
  needs: Needs,
): { readonly says: string; readonly fix: string } | undefined {
  const network = gids.find((gid) => gid.interface !== null)?.interface ?? "INTERFACE";
  if (state !== "ACTIVE") {
    return linkLayer === "InfiniBand"
      ? {
        says: "the link is not up",
        fix: "plug the cable in (`ibstat`), and run a subnet manager in the fabric (`opensm`)",
      }
      : {
        says: "the link is not up",
        fix: `ip link set ${network} up (as root; \`rdma link show ${device}/${port}\` names the interface)`,
      };
  }
  if (verbs === undefined) {
    if (character === null) {
      return { says: "it has no character device", fix: "modprobe ib_uverbs (as root, on the host)" };
    }
    return character.mode === null
      ? { says: `${character.file} is not there`, fix: "docker run --device=/dev/infiniband …" }
      : {
        says: `${character.file} may not be opened (owner ${character.owner})`,
        fix: `chmod 666 ${character.file} (as root)`,
      };
  }
  if (linkLayer === "Ethernet" && roceV2Ipv4 === null) {
    return {
      says: "it has no RoCE v2 GID of an IPv4 address, which routers pass on",
      fix: `ip addr add ADDRESS/PREFIX dev ${network} (as root)`,
    };
  }
  if (needs.rdma !== "unused" && maxMrSize !== null && maxMrSize < BigInt(needs.registered)) {
    return {
      says: `the device registers less at once than is configured (${formatBytes(needs.registered)})`,
      fix: "set globalSegmentSize and localBufferSize below it",
    };
  }
  return undefined;
}

/** `MC_GID_INDEX` against the GIDs of the ports that are to be used. */
function checkGidIndex(host: Host, needs: Needs, ports: readonly Port[]): Check {
  const name = "GID index";
  const variable = host.environment("MC_GID_INDEX") === undefined &&
      host.environment("NCCL_IB_GID_INDEX") !== undefined
    ? "NCCL_IB_GID_INDEX"
    : "MC_GID_INDEX";
  const set = host.environment(variable);
  const used = ports.filter((port) =>
    isWanted(needs, port) && port.state === "ACTIVE" && port.linkLayer === "Ethernet"
  );
  const best = used.flatMap(({ device, port, roceV2Ipv4 }) =>
    roceV2Ipv4 === null ? [] : [`${roceV2Ipv4} (${device}/${port})`]
  ).join(", ");
  const facts = { variable, set: set ?? null, roceV2Ipv4: best };
  if (used.length === 0) {
    return { name, state: "absent", says: "no RoCE port that is to be used is ACTIVE", facts };
  }
  const shown = best === "" ? "no port has a RoCE v2 IPv4 GID" : `RoCE v2 IPv4 is ${best}`;
  if (set === undefined) return { name, state: "ok", says: `${variable} is not set; ${shown}`, facts };
  const says = `${variable}=${set}`;
  const index = used.find(({ roceV2Ipv4 }) => roceV2Ipv4 !== null)?.roceV2Ipv4;
  const fix = index === undefined || index === null
    ? `unset ${variable}, and give the interface an IPv4 address`
    : `export ${variable}=${index}`;
  if (!/^\d+$/.test(set)) {
    return { name, state: "warning", says: `${says} is no index; ${shown}`, fix, facts };
  }
  for (const { device, port, gids } of used) {
    const gid = gids.find(({ index }) => index === Number(set));
    if (gid === undefined) {
      const state = needs.rdma === "required" ? "problem" : "warning";
      return { name, state, says: `${says}: ${device}/${port} has no such GID; ${shown}`, fix, facts };
    }
    if (!isRoutable(gid)) {
      const what = gid.type === "RoCE v2" ? "not of an IPv4 address" : gid.type;
      return {
        name,
        state: "warning",
        says: `${says}: on ${device}/${port} that is ${what}; ${shown}`,
        fix,
        facts,
      };
    }
  }
  return { name, state: "ok", says: `${says}; ${shown}`, facts };
}
