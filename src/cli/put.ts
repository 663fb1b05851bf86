/**
 * `put`: files into the store.
 *
 * @module
 */

import { statSync } from "node:fs";
import { Batch } from "../batch/batch.ts";
import type { ColumnRemoteBatch } from "../remote/remote_batch.ts";
import type { TransferBackend } from "../transfer/backend.ts";
import { type Command, type Invocation, STORE } from "./command.ts";
import { configOf, connect } from "./connect.ts";
import { writeWhole } from "./files.ts";
import { formatOf, readInputs } from "./inputs.ts";
import type { FieldSchema } from "../transfer/field_schema.ts";
import { readSchemaFile } from "./schema.ts";
import { formatBytes, formatRate, plural, toJson } from "./terminal.ts";
import { UsageError } from "./usage.ts";

/** The command. */
export const put: Command = {
  name: "put",
  synopsis: "INPUT… [--handle FILE]",
  summary: "write files into the store as one batch",
  options: {
    handle: { type: "string", value: "FILE", help: "where the handle goes; default stdout" },
    partition: { type: "string", value: "NAME", help: "default default" },
    stage: { type: "string", value: "NAME", help: "default default" },
    schema: { type: "string", value: "FILE", help: "what fields are, instead of inferring it" },
    "tensor-encoding": {
      type: "string",
      value: "torch|numpy",
      help: "how tensors are stored; default torch",
    },
    ...STORE,
  },
  positionals: [1, Infinity],
  run,
};

async function run(call: Invocation): Promise<void> {
  const { positionals: inputs, terminal } = call;
  inputs.forEach(formatOf);
  const config = configOf(call);
  terminal.status(`reading ${inputs.join(", ")} …`);
  const { rows, columns } = readInputs(inputs, schemaOf(call, config.fieldSchemas));
  // where a batch stays with the process that put it, this one stays until the batch is dropped
  await using transfer = await connect({ ...config, lingerMs: config.lingerMs || FOR_EVER_MS });
  const holds = (await transfer.info()).peers !== null;
  if (holds && call.text("handle") === undefined && isPiped()) {
    throw new UsageError(
      "put holds the batch of a peer backend until it is dropped: name a file by --handle",
    );
  }
  terminal.status(`writing ${plural(rows, "row")} …`);
  const start = performance.now();
  const partition = call.text("partition") ?? "default";
  const batch = await transfer.put(partition, null, new Batch(rows, columns), rows, {
    stage: call.text("stage"),
    progress: terminal.progress(`writing ${plural(rows, "row")}`),
  });
  const ms = performance.now() - start;
  try {
    await tell(call, transfer, batch, ms);
    if (holds) terminal.note("this process has the batch, and ends when it is dropped");
  } catch (error) {
    // Without its handle nobody would find the batch.
    await batch.drop().catch(() => {});
    throw error;
  }
}

/** Says what was put, and where its handle is. */
async function tell(
  call: Invocation,
  transfer: TransferBackend,
  batch: ColumnRemoteBatch,
  ms: number,
): Promise<void> {
  const { terminal } = call;
  const { partition, rows, fields } = batch;
  const { bytesWritten: bytes } = await transfer.info();
  const handle = batch.toHandle();
  const file = call.text("handle");
  if (file !== undefined) {
    await writeWhole(file, (output) => output.write(new TextEncoder().encode(`${toJson(handle)}\n`)));
  }
  const facts = { partition, rows, fields, bytes, ms: Math.round(ms) };
  const note = () =>
    `${plural(rows, "row")}, ${plural(fields.length, "field")}, ${formatBytes(bytes)} ` +
    `in ${Math.round(ms)} ms (${formatRate(bytes, ms)})`;
  if (file !== undefined) terminal.outcome({ ...facts, handle: file }, note);
  else {
    terminal.note(note());
    terminal.result({ ...facts, handle }, () => toJson(handle));
  }
}

/** Whether standard output is read by another process, to its end. */
function isPiped(): boolean {
  const stdout = statSync("/proc/self/fd/1");
  return stdout.isFIFO() || stdout.isSocket();
}

/** What a timer can wait. */
const FOR_EVER_MS = 2 ** 31 - 1;

/** The configuration's field schemas and, before them, those of --schema. */
function schemaOf(call: Invocation, configured: ReadonlyMap<string, FieldSchema>): Map<string, FieldSchema> {
  const file = call.text("schema");
  return new Map([
    ...configured,
    ...(file === undefined ? [] : readSchemaFile(file)),
  ]);
}
