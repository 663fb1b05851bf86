/**
 * A lab with real RDMA devices, on a machine that has none: a guest whose kernel has Linux's software RoCE driver.
 *
 *   node scripts/lab.mjs              builds it (Debian packages, into .cache/lab) and lists its devices
 *   node scripts/lab.mjs COMMAND …    runs a command in it
 *
 * The guest sees this machine's files, read-only, at the same paths; it can write to /run and /dev/shm. It has no network
 * but its own. Nothing of it is kept.
 */

import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { constants } from "node:os";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = join(root, ".cache", "lab");
const sources = join(root, "scripts", "lab");
const environment = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

/** Commands that the lab needs on this machine, and the packages that bring them. */
const TOOLS = {
  "qemu-system-x86_64": "qemu-system-x86",
  busybox: "busybox-static",
  cpio: "cpio",
  depmod: "kmod",
  rdma: "iproute2",
  ibv_devinfo: "ibverbs-utils",
  ib_read_bw: "perftest",
};
/** Modules of the guest's kernel, in the order they are loaded; what they need comes before them. */
const MODULES = [
  "crc32_generic", // without it a device cannot be made
  "crc32_pclmul",
  "veth",
  "virtio_pci",
  "virtio_net",
  "9pnet_virtio",
  "9p",
  "rdma_rxe",
  "ib_uverbs",
  "rdma_ucm",
];
/** The longest that a job may take, in milliseconds. */
const LIMIT_MS = 15 * 60_000;

function run(command, args, options = {}) {
  const { status, error, stdout, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    env: environment,
    maxBuffer: 1 << 28,
    ...options,
  });
  if (error !== undefined) throw new Error(`${command}: ${error.message}`);
  if (status === 0) return stdout;
  throw new Error(
    `${command} ${args[0]} failed: ${`${stderr || stdout}`.trim().split("\n").slice(-5).join("\n")}`,
  );
}

function installTools() {
  const missing = Object.entries(TOOLS).filter(([tool]) =>
    spawnSync("sh", ["-c", `command -v ${tool}`], { env: environment, stdio: "ignore" }).status !== 0
  ).map(([, name]) => name);
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0) throw new Error(`install these Debian packages: ${missing.join(" ")}`);
  run("apt-get", ["update", "-qq"]);
  run("apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...missing]);
}

/** The kernel that Debian's metapackage names now: downloaded, not installed. Its signature is apt's to check. */
function downloadKernel(target) {
  let depends =
    spawnSync("apt-cache", ["depends", "linux-image-amd64"], { encoding: "utf8", env: environment }).stdout;
  if (!/Depends: linux-image-/.test(depends ?? "")) {
    run("apt-get", ["update", "-qq"]);
    depends = run("apt-cache", ["depends", "linux-image-amd64"]);
  }
  const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (name === undefined) throw new Error("linux-image-amd64 names no kernel");
  run("apt-get", ["-o", "APT::Sandbox::User=root", "download", "-qq", name], { cwd: target });
  const file = readdirSync(target).find((entry) => entry.endsWith(".deb"));
  run("dpkg", ["-x", join(target, file), join(target, "kernel")]);
  rmSync(join(target, file));
  return name.replace("linux-image-", "");
}

/** The files that modules are loaded from, in order. */
function moduleFiles(kernel, version) {
  run("depmod", ["-b", kernel, version]);
  const files = [];
  for (const name of MODULES) {
    const shown = run("modprobe", ["-d", kernel, "-S", version, "--show-depends", name]);
    for (const [, file] of shown.matchAll(/^insmod (\S+)/gm)) if (!files.includes(file)) files.push(file);
  }
  return files;
}

