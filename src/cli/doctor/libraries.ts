/**
 * The native libraries: where each was found, or what was tried.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { readFileSync, realpathSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { native } from "../../../ffi/native.ts";
import { type Check, namesIn } from "./check.ts";
import type { LibraryName, Paths, Probed } from "./probe.ts";
import type { Port } from "./rdma.ts";
import type { Needs } from "./settings.ts";

/** What is known about the libraries, and why that may not be all. */
export interface Libraries {
  readonly probed: readonly Probed[];
  /** Why the rest is not known. */
  readonly cut: string | undefined;
}

/** Where the configuration says that a library is. */
export function configuredPaths({ config }: Needs): Paths {
  const path = config?.libraryPath;
  if (path === undefined) return {};
  if (config?.backend === "mooncake") return { store: path };
  if (config?.backend === "transfer-engine") return { engine: path };
  return config?.backend === "verbs" ? { verbs: path } : {};
}

/** Loads the libraries in a process of its own, which is ended with all that it started when time is over. */
export function probeLibraries(paths: Paths, timeoutMs: number): Promise<Libraries> {
  const suffix = import.meta.url.endsWith(".ts") ? "ts" : "js";
  const script = fileURLToPath(new URL(`./probe.${suffix}`, import.meta.url));
  const runtime = native.name === "deno" ? ["run", "-A", "--no-check", "--quiet"] : [];
  return new Promise((resolve) => {
    let said = "";
    let cut: string | undefined;
    const child = spawn(process.execPath, [...runtime, script, JSON.stringify(paths)], {
      // a group of its own: Python may be asked where its packages are
      detached: true,
      stdio: ["ignore", "pipe", "ignore"],
    });
    const timer = setTimeout(() => {
      cut = `no answer in ${(timeoutMs / 1000).toFixed(1)} s`;
      try {
        process.kill(-child.pid!, "SIGKILL");
      } catch {
        child.kill("SIGKILL");
      }
    }, timeoutMs);
    child.stdout.setEncoding("utf8").on("data", (text: string) => said += text);
    child.once("error", (error) => {
      clearTimeout(timer);
      resolve({ probed: [], cut: error.message });
    });
    child.once("close", (status, signal) => {
      clearTimeout(timer);
      if (status !== 0) cut ??= `the process that loads it ended with ${signal ?? status}`;
      resolve({ probed: parseProbed(said), cut });
    });
  });
}

/** The lines of the probe among those of the libraries. */
function parseProbed(text: string): Probed[] {
  return text.split("\n").flatMap((line) => {
    if (!line.startsWith('{"library":')) return [];
    try {
      return [JSON.parse(line) as Probed];
    } catch {
      return []; // cut off
    }
  });
}

const LABELS: Readonly<Record<LibraryName, string>> = {
  verbs: "libibverbs",
  store: "Mooncake Store",
  engine: "Transfer Engine",
};

const VARIABLES: Readonly<Record<LibraryName, string>> = {
  verbs: "IBVERBS_LIBRARY",
  store: "MOONCAKE_STORE_LIBRARY",
  engine: "MOONCAKE_TRANSFER_ENGINE_LIBRARY",
};

/** One line for each library. */
export function checkLibraries(libraries: Libraries, needs: Needs, ports: readonly Port[]): Check[] {
  return (["verbs", "store", "engine"] as const).map((library) =>
    checkLibrary(library, libraries, needs, ports)
  );
}

function isNeeded(library: LibraryName, { config, rdma }: Needs): boolean {
  if (library === "store") return config?.backend === "mooncake";
  if (library === "engine") return config?.backend === "transfer-engine";
  return rdma === "required";
}

function checkLibrary(
  library: LibraryName,
  { probed, cut }: Libraries,
  needs: Needs,
  ports: readonly Port[],
): Check {
  const name = LABELS[library];
  const wrong = isNeeded(library, needs) ? "problem" : "absent";
  const found = probed.find((one) => one.library === library);
  if (found === undefined) {
    const says = `not known: ${cut ?? "nothing was said about it"}`;
    if (wrong === "absent") return { name, state: "absent", says, facts: { path: null } };
    const isLate = /^no answer/.test(cut ?? "");
    const variable = VARIABLES[library];
    const fix = isLate
      ? `run batchferry doctor again when the host is less busy; ${variable}=FILE saves the search`
      : `install it again, or name another file: ${variable}=FILE`;
    return {
      name,
      state: isLate ? "warning" : "problem",
      says,
      fix,
      facts: { path: null },
    };
  }
  const { path, failure } = found;
  if (path === undefined) {
    const tried = failure?.tried ?? [];
    const places = [...new Set(tried.map(({ place }) => place))].join(", ");
    const isMismatch = failure?.code === "VERSION_MISMATCH";
    return {
      name,
      state: wrong,
      says: isMismatch
        ? failure!.message.replace(/; tried:$/, "")
        : `none that can be loaded; tried ${places}`,
      fix: wrong === "absent" ? undefined : failure?.hint ?? undefined,
      more: wrong === "absent" ? [] : tried.map(({ place, error }) => `${place}: ${error}`),
      facts: { path: null, code: failure?.code ?? null, tried },
    };
  }
  const version = versionOf(path);
  const says = `${path}${version === undefined ? "" : ` (${version})`}`;
  const facts = { path, version: version ?? null };
  if (library !== "verbs") return { name, state: "ok", says, facts };
  const providers = providersOf(path);
  const shown = found.devices ?? [];
  // one that cannot be opened is not shown either, and told at its port
  const usable = ports.flatMap(({ device, verbs }) => verbs === undefined ? [] : [device]);
  const hidden = [...new Set(usable)].filter((device) => !shown.includes(device));
  const all = { ...facts, providers, devices: shown };
  const full = `${says}; ${
    providers.length === 0 ? "no providers found" : `providers ${providers.join(", ")}`
  }`;
  if (hidden.length === 0) return { name, state: "ok", says: full, facts: all };
  const isMissed = needs.devices.length === 0
    ? shown.length === 0
    : needs.devices.some((one) => hidden.includes(one));
  return {
    name,
    state: needs.rdma === "required" && isMissed ? "problem" : "warning",
    says: `${full}: no provider for ${hidden.join(", ")}`,
    fix: "apt-get install ibverbs-providers (or the provider of the device's vendor, such as eRDMA's)",
    facts: all,
  };
}

/** The providers of a libibverbs: drivers in a folder beside it. */
function providersOf(path: string): string[] {
  const folders = new Set([path, resolved(path)].map((file) => join(dirname(file), "libibverbs")));
  const names = [...folders].flatMap((folder) => namesIn(folder)).flatMap((name) => {
    const provider = /^lib(.+)-rdmav\d+\.so$/.exec(name)?.[1];
    return provider === undefined ? [] : [provider];
  });
  return [...new Set(names)].sort();
}

function resolved(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/** The version of a library: that of the Python package it is in, or the one in its file's name. */
function versionOf(path: string): string | undefined {
  const packages = dirname(dirname(path));
  for (const name of namesIn(packages)) {
    const match = /^(.+)-([^-]+)\.dist-info$/.exec(name);
    if (match === null) continue;
    try {
      const record = readFileSync(join(packages, name, "RECORD"), "utf8");
      if (record.includes(`${basename(dirname(path))}/${basename(path)},`)) {
        return `${match[1]!.replaceAll("_", "-")} ${match[2]}`;
      }
    } catch {
      // not a package's folder
    }
  }
  return /\.so\.(\d[\d.]*)$/.exec(resolved(path))?.[1];
}
