/**
 * The suite of every backend, over RDMA.
 *
 * @module
 */

import process from "node:process";
import { it } from "node:test";
import { peerConformance } from "../conformance/peer.ts";
import { setUpMooncake } from "../support/mooncake.ts";
import { skip } from "./device.ts";

/** Registers the suite for a peer backend. */
export async function conformanceOverRdma(backend: "verbs" | "transfer-engine"): Promise<void> {
  if (skip !== false) {
    it(`backend ${backend} over RDMA`, { skip }, () => {});
    return;
  }
  const settings = {
    deviceName: process.env.MOONCAKE_DEVICE_NAME ?? "",
    globalSegmentSize: "16mb",
    localBufferSize: "4mb",
    timeoutMs: 120_000,
  } as const;
  if (backend === "verbs") return peerConformance({ ...settings, backend });
  const found = await setUpMooncake();
  if (found.skip !== false) throw new Error(found.skip);
  peerConformance({
    ...settings,
    backend,
    protocol: "rdma",
    localHostname: process.env.MOONCAKE_LOCAL_HOSTNAME ?? "127.0.0.1",
    libraryPath: found.transferEngine,
  });
}
