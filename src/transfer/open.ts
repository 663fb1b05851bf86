/**
 * Opening a transfer.
 *
 * @module
 */

import { TransferBackend } from "./backend.ts";
import { resolveConfig, type TransferConfig } from "./config.ts";
import { openStore } from "./registry.ts";

/**
 * Opens the configured backend; without any configuration shared memory, which needs no server.
 *
 * @param config settings, or the path of a JSON file with them; ROLL's `{ transfer_backend: … }` is taken as it is
 * @throws ConfigError for a configuration that cannot be used; BackendUnavailableError where the backend cannot start
 *
 * @example
 * ```ts
 * await using transfer = await openTransfer();
 * const batch = await transfer.put("step-7", null, { score: new Float32Array([0.5, 1]) }, 2);
 * const handle = JSON.stringify(batch.toHandle()); // pass this on
 * ```
 */
export async function openTransfer(config?: TransferConfig | string): Promise<TransferBackend> {
  const resolved = resolveConfig(config);
  return new TransferBackend(resolved, await openStore(resolved));
}
