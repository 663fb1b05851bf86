/**
 * The runtime, memory and limits of this host.
 *
 * @module
 */

import { accessSync, constants, lstatSync } from "node:fs";
import { normalize } from "node:path";
import process from "node:process";
import { sys } from "../../../ffi/libc.ts";
import { Root } from "../../store/shm/root.ts";
import { formatBytes } from "../terminal.ts";
import { type Check, finite, type Host, type Space, textOf } from "./check.ts";
import type { Needs } from "./settings.ts";

/** The oldest versions that are supported. */
export const OLDEST: Readonly<Record<string, string>> = { deno: "2.9.0", bun: "1.4.0" };

const MIB = 2 ** 20;
const DEFAULT_DIRECTORY = "/dev/shm";
/** What Docker gives a container that asks for nothing. */
const DOCKER_SHM_BYTES = 64 * MIB;
const SMALL_SHM_BYTES = 256 * MIB;
/** Too little for a batch. */
const FULL_SHM_BYTES = MIB;
/** Kinds of file systems that are memory: tmpfs, ramfs, hugetlbfs. */
const MEMORY_TYPES = [0x01021994, 0x858458f6, 0x958458f6];
const FEWEST_FILES = 1024;

/** The runtime and its version. */
export function checkRuntime(
  versions: Readonly<Record<string, string | undefined>> = process.versions,
  platform: string = process.platform,
  arch: string = process.arch,
): Check {
  const name = versions.deno !== undefined ? "deno" : "bun";
  const version = versions[name] ?? "unknown";
  const oldest = OLDEST[name]!;
  const facts = { name, version, oldest, platform, arch };
  const says = `${name} ${version} on ${platform} ${arch}`;
  if (platform !== "linux" || (arch !== "x64" && arch !== "arm64")) {
    const fix = "run it on Linux with glibc, x86_64 or aarch64 (WSL 2 will do)";
    return { name: "runtime", state: "problem", says: `${says}: native code is for Linux only`, fix, facts };
  }
  if (!isAtLeast(version, oldest)) {
    const fix = name === "deno" ? `deno upgrade (${oldest} or newer)` : `bun upgrade (${oldest} or newer)`;
    return { name: "runtime", state: "problem", says: `${says}: older than ${oldest}`, fix, facts };
  }
  return { name: "runtime", state: "ok", says: `${says} (${oldest} or newer is needed)`, facts };
}

function isAtLeast(version: string, oldest: string): boolean {
  const [a, b] = [version, oldest].map((text) => text.split(/[.+-]/).slice(0, 3).map(Number));
  for (let i = 0; i < 3; i++) if (a![i] !== b![i]) return (a![i] ?? NaN) > b![i]!;
  return true;
}

function usesShm({ config }: Needs): boolean {
  return config?.backend === "shm";
}

/** The file system that batches of the backend `shm` are in. */
export function checkSharedMemory(host: Host, needs: Needs): Check {
  const directory = needs.config?.directory ?? DEFAULT_DIRECTORY;
  const space = host.space(directory);
  const isUsed = usesShm(needs);
  const name = "shared memory";
  if (space === undefined) {
    return {
      name,
      state: isUsed ? "problem" : "absent",
      says: `${directory} is not there`,
      fix: isUsed ? mount(directory) : undefined,
      facts: { directory, bytes: null, free: null },
    };
  }
  const facts = {
    directory,
    bytes: space.bytes,
    free: space.free,
    inMemory: MEMORY_TYPES.includes(space.type >>> 0),
  };
  const says = `${directory}: ${formatBytes(space.bytes)}, ${formatBytes(space.free)} free`;
  const trouble = isUsed ? troubleWith(directory, space) : undefined;
  if (trouble === undefined) return { name, state: "ok", says, facts };
  return { name, state: trouble.state, says: `${says}: ${trouble.says}`, fix: trouble.fix, facts };
}

function mount(directory: string): string {
  return directory === DEFAULT_DIRECTORY
    ? `mount -t tmpfs -o mode=1777,size=8g tmpfs ${directory} (as root), or set BATCHFERRY_DIRECTORY to a tmpfs`
    : `mkdir -p ${directory}, or set BATCHFERRY_DIRECTORY to another folder, best on a tmpfs`;
}

const LARGER =
  "docker run --shm-size=8g … (Kubernetes: an emptyDir with medium: Memory at /dev/shm), or set " +
  "BATCHFERRY_DIRECTORY to a larger tmpfs";

