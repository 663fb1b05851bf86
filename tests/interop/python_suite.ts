/**
 * TypeScript and Mooncake's own Python class over one store, in both directions.
 *
 * Covered with the real wheel and without torch: every codec but `ragged_tensor` and `ragged_tensor_dict`, every dtype
 * NumPy has. Torch's own encoding, which is TypeScript's default, is checked here by its bytes: the wheel needs torch to
 * decode it. What the class reads here was written with `tensorEncoding: "numpy"`.
 *
 * @module
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { ColumnRemoteBatch, TransferBackend, TransferConfig } from "../../mod.ts";
import type { Column } from "../../src/batch/column.ts";
import { DTYPES } from "../../src/batch/dtype.ts";
import { tensor } from "../../src/batch/build.ts";
import { newSeed, Random, ROOT, scaled } from "../support/runtime.ts";
import type { PythonServer } from "../support/python.ts";
import { denseArray, type Field, fieldForPython, NUMPY_DTYPES, randomFields } from "./python/fields.ts";
import { bytesOfHex, columnIn, columnOut, hexOf, type Row, select, type Values } from "./python/neutral.ts";

/** The Python program that is told what to do. */
export const SERVER: string = join(ROOT, "tests", "interop", "python", "server.py");
const PARTITIONS = ["step-7", "p q", "é 名", "%", "a".repeat(260), "..", "é\u2028"];

/** The rows Python is asked for: all, Python's slice, or positions. */
type Selection = null | { readonly slice: readonly [number, number, number] } | readonly number[];
type Handle = ReturnType<ColumnRemoteBatch["toHandle"]>;

/** A manifest or meta, as far as the tests look into it. */
interface Stored {
  readonly object_id: string;
  readonly meta: { readonly chunks: readonly { readonly key: string }[] };
  readonly buffers: Record<string, { readonly chunks: readonly { readonly key: string }[] }>;
  readonly cleanup_keys?: readonly string[];
  readonly batchferry: { readonly v: number; readonly rowIds: unknown };
}

/** A store, a Python process and a transfer over it. */
export interface Both {
  readonly python: PythonServer;
  readonly transfer: TransferBackend;
  /** Another transfer over the store. */
  readonly open: () => Promise<TransferBackend>;
  /** What is in the store: files or keys. */
  readonly left: () => string[] | Promise<string[]>;
}

/** Runs a test over both, and sees to it that nothing is left when they have closed. */
export type WithBoth = (config: TransferConfig, test: (both: Both) => Promise<void>) => Promise<void>;

async function readJson(python: PythonServer, ...keys: readonly string[]): Promise<Stored> {
  let hex = "";
  for (const key of keys) hex += await python.call<string>("read", { key });
  return JSON.parse(new TextDecoder().decode(bytesOfHex(hex)));
}

/** The stored manifest and meta of a handle's stage. */
async function stored(
  python: PythonServer,
  handle: Handle,
  stage: string,
): Promise<{ manifest: Stored; meta: Stored }> {
  const refs = handle.stage_refs as Record<string, { manifest_key: string }>;
  const manifest = await readJson(python, refs[stage]!.manifest_key);
  return { manifest, meta: await readJson(python, ...manifest.meta.chunks.map(({ key }) => key)) };
}

/** Compares what TypeScript reads with what was written. */
async function assertReads(
  batch: ColumnRemoteBatch,
  fields: readonly Field[],
  rows: readonly number[],
): Promise<void> {
  const data = await batch.materialize();
  assert.equal(data.rows, rows.length);
  assert.deepEqual([...data.fields].sort(), fields.map(({ name }) => name).sort());
  for (const { name, kind, dtype, values } of fields) {
    const column: Column = data.column(name);
    assert.equal(column.kind, kind, name);
    if (dtype !== undefined) assert.equal((column as { dtype?: string }).dtype, dtype, name);
    assert.deepEqual(columnOut(data, name), select(values, rows), name);
  }
}

/** Compares what Python reads with what was written. */
async function assertPythonReads(
  python: PythonServer,
  handle: Handle,
  fields: readonly Field[],
  total: number,
  selection: Selection = null,
): Promise<void> {
  const names = fields.map(({ name }) => name);
  const read = await python.call<{ columns: Record<string, Values> }>("get", {
    handle,
    rows: selection,
    fields: names,
  });
  const rows = positions(selection, total);
  const expected = Object.fromEntries(fields.map(({ name, values }) => [name, select(values, rows)]));
  assert.deepEqual(read.columns, expected);
}

