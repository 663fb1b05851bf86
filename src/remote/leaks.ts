/**
 * `BATCHFERRY_TRACE_LEAKS=1`: reports batches that were put and then forgotten, instead of dropped.
 *
 * What `put` and `compact` give owns its bundle, and so do all views derived from it: they share a token. Once the last
 * of them was collected and nothing in this process has dropped the bundle, nobody here can any more.
 *
 * @module
 */

import process from "node:process";
import type { StoredBundle } from "./stored_bundle.ts";

/** Kept alive by a batch and its views. */
export type OwnerToken = object;

interface Owned {
  readonly bundle: StoredBundle;
  readonly made: string;
}

/** Of the module, not of a session: a registry that is collected reports nothing. */
const registry = new FinalizationRegistry<Owned>(({ bundle, made }) => {
  if (bundle.dropped) return;
  console.warn(
    `batchferry: a batch was collected without having been dropped: partition ${
      JSON.stringify(bundle.partition)
    }, ` +
      `${bundle.manifestKey}, made${made}`,
  );
});

/** Watches the owners of one session's bundles. */
export class LeakTracer {
  /** The tracer the environment asks for, or undefined. */
  static fromEnvironment(): LeakTracer | undefined {
    return process.env.BATCHFERRY_TRACE_LEAKS === "1" ? new LeakTracer() : undefined;
  }

  /** Where the caller is, for {@linkcode LeakTracer.own}; has to be taken before anything is awaited. */
  here(): string {
    const { stack = "" } = new Error();
    // without the error's name and this function
    return stack.split("\n").slice(2).map((line) => `\n    ${line.trim()}`).join("");
  }

  /** A token whose end is reported, unless the bundle was dropped by then. */
  own(bundle: StoredBundle, made: string): OwnerToken {
    const token = {};
    registry.register(token, { bundle, made });
    return token;
  }
}

/** The tokens of several batches together; undefined where nothing is traced. */
export function joinOwners(
  ...lists: readonly (readonly OwnerToken[] | undefined)[]
): readonly OwnerToken[] | undefined {
  const owners = new Set(lists.flatMap((list) => list ?? []));
  return owners.size === 0 ? undefined : [...owners];
}
