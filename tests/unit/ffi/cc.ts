/** Compiles small C libraries for the tests of this folder, where the machine has a C compiler. */

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The reason to skip what needs a compiler, or `false`. */
export const noCompiler: string | false = spawnSync("cc", ["--version"]).status === 0
  ? false
  : "no C compiler (cc) on this machine";

/** A folder of a test's own. */
export class TempFolder {
  readonly path: string = mkdtempSync(join(tmpdir(), "batchferry-ffi-"));

  file(name: string): string {
    return join(this.path, name);
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Compiles `source` to a shared object at `out`; `flags` go behind the source. */
export function compile(out: string, source: string, flags: readonly string[] = []): string {
  const file = `${out}.c`;
  writeFileSync(file, source);
  const { status, stderr } = spawnSync("cc", ["-shared", "-fPIC", "-O1", "-o", out, file, ...flags], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`cc failed: ${stderr}`);
  return out;
}
