/**
 * What runs: the master, and this host's agents.
 *
 * @module
 */

import { lstatSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { sys } from "../../../ffi/libc.ts";
import { Deadline } from "../../deadline.ts";
import { accepts, joinAddress, listens, splitAddress } from "../../store/addresses.ts";
import { MasterPages } from "../../store/mooncake/master.ts";
import { agentStatus } from "../../transfer/agent/client.ts";
import { formatAge, formatBytes, plural } from "../terminal.ts";
import { type Check, type Host, namesIn } from "./check.ts";
import type { Needs } from "./settings.ts";

/** The master: whether it listens, and what its HTTP pages say. */
export async function checkMaster({ config }: Needs, timeoutMs: number): Promise<Check> {
  const name = "master";
  if (config?.masterServerAddr === undefined) {
    const says = "none is configured";
    return { name, state: "absent", says, facts: { address: null, reachable: null, segments: null } };
  }
  const address = joinAddress(splitAddress(config.masterServerAddr));
  const pages = new MasterPages(address, config.masterMetricsAddr);
  const [isReachable, segments] = await Promise.all([
    listens(address, timeoutMs),
    pages.segments(AbortSignal.timeout(timeoutMs)).catch(() => undefined),
  ]);
  const facts = {
    address,
    reachable: isReachable,
    pages: pages.address,
    segments: segments ?? null,
  };
  const { port } = splitAddress(address);
  if (!isReachable) {
    return {
      name,
      state: config.backend === "mooncake" ? "problem" : "warning",
      says: `nobody answers at ${address}`,
      fix: `mooncake_master --rpc_port ${port} on that host, or correct masterServerAddr or MOONCAKE_MASTER`,
      facts,
    };
  }
  if (segments === undefined) {
    const { port: pagesPort } = splitAddress(pages.address);
    return {
      name,
      state: "warning",
      says:
        `${address} answers, but not its HTTP pages at ${pages.address}: bundles of others cannot be listed`,
      fix: `mooncake_master --rpc_port ${port} --metrics_port ${pagesPort}, or set masterMetricsAddr`,
      facts,
    };
  }
  const says = `${address} answers, ${plural(segments.length, "segment")}`;
  if (segments.length > 0) return { name, state: "ok", says, more: segments, facts };
  return {
    name,
    state: "warning",
    says: `${says}: nobody gives memory, so there is no room for a put`,
    fix: "batchferry agent --global-segment-size 8gb, on every host that is to hold batches",
    facts,
  };
}

/** The folder for sockets; not made here. */
function runtimePath({ environment }: Host): string {
  const own = environment("BATCHFERRY_RUNTIME_DIR");
  if (own !== undefined) return resolve(own);
  const session = environment("XDG_RUNTIME_DIR");
  return session === undefined
    ? join(tmpdir(), `batchferry-${sys.geteuid()}`)
    : resolve(session, "batchferry");
}

/** The runtime folder, and the agents in it. */
export async function checkAgent(host: Host, needs: Needs, timeoutMs: number): Promise<Check[]> {
  const folder = runtimePath(host);
  const name = "runtime folder";
  const usesFolder = needs.config !== undefined && needs.config.backend !== "shm" &&
    needs.config.backend !== "memory";
  const uid = sys.geteuid();
  let stat;
  try {
    stat = lstatSync(folder);
  } catch {
    const says = `${folder} is made when it is needed`;
    return [
      { name, state: "absent", says, facts: { folder, uid: null, mode: null } },
      { name: "agent", state: "absent", says: "none is running", facts: { running: [] } },
    ];
  }
  const octal = `0${(stat.mode & 0o777).toString(8)}`;
  const facts = { folder, uid: stat.uid, mode: octal };
  if (!stat.isDirectory() || stat.uid !== uid || (stat.mode & 0o077) !== 0) {
    const fix = stat.isDirectory() && stat.uid === uid
      ? `chmod 700 ${folder}`
      : "set BATCHFERRY_RUNTIME_DIR to a folder of yours";
    const what = stat.isDirectory() ? `owner ${stat.uid}, mode ${octal}` : "no folder";
    const says = `${folder} is not yours alone: ${what}`;
    return [{ name, state: usesFolder ? "problem" : "warning", says, fix, facts }];
  }
  const check: Check = { name, state: "ok", says: `${folder}: owner ${uid}, mode ${octal}`, facts };
  return [check, await findAgent(folder, needs, timeoutMs)];
}

/** The agent of the configuration, and how many there are. */
async function findAgent(folder: string, { config, setup }: Needs, timeoutMs: number): Promise<Check> {
  const name = "agent";
  const sockets = namesIn(folder).filter((file) => /^mooncake-.*\.sock$/.test(file));
  const answers = await Promise.all(
    sockets.map((file) => accepts({ path: join(folder, file) }, timeoutMs / 2)),
  );
  const running = sockets.filter((_, i) => answers[i]);
  const others = `${plural(running.length, "agent")} running`;
  if (setup === undefined || config?.clientScope !== "node") {
    const says = running.length === 0 ? "none is running" : `${others}, of other configurations`;
    return { name, state: running.length === 0 ? "absent" : "ok", says, facts: { running } };
  }
  try {
    const status = await agentStatus(setup, new Deadline("doctor", { timeoutMs: timeoutMs / 2 }));
    if (status === undefined) {
      const says = running.length === 0
        ? "none is running; the first process that needs one starts it"
        : `${others}, none of this configuration; the first process that needs one starts it`;
      return { name, state: "absent", says, facts: { running } };
    }
    const { pid, uptimeMs, segmentBytes, transport, clients } = status;
    const says = `process ${pid}, up ${formatAge(uptimeMs)}, gives ${formatBytes(segmentBytes)}, ` +
      `${plural(clients.length, "client")}, protocol ${transport.effective} (asked ${transport.asked})`;
    return { name, state: "ok", says, facts: { running, status } };
  } catch (error) {
    return {
      name,
      state: "warning",
      says: `it does not answer: ${(error as Error).message}`,
      fix: "batchferry agent --stop; the next process that needs one starts another",
      facts: { running },
    };
  }
}
