/**
 * Configuration: where it comes from, what it may say, and what is said back about it.
 *
 * Order: the argument, `BATCHFERRY_*`, the file, `MOONCAKE_*`, the file of `MOONCAKE_CONFIG_PATH`, defaults.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import process from "node:process";
import { type JsonObject, parseJson } from "../batch/json.ts";
import { normalizePrefix } from "../bundle/names.ts";
import { ConfigError } from "../errors.ts";
import { joinAddress, splitAddress } from "../store/addresses.ts";
import { type FieldSchema, parseSchema } from "./field_schema.ts";

/** The backends by name. */
export type BackendName = "memory" | "shm" | "mooncake" | "transfer-engine" | "verbs";

/** A size in bytes: a number, or text such as `"64mb"` or `"1.5gb"` (powers of 1024). */
export type Size = number | string;

/** What {@linkcode openTransfer} takes. Keys of other backends than the chosen one are allowed and not used. */
export interface TransferConfig {
  /** Default `shm`; null means `memory`. */
  readonly backend?: BackendName | null;
  /** First part of every key; default `bundle`, as Mooncake's Python class has it. */
  readonly keyPrefix?: string;
  /** How tensors are stored: with Mooncake's tensor header (`torch`, default) or as plain NumPy arrays. */
  readonly tensorEncoding?: "torch" | "numpy";
  /** Whether bundles carry facts of Batchferry's own (row ids, times) beside Mooncake's; default true. */
  readonly annotations?: boolean;
  /** How long a bundle may live, in milliseconds; default a day. */
  readonly ttlMs?: number;
  /** Default deadline of a call in milliseconds; default 60,000. */
  readonly timeoutMs?: number;
  /** When checksums are checked: default `network`. */
  readonly verify?: "network" | "always" | "off";
  /** Declared forms of fields: `{ FIELD: { kind, dtype?, shape?, nullable? } }`, or ROLL's `{ codec, … }`. */
  readonly fieldSchemas?: Readonly<Record<string, unknown>>;
  /** shm: the folder, default `/dev/shm`. */
  readonly directory?: string;
  /** shm: the most bytes kept for reuse, default 256 MiB. */
  readonly poolBytes?: Size;
  readonly clientScope?: "node" | "process";
  readonly protocol?: "tcp" | "rdma" | "auto";
  readonly masterServerAddr?: string;
  readonly masterMetricsAddr?: string;
  readonly metadataServer?: string;
  readonly localHostname?: string;
  readonly deviceName?: string;
  readonly globalSegmentSize?: Size;
  readonly localBufferSize?: Size;
  readonly pin?: "hard" | "soft" | "none";
  readonly replicas?: number;
  readonly chunkBytes?: Size;
  readonly libraryPath?: string;
  /** transfer-engine, verbs: `HOST:PORT` of processes of other hosts; handles name them too. */
  readonly peers?: readonly string[];
  /** transfer-engine, verbs: the port to listen at; any where absent. */
  readonly port?: number;
  /** transfer-engine, verbs: a file (mode 0600) with what both ends must have; without it only loopback is listened at. */
  readonly secretFile?: string;
  /** transfer-engine, verbs: how long `close` waits for others to drop what was put here, in milliseconds; default 0. */
  readonly lingerMs?: number;
}

/** A configuration with everything decided. */
export interface ResolvedConfig {
  readonly backend: BackendName;
  readonly keyPrefix: string;
  readonly tensorEncoding: "torch" | "numpy";
  readonly annotations: boolean;
  readonly ttlMs: number;
  readonly timeoutMs: number;
  readonly verify: "network" | "always" | "off";
  readonly fieldSchemas: ReadonlyMap<string, FieldSchema>;
  readonly directory: string | undefined;
  readonly poolBytes: number;
  readonly clientScope: "node" | "process";
  readonly protocol: "tcp" | "rdma" | "auto" | undefined;
  readonly masterServerAddr: string | undefined;
  readonly masterMetricsAddr: string | undefined;
  readonly metadataServer: string;
  readonly localHostname: string | undefined;
  readonly deviceName: string | undefined;
  readonly globalSegmentSize: number | undefined;
  readonly localBufferSize: number | undefined;
  readonly pin: "hard" | "soft" | "none";
  readonly replicas: number;
  readonly chunkBytes: number;
  readonly libraryPath: string | undefined;
  readonly peers: readonly string[];
  readonly port: number | undefined;
  readonly secretFile: string | undefined;
  readonly lingerMs: number;
  /** Keys that ROLL has and that mean nothing here. */
  readonly ignored: readonly string[];
}

