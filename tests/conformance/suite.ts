/**
 * What every backend must do, the same for each: run by one small file per backend.
 *
 * @module
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  Batch,
  bytes,
  ClosedError,
  type Column,
  ColumnRemoteBatch,
  concat,
  DroppedError,
  type Fields,
  json,
  NotFoundError,
  openTransfer,
  OwnershipError,
  ragged,
  records,
  scalars,
  SchemaError,
  strings,
  tensor,
  TimeoutError,
  type TransferBackend,
  type TransferConfig,
} from "../../mod.ts";

/** How the suite gets a backend. */
export interface Subject {
  readonly name: string;
  /** A configuration for one test; all of one test share their store. */
  readonly config: () => TransferConfig;
  /** A second transfer sees what the first one put. */
  readonly shared: boolean;
  readonly after?: (config: TransferConfig) => void;
}

/** Six rows of every kind. */
export function sample(): Record<string, Column | Float32Array> {
  return {
    ids: tensor("int64", [6, 2], [0n, 1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n, 9n, 10n, -(2n ** 63n)]),
    weights: tensor("bfloat16", [6, 3], Array.from({ length: 18 }, (_, i) => i / 2)),
    vector: new Float32Array([0, 1.5, 2, 3, 4, 5]),
    score: scalars("float64", [0.5, null, 2, -0, 4, Number.MAX_VALUE]),
    big: scalars("int64", [1, 2n ** 53n, -(2n ** 63n), null, 0, 9007199254740991]),
    flag: scalars("bool", [true, false, null, true, true, false]),
    tokens: ragged("int64", [[1, 2, 3], [], null, [4], [2n ** 60n, 5], [6]]),
    logp: ragged("float32", [
      new Float32Array([1, 2]),
      null,
      new Float32Array(0),
      new Float32Array([3]),
      null,
      null,
    ]),
    text: strings(["a", "", null, "héé", "👩‍🚀", "line\nbreak\0"]),
    raw: bytes([
      new Uint8Array([0, 255]),
      null,
      new Uint8Array(0),
      new Uint8Array([1]),
      null,
      new Uint8Array([7]),
    ]),
    info: json([{ a: [1, { b: null }] }, null, "x", 1.5, [], 2n ** 70n]),
  };
}

/** Everything in a batch as plain values, for comparing. */
export function plain(batch: Batch): Record<string, unknown>[] {
  return [...batch].map((row) =>
    Object.fromEntries(
      Object.entries(row).map(([name, value]) => [
        name,
        value instanceof Object && "toNested" in value
          ? (value as { toNested(): unknown }).toNested()
          : value,
      ]),
    )
  );
}

/** The local batch of the sample. */
export function localSample(): Batch {
  const fields = sample();
  return new Batch(
    6,
    Object.entries(fields).map(([name, column]) =>
      [name, column instanceof Float32Array ? tensor("float32", [6], column) : column] as const
    ),
  );
}

/** Columns `x`, numbered from `start`, and `s`. */
function sampleRows(rows: number, start: number): Fields {
  return {
    x: Int32Array.from({ length: rows }, (_, i) => start + i),
    s: strings(Array.from({ length: rows }, (_, i) => `row ${start + i}`)),
  };
}

const COLUMNS = Object.keys(sample());

