/**
 * The pages about the Mooncake backend: both languages have the same code, and it does what they say.
 *
 * @module
 */

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { pathToFileURL } from "node:url";
import { parseSchema } from "../../src/transfer/field_schema.ts";
import { resolveConfig } from "../../src/transfer/config.ts";
import { clientSetup } from "../../src/transfer/mooncake.ts";
import {
  type Master,
  mooncakeConfig,
  ownRuntimeFolder,
  setUpMooncake,
  startMaster,
  startProvider,
} from "../support/mooncake.ts";
import { bare, blocks, textOf } from "../support/pages.ts";
import { runPython } from "../support/python.ts";
import { command, ROOT, runCommand, runScript, RUNTIME } from "../support/runtime.ts";

const PAGES = ["docs/en/mooncake.md", "docs/zh/mooncake.md"];
const found = await setUpMooncake();

/** The YAML of the pages: nested mappings of plain scalars. */
function parseYaml(text: string): Record<string, unknown> {
  const root: Record<string, unknown> = {};
  const open = [{ indent: -1, map: root }];
  for (const line of text.split("\n").filter((line) => line.trim() !== "")) {
    const [, spaces = "", key = "", value = ""] = /^( *)([\w]+): ?(.*)$/.exec(line) ?? assert.fail(line);
    while (open.at(-1)!.indent >= spaces.length) open.pop();
    const { map } = open.at(-1)!;
    if (value === "") open.push({ indent: spaces.length, map: map[key] = {} });
    else map[key] = /^\d+$/.test(value) ? Number(value) : value;
  }
  return root;
}

describe("the Mooncake pages", () => {
  it("have the same code in both languages", () => {
    const [english, chinese] = PAGES.map((page) =>
      ["ts", "json", "yaml", "python", "sh"].flatMap((language) => blocks(page, language).map(bare))
    );
    assert.deepEqual(chinese, english);
    assert.equal(english?.length, 9);
  });

  it("name every error code and every codec that there is", () => {
    for (const page of PAGES) {
      const text = textOf(page);
      const codes = [
        "LIBRARY_MISSING",
        "VERSION_MISMATCH",
        "MASTER_UNREACHABLE",
        "TRANSPORT_UNAVAILABLE",
        "AGENT_LOST",
      ];
      for (const code of codes) assert.ok(text.includes(`| \`${code}\``), code);
      for (const codec of ["ragged_tensor", "jagged", "media_list_ragged"]) {
        assert.ok(parseSchema({ f: { codec } }, page).has("f"));
        assert.ok(text.includes(`\`${codec}\``), codec);
      }
    }
  });

  it("show configurations that say what they seem to", () => {
    const environment = () => undefined;
    for (const page of PAGES) {
      const [json = ""] = blocks(page, "json");
      const plain = resolveConfig(JSON.parse(json), { environment });
      assert.deepEqual([plain.backend, plain.clientScope], ["mooncake", "node"]);
      const [yaml = ""] = blocks(page, "yaml");
      const roll = resolveConfig(parseYaml(yaml) as never, { environment });
      assert.deepEqual([roll.backend, roll.keyPrefix, roll.ignored], ["mooncake", "roll", []]);
      assert.deepEqual(clientSetup(roll), {
        masterServerAddr: "10.0.0.1:50051",
        metadataServer: "P2PHANDSHAKE",
        localHostname: "10.0.0.7",
        protocol: "tcp",
        deviceName: "",
        globalSegmentSize: 8 * 2 ** 30,
        localBufferSize: 256 * 2 ** 20,
        libraryPath: undefined,
      });
    }
  });
});

/** A cluster that the environment names, as the pages have it. */
async function withCluster(test: (master: Master, env: NodeJS.ProcessEnv) => Promise<void>): Promise<void> {
  using _runtime = ownRuntimeFolder();
  await using master = await startMaster();
  const { libraryPath, masterMetricsAddr } = await mooncakeConfig(master);
  const cache = join(ROOT, ".cache");
  mkdirSync(cache, { recursive: true });
  const file = join(cache, `page-${RUNTIME}-${process.pid}.json`);
  writeFileSync(file, JSON.stringify({ backend: "mooncake", masterMetricsAddr }));
  const env = {
    ...process.env,
    BATCHFERRY_CONFIG: file,
    MOONCAKE_MASTER: master.address,
    MOONCAKE_LOCAL_HOSTNAME: "127.0.0.1",
    MOONCAKE_STORE_LIBRARY: libraryPath,
    MOONCAKE_GLOBAL_SEGMENT_SIZE: "64mb",
    DENO_NO_PACKAGE_JSON: "1",
  };
  try {
    await test(master, env);
  } finally {
    const stopped = await batchferry(["agent", "--stop", "--json"], env);
    rmSync(file);
    assert.equal(stopped.status, 0, stopped.stderr);
  }
}

function batchferry(args: readonly string[], env: NodeJS.ProcessEnv) {
  return runCommand(command(RUNTIME, join(ROOT, "scripts", "batchferry.ts"), args), { env, cwd: ROOT });
}

