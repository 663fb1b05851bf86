/**
 * Loads the native libraries in a process of its own: one that hangs or crashes takes nothing else with it. Its one
 * argument says where to look; each line on standard output is a library.
 *
 * @module
 */

import process from "node:process";
import { readCString } from "../../../ffi/libc.ts";
import { loadLibrary } from "../../../ffi/loader.ts";
import { loadMooncakeStore } from "../../../ffi/mooncake_store.ts";
import { native } from "../../../ffi/native.ts";
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
    const { path, symbols } = loadLibrary({
      name: "libibverbs",
      sonames: ["libibverbs.so.1"],
      explicitPath,
      environment: "IBVERBS_LIBRARY",
      install: "apt-get install libibverbs1 ibverbs-providers",
    }, {
      ibv_get_device_list: {
        args: ["buffer"],
        result: "pointer",
        c: "struct ibv_device **ibv_get_device_list(int *num_devices)",
      },
      ibv_free_device_list: {
        args: ["pointer"],
        result: "void",
        c: "void ibv_free_device_list(struct ibv_device **list)",
      },
      ibv_get_device_name: {
        args: ["pointer"],
        result: "pointer",
        c: "const char *ibv_get_device_name(struct ibv_device *device)",
      },
    });
    const count = new Int32Array(new ArrayBuffer(4));
    const list = symbols.ibv_get_device_list(count);
    const devices: string[] = [];
    if (list !== 0n) {
      for (const device of new BigUint64Array(native.view(list, 8 * count[0]!))) {
        devices.push(readCString(symbols.ibv_get_device_name(device)) ?? "");
      }
      symbols.ibv_free_device_list(list);
    }
    return { path, devices };
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
