/**
 * Opening the Mooncake backend: what its client is set up with, and where that client lives.
 *
 * @module
 */

import { Deadline } from "../deadline.ts";
import { ConfigError } from "../errors.ts";
import { type MooncakeStore, openMooncakeStore } from "../store/mooncake.ts";
import type { ClientSetup, MooncakeClient } from "../store/mooncake/client.ts";
import { joinAddress, LOOPBACK, ownAddress, splitAddress } from "../store/addresses.ts";
import type { ResolvedConfig } from "./config.ts";

/** Staging memory where nothing is configured. */
const LOCAL_BUFFER_BYTES = 256 * 2 ** 20;
/** Memory that a node agent gives to the cluster where nothing is configured. */
const NODE_SEGMENT_BYTES = 2 ** 30;

/**
 * What a client is set up with.
 *
 * @throws ConfigError where there is no master, or a setting makes no sense
 */
export function clientSetup(config: ResolvedConfig): ClientSetup {
  const { masterServerAddr, clientScope } = config;
  if (masterServerAddr === undefined) {
    throw new ConfigError("the mooncake backend needs the address of its master", {
      expected: "masterServerAddr",
      hint: 'set masterServerAddr or MOONCAKE_MASTER to "HOST:PORT", and start `mooncake_master` there',
    });
  }
  const master = splitAddress(masterServerAddr);
  return {
    masterServerAddr: joinAddress(master),
    metadataServer: config.metadataServer,
    localHostname: config.localHostname ?? (LOOPBACK.test(master.host) ? "127.0.0.1" : ownAddress()),
    protocol: config.protocol ?? "tcp",
    deviceName: config.deviceName ?? "",
    globalSegmentSize: config.globalSegmentSize ?? (clientScope === "node" ? NODE_SEGMENT_BYTES : 0),
    localBufferSize: config.localBufferSize ?? LOCAL_BUFFER_BYTES,
    libraryPath: config.libraryPath,
  };
}

async function openClient(
  config: ResolvedConfig,
  setup: ClientSetup,
  deadline: Deadline,
): Promise<MooncakeClient> {
  if (config.clientScope === "process") {
    const { openLocalClient } = await import("../store/mooncake/local_client.ts");
    return openLocalClient(setup, deadline);
  }
  const { connectAgent } = await import("./agent/client.ts");
  return connectAgent(setup, deadline);
}

/** Opens the store of the Mooncake backend. */
export async function openMooncake(config: ResolvedConfig): Promise<MooncakeStore> {
  const setup = clientSetup(config);
  const deadline = new Deadline("opening the mooncake backend", {}, config.timeoutMs);
  return await openMooncakeStore(await openClient(config, setup, deadline), {
    masterServerAddr: setup.masterServerAddr,
    masterMetricsAddr: config.masterMetricsAddr,
    chunkBytes: config.chunkBytes,
    verify: config.verify !== "off",
    timeoutMs: config.timeoutMs,
    pin: config.pin,
    replicas: config.replicas,
  });
}
