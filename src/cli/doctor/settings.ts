/**
 * The configuration, and what it asks of the host.
 *
 * @module
 */

import { existsSync, readFileSync, statSync } from "node:fs";
import { BatchferryError } from "../../errors.ts";
import { LOOPBACK, splitAddress } from "../../store/addresses.ts";
import type { ClientSetup } from "../../store/mooncake/client.ts";
import { type Environment, resolveConfig, type ResolvedConfig } from "../../transfer/config.ts";
import { clientSetup } from "../../transfer/mooncake.ts";
import { PEER_LANDING_BYTES, PEER_SEGMENT_BYTES } from "../../transfer/peer.ts";
import type { Check, State } from "./check.ts";

/** The configuration file that is read where nothing names another. */
const CONFIG_FILE = "batchferry.json";

/** What is given on the command line. */
export interface Asked {
  readonly backend?: string | undefined;
  /** A configuration file. */
  readonly config?: string | undefined;
  /** A master's address. */
  readonly master?: string | undefined;
}

/** What the configured backend needs. */
export interface Needs {
  /** Undefined where the configuration cannot be used. */
  readonly config: ResolvedConfig | undefined;
  /** What a Mooncake client would be set up with. */
  readonly setup: ClientSetup | undefined;
  /** Whether RDMA must be there, is taken where it is there, or is not used. */
  readonly rdma: "required" | "preferred" | "unused";
  /** RDMA devices by name; none for any. */
  readonly devices: readonly string[];
  /** Memory that is registered with a device. */
  readonly registered: number;
}

/** Resolves the configuration as every command does, and tells errors instead of throwing them. */
export function checkSettings(
  asked: Asked,
  environment: Environment,
): { readonly check: Check; readonly needs: Needs } {
  const file = asked.config ?? environment("BATCHFERRY_CONFIG") ??
    (existsSync(CONFIG_FILE) ? CONFIG_FILE : undefined);
  try {
    const config = resolveConfig({
      ...(asked.backend === undefined ? {} : { backend: asked.backend }),
      ...(asked.master === undefined ? {} : { masterServerAddr: asked.master }),
    }, {
      environment: (name) => name === "BATCHFERRY_CONFIG" ? file : environment(name),
    });
    const from = sourceOf(asked, environment, file);
    const facts = {
      backend: config.backend,
      from,
      file: file ?? null,
      environment: setNames(environment),
      ignored: config.ignored,
    };
    const says = [
      `backend ${config.backend} (${from})`,
      ...(file === undefined || file === from ? [] : [`file ${file}`]),
      ...(facts.environment.length === 0 ? [] : [`set: ${facts.environment.join(", ")}`]),
      ...(config.ignored.length === 0 ? [] : [`without a meaning here: ${config.ignored.join(", ")}`]),
    ].join("; ");
    const needs = { ...needsOf(config), setup: undefined };
    try {
      const setup = config.backend === "mooncake" ? clientSetup(config) : undefined;
      const registered = setup === undefined
        ? needs.registered
        : setup.globalSegmentSize + setup.localBufferSize;
      const trouble = secretTrouble(config);
      const check: Check = { name: "configuration", state: "ok", says, facts };
      return {
        check: trouble === undefined ? check : { ...check, ...trouble, says: `${says}; ${trouble.says}` },
        needs: { ...needs, setup, registered },
      };
    } catch (error) {
      const wrong = wrongSetting(error);
      return { check: { ...wrong, facts: { ...facts, ...wrong.facts } }, needs };
    }
  } catch (error) {
    return {
      check: wrongSetting(error),
      needs: { config: undefined, setup: undefined, rdma: "unused", devices: [], registered: 0 },
    };
  }
}

function needsOf(config: ResolvedConfig): Omit<Needs, "setup"> {
  const { backend, protocol } = config;
  const moves = backend === "mooncake" || backend === "transfer-engine";
  const isRequired = backend === "verbs" || (moves && protocol === "rdma");
  return {
    config,
    rdma: isRequired ? "required" : moves && protocol === "auto" ? "preferred" : "unused",
    devices: (config.deviceName ?? "").split(",").map((name) => name.trim()).filter((name) => name !== ""),
    registered: (config.globalSegmentSize ?? PEER_SEGMENT_BYTES) +
      (config.localBufferSize ?? PEER_LANDING_BYTES),
  };
}

