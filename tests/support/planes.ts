/**
 * Planes for tests: on this host's devices, or by TCP.
 *
 * @module
 */

import { existsSync } from "node:fs";
import process from "node:process";
import type { Plane } from "../../src/store/peer/plane.ts";
import { openTransferEnginePlane } from "../../src/store/peer/transfer_engine.ts";
import { openVerbsPlane } from "../../src/store/peer/verbs.ts";
import { setUpMooncake } from "./mooncake.ts";

/** Which plane. */
export type PlaneKind = "verbs" | "transfer-engine";

/** The device of a side: the lab has two that reach each other like two hosts. */
export function deviceOf(side: "reader" | "writer"): string {
  const own = side === "reader" ? "rxe1" : "rxe2";
  return existsSync(`/sys/class/infiniband/${own}`) ? own : process.env.MOONCAKE_DEVICE_NAME ?? "";
}

/** Opens a plane; the Transfer Engine's over what MOONCAKE_PROTOCOL says. */
export async function openPlane(kind: PlaneKind, side: "reader" | "writer"): Promise<Plane> {
  if (kind === "verbs") return await openVerbsPlane({ deviceName: deviceOf(side) });
  const found = await setUpMooncake();
  if (found.skip !== false) throw new Error(found.skip);
  const protocol = process.env.MOONCAKE_PROTOCOL === "rdma" ? "rdma" : "tcp";
  return await openTransferEnginePlane({
    localHostname: process.env.MOONCAKE_LOCAL_HOSTNAME ?? "127.0.0.1",
    protocol,
    deviceName: protocol === "rdma" ? process.env.MOONCAKE_DEVICE_NAME ?? "" : "",
    metadataServer: "P2PHANDSHAKE",
    libraryPath: found.transferEngine,
  });
}

/** Bytes that tell where they are. */
export function fillPattern(bytes: Uint8Array): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i, 2654435761);
}
