/**
 * The code of the pages runs, and both languages have the same.
 *
 * @module
 */

import assert from "node:assert/strict";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { pathToFileURL } from "node:url";
import { bare, blocks } from "../support/pages.ts";
import { ROOT, runScript, RUNTIME, temporaryFolder } from "../support/runtime.ts";

const PAGES = ["README.md", "README.zh.md"];

const PRELUDE = `import { concat, openTransfer, ragged, scalars, strings, tensor } from "MOD";\n`;

/** One program of the pages' blocks, in the order of the page, each in a scope of its own. */
function program(page: string): string {
  const [producer, consumer, selecting, step] = blocks(page, "ts") as [string, string, string, string];
  const mod = pathToFileURL(join(ROOT, "mod.ts")).href;
  return `${PRELUDE.replace("MOD", mod)}
let handle;
{
  ${producer.replace(/^import .*$/m, "").replace("const handle", "handle")}
  {
    const batch = await transfer.put("four", null, {
      reward: new Float32Array([0, 1, 2, 3]), logits: new Float32Array(4) }, 4);
    const earlier = await batch.slice(0, 3).materialize(["reward"]);
    ${selecting}
    if (data.tensor("reward").data.join() !== "3,1,1" || data.tensor("reward").data !== earlier.tensor("reward").data) {
      throw new Error("selecting does not do what the page says");
    }
    if (rest.rows !== 2 || rest.fields.join() !== "reward") throw new Error("rest is wrong");
    await batch.drop();
  }
}
{
  ${consumer}
}
{
  await using transfer = await openTransfer();
  const [ranks, rank] = [[0, 1], 1];
  {
    ${
    step.replace(
      /\n\/\/ .*\n/,
      `
    for (const r of ranks) {
      const put = await transfer.put("step-7", null, { prompt: strings(["a", "b"]), input_ids: ragged("int64", [[r], [7]]) }, 2);
      await transfer.publish("step-7", \`rollout-\${r}\`, put);
    }
`,
    )
  }
    if (tokens.toArray().join(";") !== "1;7" || both.fields.join() !== "prompt,input_ids,advantage") {
      throw new Error("the training step does not do what the page says");
    }
  }
  if ((await transfer.list()).length > 0) throw new Error("the scope left something");
}
console.log("the page works");
`;
}

describe("the pages", () => {
  it("have the same code in both languages", () => {
    const [english, chinese] = PAGES.map((
      page,
    ) => [...blocks(page, "ts"), ...blocks(page, "sh"), ...blocks(page, "python")]);
    assert.deepEqual(chinese?.map(bare), english?.map(bare));
    assert.ok((english?.length ?? 0) >= 8);
  });

  for (const page of PAGES) {
    it(`${page} runs as it is written`, async () => {
      using folder = temporaryFolder();
      // below the repository, where deno.json says what "ulid" is
      const cache = join(ROOT, ".cache");
      mkdirSync(cache, { recursive: true });
      const script = join(cache, `page-${RUNTIME}-${process.pid}.mjs`);
      writeFileSync(script, program(page));
      const env = { ...process.env, BATCHFERRY_DIRECTORY: folder.path, DENO_NO_PACKAGE_JSON: "1" };
      const { status, stdout, stderr } = await runScript(RUNTIME, script, [], { env, cwd: ROOT });
      rmSync(script);
      assert.equal(status, 0, stderr);
      assert.match(stdout, /the page works/);
    });
  }
});
