/**
 * What is left in a shared-memory folder.
 *
 * @module
 */

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

/** The files below a folder by path, those of owners that are still open left out. */
export function filesIn(folder: string, prefix = ""): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const name = `${prefix}${entry.name}`;
    if (entry.isDirectory()) return filesIn(join(folder, entry.name), `${name}/`);
    return /^batchferry-\d+\/(owners|pool)\//.test(name) ? [] : [name];
  });
}
