/**
 * Torch's tensors between TypeScript and Mooncake's own Python class: the encoding that TypeScript writes by default,
 * which only a Python with torch can decode.
 *
 * torch takes gigabytes, so it is not in `scripts/python/requirements.txt` and these tests are not among the others: they
 * are there when `BATCHFERRY_TEST_TORCH` names a Python that has it, and libibverbs, which the wheel's codec needs.
 *
 * ```sh
 * python3 -m venv torch && torch/bin/pip install -r scripts/python/requirements.txt torch
 * BATCHFERRY_TEST_TORCH=torch/bin/python node scripts/test.mjs tests/interop/python_torch_test.ts
 * ```
 *
 * @module
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { type ColumnRemoteBatch, openTransfer, type TransferBackend } from "../../mod.ts";
import { ragged, records } from "../../src/batch/build.ts";
import { DTYPES } from "../../src/batch/dtype.ts";
import { Tensor } from "../../src/batch/tensor.ts";
import { newSeed, Random, ROOT, temporaryFolder } from "../support/runtime.ts";
import { PythonServer } from "../support/python.ts";
import { denseArray, NUMPY_DTYPES } from "./python/fields.ts";
import { filesIn } from "./python/folder.ts";
import {
  type ArrayValue,
  bytesOfHex,
  columnIn,
  columnOut,
  type Row,
  select,
  type Values,
} from "./python/neutral.ts";

const SERVER = join(ROOT, "tests", "interop", "python", "server.py");
const executable = process.env.BATCHFERRY_TEST_TORCH;

type Handle = ReturnType<ColumnRemoteBatch["toHandle"]>;
/** What Python reads: a tensor of torch's, or rows. */
type Columns = Record<string, Values | { readonly tensor: ArrayValue }>;

async function withTorch(
  test: (python: PythonServer, transfer: TransferBackend) => Promise<void>,
): Promise<void> {
  using folder = temporaryFolder();
  await using python = PythonServer.start(executable as string, SERVER);
  await using transfer = await openTransfer({ directory: folder.path });
  await python.call("open", { directory: folder.path });
  await test(python, transfer);
  assert.deepEqual(filesIn(folder.path), []);
}

/** A row that Python makes a tensor, and the same row as TypeScript reads it. */
function raggedRows(
  random: Random,
  dtype: ArrayValue["dtype"],
  rows: number,
): { theirs: Row[]; ours: Row[] } {
  const ours: Row[] = Array.from({ length: rows }, () => {
    const { shape, hex } = denseArray(random, 1 + random.int(4), dtype);
    return { $a: dtype, shape: [shape.reduce((size, n) => size * n, 1)], hex };
  });
  const theirs = ours.map((row) => {
    const { $a, ...rest } = row as { $a: string };
    return { $t: $a, ...rest } as unknown as Row;
  });
  return { theirs, ours };
}

