/**
 * The pages about reading peers directly: both languages have the same code, and it does what they say.
 *
 * @module
 */

import assert from "node:assert/strict";
import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { pathToFileURL } from "node:url";
import { readSecret } from "../../src/store/peer/secret.ts";
import { resolveConfig } from "../../src/transfer/config.ts";
import { setUpMooncake } from "../support/mooncake.ts";
import { bare, blocks, textOf } from "../support/pages.ts";
import { ROOT, runCommand, runScript, RUNTIME, temporaryFolder } from "../support/runtime.ts";

const PAGES = ["docs/en/peers.md", "docs/zh/peers.md"];
const found = await setUpMooncake();

describe("the pages about peers", () => {
  it("have the same code in both languages", () => {
    const [english, chinese] = PAGES.map((page) =>
      ["ts", "json", "sh"].flatMap((language) => blocks(page, language).map(bare))
    );
    assert.deepEqual(chinese, english);
    assert.equal(english?.length, 4);
  });

  for (const page of PAGES) {
    it(`${page} shows configurations that say what they seem to, and every key there is`, () => {
      const [plain, hosts] = blocks(page, "json").map((json) =>
        resolveConfig(JSON.parse(json), { environment: () => undefined })
      );
      assert.deepEqual([plain!.backend, plain!.deviceName, plain!.peers], ["verbs", "erdma_0", []]);
      assert.deepEqual([hosts!.peers, hosts!.port, hosts!.secretFile, hosts!.globalSegmentSize], [
        ["10.0.0.8:7100"],
        7100,
        "/etc/batchferry/secret",
        8 * 2 ** 30,
      ]);
      const text = textOf(page);
      for (const key of ["port", "peers", "secretFile", "lingerMs", "localBufferSize"]) {
        assert.ok(text.includes(`| \`${key}\``), key);
        assert.ok(key in plain!, key);
      }
      for (const code of ["TRANSPORT_UNAVAILABLE", "LIBRARY_MISSING", "CONFIG", "PEER_LOST", "DROPPED"]) {
        assert.ok(text.includes(`| \`${code}\``), code);
      }
    });

    it(`${page} makes a secret that is taken`, async () => {
      using folder = temporaryFolder();
      const [commands = ""] = blocks(page, "sh");
      const script = `${commands}\necho "$BATCHFERRY_SECRET_FILE"`;
      const { status, stdout, stderr } = await runCommand(["sh", "-c", script], { cwd: folder.path });
      assert.equal(status, 0, stderr);
      const file = stdout.trim();
      assert.equal(file, join(folder.path, "secret"));
      assert.equal(statSync(file).mode & 0o777, 0o600);
      assert.ok(readSecret(file).byteLength >= 32);
    });

    it(`${page}: what it shows runs`, { skip: found.skip }, async () => {
      using folder = temporaryFolder();
      const [code = ""] = blocks(page, "ts");
      const mod = pathToFileURL(join(ROOT, "mod.ts")).href;
      const cache = join(ROOT, ".cache");
      mkdirSync(cache, { recursive: true });
      const script = join(cache, `page-peers-${RUNTIME}-${process.pid}.ts`);
      writeFileSync(script, code.replace('"batchferry"', JSON.stringify(mod)));
      const env = {
        ...process.env,
        BATCHFERRY_RUNTIME_DIR: folder.path,
        MOONCAKE_LOCAL_HOSTNAME: "127.0.0.1",
        ...(found.skip === false ? { MOONCAKE_TRANSFER_ENGINE_LIBRARY: found.transferEngine } : {}),
        DENO_NO_PACKAGE_JSON: "1",
      };
      const ran = await runScript(RUNTIME, script, [], { env, cwd: ROOT });
      rmSync(script);
      assert.equal(ran.status, 0, ran.stderr);
      assert.equal(ran.stdout, "17,10,17,28\n");
    });
  }
});
