/**
 * What an agent is doing, as OpenMetrics text.
 *
 * @module
 */

import type { AgentStatus } from "./server.ts";

/** The content type of the page. */
export const OPEN_METRICS_TYPE: string = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/** The page, as https://prometheus.io/docs/specs/om/open_metrics_spec/ has it. */
export function openMetrics(status: AgentStatus): string {
  const { pool, total, transport } = status;
  const lines: string[] = [];
  const add = (name: string, type: "gauge" | "counter", help: string, value: number, unit?: string): void => {
    lines.push(`# TYPE ${name} ${type}`);
    if (unit !== undefined) lines.push(`# UNIT ${name} ${unit}`);
    lines.push(`# HELP ${name} ${help}`, `${name}${type === "counter" ? "_total" : ""} ${value}`);
  };
  const labels = Object.entries({
    master: status.master,
    hostname: status.hostname,
    protocol_asked: transport.asked,
    protocol: transport.effective,
  }).map(([name, value]) => `${name}="${value.replace(/[\\"\n]/g, (c) => c === "\n" ? "\\n" : `\\${c}`)}"`);
  lines.push(
    "# TYPE batchferry_agent info",
    "# HELP batchferry_agent The cluster and the transport.",
    `batchferry_agent_info{${labels.join(",")}} 1`,
  );
  add(
    "batchferry_agent_uptime_seconds",
    "gauge",
    "Since the agent started.",
    status.uptimeMs / 1000,
    "seconds",
  );
  add(
    "batchferry_agent_segment_bytes",
    "gauge",
    "Memory given to the cluster.",
    status.segmentBytes,
    "bytes",
  );
  add("batchferry_agent_clients", "gauge", "Attached processes.", status.clients.length);
  add("batchferry_agent_leases", "gauge", "Slots of the pool that processes hold.", status.leases);
  add("batchferry_agent_pool_bytes", "gauge", "Registered staging memory.", pool.bytes, "bytes");
  add("batchferry_agent_pool_free_bytes", "gauge", "Staging memory that nobody holds.", pool.free, "bytes");
  add(
    "batchferry_agent_pool_quarantined_bytes",
    "gauge",
    "Staging memory that a call which was given up may still use.",
    pool.quarantined,
    "bytes",
  );
  add("batchferry_agent_pool_waiting", "gauge", "Requests that wait for staging memory.", pool.waiting);
  add("batchferry_agent_attached", "counter", "Processes that attached.", total.clients);
  add("batchferry_agent_puts", "counter", "Batched puts.", total.puts);
  add("batchferry_agent_gets", "counter", "Batched gets.", total.gets);
  add("batchferry_agent_put_bytes", "counter", "Bytes put.", total.bytesPut, "bytes");
  add("batchferry_agent_got_bytes", "counter", "Bytes got.", total.bytesGot, "bytes");
  add("batchferry_agent_errors", "counter", "Requests that failed.", total.errors);
  return `${lines.join("\n")}\n# EOF\n`;
}
