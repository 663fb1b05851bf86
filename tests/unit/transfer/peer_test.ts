import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { BackendUnavailableError, openTransfer, type TransferConfig } from "../../../mod.ts";
import { ownRuntimeFolder } from "../../support/mooncake.ts";

const runtime = ownRuntimeFolder();
after(() => runtime[Symbol.dispose]());

async function refused(config: TransferConfig): Promise<BackendUnavailableError> {
  try {
    await (await openTransfer(config)).close();
  } catch (error) {
    assert.ok(error instanceof BackendUnavailableError, String(error));
    return error;
  }
  throw new Error("it was opened");
}

describe("a peer backend that cannot be had", () => {
  // a host may have devices, but none of this name
  const deviceName = "nosuch_0";

  it("says that there is no RDMA device, and what to do", async () => {
    for (
      const config of [
        { backend: "verbs", deviceName },
        { backend: "transfer-engine", protocol: "rdma", deviceName },
      ] as const
    ) {
      const { code, message, details } = await refused(config);
      assert.equal(code, "TRANSPORT_UNAVAILABLE", message);
      assert.match(
        message,
        /RDMA was asked for, but (this host has no RDMA device|there is no RDMA device nosuch_0)/,
      );
      assert.match(details.hint!, /load its driver and pass \/dev\/infiniband|MOONCAKE_DEVICE_NAME/);
      assert.ok(message.includes(details.hint!), message);
    }
  });

  it("says which library is missing, where it was looked for, and what to install", async () => {
    const { code, message } = await refused({
      backend: "transfer-engine",
      protocol: "tcp",
      libraryPath: "/nowhere/libtransfer_engine.so",
    });
    assert.equal(code, "LIBRARY_MISSING");
    assert.match(message, /Mooncake Transfer Engine[\s\S]*\/nowhere\/libtransfer_engine\.so[\s\S]*libnuma1/);
  });
});