function troubleWith(
  directory: string,
  { bytes, free, type }: Space,
): Required<Pick<Check, "state" | "says">> & { readonly fix: string } | undefined {
  const isDefault = directory === DEFAULT_DIRECTORY;
  const larger = isDefault
    ? `${LARGER}; on a host, as root: mount -o remount,size=8g ${directory}`
    : `set BATCHFERRY_DIRECTORY to a folder with more room`;
  const freed = `batchferry gc, or drop batches; for more room: ${larger}`;
  if (free < FULL_SHM_BYTES) return { state: "problem", says: "it is full", fix: freed };
  if (!MEMORY_TYPES.includes(type >>> 0)) {
    return {
      state: "warning",
      says: "it is no memory but on a disk, and slow",
      fix: "set BATCHFERRY_DIRECTORY to a folder on a tmpfs, such as /dev/shm",
    };
  }
  if (bytes === DOCKER_SHM_BYTES) {
    return { state: "warning", says: "Docker's default, too little for most batches", fix: LARGER };
  }
  if (bytes < SMALL_SHM_BYTES) return { state: "warning", says: "too little for most batches", fix: larger };
  if (free < bytes / 10) return { state: "warning", says: "nearly full", fix: freed };
  return undefined;
}

/** The store's own folder: its owner and mode, and whether it can be made. */
export function checkShmRoot(needs: Needs): Check {
  const { directory, folder: { path } } = new Root(needs.config?.directory ?? DEFAULT_DIRECTORY);
  const name = "shm store";
  const wrong = usesShm(needs) ? "problem" : "warning";
  const uid = sys.geteuid();
  let stat;
  try {
    stat = lstatSync(path);
  } catch {
    const facts = { path, uid: null, mode: null };
    if (!usesShm(needs) || mayWrite(directory)) {
      return { name, state: "absent", says: `${path} is made by the first put`, facts };
    }
    return {
      name,
      state: wrong,
      says: `${path} cannot be made: ${directory} may not be written to`,
      fix: "set BATCHFERRY_DIRECTORY to a folder of yours on a tmpfs",
      facts,
    };
  }
  const mode = stat.mode & 0o777;
  const octal = `0${mode.toString(8)}`;
  const facts = { path, uid: stat.uid, mode: octal };
  if (stat.isDirectory() && stat.uid === uid && mode === 0o700) {
    return { name, state: "ok", says: `${path}: owner ${uid}, mode ${octal}`, facts };
  }
  const other = "or set BATCHFERRY_DIRECTORY to another folder";
  if (!stat.isDirectory()) {
    return { name, state: wrong, says: `${path} is no folder`, fix: `rm ${path}, ${other}`, facts };
  }
  return {
    name,
    state: wrong,
    says: `${path} cannot be trusted: owner ${stat.uid}, mode ${octal}; it must be ${uid} and 0700`,
    fix: stat.uid === uid
      ? `chmod 700 ${path}`
      : `rm -r ${path} (as its owner or root, after a look into it), ${other}`,
    facts,
  };
}