/** Builds the guest, unless it is there. */
export function setUpLab() {
  const marker = join(folder, "built.json");
  const pins = JSON.stringify({ MODULES, init: readFileSync(join(sources, "init.sh"), "utf8") });
  installTools();
  if (existsSync(marker) && readFileSync(marker, "utf8") === pins) return;
  mkdirSync(dirname(folder), { recursive: true });
  const target = mkdtempSync(join(dirname(folder), "lab-"));
  try {
    const version = downloadKernel(target);
    const kernel = join(target, "kernel");
    const tree = join(target, "tree");
    for (const name of ["bin", "modules.d"]) mkdirSync(join(tree, name), { recursive: true });
    copyFileSync(run("sh", ["-c", "command -v busybox"]).trim(), join(tree, "bin", "busybox"));
    copyFileSync(join(sources, "init.sh"), join(tree, "init"));
    chmodSync(join(tree, "init"), 0o755);
    chmodSync(join(tree, "bin", "busybox"), 0o755);
    const files = moduleFiles(kernel, version);
    for (const file of files) copyFileSync(file, join(tree, "modules.d", basename(file)));
    writeFileSync(join(tree, "modules"), files.map((file) => `/modules.d/${basename(file)}\n`).join(""));
    run("sh", ["-c", "find . | cpio -o -H newc 2>/dev/null | gzip -1 > ../initrd.gz"], { cwd: tree });
    copyFileSync(join(kernel, "boot", `vmlinuz-${version}`), join(target, "vmlinuz"));
    rmSync(kernel, { recursive: true });
    rmSync(tree, { recursive: true });
    writeFileSync(join(target, "built.json"), pins);
    rmSync(folder, { recursive: true, force: true });
    renameSync(target, folder);
  } catch (error) {
    rmSync(target, { recursive: true, force: true });
    throw error;
  }
}

/** Guests that run; they end with this process, however it ends. */
const running = new Set();
process.on("exit", () => {
  for (const qemu of running) qemu.kill("SIGKILL");
});
const SIGNALS = ["SIGHUP", "SIGINT", "SIGTERM"];
const leave = (signal) => process.exit(128 + constants.signals[signal]);

/** A word for the shell. */
function quote(word) {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/**
 * Boots the guest, makes its devices, runs a shell script in it, and powers it off.
 *
 * @param script lines of shell
 * @param path the guest's PATH
 * @param line called with every line of the console
 * @returns the script's exit status, or that of the making of devices; undefined where the guest did not come to its end in time
 */
export async function runLab(script, path = environment.PATH, line = (text) => console.log(text)) {
  const job = join(mkdtempSync(join(folder, "job-")), "job.sh");
  writeFileSync(
    job,
    [
      "set -e",
      `export PATH=${quote(path)} NO_COLOR=1`,
      `. ${quote(join(sources, "devices.sh"))}`,
      `cd ${quote(root)}`,
      "set +e",
      "echo LAB-START",
      script,
      "",
    ].join("\n"),
  );
  const qemu = spawn("nice", [
    "qemu-system-x86_64",
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max",
    "-smp",
    "2",
    "-m",
    "4G",
    "-nographic",
    "-no-reboot",
    "-kernel",
    join(folder, "vmlinuz"),
    "-initrd",
    join(folder, "initrd.gz"),
    "-append",
    `console=ttyS0 quiet panic=-1 job=${job}`,
    "-virtfs",
    "local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap",
    "-netdev",
    "user,id=n0,restrict=on",
    "-device",
    "virtio-net-pci,netdev=n0",
  ], { env: environment, stdio: ["ignore", "pipe", "inherit"] });
  const timer = setTimeout(() => qemu.kill("SIGKILL"), LIMIT_MS);
  if (running.size === 0) { for (const signal of SIGNALS) process.on(signal, leave); }
  running.add(qemu);
  let status;
  let boot = []; // the firmware's and the kernel's lines; told only where the job does not start
  let rest = "";
  qemu.stdout.setEncoding("utf8");
  for await (const text of qemu.stdout) {
    const lines = (rest + text).split(/\r?\n/);
    rest = lines.pop();
    for (const each of lines) {
      const end = /^LAB-EXIT (\d+)$/.exec(each.trim());
      if (end !== null) status = Number(end[1]);
      else if (boot !== undefined && each.endsWith("LAB-START")) boot = undefined;
      else if (boot !== undefined) boot.push(each);
      else if (status === undefined) line(each);
    }
  }
  for (const each of boot ?? []) line(each);
  clearTimeout(timer);
  running.delete(qemu);
  if (running.size === 0) { for (const signal of SIGNALS) process.off(signal, leave); }
  rmSync(dirname(job), { recursive: true, force: true });
  return status;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    setUpLab();
    const words = process.argv.slice(2).map(quote);
    const status = await runLab(
      words.length === 0 ? "ibv_devinfo | grep -E 'hca_id|state|active_mtu'" : words.join(" "),
    );
    process.exit(status ?? 1);
  } catch (error) {
    console.error(error.message);
    process.exit(1);
  }
}