type Key = keyof TransferConfig;
/** Settings by name, each with the place it came from. */
type Settings = Map<Key, { readonly value: unknown; readonly from: string }>;

const BACKENDS: readonly BackendName[] = ["memory", "shm", "mooncake", "transfer-engine", "verbs"];

/** Every key, with what its value must be. */
const KEYS: Readonly<Record<Key, (value: unknown) => unknown>> = {
  backend: backendName,
  keyPrefix: text,
  tensorEncoding: oneOf("torch", "numpy"),
  annotations: flag,
  ttlMs: positive,
  timeoutMs: positive,
  verify: oneOf("network", "always", "off"),
  fieldSchemas: schemas,
  directory: text,
  poolBytes: parseSize,
  clientScope: oneOf("node", "process"),
  protocol: oneOf("tcp", "rdma", "auto"),
  masterServerAddr: text,
  masterMetricsAddr: text,
  metadataServer: text,
  localHostname: text,
  deviceName: text,
  globalSegmentSize: parseSize,
  localBufferSize: parseSize,
  pin: oneOf("hard", "soft", "none"),
  replicas: positive,
  chunkBytes: parseSize,
  libraryPath: text,
  peers: addresses,
  port,
  secretFile: text,
  lingerMs: parseCount,
};

/** Other spellings: ROLL's and those of Mooncake's own configuration file. Snake case needs no row. */
const ALIASES: Readonly<Record<string, Key>> = {
  backendName: "backend",
  masterServerAddress: "masterServerAddr",
  rdmaDevices: "deviceName",
  defaultChunkBytes: "chunkBytes",
};

/** ROLL's keys that mean nothing here. */
const IGNORED = new Set([
  "transferPolicy",
  "policy",
  "setupArgs",
  "setupKwargs",
  "nodeActorSessionId",
  "namespace",
  "requireNativeTensors",
  "enableSsdOffload",
  "ssdOffloadPath",
]);

/** Environment names by key; the first that is set counts. */
const BATCHFERRY_ENVIRONMENT: Readonly<Partial<Record<Key, readonly string[]>>> = {
  backend: ["BATCHFERRY_BACKEND"],
  directory: ["BATCHFERRY_DIRECTORY"],
  secretFile: ["BATCHFERRY_SECRET_FILE"],
};

const MOONCAKE_ENVIRONMENT: Readonly<Partial<Record<Key, readonly string[]>>> = {
  masterServerAddr: ["MOONCAKE_MASTER"],
  localHostname: ["MOONCAKE_LOCAL_HOSTNAME"],
  protocol: ["MOONCAKE_PROTOCOL"],
  deviceName: ["MOONCAKE_DEVICE_NAME", "MOONCAKE_DEVICE"],
  metadataServer: ["MOONCAKE_TE_META_DATA_SERVER", "MOONCAKE_METADATA_SERVER"],
  globalSegmentSize: ["MOONCAKE_GLOBAL_SEGMENT_SIZE"],
  localBufferSize: ["MOONCAKE_LOCAL_BUFFER_SIZE"],
};

/** Reads `name` from the environment; an empty value counts as unset. */
export type Environment = (name: string) => string | undefined;

const processEnvironment: Environment = (name) => process.env[name] || undefined;

/**
 * Decides every setting.
 *
 * @param config an object, or the path of a JSON file
 * @param options `file` is read like the file of `BATCHFERRY_CONFIG` where neither names one
 * @throws ConfigError for unknown keys, wrong values, unreadable files
 */