/** An error of the configuration as a line of the report. Other errors are not expected and pass. */
function wrongSetting(error: unknown): Check {
  if (!(error instanceof BatchferryError)) throw error;
  const { hint } = error.details;
  const { message } = error;
  const end = hint === undefined ? "" : `; ${hint}`;
  return {
    name: "configuration",
    state: "problem",
    says: message.endsWith(end) ? message.slice(0, message.length - end.length) : message,
    fix: hint ?? remedy(error.details.expected),
    facts: { code: error.code },
  };
}

/** Advice for an error that brings none. */
function remedy(expected: unknown): string {
  if (Array.isArray(expected)) return `use one of ${expected.join(", ")}`;
  return typeof expected === "string" ? `set it to ${expected}` : "correct what is named here";
}

/** What is wrong with the secret of a peer backend. Without one nothing but loopback is listened to. */
function secretTrouble(
  { backend, peers, secretFile }: ResolvedConfig,
): { readonly state: State; readonly says: string; readonly fix: string } | undefined {
  if (backend !== "transfer-engine" && backend !== "verbs") return undefined;
  const make = (file: string): string => `(umask 077; openssl rand -hex 32 > ${file})`;
  if (secretFile === undefined) {
    const others = peers.filter((peer) => !LOOPBACK.test(splitAddress(peer).host));
    if (others.length === 0) return undefined;
    return {
      state: "warning",
      says: `peers on other hosts (${others.join(", ")}), but no secretFile: they cannot read from this host`,
      fix: `${make("FILE")}; the same file on every host, named in secretFile or BATCHFERRY_SECRET_FILE`,
    };
  }
  try {
    const mode = statSync(secretFile).mode & 0o777;
    if ((mode & 0o077) === 0) return undefined;
    return {
      state: "problem",
      says: `the secret file ${secretFile} can be read by others (mode 0${mode.toString(8)})`,
      fix: `chmod 600 ${secretFile}`,
    };
  } catch {
    return {
      state: "problem",
      says: `the secret file ${secretFile} cannot be read`,
      fix: `${make(secretFile)}; the same file on every host`,
    };
  }
}

/** Where the name of the backend is from. */
function sourceOf(asked: Asked, environment: Environment, file: string | undefined): string {
  if (asked.backend !== undefined) return "--backend";
  if (environment("BATCHFERRY_BACKEND") !== undefined) return "BATCHFERRY_BACKEND";
  return file !== undefined && namesBackend(JSON.parse(readFileSync(file, "utf8"))) ? file : "default";
}

function namesBackend(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(value).some(([key, inner]) => {
    const camel = key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
    return camel === "backend" || camel === "backendName" ||
      ((camel === "transferBackend" || camel === "backendConfig") && namesBackend(inner));
  });
}

/** The environment names that are set; Mooncake's count for its backends only. */
function setNames(environment: Environment): string[] {
  return NAMES.filter((name) => environment(name) !== undefined);
}

const NAMES = [
  "BATCHFERRY_CONFIG",
  "BATCHFERRY_BACKEND",
  "BATCHFERRY_DIRECTORY",
  "BATCHFERRY_RUNTIME_DIR",
  "BATCHFERRY_SECRET_FILE",
  "MOONCAKE_MASTER",
  "MOONCAKE_LOCAL_HOSTNAME",
  "MOONCAKE_PROTOCOL",
  "MOONCAKE_DEVICE_NAME",
  "MOONCAKE_DEVICE",
  "MOONCAKE_TE_META_DATA_SERVER",
  "MOONCAKE_METADATA_SERVER",
  "MOONCAKE_GLOBAL_SEGMENT_SIZE",
  "MOONCAKE_LOCAL_BUFFER_SIZE",
  "MOONCAKE_CONFIG_PATH",
  "MOONCAKE_STORE_LIBRARY",
  "MOONCAKE_TRANSFER_ENGINE_LIBRARY",
  "IBVERBS_LIBRARY",
  "MC_GID_INDEX",
];
