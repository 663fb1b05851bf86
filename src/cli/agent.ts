/**
 * `agent`: the node agent in the foreground, and questions to one that runs.
 *
 * @module
 */

import { createServer, type Server } from "node:http";
import process from "node:process";
import { Deadline } from "../deadline.ts";
import { BackendUnavailableError, ConfigError } from "../errors.ts";
import type { ClientSetup } from "../store/mooncake/client.ts";
import { splitAddress } from "../store/addresses.ts";
import { openNativeClient } from "../store/mooncake/native_client.ts";
import { agentStatus, stopAgent } from "../transfer/agent/client.ts";
import { OPEN_METRICS_TYPE, openMetrics } from "../transfer/agent/metrics.ts";
import { agentPlace } from "../transfer/agent/place.ts";
import { type AgentStatus, serveAgent } from "../transfer/agent/server.ts";
import { parseSize } from "../transfer/config.ts";
import { clientSetup } from "../transfer/mooncake.ts";
import { type Command, type Invocation, STORE } from "./command.ts";
import { configOf } from "./connect.ts";
import { formatAge, formatBytes, plural, table } from "./terminal.ts";
import { UsageError } from "./usage.ts";

/** The command. */
export const agent: Command = {
  name: "agent",
  synopsis: "",
  summary: "run the Mooncake client that the processes of this host share, or ask one that runs",
  options: {
    "global-segment-size": {
      type: "string",
      value: "SIZE",
      help: "memory to give to the cluster, such as 8gb; default 1gb",
    },
    "local-buffer-size": { type: "string", value: "SIZE", help: "registered staging memory; default 256mb" },
    metrics: { type: "string", value: "HOST:PORT", help: "serve an OpenMetrics page at /metrics" },
    status: { type: "boolean", help: "print what the running agent is doing" },
    stop: { type: "boolean", help: "stop the running agent; batches in the memory it gave are lost" },
    "key-prefix": STORE["key-prefix"]!,
  },
  positionals: [0, 0],
  run,
};

const NONE = "no agent is running for this configuration";

async function run(call: Invocation): Promise<void> {
  if (call.flag("status") && call.flag("stop")) throw new UsageError("agent: --status or --stop, not both");
  const config = configOf(call, "mooncake");
  if (config.backend !== "mooncake") {
    throw new UsageError(`agent: the backend ${config.backend} has no agent`);
  }
  const setup: ClientSetup = {
    ...clientSetup({ ...config, clientScope: "node" }),
    ...sizeOf(call, "global-segment-size", "globalSegmentSize"),
    ...sizeOf(call, "local-buffer-size", "localBufferSize"),
  };
  const deadline = new Deadline("agent", { timeoutMs: config.timeoutMs });
  if (call.flag("status")) return await showStatus(call, setup, deadline);
  if (call.flag("stop")) {
    const stopped = await stopAgent(setup, deadline);
    call.terminal.result({ stopped }, () => stopped ? "the agent has stopped" : NONE);
    return;
  }
  await serve(call, setup, deadline);
}

function sizeOf(call: Invocation, option: string, key: keyof ClientSetup): Partial<ClientSetup> {
  const text = call.text(option);
  if (text === undefined) return {};
  try {
    return { [key]: parseSize(text) };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new UsageError(`agent: --${option} ${text} is not a size`);
  }
}

async function showStatus(call: Invocation, setup: ClientSetup, deadline: Deadline): Promise<void> {
  const status = await agentStatus(setup, deadline);
  if (status === undefined) throw new BackendUnavailableError("AGENT_LOST", NONE);
  call.terminal.result(status, () => describe(status));
}

function describe(status: AgentStatus): string {
  const { pool, total, transport } = status;
  return table([
    ["agent", `process ${status.pid}, ${status.hostname}, up ${formatAge(status.uptimeMs)}`],
    ["master", status.master],
    ["protocol", `asked ${transport.asked}, effective ${transport.effective}`],
    ["memory given", formatBytes(status.segmentBytes)],
    ["clients", `${status.clients.length} (${status.clients.join(", ") || "none"})`],
    ["leases", `${status.leases}, ${pool.waiting} waiting`],
    [
      "staging",
      `${formatBytes(pool.bytes - pool.free)} of ${formatBytes(pool.bytes)} in use, ` +
      `${formatBytes(pool.quarantined)} quarantined`,
    ],
    ["put", `${formatBytes(total.bytesPut)} in ${plural(total.puts, "call")}`],
    ["got", `${formatBytes(total.bytesGot)} in ${plural(total.gets, "call")}`],
    ["errors", String(total.errors)],
  ]);
}

async function serve(call: Invocation, setup: ClientSetup, deadline: Deadline): Promise<void> {
  const place = agentPlace(setup, setup.globalSegmentSize > 0);
  const running = await serveAgent({ setup, place, open: openNativeClient, timeoutMs: deadline.remainingMs });
  const stop = (): void => void running.stop();
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  let pages: Server | undefined;
  try {
    const address = call.text("metrics");
    if (address !== undefined) pages = await serveMetrics(address, () => running.status());
    const status = running.status();
    call.terminal.result(
      { ready: true, ...status, socket: place.socket },
      () => `serving ${place.socket}\n${describe(status)}`,
    );
    await running.stopped;
  } finally {
    process.off("SIGTERM", stop);
    process.off("SIGINT", stop);
    pages?.close();
    await running.stop();
  }
}

/** Serves the one page. */
function serveMetrics(address: string, status: () => AgentStatus): Promise<Server> {
  const { host, port } = splitAddress(address, 9004);
  const server = createServer((request, response) => {
    if (request.method !== "GET" || request.url?.split("?")[0] !== "/metrics") {
      response.writeHead(404).end("only /metrics is here\n");
      return;
    }
    response.writeHead(200, { "content-type": OPEN_METRICS_TYPE }).end(openMetrics(status()));
  });
  return new Promise((resolve, reject) => {
    server.once(
      "error",
      (cause) =>
        reject(
          new ConfigError(`${address} cannot be listened on: ${cause.message}`, { actual: address, cause }),
        ),
    );
    server.listen(port, host, () => resolve(server));
  });
}
