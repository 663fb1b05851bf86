/**
 * The npm tarball, installed as a user would, in both runtimes.
 *
 * @module
 */

import assert from "node:assert/strict";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { executable, ROOT, runCommand, RUNTIMES, temporaryFolder } from "../support/runtime.ts";

const SCRIPT = `
import assert from "node:assert/strict";
import { openTransfer, strings, tensor } from "batchferry";

await using transfer = await openTransfer({ directory: process.argv[2] });
// 2 MiB: memory of this size is reserved off the event loop, in Bun by a worker of the package's own
const batch = await transfer.put("p", ["a", "b"], {
  x: tensor("float32", [2, 1 << 18], new Float32Array(1 << 19).fill(3)),
  s: strings(["hello", null]),
}, 2);
const other = transfer.importHandle(JSON.stringify(batch.toHandle()));
const data = await other.slice(0, 1).materialize();
assert.equal(data.tensor("x").data[5], 3);
assert.deepEqual(data.strings("s").toArray(), ["hello"]);
assert.deepEqual((await transfer.get("p", ["b"], ["s"])).strings("s").toArray(), [null]);
await batch.drop();
console.log("the tarball works");
`;

const environment = { ...process.env, npm_config_loglevel: "error" };

async function run(words: string[], cwd: string): Promise<string> {
  const { status, stdout, stderr } = await runCommand(words, { cwd, env: environment });
  assert.equal(status, 0, `${words.join(" ")}\n${stdout}\n${stderr}`);
  return stdout;
}

describe("npm tarball", () => {
  it("installs and works in both runtimes, and its command starts", async () => {
    using folder = temporaryFolder();
    const project = join(folder.path, "project");
    const store = join(folder.path, "store");
    mkdirSync(project);
    mkdirSync(store);
    await run(["npm", "pack", "--pack-destination", folder.path], ROOT);
    const tarball = readdirSync(folder.path).find((name) => name.endsWith(".tgz")) as string;
    writeFileSync(
      join(project, "package.json"),
      JSON.stringify({ name: "user", version: "1.0.0", type: "module" }),
    );
    writeFileSync(join(project, "deno.json"), JSON.stringify({ nodeModulesDir: "manual" }));
    writeFileSync(join(project, "main.mjs"), SCRIPT);
    await run(["npm", "install", "--no-audit", "--no-fund", join(folder.path, tarball)], project);
    const entry = join(project, "node_modules", "batchferry", "dist", "scripts", "batchferry.js");
    for (const runtime of RUNTIMES) {
      const start = runtime === "deno" ? [executable("deno"), "run", "-A", "--quiet"] : [executable("bun")];
      assert.match(await run([...start, "main.mjs", store], project), /the tarball works/, runtime);
      assert.match(await run([...start, entry, "--version"], project), /^(batchferry )?0\.\d+\.\d+/, runtime);
    }
    assert.deepEqual(readdirSync(store), [], "something is left in the store's folder");
  });
});