export function resolveConfig(
  config: TransferConfig | string | JsonObject | undefined,
  options: { readonly environment?: Environment; readonly file?: string | undefined } = {},
): ResolvedConfig {
  const environment = options.environment ?? processEnvironment;
  const ignored = new Set<string>();
  const settings: Settings = new Map();
  /** Earlier sources win. */
  const add = (more: Settings) =>
    more.forEach((setting, key) => settings.has(key) || settings.set(key, setting));
  if (config !== undefined && typeof config !== "string") add(readSettings(config, "the argument", ignored));
  add(readEnvironment(BATCHFERRY_ENVIRONMENT, environment));
  const file = typeof config === "string" ? config : environment("BATCHFERRY_CONFIG") ?? options.file;
  if (file !== undefined) add(readSettings(readFile(file), file, ignored));
  const backend = (settings.get("backend")?.value ?? "shm") as BackendName;
  if (backend !== "memory" && backend !== "shm") {
    add(readEnvironment(MOONCAKE_ENVIRONMENT, environment));
    const path = environment("MOONCAKE_CONFIG_PATH");
    if (path !== undefined) add(readSettings(readFile(path), path, ignored));
  }
  const get = <K extends Key>(key: K): unknown => settings.get(key)?.value;
  return {
    backend,
    keyPrefix: normalizePrefix((get("keyPrefix") ?? "bundle") as string),
    tensorEncoding: (get("tensorEncoding") ?? "torch") as ResolvedConfig["tensorEncoding"],
    annotations: (get("annotations") ?? true) as boolean,
    ttlMs: (get("ttlMs") ?? 86_400_000) as number,
    timeoutMs: (get("timeoutMs") ?? 60_000) as number,
    verify: (get("verify") ?? "network") as ResolvedConfig["verify"],
    fieldSchemas: (get("fieldSchemas") ?? new Map()) as ResolvedConfig["fieldSchemas"],
    directory: get("directory") as string | undefined,
    poolBytes: (get("poolBytes") ?? 256 * 2 ** 20) as number,
    clientScope: (get("clientScope") ?? "node") as ResolvedConfig["clientScope"],
    protocol: get("protocol") as ResolvedConfig["protocol"],
    masterServerAddr: get("masterServerAddr") as string | undefined,
    masterMetricsAddr: get("masterMetricsAddr") as string | undefined,
    metadataServer: (get("metadataServer") ?? "P2PHANDSHAKE") as string,
    localHostname: get("localHostname") as string | undefined,
    deviceName: get("deviceName") as string | undefined,
    globalSegmentSize: get("globalSegmentSize") as number | undefined,
    localBufferSize: get("localBufferSize") as number | undefined,
    pin: (get("pin") ?? "hard") as ResolvedConfig["pin"],
    replicas: (get("replicas") ?? 1) as number,
    chunkBytes: (get("chunkBytes") ?? 4 * 2 ** 20) as number,
    libraryPath: get("libraryPath") as string | undefined,
    peers: (get("peers") ?? []) as readonly string[],
    port: get("port") as number | undefined,
    secretFile: get("secretFile") as string | undefined,
    lingerMs: (get("lingerMs") ?? 0) as number,
    ignored: [...ignored].sort(),
  };
}

function readFile(path: string): unknown {
  try {
    return parseJson(readFileSync(path, "utf8"));
  } catch (error) {
    const why = error instanceof SyntaxError ? `is no JSON: ${error.message}` : (error as Error).message;
    throw new ConfigError(`the configuration file ${path} cannot be used: ${why}`, { cause: error });
  }
}

/** Settings of one source: flat, or ROLL's nested form. */
function readSettings(source: unknown, from: string, ignored: Set<string>): Settings {
  const outer = objectOf(source, from);
  const nested = outer.transfer_backend ?? outer.transferBackend;
  if (nested !== undefined) {
    const others = Object.keys(outer).filter((key) =>
      key !== "transfer_backend" && key !== "transferBackend"
    );
    if (others.length > 0) {
      throw new ConfigError(`${from} has ${others.join(", ")} beside transfer_backend`, {
        hint: "write either the flat form or ROLL's nested one",
      });
    }
    return readRoll(objectOf(nested, `transfer_backend of ${from}`), from, ignored);
  }
  if ("backend_config" in outer || "backendConfig" in outer) return readRoll(outer, from, ignored);
  return readFlat(outer, from, ignored);
}

/** ROLL's `{ backend_name, backend_config }`. */
function readRoll(source: Readonly<Record<string, unknown>>, from: string, ignored: Set<string>): Settings {
  const { backend_config: snake, backendConfig = snake, ...rest } = source;
  const settings = readFlat(rest, from, ignored);
  const inner = readFlat(objectOf(backendConfig ?? {}, `backend_config of ${from}`), from, ignored);
  inner.forEach((setting, key) => settings.set(key, setting));
  // ROLL's own default: bundles of its workers are found under it
  if (!settings.has("keyPrefix")) settings.set("keyPrefix", { value: "roll", from });
  return settings;
}

