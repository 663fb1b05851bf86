/**
 * Batches over Mooncake Store and a real RDMA device: its packet counters tell that the bytes went through it.
 *
 * With MOONCAKE_MASTER set the cluster is the caller's, with memory of its own or of a client started here; otherwise a
 * master is started as well.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { Batch, type Column, openTransfer, ragged, strings, tensor, type TransferConfig } from "../../mod.ts";
import { Deadline } from "../../src/deadline.ts";
import { MasterPages } from "../../src/store/mooncake/master.ts";
import { stopAgent } from "../../src/transfer/agent/client.ts";
import { resolveConfig } from "../../src/transfer/config.ts";
import { clientSetup } from "../../src/transfer/mooncake.ts";
import { columnOut, type Values } from "../interop/python/neutral.ts";
import { SERVER } from "../interop/python_suite.ts";
import {
  type Master,
  mooncakeConfig,
  ownRuntimeFolder,
  setUpMooncake,
  startMaster,
  startProvider,
} from "../support/mooncake.ts";
import { PythonServer } from "../support/python.ts";
import { mtuOf, sentPackets, skip } from "./device.ts";

const PUTS = 10;
const ROWS = 16;
/** Elements of each ragged row on average: 4 MiB of int64 in a batch. */
const ELEMENTS = 2 ** 15;
/** The lab's processor is emulated. */
const LIMIT_MS = 240_000;

/** Row `row` of put `put`: values that no other row of any put has. */
function tokens(put: number, row: number): BigInt64Array {
  const length = ELEMENTS + (row - ROWS / 2) * 100;
  const values = new BigInt64Array(length);
  const halves = new Int32Array(values.buffer); // bigints one by one take seconds in the lab
  for (let i = 0; i < length; i++) halves[2 * i] = (put * ROWS + row) * 2 ** 20 + i;
  return values;
}

function fields(put: number): Record<string, Column> {
  const ids = Int32Array.from({ length: ROWS * 256 }, (_, i) => put * 2 ** 20 + i);
  return {
    ids: tensor("int32", [ROWS, 256], ids),
    text: strings(Array.from({ length: ROWS }, (_, row) => `put ${put}, row ${row} 行 🚢`)),
    tokens: ragged("int64", Array.from({ length: ROWS }, (_, row) => tokens(put, row))),
    nothing: strings(new Array<null>(ROWS).fill(null)),
  };
}

/** The bytes of one batch that a consumer of all its fields must fetch. */
const BYTES = ROWS * (256 * 4 + (ELEMENTS - 50) * 8);

/** What both client scopes are tested over: starting it takes longer than the tests. */
interface Cluster {
  readonly config: TransferConfig;
  /** The master that was started; undefined where the caller's is used. */
  readonly master: Master | undefined;
  readonly prefix: string;
  /** Mooncake's own class. */
  readonly python: PythonServer;
}

describe("Mooncake Store over RDMA", () => {
  let cluster: Cluster;
  const ending = new AsyncDisposableStack();
  before(async () => {
    if (skip === false) cluster = await startCluster(ending);
  });
  after(() => ending.disposeAsync());

  for (const clientScope of ["process", "node"] as const) {
    it(
      `moves ten batches through the device, client scope ${clientScope}`,
      { skip },
      () => roundTrip(cluster, clientScope),
    );
  }
});

async function startCluster(ending: AsyncDisposableStack): Promise<Cluster> {
  ending.use(ownRuntimeFolder());
  const found = await setUpMooncake();
  if (found.skip !== false) throw new Error(found.skip);
  const own = process.env.MOONCAKE_MASTER;
  const master = own === undefined ? ending.use(await startMaster({ clientTtlSeconds: 60 })) : undefined;
  const libraryPath = process.env.MOONCAKE_STORE_LIBRARY ?? found.library;
  const config: TransferConfig = master === undefined
    ? { backend: "mooncake", masterServerAddr: own!, libraryPath }
    : await mooncakeConfig(master);
  const address = master?.address ?? own!;
  const pages = new MasterPages(address, master?.metricsAddress);
  const segments = () => pages.segments(AbortSignal.timeout(20_000));
  // whoever gave the caller's cluster its memory stays; ours would take other people's objects along when it goes
  if ((await segments()).length === 0) {
    ending.use(await startProvider({ address, segments }, 64 * 2 ** 20, LIMIT_MS));
  }
  const prefix = `batchferry-rdma-${process.pid}`;
  const python = ending.use(PythonServer.start(found.python, SERVER));
  await python.call("open", { directory: null, prefix, master: address });
  return { config, master, prefix, python };
}

