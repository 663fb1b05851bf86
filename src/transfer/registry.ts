/**
 * The backends by name; only the chosen one's modules are loaded.
 *
 * @module
 */

import { ConfigError } from "../errors.ts";
import type { ObjectStore } from "../store/store.ts";
import type { BackendName, ResolvedConfig } from "./config.ts";

/** What the process that opens a store is like. */
export interface Opener {
  /** It ends soon, as commands do: memory that it gave to a cluster would go with it. */
  readonly isBrief: boolean;
}

type Open = (config: ResolvedConfig, opener: Opener) => Promise<ObjectStore>;

const BACKENDS: Readonly<Partial<Record<BackendName, Open>>> = {
  memory: async () => (await import("../store/memory.ts")).openMemoryStore(),
  shm: async ({ directory, poolBytes }) =>
    (await import("../store/shm.ts")).openShmStore({
      ...(directory === undefined ? {} : { directory }),
      poolBytes,
    }),
  mooncake: async (config, { isBrief }) => {
    const { globalSegmentSize = isBrief ? 0 : undefined } = config;
    return (await import("./mooncake.ts")).openMooncake({ ...config, globalSegmentSize });
  },
  "transfer-engine": async (config) => (await import("./peer.ts")).openPeer(config),
  verbs: async (config) => (await import("./peer.ts")).openPeer(config),
};

/** Opens the store of the configured backend. */
export function openStore(
  config: ResolvedConfig,
  opener: Opener = { isBrief: false },
): Promise<ObjectStore> {
  const open = BACKENDS[config.backend];
  if (open === undefined) {
    throw new ConfigError(`the backend ${config.backend} is not part of this version`, {
      expected: Object.keys(BACKENDS),
      hint: `use ${Object.keys(BACKENDS).join(" or ")}`,
    });
  }
  return open(config, opener);
}
