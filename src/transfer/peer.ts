/**
 * Opening the peer backends: which plane moves the bytes, and where this process listens.
 *
 * @module
 */

import { ownAddress } from "../store/addresses.ts";
import { openPeerStore } from "../store/peer.ts";
import type { Plane } from "../store/peer/plane.ts";
import type { ObjectStore } from "../store/store.ts";
import type { ResolvedConfig } from "./config.ts";

/** Memory for this process's bundles where nothing is configured; it is registered as it is needed. */
export const PEER_SEGMENT_BYTES: number = 2 ** 30;
/** Memory that READs land in where nothing is configured. */
export const PEER_LANDING_BYTES: number = 32 * 2 ** 20;

/** Opens the store of the backend `transfer-engine` or `verbs`. */
export async function openPeer(config: ResolvedConfig): Promise<ObjectStore> {
  // nobody else's reads are answered without a secret, so only this host is listened to
  const host = config.secretFile === undefined ? "127.0.0.1" : config.localHostname ?? ownAddress();
  return await openPeerStore({
    plane: await openPlane(config, config.localHostname ?? host),
    localHostname: host,
    port: config.port,
    secretFile: config.secretFile,
    peers: config.peers,
    group: config.keyPrefix,
    memoryBytes: config.globalSegmentSize ?? PEER_SEGMENT_BYTES,
    landingBytes: config.localBufferSize ?? PEER_LANDING_BYTES,
    verify: config.verify !== "off",
    timeoutMs: config.timeoutMs,
    lingerMs: config.lingerMs,
  });
}

async function openPlane(config: ResolvedConfig, localHostname: string): Promise<Plane> {
  const { deviceName = "", protocol = "tcp", metadataServer, libraryPath } = config;
  if (config.backend === "verbs") {
    const { openVerbsPlane } = await import("../store/peer/verbs.ts");
    return await openVerbsPlane({ deviceName, ...(libraryPath === undefined ? {} : { libraryPath }) });
  }
  const { openTransferEnginePlane } = await import("../store/peer/transfer_engine.ts");
  return await openTransferEnginePlane({
    localHostname,
    protocol,
    deviceName,
    metadataServer,
    ...(libraryPath === undefined ? {} : { libraryPath }),
  });
}
