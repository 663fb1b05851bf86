/**
 * What may go wrong between the processes of a peer store: never wrong bytes, a typed error in time, nothing kept.
 *
 * @module
 */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import {
  type ColumnRemoteBatch,
  openTransfer,
  type TransferBackend,
  type TransferConfig,
} from "../../mod.ts";
import { BatchferryError, type ErrorCode } from "../../src/errors.ts";
import { ownRuntimeFolder } from "./mooncake.ts";
import { rowsOf } from "./peer_rows.ts";
import { ROOT, RUNTIME, scaled, temporaryFolder } from "./runtime.ts";
import { Worker } from "./worker.ts";

/** How the tests are registered. */
export interface PeerFaults {
  readonly name: string;
  readonly skip: string | false;
  readonly reader: TransferConfig;
  readonly writer: TransferConfig;
  /** Rows of 4 KiB of a batch that takes a while to read. */
  readonly rows: number;
  /** Whether a stopped process can still be read: its device answers for it. */
  readonly answersWhileStopped: boolean;
  /** What devices hold for all processes, where it can be known. */
  readonly resources?: () => Promise<unknown>;
}

/** How long a call may take that has to fail, in milliseconds, and how much later it may be on a busy machine. */
const SHORT_MS = 3000;
const GRACE_MS = 12_000;

function hasCode(...codes: readonly ErrorCode[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof BatchferryError, String(error));
    assert.ok(codes.includes(error.code), `${error.code}: ${error.message}`);
    return true;
  };
}

/** Fails within the time it was given. */
async function failsInTime(call: () => Promise<unknown>, ...codes: readonly ErrorCode[]): Promise<void> {
  const startedMs = performance.now();
  await assert.rejects(call(), hasCode(...codes));
  const tookMs = performance.now() - startedMs;
  assert.ok(tookMs < SHORT_MS + GRACE_MS, `it took ${tookMs} ms`);
}

function isBatch(data: Int32Array, seed: number, rows: number): boolean {
  const expected = rowsOf(seed, rows);
  return data.length === expected.length && data.every((value, i) => value === expected[i]);
}