function mayWrite(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** The narrowest memory limit of the control groups that this process is in. */
export interface MemoryLimit {
  readonly version: 1 | 2;
  /** The file that says so. */
  readonly file: string;
  readonly limit: number;
  /** What is in use, without caches that can be given back. */
  readonly used: number;
}

/** A limit above this is none: version 1 writes the largest number of pages. */
const NO_LIMIT = 2 ** 62;

/** Reads the memory limits of version 1 and 2; undefined where there is none. */
export function memoryLimit(host: Pick<Host, "sys" | "proc">): MemoryLimit | undefined {
  const paths = new Map<string, string>();
  for (const line of textOf(`${host.proc}/self/cgroup`).split("\n")) {
    const [, controllers = "", path = "/"] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    for (const controller of controllers.split(",")) paths.set(controller, path);
  }
  let narrowest: MemoryLimit | undefined;
  for (const line of textOf(`${host.proc}/self/mountinfo`).split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    const [, , , root = "/", mountPoint = ""] = left.split(" ");
    const [type, , options = ""] = right.split(" ");
    const isOne = type === "cgroup" && options.split(",").includes("memory");
    if (!isOne && type !== "cgroup2") continue;
    const path = normalize(paths.get(isOne ? "memory" : "") ?? "/");
    const below = root === "/" ? path : path.startsWith(`${root}/`) ? path.slice(root.length) : "/";
    const top = mountPoint.startsWith("/sys/") ? `${host.sys}${mountPoint.slice("/sys".length)}` : mountPoint;
    for (let at = below;; at = at.slice(0, at.lastIndexOf("/"))) {
      const found = limitIn(`${top}${at === "/" ? "" : at}`, isOne ? 1 : 2);
      if (found !== undefined && found.limit < (narrowest?.limit ?? Infinity)) narrowest = found;
      if (at === "" || at === "/") break;
    }
  }
  return narrowest;
}

function limitIn(folder: string, version: 1 | 2): MemoryLimit | undefined {
  const file = `${folder}/${version === 1 ? "memory.limit_in_bytes" : "memory.max"}`;
  const text = textOf(file);
  if (!/^\d+$/.test(text) || Number(text) >= NO_LIMIT) return undefined;
  const usage = Number(textOf(`${folder}/${version === 1 ? "memory.usage_in_bytes" : "memory.current"}`));
  const key = version === 1 ? "total_inactive_file" : "inactive_file";
  const cache = Number(new RegExp(`^${key} (\\d+)$`, "m").exec(textOf(`${folder}/memory.stat`))?.[1] ?? 0);
  return { version, file, limit: Number(text), used: Math.max(0, usage - cache) };
}

/** The memory limit of the container. What lies in shared memory counts towards it. */
export function checkMemoryLimit(host: Host, needs: Needs): Check {
  const found = memoryLimit(host);
  const name = "memory limit";
  if (found === undefined) return { name, state: "ok", says: "none (cgroup)", facts: { limit: null } };
  const { version, limit, used } = found;
  const facts = { ...found };
  const says = `${formatBytes(limit)} (cgroup v${version}), ${formatBytes(used)} in use`;
  const more = "give the container more memory: docker run --memory=…, resources.limits.memory in Kubernetes";
  if (used > limit * 0.9) {
    return { name, state: "warning", says: `${says}: processes will be killed soon`, fix: more, facts };
  }
  const space = usesShm(needs) ? host.space(needs.config?.directory ?? DEFAULT_DIRECTORY) : undefined;
  if (space !== undefined && MEMORY_TYPES.includes(space.type >>> 0) && space.free > limit - used) {
    return {
      name,
      state: "warning",
      says: `${says}: less than shared memory has room for, so processes are killed before a put fails`,
      fix: `${more}; or make shared memory smaller (docker run --shm-size=…)`,
      facts,
    };
  }
  return { name, state: "ok", says, facts };
}

/** A limit of this process; infinite for none. */
export interface Limit {
  readonly soft: number;
  readonly hard: number;
}

/** Reads a limit of this process by the name it has in `/proc/self/limits`. */
export function limitOf(host: Pick<Host, "proc">, name: string): Limit | undefined {
  const line = textOf(`${host.proc}/self/limits`).split("\n").find((line) => line.startsWith(`${name} `));
  const values = line?.slice(name.length).trim().split(/\s+/);
  if (values === undefined || values.length < 2) return undefined;
  const [soft = NaN, hard = NaN] = values.map((text) => text === "unlimited" ? Infinity : Number(text));
  return Number.isNaN(soft) || Number.isNaN(hard) ? undefined : { soft, hard };
}

const CAP_IPC_LOCK = 14n;

/** Whether the kernel lets this process lock any amount: CAP_IPC_LOCK, and not only in a user namespace of its own. */
export function locksAnything(host: Pick<Host, "proc">): boolean {
  const capabilities = /^CapEff:\s*([0-9a-f]+)$/m.exec(textOf(`${host.proc}/self/status`))?.[1] ?? "0";
  const isInitial = /^0\s+0\s+4294967295$/.test(textOf(`${host.proc}/self/uid_map`));
  return isInitial && (BigInt(`0x${capabilities}`) >> CAP_IPC_LOCK & 1n) === 1n;
}

/** The limit on locked memory, which registered memory counts towards. */
export function checkLockedMemory(host: Host, needs: Needs): Check {
  const name = "locked memory";
  const found = limitOf(host, "Max locked memory");
  if (found === undefined) return { name, state: "ok", says: "unknown", facts: { soft: null, hard: null } };
  const { soft, hard } = found;
  const isFree = locksAnything(host);
  const needed = needs.rdma === "unused" ? 0 : needs.registered;
  const facts = { soft: finite(soft), hard: finite(hard), needed, exempt: isFree };
  const says = `limit ${Number.isFinite(soft) ? formatBytes(soft) : "none"} (ulimit -l)`;
  if (isFree && Number.isFinite(soft)) {
    return { name, state: "ok", says: `${says}, but CAP_IPC_LOCK lifts it`, facts };
  }
  if (soft >= needed) return { name, state: "ok", says, facts };
  return {
    name,
    state: needs.rdma === "required" ? "problem" : "warning",
    says: `${says}: RDMA registers ${formatBytes(needed)}`,
    fix: hard === Infinity
      ? "ulimit -l unlimited, in the shell that starts the process"
      : hard >= needed
      ? `ulimit -l ${Math.floor(hard / 1024)}, in the shell that starts the process`
      : "docker run --ulimit memlock=-1 …; LimitMEMLOCK=infinity in a systemd unit; or, in " +
        "/etc/security/limits.conf, `* - memlock unlimited`",
    facts,
  };
}

/** The limit on open files. */
export function checkOpenFiles(host: Host): Check {
  const name = "open files";
  const found = limitOf(host, "Max open files");
  if (found === undefined) return { name, state: "ok", says: "unknown", facts: { soft: null, hard: null } };
  const { soft, hard } = found;
  const facts = { soft: finite(soft), hard: finite(hard) };
  const says = `limit ${Number.isFinite(soft) ? soft : "none"} (ulimit -n)`;
  if (soft >= FEWEST_FILES) return { name, state: "ok", says, facts };
  return {
    name,
    state: "warning",
    says: `${says}: few for many batches and peers`,
    fix: hard >= FEWEST_FILES
      ? `ulimit -n ${
        Number.isFinite(hard) ? Math.min(hard, 65536) : 65536
      }, in the shell that starts the process`
      : "docker run --ulimit nofile=65536:65536 …; LimitNOFILE=65536 in a systemd unit",
    facts,
  };
}
