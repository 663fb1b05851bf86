/**
 * From options and handles to an open transfer.
 *
 * @module
 */

import { existsSync, readFileSync } from "node:fs";
import process from "node:process";
import { type JsonObject, parseJson } from "../batch/json.ts";
import { ConfigError, CorruptionError } from "../errors.ts";
import { storeOfHandle } from "../remote/handle.ts";
import type { ColumnRemoteBatch } from "../remote/remote_batch.ts";
import { TransferBackend } from "../transfer/backend.ts";
import { resolveConfig, type ResolvedConfig } from "../transfer/config.ts";
import { openStore } from "../transfer/registry.ts";
import type { Invocation } from "./command.ts";
import { fileError } from "./files.ts";
import { UsageError } from "./usage.ts";

/** The configuration file that is read where nothing names another. */
const CONFIG_FILE = "batchferry.json";

/**
 * The configuration of a command: its options, the environment, the configuration file.
 *
 * @param backend what a handle says, where no option does
 */
export function configOf(call: Invocation, backend?: string): ResolvedConfig {
  const settings: Record<string, string> = {};
  const chosen = call.text("backend") ?? backend;
  if (chosen !== undefined) settings.backend = chosen;
  for (const [option, key] of [["key-prefix", "keyPrefix"], ["tensor-encoding", "tensorEncoding"]] as const) {
    const value = call.text(option);
    if (value !== undefined) settings[key] = value;
  }
  const asked = call.text("config");
  if (asked !== undefined && !existsSync(asked)) {
    throw new UsageError(`--config ${asked}: there is no such file`);
  }
  const config = resolveConfig(settings, {
    environment: (name) =>
      name === "BATCHFERRY_CONFIG" && asked !== undefined ? asked : process.env[name] || undefined,
    file: existsSync(CONFIG_FILE) ? CONFIG_FILE : undefined,
  });
  if (config.backend === "memory") {
    throw new UsageError("the backend memory lives in one process, so no command can use it");
  }
  return config;
}

/** Opens what a configuration says. */
export async function connect(config: ResolvedConfig): Promise<TransferBackend> {
  return new TransferBackend(config, await openStore(config, { isBrief: true }));
}

/**
 * Reads a handle: JSON in a file, or on stdin for `-`.
 *
 * @throws {CorruptionError} where it is none
 */
export function readHandle(path: string): JsonObject {
  const name = path === "-" ? "stdin" : path;
  let text: string;
  try {
    text = readFileSync(path === "-" ? 0 : path, "utf8");
  } catch (error) {
    throw fileError(error, "read", name);
  }
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (cause) {
    throw new CorruptionError(`${name} is no handle: ${(cause as Error).message}`, { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new CorruptionError(`${name} is no handle: it is no JSON object`);
  }
  return value as JsonObject;
}

/** A handle's batch in its open transfer. */
export interface OpenBatch extends AsyncDisposable {
  readonly transfer: TransferBackend;
  readonly batch: ColumnRemoteBatch;
  readonly handle: JsonObject;
}

/**
 * Opens the batch of a handle. The handle says which backend, and no more: how to reach it is configured here.
 *
 * @throws {ConfigError} where the handle's batch is in another store than the configured one
 */
export async function openHandle(call: Invocation, path: string): Promise<OpenBatch> {
  const handle = readHandle(path);
  const uri = storeOfHandle(handle);
  const kind = uri?.slice(0, Math.max(0, uri.indexOf(":")));
  const config = configOf(call, kind);
  const transfer = await connect(config);
  try {
    const { store, peers } = await transfer.info();
    if (uri !== undefined && peers === null && config.backend === kind && uri !== store) {
      throw new ConfigError(`the batch is in ${uri}, configured is ${store}`, {
        expected: uri,
        actual: store,
        hint:
          "set the directory as the producer has it (BATCHFERRY_DIRECTORY, or directory in the configuration)",
      });
    }
    const batch = transfer.importHandle(handle);
    return { transfer, batch, handle, [Symbol.asyncDispose]: () => transfer.close() };
  } catch (error) {
    await transfer.close();
    throw error;
  }
}
