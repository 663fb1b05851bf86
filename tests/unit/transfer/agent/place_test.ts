import assert from "node:assert/strict";
import { chmodSync, mkdirSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { afterEach, beforeEach, describe, it } from "node:test";
import type { ClientSetup } from "../../../../src/store/mooncake/client.ts";
import { runtimeFolder, tryLock } from "../../../../src/store/runtime_folder.ts";
import { agentPlace } from "../../../../src/transfer/agent/place.ts";
import { temporaryFolder } from "../../../support/runtime.ts";

const SETUP: ClientSetup = {
  masterServerAddr: "h:1",
  metadataServer: "P2PHANDSHAKE",
  localHostname: "127.0.0.1",
  protocol: "tcp",
  deviceName: "",
  globalSegmentSize: 0,
  localBufferSize: 1,
  libraryPath: undefined,
};

describe("where agents are found", () => {
  let folder: ReturnType<typeof temporaryFolder>;
  const before = process.env.BATCHFERRY_RUNTIME_DIR;
  beforeEach(() => {
    folder = temporaryFolder();
    process.env.BATCHFERRY_RUNTIME_DIR = join(folder.path, "run");
  });
  afterEach(() => {
    folder[Symbol.dispose]();
    if (before === undefined) delete process.env.BATCHFERRY_RUNTIME_DIR;
    else process.env.BATCHFERRY_RUNTIME_DIR = before;
  });

  it("is a folder of the user's alone", () => {
    assert.equal(runtimeFolder(), join(folder.path, "run"));
    assert.equal(statSync(runtimeFolder()).mode & 0o777, 0o700);
    chmodSync(runtimeFolder(), 0o755);
    assert.throws(runtimeFolder, { code: "CONFIG", message: /not yours alone/ });
    mkdirSync(join(folder.path, "other"), { mode: 0o700 });
    symlinkSync(join(folder.path, "other"), join(folder.path, "link"));
    process.env.BATCHFERRY_RUNTIME_DIR = join(folder.path, "link");
    assert.throws(runtimeFolder, { code: "CONFIG", message: /not yours alone/ });
  });

  it("is one agent for a cluster and a transport, whatever the sizes", () => {
    const { socket } = agentPlace(SETUP, false);
    assert.equal(
      agentPlace({ ...SETUP, localBufferSize: 7, globalSegmentSize: 9, libraryPath: "x" }, false).socket,
      socket,
    );
    assert.notEqual(agentPlace({ ...SETUP, masterServerAddr: "h:2" }, false).socket, socket);
    assert.notEqual(agentPlace({ ...SETUP, protocol: "rdma" }, false).socket, socket);
    assert.notEqual(agentPlace(SETUP, true).socket, socket);
  });

  it("refuses a path that no socket can have", () => {
    process.env.BATCHFERRY_RUNTIME_DIR = join(folder.path, "x".repeat(100));
    assert.throws(() => agentPlace(SETUP, false), { code: "CONFIG", message: /too long.*shorter path/ });
  });

  it("has locks that one holds at a time", () => {
    const file = join(folder.path, "lock");
    const lock = tryLock(file);
    assert.notEqual(lock, undefined);
    assert.equal(tryLock(file), undefined);
    lock!.release();
    const again = tryLock(file);
    assert.notEqual(again, undefined);
    again!.release();
  });
});