function readFlat(source: Readonly<Record<string, unknown>>, from: string, ignored: Set<string>): Settings {
  const settings: Settings = new Map();
  for (const [name, value] of Object.entries(source)) {
    const camel = name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
    const key = Object.hasOwn(ALIASES, camel) ? ALIASES[camel] as Key : camel as Key;
    if (IGNORED.has(camel)) {
      ignored.add(name);
      continue;
    }
    if (!Object.hasOwn(KEYS, key)) {
      throw new ConfigError(`${from} has an unknown key ${JSON.stringify(name)}`, {
        expected: Object.keys(KEYS),
        actual: name,
        hint: nearest(camel),
      });
    }
    if (value === undefined) continue;
    if (settings.has(key)) throw new ConfigError(`${from} says ${key} twice`, { actual: name });
    settings.set(key, { value: checked(key, value, from), from });
  }
  return settings;
}

function readEnvironment(
  names: Readonly<Partial<Record<Key, readonly string[]>>>,
  environment: Environment,
): Settings {
  const settings: Settings = new Map();
  for (const [key, list] of Object.entries(names) as [Key, readonly string[]][]) {
    const name = list.find((name) => environment(name) !== undefined);
    if (name !== undefined) settings.set(key, { value: checked(key, environment(name), name), from: name });
  }
  return settings;
}

function checked(key: Key, value: unknown, from: string): unknown {
  try {
    return KEYS[key](value);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError(`${key} of ${from} ${error.message}`, { ...error.details, actual: value });
  }
}

function objectOf(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ConfigError(`${what} is not an object`, { actual: value });
  }
  return value as Readonly<Record<string, unknown>>;
}

/** A known key that differs from `name` in case or by a few letters, as advice. */
function nearest(name: string): string | undefined {
  const lower = name.toLowerCase();
  const found = Object.keys(KEYS).find((key) => {
    const other = key.toLowerCase();
    return other.startsWith(lower) || lower.startsWith(other);
  });
  return found === undefined ? undefined : `did you mean ${found}?`;
}

function backendName(value: unknown): BackendName {
  if (value === null) return "memory";
  const name = typeof value === "string" ? value.toLowerCase().replaceAll("_", "-") : "";
  if ((BACKENDS as readonly string[]).includes(name)) return name as BackendName;
  throw new ConfigError(`names no backend: ${JSON.stringify(value)}`, {
    expected: BACKENDS,
    hint: `there are ${BACKENDS.join(", ")}`,
  });
}

function text(value: unknown): string {
  if (typeof value === "string" && value !== "") return value;
  throw new ConfigError("is not a text", { expected: "a non-empty string" });
}

function flag(value: unknown): boolean {
  if (typeof value === "boolean") return value;
  throw new ConfigError("is neither true nor false", { expected: "a boolean" });
}

function addresses(value: unknown): readonly string[] {
  if (!Array.isArray(value)) throw new ConfigError("is no list", { expected: '["HOST:PORT", …]' });
  return value.map((address) => joinAddress(splitAddress(text(address), 0)));
}

function port(value: unknown): number {
  if (Number.isSafeInteger(value) && (value as number) > 0 && (value as number) < 65536) {
    return value as number;
  }
  throw new ConfigError("is no port", { expected: "1 to 65535" });
}

function parseCount(value: unknown): number {
  if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
  throw new ConfigError("is no number of milliseconds", { expected: "0 or more" });
}

function schemas(value: unknown): unknown {
  return parseSchema(value, "the value");
}

function positive(value: unknown): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
  throw new ConfigError("is not a positive integer", { expected: "a positive integer" });
}

function oneOf(...names: readonly string[]): (value: unknown) => string {
  return (value) => {
    if (typeof value === "string" && names.includes(value)) return value;
    throw new ConfigError(`is none of ${names.join(", ")}`, { expected: names });
  };
}

/**
 * A size in bytes.
 *
 * @param value a count of bytes, or text with a unit: `b`, `k`, `kb`, `kib`, `m`, …, up to `t` (powers of 1024)
 * @throws ConfigError
 */
export function parseSize(value: unknown): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  const match = typeof value === "string" ? /^\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])i?)?b?\s*$/i.exec(value) : null;
  if (match !== null) {
    const power = match[2] === undefined ? 0 : "kmgt".indexOf(match[2].toLowerCase()) + 1;
    const bytes = Number(match[1]) * 1024 ** power;
    if (Number.isSafeInteger(bytes)) return bytes;
  }
  throw new ConfigError("is not a size", {
    expected: 'a number of bytes, or text such as "256mb"',
    hint: 'write a number of bytes, or text such as "256mb" or "1.5gb"',
  });
}