if (executable !== undefined) {
  describe("torch", () => {
    it("reads every dtype that TypeScript writes, whole, sliced and gathered, and back", () =>
      withTorch(async (python, transfer) => {
        const random = new Random(newSeed("torch"));
        const rows = 5;
        for (let i = 0; i < 10; i++) {
          const arrays = DTYPES.map((dtype) => denseArray(random, rows, dtype));
          const partition = `p${i}`;
          const fields = Object.fromEntries(
            arrays.map((array) => [array.dtype, columnIn("tensor", array.dtype, { array })]),
          );
          const batch = await transfer.put(partition, null, fields, rows, { stage: "gen" });
          const handle = batch.toHandle();
          const expected = (positions: readonly number[], from = arrays) =>
            Object.fromEntries(
              from.map((
                array,
              ) => [array.dtype, { tensor: (select({ array }, positions) as { array: ArrayValue }).array }]),
            );
          const all = [0, 1, 2, 3, 4];
          assert.deepEqual(
            (await python.call<{ columns: Columns }>("get", { handle })).columns,
            expected(all),
          );
          const sliced = await python.call<{ columns: Columns }>("get", {
            handle,
            rows: { slice: [1, 4, 1] },
          });
          assert.deepEqual(sliced.columns, expected([1, 2, 3]));
          const wide = arrays.filter(({ shape }) => !shape.includes(0));
          const names = wide.map(({ dtype }) => dtype);
          const picked = await python.call<{ columns: Columns }>("get", {
            handle,
            rows: [4, 0, -2, 0],
            fields: names,
          });
          assert.deepEqual(picked.columns, expected([4, 0, 3, 0], wide));

          // Python appends the same tensors under other names, to the same stage and to another
          const copies = (prefix: string) =>
            arrays.map((tensor) => ({ name: `${prefix} ${tensor.dtype}`, tensor }));
          const meta = { $d: [] };
          let appended = await python.call<Handle>("append", {
            handle,
            stage: "gen",
            fields: copies("same"),
            meta,
          });
          appended = await python.call<Handle>("append", {
            handle: appended,
            stage: "more",
            fields: copies("more"),
            meta,
          });
          const data = await transfer.importHandle(appended).materialize();
          assert.equal(data.fields.length, 3 * arrays.length);
          for (const array of arrays) {
            for (const prefix of ["", "same ", "more "]) {
              assert.deepEqual(columnOut(data, `${prefix}${array.dtype}`), { array });
            }
          }
          await python.call("cleanup", { handle: appended });
        }
      }));

    it("gives TypeScript jagged tensors, ragged tensors and dicts of tensors", () =>
      withTorch(async (python, transfer) => {
        const random = new Random(newSeed("ragged torch"));
        for (const dtype of DTYPES) {
          const isNumpy = (NUMPY_DTYPES as readonly string[]).includes(dtype);
          const { theirs, ours } = raggedRows(random, dtype, 4);
          // torch itself has no jagged tensors of these
          const jagged = dtype.startsWith("float8") ? [] : [{ name: "jagged", jagged: theirs }];
          const ragged = isNumpy ? [{ name: "ragged", rows: theirs }] : [];
          const fields = [...jagged, ...ragged];
          if (fields.length === 0) continue;
          const handle = await python.call<Handle>("put", {
            fields,
            partition: `p ${dtype}`,
            stage: "s",
            meta: { $d: [] },
          });
          const batch = transfer.importHandle(handle);
          const data = await batch.materialize();
          for (const { name } of fields) {
            assert.deepEqual(columnOut(data, name), { rows: ours }, `${name} ${dtype}`);
          }
          const picked = await batch.selectRows([3, 0, 0]).materialize(ragged.map(({ name }) => name));
          for (const { name } of ragged) {
            assert.deepEqual(columnOut(picked, name), { rows: [ours[3], ours[0], ours[0]] });
          }
          await batch.drop();
        }
      }));

    it("gives TypeScript dicts of tensors", () =>
      withTorch(async (python, transfer) => {
        const random = new Random(newSeed("dicts of torch"));
        const a = raggedRows(random, "int64", 4);
        const b = raggedRows(random, "float32", 4);
        // Python takes no nulls in a dict, but keys may be absent
        const dicts = (part: "ours" | "theirs"): Row[] =>
          [0, 1, 2].map((row): Row => {
            const entries: [string, Row][] = [["a", a[part][row]!]];
            if (row !== 1) entries.push(["b", b[part][row]!]);
            return { $d: entries };
          });
        const field = {
          name: "d",
          rows: [...dicts("theirs"), null],
          codec: "ragged_tensor_dict",
          metadata: { keys: ["a", "b"] },
        };
        const handle = await python.call<Handle>("put", {
          fields: [field],
          partition: "p",
          stage: "s",
          meta: { $d: [] },
        });
        const batch = transfer.importHandle(handle);
        assert.deepEqual(columnOut(await batch.materialize(), "d"), { rows: [...dicts("ours"), null] });
        await batch.drop();
      }));

    it("reads ragged tensors, dicts of them and jagged tensors that TypeScript writes, whole, sliced and gathered", () =>
      withTorch(async (python, transfer) => {
        const random = new Random(newSeed("written as tensors"));
        const make = ({ dtype, shape, hex }: ArrayValue) => new Tensor(dtype, shape, bytesOfHex(hex));
        const out = ({ dtype, shape, hex }: ArrayValue): Row => ({ $a: dtype, shape, hex });
        const rowOf = (dtype: ArrayValue["dtype"]): ArrayValue => {
          const { shape, hex } = denseArray(random, 1 + random.int(4), dtype);
          return { dtype, shape: [shape.reduce((size, n) => size * n, 1)], hex };
        };
        for (const [i, dtype] of NUMPY_DTYPES.entries()) {
          const tensors = Array.from({ length: 5 }, () => rowOf(dtype));
          const gap = tensors.map((row, at) => at === 2 ? null : row);
          const dicts = tensors.map((row, at) =>
            at === 3 ? null : at === 1 ? { a: row } : { a: row, b: rowOf("int64") }
          );
          const columns = {
            rows: ragged(dtype, gap.map((row) => row === null ? null : make(row)), {
              storedAs: "ragged_tensor",
            }),
            one: ragged(dtype, tensors.map(make), { storedAs: "jagged" }),
            dicts: records(
              dicts.map((dict) =>
                dict === null
                  ? null
                  : Object.fromEntries(Object.entries(dict).map(([key, row]) => [key, make(row!)]))
              ),
              { storedAs: "ragged_tensor_dict" },
            ),
          };
          const batch = await transfer.put(`p${i}`, null, columns, 5);
          const expected: Record<string, Row[]> = {
            rows: gap.map((row) => row === null ? null : out(row)),
            one: tensors.map(out),
            dicts: dicts.map((dict): Row =>
              dict === null ? null : { $d: Object.entries(dict).map(([key, row]) => [key, out(row!)]) }
            ),
          };
          const handle = batch.toHandle();
          for (
            const [rows, picked] of [[null, [0, 1, 2, 3, 4]], [{ slice: [1, 4, 1] }, [1, 2, 3]], [[4, 0], [
              4,
              0,
            ]]] as const
          ) {
            const read = await python.call<{ columns: Columns }>("get", { handle, rows });
            for (const [name, values] of Object.entries(expected)) {
              assert.deepEqual(
                read.columns[name],
                { rows: picked.map((row) => values[row]) },
                `${dtype} ${name}`,
              );
            }
          }
          await python.call("cleanup", { handle });
        }
        const rows = Array.from({ length: 3 }, () => rowOf("bfloat16"));
        const batch = await transfer.put(
          "bf16",
          null,
          { j: records(rows.map(make), { storedAs: "jagged" }) },
          3,
        );
        const read = await python.call<{ columns: Columns }>("get", { handle: batch.toHandle() });
        assert.deepEqual(read.columns.j, { rows: rows.map(out) });
        await python.call("cleanup", { handle: batch.toHandle() });
      }));

    it("reads tensors inside records", () =>
      withTorch(async (python, transfer) => {
        const random = new Random(newSeed("records with tensors"));
        const array = (dtype: "int64" | "float32") => denseArray(random, 3, dtype);
        const rows = Array.from({ length: 4 }, () => ({ a: array("int64"), b: { c: array("float32") } }))
          // torch's codec wants all rows of as many dimensions
          .map(({ a, b }) => ({
            a: { ...a, shape: [a.hex.length / 16] },
            b: { c: { ...b.c, shape: [b.c.hex.length / 8] } },
          }));
        const make = ({ dtype, shape, hex }: ArrayValue) => new Tensor(dtype, shape, bytesOfHex(hex));
        const column = records([...rows.map(({ a, b }) => ({ a: make(a), b: { c: make(b.c) } })), null]);
        const batch = await transfer.put("p", null, { r: column }, 5);
        const out = ({ dtype, shape, hex }: ArrayValue): Row => ({ $a: dtype, shape, hex });
        const expected = [
          ...rows.map(({ a, b }): Row => ({ $d: [["a", out(a)], ["b", { $d: [["c", out(b.c)]] }]] })),
          null,
        ];
        const read = await python.call<{ columns: Columns }>("get", { handle: batch.toHandle() });
        assert.deepEqual(read.columns, { r: { rows: expected } });
        await python.call("cleanup", { handle: batch.toHandle() });
      }));
  });
}
