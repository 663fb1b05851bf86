/**
 * Fills `dist/` for the npm tarball: types stripped from every module, declarations beside them.
 *
 * Only the tarball needs this: Deno refuses TypeScript below node_modules. A checkout runs as it is.
 */

import { spawnSync } from "node:child_process";
import { chmodSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
process.chdir(root);
rmSync("dist", { recursive: true, force: true });
const { status } = spawnSync(join("node_modules", ".bin", "tsc"), ["-p", "tsconfig.pack.json"], {
  stdio: "inherit",
});
if (status !== 0) process.exit(status ?? 1);
chmodSync(join("dist", "scripts", "batchferry.js"), 0o755);