/** Registers the suite for one backend. */
export function conformance(subject: Subject): void {
  const open = async (test: (transfer: TransferBackend, config: TransferConfig) => Promise<void>) => {
    const config = subject.config();
    const transfer = await openTransfer(config);
    try {
      await test(transfer, config);
    } finally {
      await transfer.close();
      subject.after?.(config);
    }
  };

  describe(`backend ${subject.name}`, () => {
    it("gives back every kind as it was put", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, sample(), 6);
        assert.equal(batch.rows, 6);
        assert.deepEqual(batch.fields, COLUMNS);
        const data = await batch.materialize();
        assert.deepEqual(plain(data), plain(localSample()));
        assert.equal(data.tensor("ids").data.constructor, BigInt64Array);
        assert.equal(data.tensor("weights").dtype, "bfloat16");
        await batch.drop();
      }));

    it("keeps lists of equal length lists, and typed arrays typed arrays", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, {
          lists: ragged("int64", [[1, 2], [3, 4]]),
          arrays: ragged("int32", [new Int32Array([1, 2]), new Int32Array([3, 4])]),
          nested: json([[1, 2], [3, 4]]),
        }, 2);
        const data = await batch.materialize();
        assert.deepEqual(data.ragged("lists").toArray(), [[1, 2], [3, 4]]);
        assert.deepEqual(data.ragged("arrays").toArray(), [new Int32Array([1, 2]), new Int32Array([3, 4])]);
        assert.deepEqual(data.json("nested").toArray(), [[1, 2], [3, 4]]);
        await batch.drop();
      }));

    it("stores nested records with tensors, arrays and bytes in them", () =>
      open(async (transfer) => {
        const rows = [
          { q: { z: new Uint8Array([122]) }, x: new Int32Array([1, 2]), n: 1 },
          null,
          { y: tensor("float16", [2, 2], [1, 2, 3, 4]), s: "t", list: [1, { deep: null }] },
          {},
        ];
        const batch = await transfer.put("p", null, { r: records(rows) }, 4);
        const back = (await batch.materialize()).records("r").toArray() as (Record<string, unknown> | null)[];
        assert.deepEqual(Object.keys(back[0] ?? {}).sort(), ["n", "q", "x"]);
        assert.deepEqual(back[0]?.q, { z: new Uint8Array([122]) });
        assert.deepEqual([back[0]?.n, back[2]?.s, back[2]?.list], [1, "t", [1, { deep: null }]]);
        assert.deepEqual([back[1], back[3]], [null, {}]);
        const part = (await batch.selectRows([2, 0]).materialize()).records("r").toArray() as typeof back;
        assert.deepEqual(part, [back[2], back[0]]);
        await batch.drop();
      }));

    it("puts and reads batches without rows, and without columns", () =>
      open(async (transfer) => {
        const empty = await transfer.put("p", null, {
          t: tensor("float16", [0, 4], []),
          s: strings([]),
          r: ragged("int8", []),
          n: scalars("int32", []),
        }, 0);
        const data = await empty.materialize();
        assert.equal(data.rows, 0);
        assert.deepEqual(data.tensor("t").shape, [0, 4]);
        assert.deepEqual(data.strings("s").toArray(), []);
        await empty.drop();
        const bare = await transfer.put("p", null, {}, 3);
        assert.equal((await bare.materialize()).rows, 3);
        assert.equal(bare.slice(1).rows, 2);
        await bare.drop();
        assert.deepEqual(await transfer.list("p"), []);
      }));

    it("reads all-null columns", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, {
          s: strings([null, null]),
          r: ragged("int64", [null, null]),
          n: scalars("float32", [null, null]),
          j: json([null, null]),
        }, 2);
        const data = await batch.materialize();
        for (const kind of ["strings", "ragged", "scalars", "json"] as const) {
          assert.deepEqual(
            data[kind](kind[0] === "r" ? "r" : kind === "scalars" ? "n" : kind[0] as string).toArray(),
            [
              null,
              null,
            ],
          );
        }
        await batch.drop();
      }));

    it("selects rows as plain arrays do", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, sample(), 6);
        const rows = plain(localSample());
        const views: [ColumnRemoteBatch, number[]][] = [
          [batch.slice(1, 4), [1, 2, 3]],
          [batch.slice(-2), [4, 5]],
          [batch.slice(undefined, undefined, -1), [5, 4, 3, 2, 1, 0]],
          [batch.slice(0, 6, 2), [0, 2, 4]],
          [batch.selectRows([5, 1, 1, -6]), [5, 1, 1, 0]],
          [batch.selectRows([true, false, true, false, false, true]), [0, 2, 5]],
          [batch.repeat(2), [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]],
          [batch.slice(0, 2).repeat(2, { interleave: true }), [0, 0, 1, 1]],
          [batch.selectRows([]), []],
          [concat([batch.slice(4), batch.slice(0, 2)]), [4, 5, 0, 1]],
          [concat([batch.slice(4), batch.slice(0, 2)]).selectRows([3, 0, 3]), [1, 4, 1]],
          [batch.chunk(4)[1] as ColumnRemoteBatch, [2, 3]],
        ];
        for (const [view, expected] of views) {
          assert.equal(view.rows, expected.length);
          if (expected.length === 0) continue;
          assert.deepEqual(plain(await view.materialize()), expected.map((row) => rows[row]));
        }
        await batch.drop();
      }));

    it("refuses wrong rows, masks and fields at the call", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, { x: new Int32Array(4) }, 4);
        assert.throws(() => batch.selectRows([4]), SchemaError);
        assert.throws(() => batch.selectRows([-5]), SchemaError);
        assert.throws(() => batch.selectRows([true, false]), SchemaError);
        assert.throws(() => batch.slice(0, 4, 0), SchemaError);
        assert.throws(() => batch.select(["y"]), SchemaError);
        assert.throws(() => batch.select(["x", "x"]), SchemaError);
        assert.throws(() => batch.chunk([1, 2]), SchemaError);
        assert.throws(() => batch.repeat(-1), SchemaError);
        await assert.rejects(batch.materialize(["y"]), SchemaError);
        await batch.drop();
      }));

    it("refuses bad input before anything is written", () =>
      open(async (transfer) => {
        const cases: (() => Promise<unknown>)[] = [
          () => transfer.put("p", null, { x: new Int32Array(3) }, 4),
          () => transfer.put("p", ["a"], { x: new Int32Array(2) }, 2),
          () => transfer.put("p", ["a", "a"], { x: new Int32Array(2) }, 2),
          () => transfer.put("a/b", null, { x: new Int32Array(2) }, 2),
          () => transfer.put("", null, { x: new Int32Array(2) }, 2),
          () => transfer.put("p", null, { "x/y": new Int32Array(2) }, 2),
          () => transfer.put("p", null, { x: [1, 2] as never }, 2),
          () => transfer.put("p", null, { a: strings(["x"]), "a.data": strings(["y"]) }, 1),
          () => transfer.put("p", null, { x: new Int32Array(2) }, -1),
        ];
        for (const bad of cases) await assert.rejects(bad, SchemaError, String(bad));
        assert.deepEqual(await transfer.list("p"), []);
        assert.equal((await transfer.info()).bytesWritten, 0);
      }));

    it("reads only the columns and rows asked for", () =>
      open(async (transfer) => {
        const columns = Object.fromEntries(
          Array.from(
            { length: 10 },
            (_, i) => [`c${i}`, tensor("float32", [64, 256], new Float32Array(64 * 256))],
          ),
        );
        const batch = await transfer.put("p", null, columns, 64);
        const before = await transfer.info();
        await batch.slice(8, 16).materialize(["c3"]);
        const after = await transfer.info();
        assert.equal(after.reads - before.reads, 1);
        assert.equal(after.bytesRead - before.bytesRead, 8 * 256 * 4);
        await batch.drop();
      }));

    it("reads every row once, however often it is selected", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, {
          x: tensor("float64", [32, 128], new Float64Array(4096)),
        }, 32);
        const before = await transfer.info();
        await batch.repeat(8).materialize();
        const after = await transfer.info();
        assert.equal(after.bytesRead - before.bytesRead, 32 * 128 * 8);
        await batch.drop();
      }));

    it("fills memory it is given", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, sample(), 6);
        const first = await batch.materialize(["ids", "text"]);
        const data = first.tensor("ids").data as BigInt64Array;
        data.fill(77n);
        const second = await batch.materialize(["ids", "text"], { into: first });
        assert.equal(second.tensor("ids").data, data);
        assert.deepEqual(plain(second), plain(await batch.materialize(["ids", "text"])));
        await assert.rejects(batch.slice(1).materialize(["ids"], { into: first }), SchemaError);
        await batch.drop();
      }));

    it("lends columns, and takes them back", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, sample(), 6);
        const lease = await batch.borrow();
        assert.deepEqual(plain(lease.batch), plain(localSample()));
        const kept = lease.batch.tensor("ids").data as BigInt64Array;
        kept[0] = 99n; // seen by nobody else
        assert.equal((await batch.materialize(["ids"])).tensor("ids").data[0], 0n);
        const text = lease.batch.strings("text");
        lease.release();
        lease.release();
        assert.equal(kept.length, 0);
        assert.throws(() => lease.batch.tensor("ids").data, ClosedError);
        assert.throws(() => text.at(0), ClosedError);
        {
          using part = await batch.slice(2, 4).borrow(["vector", "text"]);
          assert.deepEqual([...part.batch.tensor("vector").data], [2, 3]);
          assert.deepEqual(part.batch.strings("text").toArray(), [null, "héé"]);
        }
        await batch.drop();
      }));

    it("renames, removes and pops columns", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, { a: new Int32Array([1, 2]), b: strings(["x", "y"]) }, 2);
        const renamed = batch.rename({ a: "c" });
        assert.deepEqual(renamed.fields, ["c", "b"]);
        assert.deepEqual([...(await renamed.materialize(["c"])).tensor("c").data], [1, 2]);
        assert.deepEqual(batch.without(["a"]).fields, ["b"]);
        const [popped, rest] = batch.pop(["a"]);
        assert.deepEqual([popped.fields, rest.fields, batch.fields], [["a"], ["b"], ["a", "b"]]);
        assert.throws(() => batch.rename({ a: "b" }), SchemaError);
        await batch.drop();
      }));

    it("carries meta in the handle, copied on write", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, { x: new Int32Array(1) }, 1, {
          meta: { step: 7, deep: { a: [1] } },
        });
        const other = batch.withMeta({ step: 8, extra: null });
        assert.deepEqual(batch.meta, { step: 7, deep: { a: [1] } });
        assert.deepEqual(other.meta, { step: 8, deep: { a: [1] }, extra: null });
        assert.deepEqual(transfer.importHandle(JSON.stringify(other.toHandle())).meta, other.meta);
        await batch.drop();
      }));

    it("reads by row id, in the order asked", () =>
      open(async (transfer) => {
        const ids = ["r0", "r1", "r2", "r3", "r4", "r5"];
        const batch = await transfer.put("p", ids, sample(), 6);
        const data = await transfer.get("p", ["r4", "r1", "r4"], ["text", "ids"]);
        const rows = plain(localSample());
        assert.deepEqual(
          plain(data),
          [4, 1, 4].map((i) => ({ text: rows[i]?.text, ids: rows[i]?.ids })),
        );
        await assert.rejects(transfer.get("p", ["r1", "nope", "nada"], ["text"]), (error: NotFoundError) => {
          assert.equal(error.code, "NOT_FOUND");
          assert.deepEqual(error.details.rows, ["nope", "nada"]);
          return true;
        });
        await assert.rejects(transfer.get("p", ["r1"], ["absent"]), (error: NotFoundError) => {
          assert.equal(error.code, "NOT_READY");
          assert.deepEqual(error.details.rows, ["r1"]);
          return true;
        });
        await batch.drop();
        await assert.rejects(transfer.get("p", ["r1"], ["text"]), NotFoundError);
      }));

    it("finds a cell in the bundle put last", () =>
      open(async (transfer) => {
        await transfer.put("p", ["a", "b"], { x: new Int32Array([1, 2]), y: new Int32Array([5, 6]) }, 2);
        await transfer.put("p", ["b"], { x: new Int32Array([3]) }, 1);
        const data = await transfer.get("p", ["a", "b"], ["x", "y"]);
        assert.deepEqual(data.tensor("x").toNumbers(), [1, 3]);
        assert.deepEqual(data.tensor("y").toNumbers(), [5, 6]);
        await transfer.dropPartition("p");
      }));

    it("deletes cells by row id, tells what was absent, and drops a bundle when nothing is left of it", () =>
      open(async (transfer, config) => {
        await transfer.put("p", ["a", "b"], { x: new Int32Array([1, 2]), y: new Int32Array([3, 4]) }, 2);
        await transfer.put("p", ["c"], { x: new Int32Array([5]) }, 1);
        assert.deepEqual(await transfer.delete("p", ["a", "zz", "a"], ["x"]), { deleted: 1, absent: ["zz"] });
        await assert.rejects(
          transfer.get("p", ["a"], ["x"]),
          (error: NotFoundError) => error.code === "NOT_READY",
        );
        assert.deepEqual((await transfer.get("p", ["a", "b"], ["y"])).tensor("y").toNumbers(), [3, 4]);
        if (subject.shared) {
          // another process sees it too
          const other = await openTransfer(config);
          await assert.rejects(other.get("p", ["a"], ["x"]), NotFoundError);
          assert.deepEqual((await other.get("p", ["b"], ["x"])).tensor("x").toNumbers(), [2]);
          await other.close();
        }
        assert.deepEqual(await transfer.delete("p", ["a"], ["x"]), { deleted: 0, absent: ["a"] });
        assert.deepEqual(await transfer.delete("p", ["a"], []), { deleted: 1, absent: [] });
        await assert.rejects(
          transfer.get("p", ["a"], ["y"]),
          (error: NotFoundError) => error.code === "NOT_FOUND",
        );
        assert.equal((await transfer.list("p")).length, 2);
        assert.deepEqual(await transfer.delete("p", ["b", "c", "d"], []), { deleted: 2, absent: ["d"] });
        assert.deepEqual(await transfer.list("p"), []);
        // a row that was deleted can be put again
        await transfer.put("p", ["a"], { x: new Int32Array([9]) }, 1);
        assert.deepEqual((await transfer.get("p", ["a"], ["x"])).tensor("x").toNumbers(), [9]);
        await transfer.dropPartition("p");
      }));

    it("holds a field to the form of its first put in a partition", () =>
      open(async (transfer, config) => {
        await transfer.put("p", null, { x: new Int32Array(1), s: strings(["a"]) }, 1);
        await transfer.put("p", null, { x: new Int32Array(2), s: strings([null, null]) }, 2);
        for (const x of [new Float32Array(1), strings(["a"]), tensor("int32", [1, 1], [1])]) {
          await assert.rejects(transfer.put("p", null, { x }, 1), (error: SchemaError) => {
            assert.equal(error.details.expected, "tensor int32 1-D");
            return error.code === "SCHEMA";
          });
        }
        await transfer.put("other", null, { x: new Float32Array(1) }, 1);
        await transfer.dropPartition("p");
        await transfer.put("p", null, { x: new Float32Array(1) }, 1);
        await transfer.dropPartition("p");
        await transfer.dropPartition("other");
        const declared = await openTransfer({
          ...config,
          fieldSchemas: {
            t: { kind: "tensor", dtype: "int64", shape: [2], nullable: false },
            r: { codec: "typed_ragged", nullable: false, metadata: { dtype: "int64" } },
          },
        });
        try {
          await assert.rejects(
            declared.put("p", null, { t: tensor("int32", [1, 2], [1, 2]) }, 1),
            SchemaError,
          );
          await assert.rejects(
            declared.put("p", null, { t: tensor("int64", [1, 3], [1, 2, 3]) }, 1),
            SchemaError,
          );
          await assert.rejects(declared.put("p", null, { r: ragged("int64", [null]) }, 1), SchemaError);
          await declared.put("p", null, { t: tensor("int64", [1, 2], [1, 2]), r: ragged("int64", [[1]]) }, 1);
          await declared.dropPartition("p");
        } finally {
          await declared.close();
        }
      }));

    it("binds batches to row ids, resolved when they are read", () =>
      open(async (transfer) => {
        const rows = transfer.rows("p", ["b", "a", "b"], ["x", "y"]);
        assert.deepEqual([rows.rows, rows.fields], [3, ["x", "y"]]);
        await assert.rejects(rows.materialize(), (error: NotFoundError) => {
          assert.equal(error.code, "NOT_READY");
          assert.deepEqual(error.details.rows, ["b", "a", "b"]);
          return true;
        });
        await transfer.put("p", ["a", "b"], { x: new Int32Array([1, 2]) }, 2);
        assert.deepEqual((await rows.materialize(["x"])).tensor("x").toNumbers(), [2, 1, 2]);
        await assert.rejects(rows.materialize(["y"]), NotFoundError);
        await transfer.put("p", ["b", "a"], { y: strings(["bb", "aa"]) }, 2);
        assert.deepEqual(plain(await rows.slice(1).materialize()), [{ x: 1, y: "aa" }, { x: 2, y: "bb" }]);
        assert.deepEqual(await rows.rowIds(), ["b", "a", "b"]);
        const imported = transfer.importHandle(JSON.stringify(rows.slice(1).toHandle()));
        assert.deepEqual(plain(await imported.materialize()), [{ x: 1, y: "aa" }, { x: 2, y: "bb" }]);
        const values = await transfer.rows("p", ["a", "b"], ["x"]).put({ z: new Int32Array([7, 8]) });
        assert.deepEqual((await transfer.get("p", ["b"], ["z"])).tensor("z").toNumbers(), [8]);
        assert.deepEqual(values.fields, ["z"]);
        await transfer.dropPartition("p");
      }));

    it("unites columns over the same rows, in any view of them", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, { x: new Int32Array([0, 1, 2, 3]) }, 4);
        const view = batch.selectRows([3, 1, 1]);
        const derived = await view.put({ y: new Int32Array([30, 10, 11]) });
        const both = view.union(derived);
        assert.deepEqual(plain(await both.slice(undefined, undefined, -1).materialize()), [
          { x: 1, y: 11 },
          { x: 1, y: 10 },
          { x: 3, y: 30 },
        ]);
        assert.throws(() => batch.union(derived), /alignTo/);
        assert.throws(() => view.slice(0, 2).union(derived), SchemaError);
        const again = await view.put({ x: new Int32Array([7, 8, 9]) });
        assert.throws(() => view.union(again), /onConflict/);
        assert.deepEqual(
          (await view.union(again, { onConflict: "left" }).materialize()).tensor("x").toNumbers(),
          [3, 1, 1],
        );
        assert.deepEqual(
          (await view.union(again, { onConflict: "right" }).materialize()).tensor("x").toNumbers(),
          [7, 8, 9],
        );
        assert.deepEqual(view.union(view).fields, ["x"]);
        // and after a trip through a handle
        const imported = transfer.importHandle(JSON.stringify(derived.toHandle()));
        assert.deepEqual(plain(await view.union(imported).slice(0, 1).materialize()), [{ x: 3, y: 30 }]);
        await transfer.dropPartition("p");
      }));

    it("appends to a stage, as a stage, and over one", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", ["r", "s"], { a: new Int32Array([1, 2]) }, 2, {
          meta: { k: 1 },
        });
        const same = await batch.append({ b: strings(["x", null]) });
        assert.deepEqual(plain(await same.materialize()), [{ a: 1, b: "x" }, { a: 2, b: null }]);
        assert.deepEqual(Object.keys(same.toHandle().stage_refs as object), ["default"]);
        assert.deepEqual(plain(await batch.materialize()), [{ a: 1 }, { a: 2 }]);
        const two = await same.append({ c: ragged("int8", [[1], []]) }, { stage: "later" });
        assert.deepEqual(Object.keys(two.toHandle().stage_refs as object), ["default", "later"]);
        const imported = transfer.importHandle(JSON.stringify(two.toHandle()));
        assert.deepEqual(plain(await imported.materialize()), [{ a: 1, b: "x", c: [1] }, {
          a: 2,
          b: null,
          c: [],
        }]);
        assert.deepEqual(await imported.rowIds(), ["r", "s"]);
        await assert.rejects(two.append({ a: new Int32Array(2) }), SchemaError);
        await assert.rejects(
          two.append({ d: new Int32Array(2) }, { stage: "later", overwrite: true }),
          /lose/,
        );
        await assert.rejects(two.slice(1).append({ d: new Int32Array(1) }), /view/);
        const over = await two.append({ c: ragged("int8", [[7], [8]]), d: new Int32Array(2) }, {
          stage: "later",
          overwrite: true,
        });
        assert.deepEqual(plain(await over.materialize(["a", "c"])), [{ a: 1, c: [7] }, { a: 2, c: [8] }]);
        await assert.rejects(two.materialize(["c"]), DroppedError);
        await over.drop();
        assert.deepEqual(await transfer.list("p"), []);
      }));

    it("aligns by row id", () =>
      open(async (transfer) => {
        const left = await transfer.put("p", ["a", "b", "c"], { x: new Int32Array([1, 2, 3]) }, 3);
        const right = await transfer.put("p", ["c", "a", "b"], { y: new Int32Array([30, 10, 20]) }, 3);
        assert.throws(() => left.union(right), /alignTo/);
        const united = left.union(await right.alignTo(left));
        assert.deepEqual(plain(await united.materialize()), [{ x: 1, y: 10 }, { x: 2, y: 20 }, {
          x: 3,
          y: 30,
        }]);
        const short = await transfer.put("p", ["a", "b"], { z: new Int32Array(2) }, 2);
        await assert.rejects(short.alignTo(left), (error: NotFoundError) => {
          assert.deepEqual(error.details.rows, ["c"]);
          return true;
        });
        const bound = transfer.rows("p", ["b", "a"], ["y"]);
        assert.deepEqual(plain(await (await right.alignTo(bound)).materialize()), [{ y: 20 }, { y: 10 }]);
        await transfer.dropPartition("p");
      }));

    it("groups rows by the values of columns, and reads nothing else", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, {
          prompt: strings(["a", "b", "a", null, "b", null]),
          n: scalars("int64", [1, 1, 1, 1, 2, 1]),
          heavy: tensor("float32", [6, 4096], new Float32Array(6 * 4096)),
        }, 6);
        const before = (await transfer.info()).bytesRead;
        const groups = await batch.groupBy(["prompt", "n"]);
        assert.ok((await transfer.info()).bytesRead - before < 4096);
        assert.deepEqual(groups.map(({ key, batch }) => [key, batch.rows]), [
          [{ prompt: "a", n: 1 }, 2],
          [{ prompt: "b", n: 1 }, 1],
          [{ prompt: null, n: 1 }, 2],
          [{ prompt: "b", n: 2 }, 1],
        ]);
        const first = await groups[0]?.batch.materialize(["prompt"]);
        assert.deepEqual(first?.strings("prompt").toArray(), ["a", "a"]);
        await transfer.dropPartition("p");
      }));

    it("compacts a view into one bundle that outlives the old ones", () =>
      open(async (transfer) => {
        const a = await transfer.put("p", ["a", "b"], sampleRows(2, 0), 2);
        const b = await transfer.put("p", ["c", "d"], sampleRows(2, 2), 2);
        const view = concat([b, a]).selectRows([3, 0]);
        const before = plain(await view.materialize());
        const compact = await view.compact();
        await a.drop();
        await b.drop();
        assert.deepEqual(plain(await compact.materialize()), before);
        assert.deepEqual(
          await transfer.importHandle(compact.toHandle()).rowIds().catch((error) => error.code),
          [
            "b",
            "c",
          ],
        );
        assert.deepEqual(plain(await transfer.get("p", ["c", "b"], ["x"])), [{ x: 2 }, { x: 1 }]);
        await compact.drop();
        assert.deepEqual(await transfer.list("p"), []);
      }));

    it("gives Mooncake handles for any view", () =>
      open(async (transfer) => {
        const a = await transfer.put("p", null, sampleRows(3, 0), 3);
        const b = await transfer.put("p", null, sampleRows(2, 3), 2);
        const view = concat([a.slice(1), b]).rename({ s: "text" });
        const parts = await view.toMooncake();
        assert.deepEqual(parts.map(({ rows }) => rows), [[1, 2], null]);
        const read = [];
        for (const { handle, rows } of parts) {
          assert.equal(handle.type, "mooncake_dataproto_ref");
          const whole = transfer.importHandle(JSON.stringify(handle));
          read.push(...plain(await (rows === null ? whole : whole.selectRows([...rows])).materialize()));
        }
        assert.deepEqual(read, plain(await view.materialize()));
        await transfer.dropPartition("p");
      }));

    it("publishes batches under names, and waits for them", () =>
      open(async (transfer, config) => {
        const other = subject.shared ? await openTransfer(config) : transfer;
        const waiting = other.lookup("p", "rollout-0");
        const batch = await transfer.put("p", null, { x: new Int32Array([4, 5]) }, 2);
        await transfer.publish("p", "rollout-0", batch.slice(1));
        assert.deepEqual((await (await waiting).materialize()).tensor("x").toNumbers(), [5]);
        await transfer.publish("p", "rollout-0", batch);
        assert.equal((await other.lookup("p", "rollout-0")).rows, 2);
        await assert.rejects(other.lookup("p", "absent", { timeoutMs: 30 }), (error: TimeoutError) =>
          error.code === "TIMEOUT");
        await assert.rejects(transfer.publish("p", "a/b", batch), SchemaError);
        if (other !== transfer) {
          await other.close();
        }
        await transfer.dropPartition("p");
        await assert.rejects(transfer.lookup("p", "rollout-0", { timeoutMs: 10 }), TimeoutError);
      }));

    it("drops what has outlived its time", () =>
      open(async (transfer, config) => {
        const mortal = subject.shared ? await openTransfer({ ...config, ttlMs: 1 }) : undefined;
        if (mortal === undefined) return;
        await mortal.put("p", null, { x: new Int32Array(1) }, 1);
        const kept = await transfer.put("p", null, { x: new Int32Array(1) }, 1);
        await new Promise((resolve) => setTimeout(resolve, 5));
        assert.equal(await transfer.gc(), 1);
        assert.equal((await transfer.list("p")).length, 1);
        await kept.drop();
        await mortal.close();
      }));

    it("drops what a batch covers, and refuses what it covers partly", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, { x: new Int32Array(4), y: new Int32Array(4) }, 4);
        for (
          const part of [
            batch.slice(1),
            batch.select(["x"]),
            batch.pop(["y"])[0],
            batch.selectRows([0, 1, 2, 2]),
          ]
        ) {
          await assert.rejects(part.drop(), (error: OwnershipError) => error.code === "NOT_OWNER");
        }
        assert.equal((await batch.materialize()).rows, 4);
        await batch.slice(undefined, undefined, -1).drop();
        await assert.rejects(batch.materialize(), DroppedError);
        await batch.drop();
        await batch.drop();
        assert.deepEqual(await transfer.list("p"), []);
      }));

    it("lists what is stored", () =>
      open(async (transfer) => {
        const first = await transfer.put("p", null, sample(), 6, { stage: "rollout" });
        await transfer.put("q", null, { x: new Uint8Array(5) }, 5);
        const all = await transfer.list();
        assert.deepEqual(all.map((bundle) => [bundle.partition, bundle.rows, bundle.stage]), [
          ["p", 6, "rollout"],
          ["q", 5, "default"],
        ]);
        assert.deepEqual(all[0]?.fields, COLUMNS);
        assert.match(all[0]?.objectId ?? "", /^[0-9a-f]{32}$/);
        assert.ok((all[0]?.createdMs ?? 0) > 1e12);
        await first.drop();
        assert.deepEqual((await transfer.list("p")).length, 0);
        assert.equal(await transfer.dropPartition("q"), 1);
        assert.equal(await transfer.dropPartition("q"), 0);
      }));

    it("closes a scope with everything in it, and leaves the neighbours alone", () =>
      open(async (transfer) => {
        const neighbour = await transfer.put("step-70", null, { x: new Int32Array([1]) }, 1);
        {
          await using step = await transfer.scope("step-7");
          const batch = await step.put({ x: new Int32Array([1, 2]) }, { rowIds: ["a", "b"] });
          assert.equal(batch.partition, "step-7");
          await transfer.put("step-7", null, { y: strings(["x"]) }, 1);
          assert.equal((await transfer.list("step-7")).length, 2);
          await assert.rejects(transfer.scope("step-7"), OwnershipError);
          await (await transfer.scope("step-7", { adopt: true })).put({});
        }
        assert.deepEqual(await transfer.list("step-7"), []);
        assert.equal((await neighbour.materialize()).rows, 1);
        await neighbour.drop();
      }));

    it("passes whole batches and views as handles", () =>
      open(async (transfer, config) => {
        const batch = await transfer.put("p", null, sample(), 6, { meta: { k: 1 } });
        const other = subject.shared ? await openTransfer(config) : transfer;
        try {
          const rows = plain(localSample());
          const whole = other.importHandle(JSON.stringify(batch.toHandle()));
          assert.deepEqual(plain(await whole.materialize()), rows);
          assert.equal((batch.toHandle() as { type: string }).type, "mooncake_dataproto_ref");
          const view = concat([batch.slice(3), batch.slice(0, 2)]).rename({ text: "words" }).without(["raw"]);
          const handle = view.toHandle();
          assert.equal((handle as { type: string }).type, "batchferry_ref");
          const imported = other.importHandle(handle);
          assert.deepEqual(plain(await imported.materialize()), plain(await view.materialize()));
          assert.deepEqual(imported.toHandle(), handle);
          await assert.rejects(imported.drop(), OwnershipError);
          await whole.drop();
          await assert.rejects(whole.materialize(), DroppedError);
        } finally {
          if (other !== transfer) await other.close();
        }
        await assert.rejects(batch.materialize(), DroppedError);
      }));

    it("fills memory in place and publishes it", () =>
      open(async (transfer) => {
        using allocation = await transfer.allocate({
          x: { dtype: "float32", shape: [3] },
          y: { dtype: "int64" },
        }, 4);
        (allocation.tensors.x?.data as Float32Array).set([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        (allocation.tensors.y?.data as BigInt64Array).set([1n, 2n, 3n, 4n]);
        const batch = await allocation.put("p", null, { meta: { a: 1 } });
        const data = await batch.slice(1, 3).materialize();
        assert.deepEqual(data.tensor("x").toNested(), [[4, 5, 6], [7, 8, 9]]);
        assert.deepEqual(data.tensor("y").toNumbers(), [2, 3]);
        assert.throws(() => allocation.tensors.x?.data, ClosedError);
        await batch.drop();
        const unused = await transfer.allocate({ z: { dtype: "uint8", shape: [1 << 20] } }, 2);
        unused.release();
        await assert.rejects(unused.put("p", null), ClosedError);
        assert.deepEqual(await transfer.list("p"), []);
      }));

    it("stops at the caller's signal and deadline", () =>
      open(async (transfer) => {
        const signal = AbortSignal.abort(new Error("enough"));
        await assert.rejects(
          transfer.put("p", null, { x: new Int32Array(1) }, 1, { signal }),
          (error: TimeoutError) => error.code === "ABORTED",
        );
        const batch = await transfer.put("p", null, { x: new Int32Array(1) }, 1);
        await assert.rejects(batch.materialize(["x"], { signal }), TimeoutError);
        await assert.rejects(batch.materialize(["x"], { timeoutMs: 0 }), (error: TimeoutError) =>
          error.code === "TIMEOUT");
        await batch.drop();
        assert.deepEqual(await transfer.list("p"), []);
      }));

    it("throws once closed", () =>
      open(async (transfer) => {
        const batch = await transfer.put("p", null, { x: new Int32Array(1) }, 1);
        const second = await transfer.put("p", null, { x: new Int32Array(1) }, 1);
        await second.drop();
        await batch.drop();
        await transfer.close();
        await transfer.close();
        await assert.rejects(transfer.put("p", null, {}, 0), ClosedError);
        await assert.rejects(transfer.list(), ClosedError);
        assert.throws(() => transfer.importHandle("{}"), ClosedError);
      }));
  });
}
