/**
 * Native libraries for the tests: `node scripts/native.mjs` brings them into `.cache/native` and prints where they are.
 *
 * Everything comes from package registries by name, pinned, with its hash checked; nothing is built. A second run finds
 * its marker and does nothing. Mooncake's C library lies where an installed Python package has it, with the CUDA
 * libraries it is linked to in the place it looks for them, so no `LD_LIBRARY_PATH` is needed. No GPU is needed either.
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = join(root, ".cache", "native");
const packages = join(folder, "lib", "python3.11", "site-packages");

/** Wheels, for any Python that has pip. */
const WHEELS = [
  {
    name: "tokenspeed-mooncake==0.3.13.post20261027",
    sha256: "a603c0b80a96b14fee6d21a8bd1ef79ab94d0f34405cfe6c7fc251ed8a57f610",
  },
  {
    name: "nvidia-cuda-runtime==13.0.96",
    sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
  },
];

/** The wheel that has the Transfer Engine as a library of its own. It is made for NPUs, and kept apart from the others. */
const ENGINE_WHEEL = {
  name: "mooncake-transfer-engine-npu==0.3.13.post1",
  sha256: "dd846b8f71caff9b2488c7c6969ece25686f97c6c62ad38a574ca56ae0a93970",
};
/**
 * Libraries of an NPU's driver that the wheel is linked to and no registry has. Empty ones are put in their place: nothing
 * of them is called where there is no NPU.
 */
const NPU_DRIVER = ["libascendcl.so", "libllm_datadist.so", "libmetadef.so"];

/** The CUDA driver library, of Debian's non-free component: unpacked, not installed. */
const DRIVER = {
  name: "libcuda1",
  version: "535.309.01-0+deb12u1",
  sha256: "36b96d4b10d3a51573f56cae5a4ac9bcf206c1f2613bba7063793ab3da47305f",
};

/** Debian packages by one library of each, which the dynamic loader must find, or by a file. */
const SYSTEM = [
  ["libibverbs.so.1", "libibverbs1"],
  ["libmlx5.so.1", "ibverbs-providers"],
  ["libnuma.so.1", "libnuma1"],
  ["libcurl.so.4", "libcurl4"],
  ["/usr/include/infiniband/verbs.h", "libibverbs-dev"], // what the declared layouts are checked against
];

const enginePackages = join(folder, "engine");
const libraries = {
  store: join(packages, "mooncake", "libmooncake_store.so"),
  transferEngine: join(enginePackages, "mooncake", "libtransfer_engine.so"),
};
const marker = join(folder, "installed.json");
const pins = JSON.stringify({ WHEELS, ENGINE_WHEEL, NPU_DRIVER, DRIVER, SYSTEM }, null, 2);