function positions(selection: Selection, total: number): number[] {
  if (selection === null) return range(0, total, 1);
  if (!isPositions(selection)) return range(...selection.slice);
  return selection.map((row) => row < 0 ? row + total : row);
}

function isPositions(selection: object): selection is readonly number[] {
  return Array.isArray(selection);
}

function range(start: number, end: number, step: number): number[] {
  const rows: number[] = [];
  for (let row = start; step > 0 ? row < end : row > end; row += step) rows.push(row);
  return rows;
}

function columnsOf(fields: readonly Field[]): Record<string, Column> {
  return Object.fromEntries(
    fields.map(({ name, kind, dtype, values, storedAs }) => {
      const column = columnIn(kind, dtype, values);
      return [name, storedAs === undefined || column.kind === "tensor" ? column : { ...column, storedAs }];
    }),
  );
}

/** A partition of its own for every batch: in one partition a field keeps its form. */
function partitionOf(random: Random, i: number): string {
  return random.chance(0.1) ? String(i).padStart(32, "0") : `${random.pick(PARTITIONS)}${i}`;
}

/** Row positions, repeats and negative ones among them. */
function randomRows(random: Random, rows: number): number[] {
  return Array.from({ length: 1 + random.int(8) }, () => random.int(2 * rows) - rows);
}

/** Arrays without elements: Mooncake's class cannot gather rows of those. */
function hasWidth({ values }: Field): boolean {
  return !("array" in values && values.array.shape.includes(0));
}

