/**
 * What can go wrong with a Mooncake cluster: each its own error, with what to do, within its deadline.
 *
 * @module
 */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { describe, it } from "node:test";
import {
  BatchferryError,
  type ErrorCode,
  openTransfer,
  tensor,
  type TransferBackend,
  type TransferConfig,
} from "../../mod.ts";
import { Deadline } from "../../src/deadline.ts";
import { stopAgent } from "../../src/transfer/agent/client.ts";
import { resolveConfig } from "../../src/transfer/config.ts";
import { clientSetup } from "../../src/transfer/mooncake.ts";
import {
  freePort,
  type Master,
  type MasterOptions,
  mooncakeConfig,
  ownRuntimeFolder,
  setUpMooncake,
  startMaster,
  startProvider,
  until,
} from "../support/mooncake.ts";

const { skip } = await setUpMooncake();
const MIB = 2 ** 20;

/** Checks an error's code, and that it says what to do. */
function says(code: ErrorCode, hint: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof BatchferryError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, hint);
    return true;
  };
}

/** A batch of `mib` MiB. */
function megabytes(mib: number, value = 1): { x: ReturnType<typeof tensor> } {
  return { x: tensor("float32", [mib * 256, 1024], new Float32Array(mib * 256 * 1024).fill(value)) };
}

/** Runs a test in both client scopes. */
function inBothScopes(name: string, test: (settings: TransferConfig) => Promise<void>): void {
  for (const clientScope of ["process", "node"] as const) {
    it(`${name} (client scope ${clientScope})`, async () => {
      using _runtime = ownRuntimeFolder();
      await test({ clientScope, globalSegmentSize: 0, localBufferSize: "32mb" });
    });
  }
}

/** Runs a test over a cluster. */
async function withCluster(
  settings: TransferConfig,
  options: MasterOptions & { readonly bytes?: number },
  test: (transfer: TransferBackend, config: TransferConfig, master: Master) => Promise<void>,
): Promise<void> {
  await using master = await startMaster(options);
  await using _provider = options.bytes === undefined
    ? undefined
    : await startProvider(master, options.bytes);
  const config = { ...await mooncakeConfig(master), ...settings };
  try {
    const transfer = await openTransfer(config);
    try {
      await test(transfer, config, master);
    } finally {
      await transfer.close();
    }
  } finally {
    await stopAgent(clientSetup(resolveConfig(config)), new Deadline("stop", {}));
  }
}

describe("opening the mooncake backend", { skip }, () => {
  inBothScopes("without a master is MASTER_UNREACHABLE, long before Mooncake gives up", async (settings) => {
    const masterServerAddr = `127.0.0.1:${await freePort()}`;
    const { library: libraryPath } = await setUpMooncake() as { library: string };
    await assert.rejects(
      openTransfer({ backend: "mooncake", masterServerAddr, libraryPath, timeoutMs: 20_000, ...settings }),
      says("MASTER_UNREACHABLE", /start it with `mooncake_master`/),
    );
  });

  inBothScopes("without any address is a ConfigError", async (settings) => {
    await assert.rejects(
      openTransfer({ backend: "mooncake", ...settings }),
      says("CONFIG", /masterServerAddr or MOONCAKE_MASTER/),
    );
  });

  const devices = existsSync("/sys/class/infiniband");
  inBothScopes(
    "for RDMA never falls back silently",
    (settings) =>
      withCluster(settings, {}, async (transfer, config) => {
        assert.deepEqual((await transfer.info()).protocol, { asked: "tcp", effective: "tcp" });
        await assert.rejects(
          openTransfer({ ...config, protocol: "rdma", deviceName: "nosuch_0" }),
          says(
            "TRANSPORT_UNAVAILABLE",
            devices ? /there is no RDMA device nosuch_0/ : /this host has no RDMA device/,
          ),
        );
        if (!devices) {
          const auto = await openTransfer({ ...config, protocol: "auto" });
          assert.deepEqual((await auto.info()).protocol, { asked: "auto", effective: "tcp" });
          await auto.close();
          const setup = clientSetup(resolveConfig({ ...config, protocol: "auto" }));
          await stopAgent(setup, new Deadline("stop", {}));
        }
      }),
  );

  inBothScopes(
    "without its library is LIBRARY_MISSING, and says what to install",
    (settings) =>
      withCluster(settings, {}, async (_, config) => {
        // an agent that runs has its library
        await stopAgent(clientSetup(resolveConfig(config)), new Deadline("stop", {}));
        await assert.rejects(
          openTransfer({ ...config, libraryPath: "/nowhere/libmooncake_store.so" }),
          says("LIBRARY_MISSING", /nowhere\/libmooncake_store\.so[\s\S]*pip install tokenspeed-mooncake/),
        );
      }),
  );

  inBothScopes(
    "with another library is VERSION_MISMATCH, and names what that lacks",
    (settings) =>
      withCluster(settings, {}, async (_, config) => {
        await stopAgent(clientSetup(resolveConfig(config)), new Deadline("stop", {}));
        await assert.rejects(
          openTransfer({ ...config, libraryPath: "libc.so.6" }),
          says("VERSION_MISMATCH", /lacks mooncake_store_create/),
        );
      }),
  );
});

