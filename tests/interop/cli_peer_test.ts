/** A batch that one command holds is got by another of the other runtime, and goes when a third drops it. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { setUpMooncake, until } from "../support/mooncake.ts";
import { command, ROOT, runCommand, RUNTIME, RUNTIMES, temporaryFolder } from "../support/runtime.ts";

const found = await setUpMooncake();
const SCRIPT = join(ROOT, "scripts", "batchferry.ts");
const [other] = RUNTIMES.filter((runtime) => runtime !== RUNTIME) as ["deno" | "bun"];

describe("commands over a peer store", () => {
  it("put holds the batch until it is dropped", { skip: found.skip }, async () => {
    if (found.skip !== false) return;
    using folder = temporaryFolder();
    const env = {
      ...process.env,
      BATCHFERRY_RUNTIME_DIR: folder.path,
      MOONCAKE_TRANSFER_ENGINE_LIBRARY: found.transferEngine,
      MOONCAKE_LOCAL_HOSTNAME: "127.0.0.1",
      MOONCAKE_PROTOCOL: "tcp",
    };
    const rows = '{"a":1,"t":"x"}\n{"a":2,"t":"y"}\n{"a":3,"t":"z"}\n';
    const [input, handle, output] = ["in.jsonl", "handle.json", "out.jsonl"].map((name) =>
      join(folder.path, name)
    ) as [string, string, string];
    writeFileSync(input, rows);
    const backend = "--backend=transfer-engine";
    const [file, ...args] = command(RUNTIME, SCRIPT, ["put", input, "--handle", handle, backend]) as [
      string,
      ...string[],
    ];
    const holder = spawn(file, args, { env, cwd: folder.path, stdio: "ignore" });
    const ended = new Promise((resolve) => holder.once("close", resolve));
    await until("the handle", () => existsSync(handle) ? true : undefined);

    const run = async (runtime: "deno" | "bun", ...words: string[]) => {
      const { status, stderr, stdout } = await runCommand(command(runtime, SCRIPT, words), {
        env,
        cwd: folder.path,
      });
      assert.equal(status, 0, stderr);
      return stdout;
    };
    await run(other, "get", handle, "--output", output, "--rows=-2:");
    assert.equal(readFileSync(output, "utf8"), rows.slice(rows.indexOf("\n") + 1));
    assert.match(await run(RUNTIME, "ls", backend), /default +[0-9a-f]{32}/);
    assert.equal(holder.exitCode, null);
    await run(other, "drop", handle);
    assert.equal(await ended, 0);
    assert.doesNotMatch(await run(RUNTIME, "ls", backend), /[0-9a-f]{32}/);

    // a pipe would be waited for to its end, which comes with the batch's
    const piped = await runCommand(command(RUNTIME, SCRIPT, ["put", input, backend]), {
      env,
      cwd: folder.path,
    });
    assert.equal(piped.status, 2);
    assert.match(piped.stderr, /name a file by --handle/);
    assert.equal(piped.stdout, "");
  });
});
