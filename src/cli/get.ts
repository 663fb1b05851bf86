/**
 * `get`: a batch, or a part of it, into a file.
 *
 * @module
 */

import type { ColumnRemoteBatch } from "../remote/remote_batch.ts";
import { type Command, type Invocation, STORE } from "./command.ts";
import { openHandle } from "./connect.ts";
import { formatOf } from "./inputs.ts";
import { writeOutput } from "./outputs.ts";
import { parseRows, type RowsArgument } from "./rows.ts";
import { formatBytes, formatRate, plural } from "./terminal.ts";
import { UsageError } from "./usage.ts";

/** The command. */
export const get: Command = {
  name: "get",
  synopsis: "HANDLE --output FILE",
  summary: "read a batch, or some of its fields and rows, into a file",
  options: {
    output: { type: "string", short: "o", value: "FILE", help: ".safetensors, .jsonl or .npy" },
    fields: { type: "string", value: "A,B", help: "fields in the order wanted; default all" },
    rows: { type: "string", value: "ROWS", help: "0:128, -2:, ::2, or 3,1,2; default all" },
    ...STORE,
  },
  positionals: [1, 1],
  run,
};

async function run(call: Invocation): Promise<void> {
  const { terminal } = call;
  const output = call.text("output");
  if (output === undefined) throw new UsageError("get: --output FILE is missing");
  const format = formatOf(output);
  const rows = call.text("rows");
  const wanted = rows === undefined ? undefined : parseRows(rows);
  const fields = call.text("fields")?.split(",").map((field) => field.trim());
  await using open = await openHandle(call, call.positionals[0]!);
  let batch = open.batch;
  if (fields !== undefined) batch = batch.select(fields);
  if (wanted !== undefined) batch = selectRows(batch, wanted);
  format.checkFields?.(output, batch.fields);
  terminal.status(`reading ${plural(batch.rows, "row")} of ${plural(batch.fields.length, "field")} …`);
  const before = (await open.transfer.info()).bytesRead;
  const start = performance.now();
  const values = await batch.materialize(undefined, {
    progress: terminal.progress(`reading ${plural(batch.rows, "row")}`),
  });
  const ms = performance.now() - start;
  const bytesRead = (await open.transfer.info()).bytesRead - before;
  terminal.status(`writing ${output} …`);
  const bytes = await writeOutput(output, values);
  terminal.outcome(
    { output, rows: batch.rows, fields: batch.fields, bytes, bytesRead, ms: Math.round(ms) },
    () =>
      `${output}: ${plural(batch.rows, "row")}, ${plural(batch.fields.length, "field")}, ${
        formatBytes(bytes)
      } ` +
      `(read ${formatBytes(bytesRead)} in ${Math.round(ms)} ms, ${formatRate(bytesRead, ms)})`,
  );
}

function selectRows(batch: ColumnRemoteBatch, wanted: RowsArgument): ColumnRemoteBatch {
  return wanted.kind === "slice"
    ? batch.slice(wanted.start, wanted.end, wanted.step)
    : batch.selectRows(wanted.rows);
}
