import assert from "node:assert/strict";
import { describe, it } from "node:test";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { executable, runCommand, RUNTIME, temporaryFolder } from "../../support/runtime.ts";

const WORKER = fileURLToPath(new URL("./leaks_worker.ts", import.meta.url));

async function run(trace: string | undefined): Promise<{ warnings: string[]; forgotten: string[] }> {
  using folder = temporaryFolder();
  const { BATCHFERRY_TRACE_LEAKS: _, ...env } = process.env;
  const words = RUNTIME === "deno"
    ? [
      executable("deno"),
      "run",
      "-A",
      "--no-check",
      "--quiet",
      "--v8-flags=--expose-gc",
      WORKER,
      folder.path,
    ]
    : [executable("bun"), WORKER, folder.path];
  const { status, stdout, stderr } = await runCommand(words, {
    env: trace === undefined ? env : { ...env, BATCHFERRY_TRACE_LEAKS: trace },
  });
  assert.equal(status, 0, stderr);
  const { forgotten } = JSON.parse(stdout) as { forgotten: string[] };
  return { warnings: stderr.split(/^(?=batchferry: )/m).filter((text) => text !== ""), forgotten };
}

describe("BATCHFERRY_TRACE_LEAKS", () => {
  it("reports what was put and collected without a drop, once, with where it was made, and nothing else", async () => {
    const { warnings, forgotten } = await run("1");
    assert.equal(warnings.length, 3, warnings.join("\n"));
    const makers = ["forgetPut", "forgetCompact", "forgetDerived"];
    forgotten.forEach((key, i) => {
      const warning = warnings.filter((text) => text.includes(key));
      assert.equal(warning.length, 1, warnings.join("\n"));
      assert.match(warning[0] as string, new RegExp(`partition "${key.split("/")[1]}"`));
      assert.match(warning[0] as string, new RegExp(`${makers[i]}.*leaks_worker\\.ts:\\d+`));
    });
  });

  it("reports nothing unless it is set", async () => {
    for (const value of [undefined, "0"]) assert.deepEqual((await run(value)).warnings, []);
  });
});