/** Runs a command; throws with what it said where it fails. */
function run(command, args, options = {}) {
  const { status, error, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", ...options });
  if (error !== undefined) throw new Error(`${command}: ${error.message}`);
  if (status === 0) return stdout;
  throw new Error(
    `${command} ${args[0]} failed: ${(stderr || stdout).trim().split("\n").slice(-5).join("\n")}`,
  );
}

function isInstalled() {
  return existsSync(marker) && readFileSync(marker, "utf8") === pins &&
    Object.values(libraries).every((file) => existsSync(file));
}

/** Waits for another run that does the same; a lock whose holder is gone is taken over. */
function lock() {
  const file = `${folder}.lock`;
  for (let tries = 0; tries < 1200; tries++) {
    try {
      const fd = openSync(file, "wx");
      writeFileSync(fd, String(process.pid));
      closeSync(fd);
      return () => rmSync(file, { force: true });
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    try {
      const holder = Number(readFileSync(file, "utf8"));
      // a file without a number is being written, unless it stays so
      if (holder > 0 ? !existsSync(`/proc/${holder}`) : Date.now() - statSync(file).mtimeMs > 5000) {
        rmSync(file);
      }
    } catch {
      // released meanwhile
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  }
  throw new Error(`${file} was not released in ten minutes`);
}

function installSystem() {
  const known = run("ldconfig", ["-p"], {
    env: { ...process.env, PATH: `${process.env.PATH}:/sbin:/usr/sbin` },
  });
  const isThere = (file) => file.startsWith("/") ? existsSync(file) : known.includes(file);
  const missing = SYSTEM.filter(([file]) => !isThere(file)).map(([, name]) => name);
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0) throw new Error(`install these Debian packages: ${missing.join(" ")}`);
  run("apt-get", ["update", "-qq"]);
  run("apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...missing]);
}

/** A pip: the machine's, or that of an environment of its own. */
function pip(target) {
  if (spawnSync("python3", ["-m", "pip", "--version"], { stdio: "ignore" }).status === 0) return "python3";
  run("python3", ["-m", "venv", join(target, "venv")]);
  return join(target, "venv", "bin", "python");
}

function installWheels(target, into, wheels) {
  const requirements = join(target, "requirements.txt");
  writeFileSync(requirements, wheels.map(({ name, sha256 }) => `${name} --hash=sha256:${sha256}\n`).join(""));
  run(pip(target), [
    "-m",
    "pip",
    "install",
    "--quiet",
    "--disable-pip-version-check",
    "--no-deps",
    "--require-hashes",
    "--only-binary=:all:",
    "--python-version=3.11",
    `--target=${join(target, into)}`,
    `--requirement=${requirements}`,
  ]);
}

/** Makes the empty libraries that stand for an NPU's driver. */
function makeEmptyLibraries(target) {
  const source = join(target, "empty.c");
  writeFileSync(source, "");
  for (const name of NPU_DRIVER) {
    run("cc", ["-shared", "-o", join(target, "engine", "mooncake", name), source]);
  }
  console.error(`made ${NPU_DRIVER.join(", ")} empty: they stand for an NPU's driver, which is not needed`);
}

/** Downloads a package of a component that is not enabled, with a package list of its own. */
function downloadDriver(target) {
  const sources = join(target, "sources.list.d");
  const lists = join(target, "lists");
  mkdirSync(sources);
  mkdirSync(join(lists, "partial"), { recursive: true });
  const own = "/etc/apt/sources.list.d/debian.sources";
  if (existsSync(own)) {
    const text = readFileSync(own, "utf8").replace(/^Components:.*$/gm, "Components: contrib non-free");
    writeFileSync(join(sources, "non-free.sources"), text);
  } else {
    const text = readFileSync("/etc/apt/sources.list", "utf8").replace(
      /(\s)main(\s.*)?$/gm,
      "$1contrib non-free",
    );
    writeFileSync(join(sources, "non-free.list"), text);
  }
  const apt = [
    "-o",
    `Dir::Etc::sourceparts=${sources}`,
    "-o",
    "Dir::Etc::sourcelist=/dev/null",
    "-o",
    `Dir::State::lists=${lists}`,
    "-o",
    "APT::Sandbox::User=root",
  ];
  run("apt-get", [...apt, "update", "-qq"]);
  let pinned = true;
  try {
    run("apt-get", [...apt, "download", "-qq", `${DRIVER.name}=${DRIVER.version}`], { cwd: target });
  } catch (error) {
    // Debian keeps one version; a later one of the same branch does as well, and apt has checked its signature
    console.error(`${error.message}\ntaking the version that there is instead`);
    pinned = false;
    run("apt-get", [...apt, "download", "-qq", DRIVER.name], { cwd: target });
  }
  const file = join(target, readdirSync(target).find((name) => name.endsWith(".deb")));
  const actual = createHash("sha256").update(readFileSync(file)).digest("hex");
  if (pinned && actual !== DRIVER.sha256) {
    throw new Error(`${DRIVER.name} has the hash ${actual}, not ${DRIVER.sha256}`);
  }
  run("dpkg", ["-x", file, join(target, "driver")]);
  for (const name of readdirSync(join(target, "driver"), { recursive: true })) {
    if (!name.endsWith("/libcuda.so.1")) continue;
    // beside libcudart: Mooncake's library looks there
    copyFileSync(
      join(target, "driver", name),
      join(target, "site-packages", "nvidia", "cu13", "lib", "libcuda.so.1"),
    );
    return;
  }
  throw new Error(`${DRIVER.name} has no libcuda.so.1`);
}

/**
 * Installs what is missing.
 *
 * @returns paths: `store` is Mooncake Store's C library, `transferEngine` the Transfer Engine's
 */
export function setUpNative() {
  if (isInstalled()) return libraries;
  mkdirSync(dirname(folder), { recursive: true });
  const unlock = lock();
  try {
    if (isInstalled()) return libraries;
    const target = mkdtempSync(join(dirname(folder), "native-"));
    try {
      installSystem();
      installWheels(target, "site-packages", WHEELS);
      installWheels(target, "engine", [ENGINE_WHEEL]);
      makeEmptyLibraries(target);
      downloadDriver(target);
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(dirname(packages), { recursive: true });
      renameSync(join(target, "site-packages"), packages);
      renameSync(join(target, "engine"), enginePackages);
      writeFileSync(marker, pins);
    } finally {
      rmSync(target, { recursive: true, force: true });
    }
  } finally {
    unlock();
  }
  return libraries;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    console.log(JSON.stringify(setUpNative()));
  } catch (error) {
    console.error(error.message);
    process.exit(1);
  }
}