/** Registers the tests for one store. */
export function pythonInterop(name: string, skip: string | false, withBoth: WithBoth): void {
  describe(`Python to TypeScript: ${name}`, { skip }, () => {
    it("reads, slices, gathers and drops what Python wrote and appended", () =>
      withBoth({}, async ({ python, transfer, left }) => {
        const random = new Random(newSeed("Python to TypeScript"));
        for (let i = 0; i < scaled(300); i++) {
          const rows = random.chance(0.05) ? 0 : 1 + random.int(12);
          const partition = partitionOf(random, i);
          const fields = randomFields(random, "python", rows);
          let handle = await python.call<Handle>("put", {
            fields: fields.map(fieldForPython),
            partition,
            stage: "gen",
            meta: { $d: [["step", i]] },
            chunk_bytes: random.pick([null, null, 16, 100]),
          });
          let batch = transfer.importHandle(handle);
          assert.equal(batch.partition, partition);
          assert.deepEqual(batch.meta, { step: i });
          await assertReads(batch, fields, range(0, rows, 1));

          const start = random.int(rows + 1);
          const end = start + random.int(rows - start + 1);
          await assertReads(batch.slice(start, end), fields, range(start, end, 1));
          await assertReads(batch.slice(undefined, undefined, -2), fields, range(rows - 1, -1, -2));
          if (rows > 0) {
            const picked = randomRows(random, rows);
            await assertReads(
              batch.selectRows(picked),
              fields,
              picked.map((row) => row < 0 ? row + rows : row),
            );
          }

          const all = [...fields];
          for (const stage of random.pick([[], ["gen"], ["reward"], ["gen", "gen", "reward", "gen"]])) {
            const more = randomFields(random, "python", rows, `more${all.length} `);
            all.push(...more);
            handle = await python.call("append", {
              handle,
              stage,
              fields: more.map(fieldForPython),
              meta: { $d: [] },
            });
            batch = transfer.importHandle(handle);
            await assertReads(batch, all, range(0, rows, 1));
          }
          // the handle goes through TypeScript unharmed
          const exported = batch.toHandle();
          assert.equal(exported.storage_group_id, handle.storage_group_id);
          await assertPythonReads(python, exported, all.filter(hasWidth), rows);

          await batch.drop();
          assert.deepEqual(await left(), [], "something is left after drop");
        }
      }));
  });

  describe(`TypeScript to Python: ${name}`, { skip }, () => {
    it("lets Python read, slice, gather, append and clean up what TypeScript wrote", () =>
      withBoth({ keyPrefix: "roll" }, async ({ python, transfer, left, open }) => {
        const random = new Random(newSeed("TypeScript to Python"));
        for (let i = 0; i < scaled(300); i++) {
          const rows = 1 + random.int(12);
          const partition = partitionOf(random, i);
          const fields = randomFields(random, "typescript", rows);
          const rowIds = random.chance(0.5) ? range(0, rows, 1).map((row) => `row ${i}/${row}`) : null;
          const options = { stage: "gen", meta: { step: i } };
          const batch = await transfer.put(partition, rowIds, columnsOf(fields), rows, options);
          const ids = await batch.rowIds();
          const handle = batch.toHandle();
          const files = await left();

          await assertPythonReads(python, handle, fields, rows);
          const start = random.int(rows);
          const end = start + 1 + random.int(rows - start);
          await assertPythonReads(python, handle, fields, rows, { slice: [start, end, 1] });
          await assertPythonReads(python, handle, fields.filter(hasWidth), rows, randomRows(random, rows));

          // an append that Python gives up leaves everything as it was
          const more = randomFields(random, "python", rows, "same ");
          const same = { handle, stage: "gen", fields: more.map(fieldForPython), meta: { $d: [] } };
          const dropped = await python.call<Handle>("append", same);
          await python.call("cleanup_append", { previous: handle, appended: dropped });
          assert.deepEqual(await left(), files);

          const appended = await python.call<Handle>("append", same);
          const others = randomFields(random, "python", rows, "other ");
          const staged = await python.call<Handle>("append", {
            handle: appended,
            stage: "reward",
            fields: others.map(fieldForPython),
            meta: { $d: [["rewarded", true]] },
          });
          {
            // another process of the consumer's, which has nothing but the handle
            await using consumer = await open();
            const read = consumer.importHandle(staged);
            assert.deepEqual(read.meta, { step: i, rewarded: true });
            await assertReads(read, [...fields, ...more, ...others], range(0, rows, 1));
            await assertFacts(python, handle, appended, rowIds);
            assert.deepEqual(await read.select(fields.map(({ name }) => name)).rowIds(), ids);
            const [first] = fields as [Field, ...Field[]];
            const byId = await consumer.get(partition, [ids[rows - 1]!, ids[0]!], [first.name]);
            assert.deepEqual(columnOut(byId, first.name), select(first.values, [rows - 1, 0]));
          }
          await python.call("cleanup_append", { previous: appended, appended: staged });
          await assertReads(transfer.importHandle(appended), [...fields, ...more], range(0, rows, 1));
          assert.deepEqual(await transfer.importHandle(appended).rowIds(), ids);

          await python.call("cleanup", { handle: appended });
          assert.deepEqual(await left(), [], "something is left after Python's cleanup");
          await using consumer = await open();
          await assert.rejects(() => consumer.importHandle(handle).materialize(), { code: "DROPPED" });
        }
      }));

    /** What TypeScript noted in a bundle is still there after Python appended to it. */
    async function assertFacts(
      python: PythonServer,
      before: Handle,
      after: Handle,
      rowIds: readonly string[] | null,
    ) {
      const old = await stored(python, before, "gen");
      const merged = await stored(python, after, "gen");
      assert.notEqual(merged.manifest.object_id, old.manifest.object_id);
      assert.ok(old.meta.batchferry.v >= 1);
      assert.deepEqual(merged.meta.batchferry, old.meta.batchferry);
      for (const key of old.manifest.cleanup_keys ?? []) {
        assert.ok(merged.manifest.cleanup_keys?.includes(key), key);
      }
      if (rowIds === null) return;
      const { key } = old.meta.batchferry.rowIds as { key: string };
      assert.ok(old.manifest.cleanup_keys?.includes(key), "given ids are a side object");
      assert.notEqual(await python.call("read", { key }), "");
    }

    it("writes tensors in torch's encoding with the header Mooncake has", () =>
      withBoth({ tensorEncoding: "torch" }, async ({ python, transfer, left }) => {
        const random = new Random(newSeed("torch's encoding"));
        const names = [...DTYPES];
        for (const rows of [0, 1, 5]) {
          const arrays = names.map((dtype) => denseArray(random, rows, dtype));
          const fields = arrays.map((
            { dtype, shape, hex },
            i,
          ) => [names[i], columnIn("tensor", dtype, { array: { dtype, shape, hex } })]);
          const batch = await transfer.put(`p${rows}`, null, Object.fromEntries(fields), rows);
          const { manifest } = await stored(python, batch.toHandle(), "default");
          for (const { dtype, shape, hex } of arrays) {
            const [chunk, ...others] = manifest.buffers[`batch.${dtype}`]!.chunks;
            assert.equal(others.length, 0);
            assert.deepEqual(await python.call("tensor", { key: chunk!.key }), {
              magic: "4e4f4f4d01003001",
              dtype,
              shape,
              same: true,
              bytes: [304, hex.length / 2, 304 + hex.length / 2],
              hex,
            });
          }
          await python.call("cleanup", { handle: batch.toHandle() });
          assert.deepEqual(await left(), []);
        }
      }));

    it("lets Python without torch append to and clean up bundles in torch's encoding", () =>
      withBoth({ tensorEncoding: "torch" }, async ({ python, transfer, left }) => {
        const random = new Random(newSeed("torch's encoding, appended"));
        const data = { x: tensor("bfloat16", [2, 2], [1, 2, 3, 4]), y: tensor("int64", [2], [7, 8]) };
        const batch = await transfer.put("p", null, data, 2, { stage: "gen" });
        const more = randomFields(random, "python", 2, "more ");
        // the wheel says so where it has to decode one
        await assert.rejects(python.call("get", { handle: batch.toHandle() }), /torch|tensor/i);
        const appended = await python.call<Handle>("append", {
          handle: batch.toHandle(),
          stage: "gen",
          fields: more.map(fieldForPython),
          meta: { $d: [] },
        });
        await assertPythonReads(python, appended, more, 2);
        const read = await transfer.importHandle(appended).materialize();
        assert.equal(hexOf(read.tensor("x").bytes), hexOf(data.x.bytes));
        assert.equal(hexOf(read.tensor("y").bytes), hexOf(data.y.bytes));
        await python.call("cleanup", { handle: appended });
        assert.deepEqual(await left(), []);
      }));

    it("gives every dtype of NumPy's to Python and back", () =>
      withBoth({}, async ({ python, transfer, left }) => {
        const random = new Random(newSeed("dtypes"));
        const fields: Field[] = NUMPY_DTYPES.map((dtype) => ({
          name: dtype,
          kind: "tensor",
          values: { array: denseArray(random, 3, dtype) },
          python: {},
        }));
        const batch = await transfer.put("p", null, columnsOf(fields), 3);
        await assertPythonReads(python, batch.toHandle(), fields, 3);
        const { columns } = await python.call<{ columns: Record<string, Values> }>("get", {
          handle: batch.toHandle(),
        });
        const back = fields.map((field) => ({ ...field, values: columns[field.name]! }));
        for (const section of ["batch", "non_tensor_batch"] as const) {
          for (const order of [undefined, ">"] as const) {
            const again = back.map((field) =>
              fieldForPython({ ...field, python: { section, ...(order ? { order } : {}) } })
            );
            const handle = await python.call<Handle>("put", {
              fields: again,
              partition: "p",
              stage: "s",
              meta: { $d: [] },
            });
            await assertReads(transfer.importHandle(handle), fields, [0, 1, 2]);
            await transfer.importHandle(handle).drop();
          }
        }
        await batch.drop();
        assert.deepEqual(await left(), []);
      }));
  });

  describe(`one store: ${name}`, { skip }, () => {
    it("shows Python what TypeScript published, and the other way round", () =>
      withBoth({}, async ({ python, transfer }) => {
        const values: Values = { rows: ["a", null, "c"] };
        const batch = await transfer.put("p", null, { s: columnIn("strings", undefined, values) }, 3);
        await transfer.publish("p", "latest", batch);
        const handle = await readJson(python, "bundle/p/names/latest") as unknown as Handle;
        assert.deepEqual((await python.call<{ columns: unknown }>("get", { handle })).columns, { s: values });

        const field: Field = { name: "t", kind: "strings", values, python: {} };
        const theirs = await python.call<Handle>("put", {
          fields: [fieldForPython(field)],
          partition: "p",
          stage: "s",
          meta: { $d: [] },
        });
        const text: Row = { $b: hexOf(new TextEncoder().encode(JSON.stringify(theirs))) };
        assert.equal(await python.call("call", { name: "put", args: ["bundle/p/names/theirs", text] }), 0);
        await assertReads(await transfer.lookup("p", "theirs") as ColumnRemoteBatch, [field], [0, 1, 2]);
        assert.ok(await transfer.dropPartition("p") > 0);
      }));

    it("lists what Python wrote", () =>
      withBoth({}, async ({ python, transfer }) => {
        const field: Field = { name: "t", kind: "strings", values: { rows: ["a", "b"] }, python: {} };
        for (const partition of PARTITIONS) {
          const handle = await python.call<Handle>("put", {
            fields: [fieldForPython(field)],
            partition,
            stage: "s",
            meta: { $d: [] },
          });
          const [info, ...others] = await transfer.list(partition);
          assert.equal(others.length, 0);
          assert.equal(
            info?.manifestKey,
            (handle.stage_refs as Record<string, { manifest_key: string }>).s?.manifest_key,
          );
          assert.equal(info?.rows, 2);
          assert.equal(await transfer.dropPartition(partition) > 0, true);
          assert.deepEqual(await transfer.list(partition), []);
        }
      }));
  });
}
