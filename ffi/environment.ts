/**
 * The environment as C libraries read it: the runtimes' own `process.env` does not reach it everywhere.
 *
 * @module
 */

import { cstring, libc } from "./libc.ts";

/** Sets what nobody has set; gives the names that were. */
export function setDefaults(values: Readonly<Record<string, string>>): string[] {
  return Object.entries(values).flatMap(([name, value]) => {
    const key = cstring(name);
    if (libc.symbols.getenv(key) !== 0n) return [];
    libc.symbols.setenv(key, cstring(value), 0);
    return [name];
  });
}

/** Sets what nobody has set while `act` runs: other libraries of the process are not to see it. */
export async function withDefaults<T>(
  values: Readonly<Record<string, string>>,
  act: () => Promise<T>,
): Promise<T> {
  const names = setDefaults(values);
  try {
    return await act();
  } finally {
    for (const name of names) libc.symbols.unsetenv(cstring(name));
  }
}

/** Mooncake's libraries log every call to standard error through glog, unless the environment says otherwise first. */
export function quietenMooncake(): void {
  setDefaults({ GLOG_minloglevel: "3", MC_LOG_LEVEL: "ERROR" });
}