/** Registers the tests. */
export function peerFaults(options: PeerFaults): void {
  const { name, skip, rows, answersWhileStopped, resources } = options;
  const runtime = ownRuntimeFolder();
  after(() => runtime[Symbol.dispose]());
  let prefixes = 0;

  const startWorker = async (config: TransferConfig): Promise<Worker> => {
    const worker = new Worker(RUNTIME, join(ROOT, "tests", "support", "peer_worker.ts"));
    await worker.tell({ op: "open", config });
    return worker;
  };
  /** A reader here, a writer in another process. */
  const both = async (
    test: (
      reader: TransferBackend,
      writer: Worker,
      configs: { reader: TransferConfig; writer: TransferConfig },
    ) => Promise<void>,
    change: TransferConfig = {},
  ): Promise<void> => {
    const keyPrefix = `fault-${prefixes++}`;
    const reader: TransferConfig = { ...options.reader, ...change, keyPrefix };
    const writer: TransferConfig = { ...options.writer, ...change, keyPrefix };
    await using worker = await startWorker(writer);
    await using transfer = await openTransfer(reader);
    await test(transfer, worker, { reader, writer });
  };
  const put = async (
    reader: TransferBackend,
    writer: Worker,
    seed: number,
    count: number,
    op = "put",
  ): Promise<ColumnRemoteBatch> =>
    reader.importHandle(await writer.tell({ op, seed, rows: count }) as object);
  const read = async (batch: ColumnRemoteBatch): Promise<Int32Array> =>
    (await batch.materialize()).tensor("x").data as Int32Array;

  describe(`faults of ${name}`, () => {
    let before: unknown;
    it("begin with what devices hold", { skip }, async () => {
      before = await resources?.();
    });

    it(
      "a writer killed while it is read",
      { skip },
      () =>
        both(async (reader, writer, { writer: config }) => {
          const batch = await put(reader, writer, 1, rows);
          assert.ok(isBatch(await read(batch), 1, rows));
          const reading = (async () => {
            for (let round = 0; round < 200; round++) {
              assert.ok(isBatch(await read(batch), 1, rows), "wrong bytes");
            }
          })();
          setTimeout(() => void writer.kill(), 50);
          await assert.rejects(reading, hasCode("PEER_LOST", "TIMEOUT"));
          await failsInTime(
            () => batch.materialize(undefined, { timeoutMs: SHORT_MS }),
            "PEER_LOST",
            "DROPPED",
          );
          // the reader is as good as before
          await using next = await startWorker(config);
          assert.ok(isBatch(await read(await put(reader, next, 2, rows)), 2, rows));
        }),
    );

    it("a reader killed while it reads", { skip }, () =>
      both(async (reader, writer, { reader: config }) => {
        const batch = await put(reader, writer, 3, rows);
        assert.ok(isBatch(await read(batch), 3, rows));
        const held = await resources?.();
        const other = await startWorker(config);
        await other.tell({ op: "forever", handle: batch.toHandle() });
        await other.kill();
        assert.ok(isBatch(await read(batch), 3, rows));
        // the writer has given back what was the dead one's
        await settled(resources, held);
      }));

    it("a writer that is silent", { skip }, () =>
      both(async (reader, writer) => {
        const [known, unknown] = [await put(reader, writer, 4, 8), await put(reader, writer, 5, 8)];
        assert.ok(isBatch(await read(known), 4, 8));
        writer.signal("SIGSTOP");
        try {
          // where it lies has to be asked for
          await failsInTime(
            () => unknown.materialize(undefined, { timeoutMs: SHORT_MS }),
            "TIMEOUT",
            "PEER_LOST",
          );
          const stop = new AbortController();
          setTimeout(() => stop.abort(), 50);
          await failsInTime(() => unknown.materialize(undefined, { signal: stop.signal }), "ABORTED");
          if (answersWhileStopped) assert.ok(isBatch(await read(known), 4, 8));
          else {
            await failsInTime(
              () => known.materialize(undefined, { timeoutMs: SHORT_MS }),
              "TIMEOUT",
              "PEER_LOST",
            );
          }
        } finally {
          writer.signal("SIGCONT");
        }
        assert.ok(isBatch(await read(unknown), 5, 8));
        assert.ok(isBatch(await read(known), 4, 8));
      }));

    it("another secret", { skip }, async () => {
      using folder = temporaryFolder();
      const [one, other] = ["one", "other"].map((file) => {
        const path = join(folder.path, file);
        writeFileSync(path, file.repeat(16), { mode: 0o600 });
        return path;
      });
      await both(async (_, writer, { reader: config }) => {
        const handle = await writer.tell({ op: "put", seed: 6, rows: 8 }) as object;
        await using stranger = await openTransfer({ ...config, secretFile: other! });
        await assert.rejects(stranger.importHandle(handle).materialize(), (error: BatchferryError) => {
          assert.equal(error.code, "CONFIG");
          assert.match(error.message, /another secret.*BATCHFERRY_SECRET_FILE/);
          return true;
        });
        await using friend = await openTransfer({ ...config, secretFile: one! });
        assert.ok(isBatch(await read(friend.importHandle(handle)), 6, 8));
      }, { secretFile: one! });
    });

    it("memory that is used again under a slow reader", { skip }, () =>
      both(async (reader, writer) => {
        const outcomes = { read: 0, dropped: 0 };
        let batch = await put(reader, writer, 100, rows);
        const startedMs = performance.now();
        await read(batch); // opens the link
        const tookMs = performance.now() - startedMs;
        for (let round = 1; round <= scaled(480); round++) {
          batch = await put(reader, writer, 100 + round, rows, "replace");
          const reading = read(batch).then((data) => {
            assert.ok(isBatch(data, 100 + round, rows), `round ${round}: wrong bytes`);
            outcomes.read++;
          }, (error) => {
            hasCode("DROPPED")(error);
            outcomes.dropped++;
          });
          await new Promise((resolve) => setTimeout(resolve, (round % 8) / 8 * tookMs));
          if (round % 4 > 0) await writer.tell({ op: "replace", seed: 10_000 + round, rows });
          await reading;
        }
        console.log(`${name}: ${outcomes.read} batches read, ${outcomes.dropped} dropped under the reader`);
        assert.ok(outcomes.read > 0 && outcomes.dropped > 0, JSON.stringify(outcomes));
        // checksums are not what tells them apart
      }, { verify: "off" }));

    it("leave nothing with the devices", { skip }, () => settled(resources, before));
  });
}

/** What killed processes held is given back by the kernel, some time later. */
async function settled(resources: PeerFaults["resources"], expected: unknown): Promise<void> {
  if (resources === undefined) return;
  for (let tries = 0; tries < 50; tries++) {
    if (JSON.stringify(await resources()) === JSON.stringify(expected)) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  assert.deepEqual(await resources(), expected);
}
