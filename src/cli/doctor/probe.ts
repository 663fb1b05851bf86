/**
 * Loads the native libraries in a process of its own: one that hangs or crashes takes nothing else with it. Its one
 * argument says where to look; each line on standard output is a library.
 *
 * @module
 */

import process from "node:process";
import { deviceNames, loadIbverbs } from "../../../ffi/ibverbs.ts";
import { loadMooncakeStore } from "../../../ffi/mooncake_store.ts";
import { loadTransferEngine } from "../../../ffi/transfer_engine.ts";
import { BatchferryError } from "../../errors.ts";
import { print } from "../terminal.ts";

/** The libraries that are looked for, in this order. */
export type LibraryName = "verbs" | "store" | "engine";

/** One place that was tried. */
export interface Tried {
  readonly place: string;
  readonly error: string;
}

/** What became of one library. */
export interface Probed {
  readonly library: LibraryName;
  readonly path?: string;
  /** RDMA devices that libibverbs shows. */
  readonly devices?: readonly string[];
  readonly failure?: {
    readonly code: string;
    readonly message: string;
    readonly tried: readonly Tried[];
    readonly hint: string | null;
  };
}

/** A configured path for each library. */
export type Paths = Readonly<Partial<Record<LibraryName, string>>>;

const PROBES: Readonly<Record<LibraryName, (path: string | undefined) => Omit<Probed, "library">>> = {
  verbs(explicitPath) {
    const library = loadIbverbs(explicitPath);
    return { path: library.path, devices: deviceNames(library) };
  },
  store: (explicitPath) => ({ path: loadMooncakeStore(explicitPath).path }),
  engine: (explicitPath) => ({ path: loadTransferEngine(explicitPath).path }),
};

/** Looks for every library, and says so line by line. */
export function probeAll(paths: Paths, say: (probed: Probed) => void): void {
  for (const library of Object.keys(PROBES) as LibraryName[]) {
    try {
      say({ library, ...PROBES[library](paths[library]) });
    } catch (error) {
      if (!(error instanceof BatchferryError)) throw error;
      const { actual, hint } = error.details;
      const tried = Array.isArray(actual) ? actual as Tried[] : [];
      const message = error.message.split("\n")[0]!;
      say({ library, failure: { code: error.code, message, tried, hint: hint ?? null } });
    }
  }
}

if (import.meta.main) {
  probeAll(JSON.parse(process.argv[2] ?? "{}") as Paths, (probed) => print(1, `${JSON.stringify(probed)}\n`));
  process.exit(0);
}