describe("a Mooncake cluster", { skip }, () => {
  inBothScopes(
    "to which no client gives memory is a CapacityError that names the command",
    (settings) =>
      withCluster(settings, {}, async (transfer) => {
        await assert.rejects(
          transfer.put("p", null, megabytes(1), 256, { timeoutMs: 2000 }),
          says("CAPACITY", /no Mooncake client gives memory.*batchferry agent --global-segment-size/),
        );
      }),
  );

  inBothScopes(
    "that is full is a CapacityError after a bounded wait, and nothing is left",
    (settings) =>
      withCluster(settings, { bytes: 48 * MIB }, async (transfer, _, master) => {
        const small = await transfer.put("p", null, megabytes(8), 8 * 256);
        const before = (await master.keys()).sort();
        await assert.rejects(
          transfer.put("p", null, megabytes(64), 64 * 256, { timeoutMs: 2000 }),
          says("CAPACITY", /had no room for \d+ bytes within [\d.]+ s; drop what is no longer needed/),
        );
        assert.deepEqual((await master.keys()).sort(), before);
        assert.equal((await small.materialize()).tensor("x").data[5], 1);
        const other = await transfer.put("p", null, megabytes(16), 16 * 256);
        await other.drop();
        await small.drop();
      }),
  );

  inBothScopes(
    "waits for room that somebody makes",
    (settings) =>
      withCluster(settings, { bytes: 48 * MIB }, async (transfer) => {
        const first = await transfer.put("p", null, megabytes(32), 32 * 256);
        const put = transfer.put("p", null, megabytes(32, 2), 32 * 256);
        await new Promise((resolve) => setTimeout(resolve, 300));
        await first.drop();
        const second = await put;
        assert.equal((await second.slice(0, 1).materialize()).tensor("x").data[0], 2);
        await second.drop();
      }),
  );

  inBothScopes(
    "that evicts what is not pinned loses bundles whole or in part, and says so",
    (settings) =>
      withCluster(
        { ...settings, pin: "none", chunkBytes: "256kb" },
        { bytes: 64 * MIB, leaseTtlMs: 100, evictionHighWatermark: 0.5 },
        async (transfer, config) => {
          const codes = new Set<string>();
          // until a bundle was found whose manifest outlived its payload: eviction goes object by object
          await until("evicting a part of a bundle", async () => {
            const batches = [];
            for (let i = 0; i < 16; i++) {
              batches.push(await transfer.put("p", null, megabytes(4, i), 4 * 256));
            }
            // a reader that has never seen them
            const reader = await openTransfer({ ...config, keyPrefix: "bundle" });
            for (const [i, batch] of batches.entries()) {
              try {
                const data = (await reader.importHandle(batch.toHandle()).materialize()).tensor("x").data;
                assert.ok(data.every((value) => value === i), "wrong bytes");
                codes.add("OK");
              } catch (error) {
                codes.add(error instanceof BatchferryError ? error.code : String(error));
              }
            }
            await reader.close();
            await transfer.dropPartition("p");
            return codes.has("DATA_LOST") && codes.has("DROPPED") ? true : undefined;
          }, 60_000);
          for (const code of codes) assert.ok(["OK", "DROPPED", "DATA_LOST"].includes(code), code);
        },
      ),
  );

  inBothScopes(
    "whose leases end before a read does is LEASE_EXPIRED after a second try",
    (settings) =>
      withCluster(settings, { bytes: 256 * MIB, leaseTtlMs: 1 }, async (transfer) => {
        const batch = await transfer.put("p", null, megabytes(64), 64 * 256);
        await assert.rejects(
          batch.materialize(),
          says("LEASE_EXPIRED", /raise the master's default_kv_lease_ttl/),
        );
        await batch.drop();
      }),
  );

  inBothScopes(
    "whose master was killed is MASTER_UNREACHABLE, and works when it is back",
    (settings) =>
      withCluster(settings, { bytes: 64 * MIB, clientTtlSeconds: 3 }, async (transfer, _, master) => {
        const batch = await transfer.put("p", null, megabytes(1), 256);
        await master.kill();
        const start = performance.now();
        const timeoutMs = 15_000;
        await assert.rejects(batch.materialize(["x"], { timeoutMs }), { code: "MASTER_UNREACHABLE" });
        await assert.rejects(transfer.put("p", null, megabytes(1), 256, { timeoutMs }), {
          code: "MASTER_UNREACHABLE",
        });
        assert.ok(performance.now() - start < 2 * timeoutMs, "not within the deadlines");
        await master.start();
        // what was stored is forgotten with the master; the clients come back by themselves
        const again = await until(
          "the backend's recovery",
          () =>
            transfer.put("q", null, megabytes(1, 3), 256, { timeoutMs: 2000 }).catch((error) => {
              assert.ok(
                ["CAPACITY", "MASTER_UNREACHABLE", "TIMEOUT", "NATIVE"].includes(error.code),
                error.message,
              );
              return undefined;
            }),
          40_000,
        );
        assert.equal((await again.materialize()).tensor("x").data[9], 3);
        await again.drop();
      }),
  );

  inBothScopes(
    "keeps nothing of a put that was aborted",
    (settings) =>
      withCluster(settings, { bytes: 256 * MIB }, async (transfer, _, master) => {
        const abort = new AbortController();
        const put = transfer.put("p", null, megabytes(64), 64 * 256, {
          signal: abort.signal,
          progress: () => abort.abort(),
        });
        await assert.rejects(put, { code: "ABORTED" });
        assert.deepEqual(await master.keys(), []);
        // staging that was given up in mid-call comes back
        const batch = await transfer.put("p", null, megabytes(64), 64 * 256);
        await batch.drop();
      }),
  );

  inBothScopes("holds objects larger than the staging memory", (settings) =>
    withCluster(
      { ...settings, localBufferSize: "4mb", chunkBytes: "16mb" },
      { bytes: 256 * MIB },
      async (transfer) => {
        const batch = await transfer.put("p", null, megabytes(40, 4), 40 * 256);
        const data = (await batch.materialize()).tensor("x").data;
        assert.ok(data.every((value) => value === 4));
        await batch.drop();
      },
    ));
});
