/**
 * Where agents are found: a folder of the user's, and in it a socket, a log and locks for every cluster.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { join } from "node:path";
import { ConfigError } from "../../errors.ts";
import type { ClientSetup } from "../../store/mooncake/client.ts";
import { runtimeFolder } from "../../store/runtime_folder.ts";

/** The kernel's limit on the path of a socket, without the NUL at its end. */
const MOST_SOCKET_PATH = 107;

/** The files of one agent. */
export interface AgentPlace {
  readonly socket: string;
  readonly log: string;
  /** Held by the agent as long as it lives. */
  readonly liveLock: string;
  /** Held by who starts it. */
  readonly startLock: string;
}

/**
 * The files of the agent for a setup. Setups that name the same cluster, transport and host share an agent, whatever
 * their sizes; those that give memory and those that do not have two.
 */
export function agentPlace(setup: ClientSetup, givesMemory: boolean): AgentPlace {
  const { masterServerAddr, metadataServer, localHostname, protocol, deviceName } = setup;
  const identity = JSON.stringify([masterServerAddr, metadataServer, localHostname, protocol, deviceName]);
  const hash = createHash("sha256").update(identity).digest("hex").slice(0, 16);
  const base = join(runtimeFolder(), `mooncake-${hash}${givesMemory ? "-memory" : ""}`);
  const socket = `${base}.sock`;
  if (new TextEncoder().encode(socket).byteLength > MOST_SOCKET_PATH) {
    throw new ConfigError(`the path of the agent's socket is too long: ${socket}`, {
      expected: `at most ${MOST_SOCKET_PATH} bytes`,
      hint: "set BATCHFERRY_RUNTIME_DIR to a folder with a shorter path",
    });
  }
  return { socket, log: `${base}.log`, liveLock: `${base}.live`, startLock: `${base}.start` };
}
