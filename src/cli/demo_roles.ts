/**
 * The two processes that `demo` starts: `demo-producer` and `demo-consumer`, commands that the help does not show.
 *
 * Each reads one JSON object on stdin and writes one to stdout. The producer ends before the consumer starts: only the
 * handle connects them.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import process from "node:process";
import type { JsonObject } from "../batch/json.ts";
import { parseJson } from "../batch/json.ts";
import { CorruptionError } from "../errors.ts";
import type { TransferBackend } from "../transfer/backend.ts";
import type { Command, Invocation } from "./command.ts";
import { configOf, connect } from "./connect.ts";
import {
  checksum,
  packedBatch,
  packedChecksum,
  READ_FIELDS,
  READ_STEP,
  readParagraphs,
  textBatch,
} from "./demo_text.ts";

/** The timed batch is about this large. */
const TIMED_BYTES = 64 * 2 ** 20;
/** The best of so many counts: the first touches fresh memory. */
const ROUNDS = 3;

/** What the producer is told. */
export interface ProducerTask {
  readonly partition: string;
  readonly files: readonly string[];
}

/** What the producer did. */
export interface ProducerReport {
  readonly runtime: string;
  readonly pid: number;
  readonly store: string;
  readonly rows: number;
  readonly fields: readonly string[];
  readonly bytesWritten: number;
  readonly handle: JsonObject;
  /** The timed batch. */
  readonly timed: { readonly bytes: number; readonly putMs: number; readonly handle: JsonObject };
}

/** What the consumer is told. */
export interface ConsumerTask {
  readonly handle: JsonObject;
  readonly timed: JsonObject;
}

/** What the consumer did. */
export interface ConsumerReport {
  readonly runtime: string;
  readonly pid: number;
  readonly rows: number;
  readonly fields: readonly string[];
  readonly reads: number;
  readonly bytesRead: number;
  readonly timed: { readonly readMs: number };
}

/** Runs the first process. */
export const demoProducer: Command = role("demo-producer", produce);
/** Runs the second process. */
export const demoConsumer: Command = role("demo-consumer", consume);

function role<Task, Report>(
  name: string,
  act: (transfer: TransferBackend, task: Task) => Promise<Report>,
): Command {
  const run = async (call: Invocation): Promise<void> => {
    const task = parseJson(readFileSync(0, "utf8")) as Task;
    await using transfer = await connect(configOf(call));
    call.terminal.result(await act(transfer, task), () => `${name} is a part of demo`);
  };
  return {
    name,
    synopsis: "",
    summary: "a part of demo",
    options: {},
    positionals: [0, 0],
    hidden: true,
    run,
  };
}

async function produce(
  transfer: TransferBackend,
  { partition, files }: ProducerTask,
): Promise<ProducerReport> {
  const paragraphs = readParagraphs(files);
  const small = textBatch(paragraphs);
  const batch = await transfer.put(partition, null, small, small.rows, {
    meta: { crc32: checksum(small, READ_STEP) },
  });
  const { bytesWritten, store } = await transfer.info();
  const large = packedBatch(paragraphs, TIMED_BYTES);
  const timedMeta = { crc32: packedChecksum(large) };
  let putMs = Infinity;
  let timed = undefined;
  for (let round = 0; round < ROUNDS; round++) {
    await timed?.drop();
    const start = performance.now();
    timed = await transfer.put(partition, null, large, large.rows, { meta: timedMeta });
    putMs = Math.min(putMs, performance.now() - start);
  }
  return {
    ...self(),
    store,
    rows: batch.rows,
    fields: batch.fields,
    bytesWritten,
    handle: batch.toHandle(),
    timed: { bytes: large.tensor("packed_ids").bytes.byteLength, putMs, handle: timed!.toHandle() },
  };
}

async function consume(transfer: TransferBackend, task: ConsumerTask): Promise<ConsumerReport> {
  const whole = transfer.importHandle(task.handle);
  const wanted = whole.select(READ_FIELDS).slice(0, undefined, READ_STEP);
  const values = await wanted.materialize();
  const { reads, bytesRead } = await transfer.info();
  agree(whole.meta.crc32, checksum(values));
  await whole.drop();
  const large = transfer.importHandle(task.timed);
  let readMs = Infinity;
  let into = undefined;
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    into = await large.materialize(undefined, { into });
    readMs = Math.min(readMs, performance.now() - start);
  }
  agree(large.meta.crc32, packedChecksum(into!));
  await large.drop();
  return { ...self(), rows: wanted.rows, fields: wanted.fields, reads, bytesRead, timed: { readMs } };
}

function agree(expected: unknown, actual: number): void {
  if (actual === expected) return;
  throw new CorruptionError("the consumer read other values than the producer put", { expected, actual });
}

/** This process, for the report. */
function self(): { runtime: string; pid: number } {
  const { bun, deno } = process.versions as { bun?: string; deno?: string };
  const runtime = bun !== undefined
    ? `Bun ${bun}`
    : deno !== undefined
    ? `Deno ${deno}`
    : `Node ${process.version}`;
  return { runtime, pid: process.pid };
}