describe("what the Mooncake pages show", { skip: found.skip }, () => {
  for (const page of PAGES) {
    it(`${page}: a batch that TypeScript published is read by Python`, () =>
      withCluster(async (master, env) => {
        const [code = ""] = blocks(page, "ts");
        const mod = pathToFileURL(join(ROOT, "mod.ts")).href;
        // numpy: the test's Python has no torch
        const script = join(ROOT, ".cache", `page-${RUNTIME}-${process.pid}.ts`);
        writeFileSync(script, code.replace('"batchferry"', JSON.stringify(mod)));
        const ran = await runScript(RUNTIME, script, [], { env, cwd: ROOT });
        rmSync(script);
        assert.equal(ran.status, 0, ran.stderr);
        assert.equal(ran.stdout, "tcp was asked for, tcp moves the bytes\n");
        const [python = ""] = blocks(page, "python");
        if (found.skip !== false) return;
        const program = `import json\n${
          python.replace('"10.0.0.8"', '"127.0.0.1"').replace("8 << 30, 1 << 30", "0, 64 << 20")
            .replace("10.0.0.1:50051", master.address)
        }\nprint(json.dumps([list(data["non_tensor_batch"]["prompt"]), [list(map(int, r)) for r in data["non_tensor_batch"]["input_ids"]]]))\n`;
        const read = await runPython(found.python, ["-c", program]);
        assert.equal(read.status, 0, read.stderr);
        assert.deepEqual(JSON.parse(read.stdout.trim().split("\n").at(-1)!), [
          ["2+2=", "3*3="],
          [[17, 10, 17, 28], [18, 9, 18, 28]],
        ]);
      }));
  }

  it("the commands put, get and drop through an agent, and tell what it does", () =>
    withCluster(async (master, env) => {
      await using _provider = await startProvider(master, 64 << 20);
      const folder = join(ROOT, ".cache", `commands-${RUNTIME}-${process.pid}`);
      mkdirSync(folder);
      try {
        const [input, handle, output] = ["in.jsonl", "handle.json", "out.jsonl"].map((name) =>
          join(folder, name)
        ) as [
          string,
          string,
          string,
        ];
        const rows = '{"a":1,"t":"x"}\n{"a":2,"t":"y"}\n';
        writeFileSync(input, rows);
        const run = async (...args: string[]) => {
          const { status, stdout, stderr } = await batchferry(args, env);
          assert.equal(status, 0, stderr);
          return stdout;
        };
        const none = await batchferry(["agent", "--status"], env);
        assert.equal(none.status, 1);
        assert.match(none.stderr, /AGENT_LOST: no agent is running/);
        await run("put", input, "--partition", "step-7", "--handle", handle);
        assert.match(await run("ls", "step-7"), /step-7 +[0-9a-f]{32} +default +2 +2/);
        await run("get", handle, "--output", output);
        assert.equal(readFileSync(output, "utf8"), rows);
        const status = JSON.parse(await run("agent", "--status", "--json"));
        assert.deepEqual(status.transport, { asked: "tcp", effective: "tcp" });
        assert.ok(status.total.bytesPut > 0 && status.total.bytesGot > 0);
        assert.match(await run("agent", "--status"), /protocol +asked tcp, effective tcp\n/);
        await run("drop", handle);
        assert.deepEqual(await master.keys(), []);
        const both = await batchferry(["agent", "--status", "--stop"], env);
        assert.equal(both.status, 2);
      } finally {
        rmSync(folder, { recursive: true });
      }
    }));

  it("the agent in the foreground gives memory, has a metrics page, and ends at SIGTERM", () =>
    withCluster(async (master, env) => {
      const { spawn } = await import("node:child_process");
      const { freePort, until } = await import("../support/mooncake.ts");
      const port = await freePort();
      const [file, ...args] = command(RUNTIME, join(ROOT, "scripts", "batchferry.ts"), [
        "agent",
        "--global-segment-size=32mb",
        `--metrics=127.0.0.1:${port}`,
        "--json",
      ]) as [string, ...string[]];
      const child = spawn(file, args, { env, cwd: ROOT, stdio: ["ignore", "pipe", "ignore"] });
      let said = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => said += text);
      const ended = new Promise((resolve) => child.on("close", resolve));
      await until("the agent's first line", () => said.includes("\n") ? true : undefined);
      assert.equal(JSON.parse(said).segmentBytes, 32 << 20);
      assert.equal((await master.segments()).length, 1);
      const page = await fetch(`http://127.0.0.1:${port}/metrics`);
      assert.match(page.headers.get("content-type") ?? "", /openmetrics-text/);
      assert.match(await page.text(), /^batchferry_agent_segment_bytes 33554432$[\s\S]*# EOF\n$/m);
      assert.equal((await fetch(`http://127.0.0.1:${port}/`)).status, 404);
      const second = await batchferry(["agent", "--global-segment-size=32mb"], env);
      assert.equal(second.status, 1);
      assert.match(second.stderr, /CONFIG: an agent .* runs already/);
      process.kill(child.pid!, "SIGTERM"); // Deno tells of `child.kill` whatever the status was
      assert.equal(await ended, 0);
      assert.deepEqual(await master.segments(), []);
    }));
});
