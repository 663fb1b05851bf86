/**
 * TypeScript and Mooncake's own Python class over one shared-memory folder.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { openTransfer, type TransferConfig } from "../../mod.ts";
import { tensor } from "../../src/batch/build.ts";
import { PythonServer, setUpPython } from "../support/python.ts";
import { temporaryFolder } from "../support/runtime.ts";
import { filesIn } from "./python/folder.ts";
import { type Both, pythonInterop, SERVER } from "./python_suite.ts";

const { executable = "", skip } = await setUpPython();

async function withBoth(
  config: TransferConfig,
  test: (both: Both & { readonly folder: string }) => Promise<void>,
): Promise<void> {
  using folder = temporaryFolder();
  {
    await using python = PythonServer.start(executable, SERVER);
    const open = () => openTransfer({ tensorEncoding: "numpy", ...config, directory: folder.path });
    await using transfer = await open();
    await python.call("open", { directory: folder.path, prefix: config.keyPrefix ?? "bundle" });
    await test({ python, transfer, open, left: () => filesIn(folder.path), folder: folder.path });
  }
  assert.deepEqual(readdirSync(folder.path), [], "something is left when both have closed");
}

pythonInterop("shared memory", skip, withBoth);

describe("one folder", { skip }, () => {
  it("hands what Python deletes back to the TypeScript process that wrote it", () =>
    withBoth({}, async ({ python, transfer, left, folder }) => {
      const data = { x: tensor("uint8", [300_000], new Uint8Array(300_000).fill(1)) };
      const inode = () => {
        const [file, ...others] = filesIn(folder);
        assert.equal(others.length, 0);
        return statSync(join(folder, file as string)).ino;
      };
      const first = await transfer.put("p", null, data, 300_000);
      const used = inode();
      await python.call("cleanup", { handle: first.toHandle() });
      assert.deepEqual(await left(), []);
      const second = await transfer.put("p", null, data, 300_000);
      assert.equal(inode(), used, "the file was not used again");
      await transfer.close();
      await python.call("cleanup", { handle: second.toHandle() });
      assert.deepEqual(await left(), [], "a bundle of an owner that has closed");
    }));
});
