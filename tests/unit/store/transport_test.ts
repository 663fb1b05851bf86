import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { chooseTransport, rdmaObstacle, rdmaPorts } from "../../../src/store/transport.ts";
import { temporaryFolder } from "../../support/runtime.ts";

/** A folder as the kernel shows devices. */
function host(root: string, devices: Record<string, { state: string; verbs?: string; openable?: boolean }>) {
  mkdirSync(join(root, "dev"), { recursive: true });
  for (const [device, { state, verbs, openable = true }] of Object.entries(devices)) {
    mkdirSync(join(root, "infiniband", device, "ports", "1"), { recursive: true });
    writeFileSync(join(root, "infiniband", device, "ports", "1", "state"), `${state}\n`);
    if (verbs === undefined) continue;
    mkdirSync(join(root, "infiniband_verbs", verbs), { recursive: true });
    writeFileSync(join(root, "infiniband_verbs", verbs, "ibdev"), `${device}\n`);
    if (openable) writeFileSync(join(root, "dev", verbs), "");
  }
  return rdmaPorts(root, join(root, "dev"));
}

describe("choosing a transport", () => {
  it("sees devices, ports and what can be opened", () => {
    using folder = temporaryFolder();
    assert.deepEqual(
      host(folder.path, {
        erdma_0: { state: "4: ACTIVE", verbs: "uverbs0" },
        mlx5_1: { state: "1: DOWN", verbs: "uverbs1", openable: false },
      }),
      [
        { device: "erdma_0", port: "1", state: "ACTIVE", verbs: "uverbs0" },
        { device: "mlx5_1", port: "1", state: "DOWN", verbs: undefined },
      ],
    );
  });

  it("says what stands against RDMA", () => {
    using folder = temporaryFolder();
    const ports = host(folder.path, {
      erdma_0: { state: "4: ACTIVE", verbs: "uverbs0" },
      mlx5_1: { state: "1: DOWN", verbs: "uverbs1" },
      rxe0: { state: "4: ACTIVE" },
    });
    assert.equal(rdmaObstacle("erdma_0", ports), undefined);
    assert.equal(rdmaObstacle("", ports), undefined);
    assert.match(rdmaObstacle("nosuch_0", ports)!.problem, /no RDMA device nosuch_0/);
    assert.match(rdmaObstacle("nosuch_0", ports)!.hint, /erdma_0, mlx5_1, rxe0/);
    assert.match(rdmaObstacle("erdma_0, mlx5_1", ports)!.problem, /mlx5_1 is ACTIVE \(DOWN\)/);
    assert.match(rdmaObstacle("rxe0", ports)!.problem, /no character device/);
    assert.match(rdmaObstacle("", [])!.problem, /this host has no RDMA device/);
  });

  it("does not look at devices for TCP", () => {
    assert.equal(chooseTransport("tcp", "nosuch_0"), "tcp");
  });

  it("falls back only where it may", () => {
    assert.equal(chooseTransport("auto", "nosuch_0"), "tcp");
    assert.throws(() => chooseTransport("rdma", "nosuch_0"), { code: "TRANSPORT_UNAVAILABLE" });
  });
});