function assertIs(batch: Batch, put: number): void {
  const { tokens: _, ...wanted } = fields(put);
  const expected = new Batch(ROWS, Object.entries(wanted));
  assert.deepEqual([...batch.fields].sort(), [...expected.fields, "tokens"].sort());
  assert.equal(batch.rows, ROWS);
  for (const field of expected.fields) {
    assert.deepEqual(columnOut(batch, field), columnOut(expected, field), field);
  }
  [...batch.ragged("tokens")].forEach((row, i) => {
    assert.ok(row instanceof BigInt64Array);
    assert.equal(Buffer.compare(bytesOf(row), bytesOf(tokens(put, i))), 0, `put ${put}, row ${i}`);
  });
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Mooncake's own class reads a batch, over RDMA as well. */
async function assertPythonReads(python: PythonServer, handle: unknown, put: number): Promise<void> {
  const before = sentPackets();
  const { columns } = await python.call<{ columns: Record<string, Values> }>("get", { handle });
  assert.ok(
    sentPackets() - before >= Math.floor(BYTES / mtuOf()),
    "Python's read did not go through the device",
  );
  const expected = new Batch(ROWS, Object.entries(fields(put)));
  assert.deepEqual(
    columns,
    Object.fromEntries(expected.fields.map((field) => [field, columnOut(expected, field)])),
  );
}

async function roundTrip(
  { config, master, prefix, python }: Cluster,
  clientScope: "process" | "node",
): Promise<void> {
  const settings: TransferConfig = {
    ...config,
    clientScope,
    globalSegmentSize: 0,
    localBufferSize: "16mb",
    tensorEncoding: "numpy", // what Python reads without torch
    keyPrefix: prefix,
    timeoutMs: LIMIT_MS,
  };
  try {
    const handles: string[] = [];
    const partition = `step-${clientScope}`;
    {
      await using producer = await openTransfer(settings);
      assert.deepEqual((await producer.info()).protocol, { asked: "rdma", effective: "rdma" });
      const before = sentPackets();
      for (let put = 0; put < PUTS; put++) {
        const rowIds = Array.from({ length: ROWS }, (_, row) => `${put}-${row}`);
        handles.push(JSON.stringify((await producer.put(partition, rowIds, fields(put), ROWS)).toHandle()));
      }
      const sent = sentPackets() - before;
      const least = Math.floor(PUTS * BYTES / mtuOf());
      console.log(`${clientScope}: ${PUTS} puts of ${BYTES} bytes sent ${sent} packets (at least ${least})`);
      assert.ok(sent >= least, `${sent} packets were sent, not ${least}`);
    }
    {
      await using consumer = await openTransfer(settings);
      const before = sentPackets();
      const results = [];
      for (const handle of handles) results.push(await consumer.importHandle(handle).materialize());
      const sent = sentPackets() - before;
      const least = Math.floor(PUTS * BYTES / mtuOf());
      console.log(`${clientScope}: ${PUTS} reads sent ${sent} packets (at least ${least})`);
      assert.ok(sent >= least, `${sent} packets were sent, not ${least}`);

      await assertPythonReads(python, JSON.parse(handles[3]!), 3);
      for (const handle of handles) await consumer.importHandle(handle).drop();
      assert.deepEqual(await consumer.list(partition), []);
      // results are the caller's own: what has been dropped does not change them
      results.forEach((batch, put) => assertIs(batch, put));
    }
    if (master !== undefined) assert.deepEqual(await master.keys(), []);
  } finally {
    await stopAgent(clientSetup(resolveConfig(settings)), new Deadline("stopping", {}, 60_000));
  }
}
