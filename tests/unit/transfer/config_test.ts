import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ConfigError } from "../../../src/errors.ts";
import { type Environment, parseSize, resolveConfig } from "../../../src/transfer/config.ts";

const env = (values: Record<string, string> = {}): Environment => (name) => values[name] || undefined;
const none = { environment: env() };

/** Runs a test with configuration files of the given texts. */
function withFiles(texts: Record<string, string>, test: (path: (name: string) => string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "batchferry-config-"));
  try {
    for (const [name, text] of Object.entries(texts)) writeFileSync(join(folder, name), text);
    test((name) => join(folder, name));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function rejects(config: unknown, pattern: RegExp, environment: Environment = env()): void {
  assert.throws(
    () => resolveConfig(config as never, { environment }),
    (error: unknown) =>
      error instanceof ConfigError && error.code === "CONFIG" && pattern.test(error.message),
  );
}

describe("resolveConfig()", () => {
  it("has defaults for everything", () => {
    const config = resolveConfig(undefined, none);
    assert.equal(config.backend, "shm");
    assert.equal(config.keyPrefix, "bundle");
    assert.equal(config.poolBytes, 256 * 1024 * 1024);
    assert.equal(config.tensorEncoding, "torch");
    assert.equal(config.timeoutMs, 60_000);
    assert.deepEqual(config.ignored, []);
  });

  it("takes null for memory", () => {
    assert.equal(resolveConfig({ backend: null }, none).backend, "memory");
    assert.equal(
      resolveConfig({ transfer_backend: { backend_name: null } } as never, none).backend,
      "memory",
    );
  });

  it("takes ROLL's nested form as it is", () => {
    const config = resolveConfig({
      transfer_backend: {
        backend_name: "Mooncake",
        backend_config: {
          client_scope: "node",
          protocol: "rdma",
          master_server_address: "10.0.0.1:50051",
          global_segment_size: 8589934592,
          local_buffer_size: "1gb",
          rdma_devices: "erdma_0",
          transfer_policy: { copy_mode: "auto" },
          setup_args: [],
        },
      },
    } as never, none);
    assert.equal(config.backend, "mooncake");
    assert.equal(config.masterServerAddr, "10.0.0.1:50051");
    assert.equal(config.globalSegmentSize, 2 ** 33);
    assert.equal(config.localBufferSize, 2 ** 30);
    assert.equal(config.deviceName, "erdma_0");
    assert.equal(config.keyPrefix, "roll");
    assert.deepEqual(config.ignored, ["setup_args", "transfer_policy"]);
  });

  it("refuses unknown keys, backends and values, and says what there is", () => {
    rejects({ bakend: "shm" }, /unknown key "bakend"/);
    rejects({ pool: 1 }, /did you mean poolBytes/);
    rejects({ backend: "TransferQueue" }, /memory, shm, mooncake/);
    rejects({ tensorEncoding: "pickle" }, /none of torch, numpy/);
    rejects({ poolBytes: "much" }, /256mb/);
    rejects({ ttlMs: -1 }, /positive integer/);
    rejects({ directory: "" }, /directory of the argument/);
    rejects({ keyPrefix: "a", key_prefix: "b" }, /twice/);
    rejects({ transfer_backend: {}, backend: "shm" }, /beside transfer_backend/);
    rejects([], /not an object/);
  });

  it("takes the argument before the environment before the file", () => {
    withFiles(
      { "a.json": '{"directory": "/from-file", "keyPrefix": "file", "poolBytes": "1kb"}' },
      (path) => {
        const environment = env({ BATCHFERRY_DIRECTORY: "/from-env", BATCHFERRY_CONFIG: path("a.json") });
        const config = resolveConfig({ keyPrefix: "argument" }, { environment });
        assert.deepEqual([config.keyPrefix, config.directory, config.poolBytes], [
          "argument",
          "/from-env",
          1024,
        ]);
        assert.equal(resolveConfig(path("a.json"), none).directory, "/from-file");
      },
    );
  });

  it("never takes the backend from MOONCAKE_*, and reads those only for backends that use them", () => {
    const environment = env({ MOONCAKE_MASTER: "m:1", MOONCAKE_PROTOCOL: "carrier-pigeon" });
    const config = resolveConfig(undefined, { environment });
    assert.equal(config.backend, "shm");
    assert.equal(config.masterServerAddr, undefined);
    rejects({ backend: "mooncake" }, /protocol of MOONCAKE_PROTOCOL/, environment);
  });

  it("reads MOONCAKE_CONFIG_PATH last", () => {
    withFiles(
      { "m.json": '{"local_hostname": "h", "master_server_address": "file:1", "device_name": "d"}' },
      (path) => {
        const environment = env({
          MOONCAKE_MASTER: "env:1",
          MOONCAKE_DEVICE: "e",
          MOONCAKE_CONFIG_PATH: path("m.json"),
        });
        const config = resolveConfig({ backend: "mooncake" }, { environment });
        assert.deepEqual([config.masterServerAddr, config.localHostname, config.deviceName], [
          "env:1",
          "h",
          "e",
        ]);
      },
    );
  });

  it("names a file that cannot be read or parsed", () => {
    rejects("/does/not/exist.json", /does\/not\/exist/);
    withFiles({ "bad.json": "{" }, (path) => rejects(path("bad.json"), /bad\.json.*no JSON/));
  });
});

describe("parseSize()", () => {
  it("counts in powers of 1024", () => {
    for (
      const [text, bytes] of [
        ["0", 0],
        ["12", 12],
        ["12b", 12],
        ["4k", 4096],
        ["4KB", 4096],
        ["4 KiB", 4096],
        ["1.5gb", 1.5 * 2 ** 30],
        ["2t", 2 ** 41],
        [77, 77],
      ] as const
    ) assert.equal(parseSize(text), bytes);
  });

  it("refuses what is no size", () => {
    for (const bad of ["", "mb", "-1", "1.5", "1e3", "1 0", -1, 1.5, NaN, null, {}]) {
      assert.throws(() => parseSize(bad), ConfigError, String(bad));
    }
  });
});
