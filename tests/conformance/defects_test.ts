/**
 * Defects of the library this one replaces, each by its number: a test that fails where one of them comes back.
 *
 * Every test runs on the memory and the shm backend, with batches bound to bundles and to row ids.
 *
 * Not here: B-21 (devices that batches are moved to: there are none, data is in the memory of the process). Of B-26 (one
 * actor at a time, copies through an object store of Ray's) what is left is that many can read at once; B-29's shared
 * reads of ranks on one host are the page cache's work in shm, its declared field sets are `materialize(fields)`.
 *
 * @module
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  Batch,
  BatchferryError,
  bytes,
  type ColumnRemoteBatch,
  concat,
  CorruptionError,
  DroppedError,
  type ErrorCode,
  json,
  OwnershipError,
  ragged,
  type RemoteBatch,
  RowRemoteBatch,
  scalars,
  SchemaError,
  strings,
  tensor,
} from "../../mod.ts";
import { type Changes, fails, ids, numbers, type Subject, withSubject, xs } from "./subject.ts";
import { plain } from "./suite.ts";

for (const backend of ["memory", "shm"] as const) {
  for (const bound of [false, true]) {
    const defect = (name: string, test: (subject: Subject) => Promise<void>, changes?: Changes) =>
      it(name, () => withSubject(backend, bound, test, changes));

    describe(`defects not to repeat, on ${backend}, bound to ${bound ? "row ids" : "bundles"}`, () => {
      defect("B-01: union never joins rows of different orders", async ({ put, transfer, bound }) => {
        const batch = await put({ x: numbers(4), y: numbers(4) }, 4);
        const order = [3, 0, 2, 1];
        const left = batch.select(["x"]).selectRows(order);
        const right = batch.select(["y"]);
        assert.throws(() => left.union(right), SchemaError);
        assert.throws(() => right.union(left), SchemaError);
        assert.throws(() => left.union(right.slice(1)), SchemaError);
        // neither does reading first change that
        await Promise.all([left.materialize(), right.materialize()]);
        assert.throws(() => left.union(right), SchemaError);
        const expected = order.map((i) => ({ x: i, y: i }));
        assert.deepEqual(plain(await left.union(right.selectRows(order)).materialize()), expected);
        assert.deepEqual(plain(await left.union(await right.alignTo(left)).materialize()), expected);
        // separate puts with the same ids are joined by id, and by nothing else
        const third = await transfer.put("p", ids(4).reverse(), { z: numbers(4).reverse() }, 4);
        assert.throws(() => batch.union(third), SchemaError);
        const aligned = bound ? transfer.rows("p", ids(4).reverse(), ["z"]) : third;
        const joined = batch.union(await aligned.alignTo(batch)).selectRows(order);
        assert.deepEqual(plain(await joined.materialize(["x", "z"])), order.map((i) => ({ x: i, z: i })));
      });

      defect("B-02: everything works after concat", async ({ put }) => {
        const a = await put({ x: numbers(3), s: strings(["a", "b", "c"]) }, 3, ids(3, "a"));
        const b = await put({ x: new Int32Array([3, 4, 5]), s: strings(["d", "e", "f"]) }, 3, ids(3, "b"));
        const all = concat([a, b]);
        assert.deepEqual(await xs(all.slice(2, 5)), [2, 3, 4]);
        assert.deepEqual(await xs(all.select(["x"]).selectRows([5, 0])), [5, 0]);
        assert.deepEqual(await xs(concat([...all.chunk(4)].reverse())), [5, 4, 2, 3, 0, 1]);
        assert.deepEqual(await xs(all.repeat(2, { interleave: true }).slice(4, 8)), [2, 2, 3, 3]);
        assert.deepEqual(await xs(concat([all, a]).selectRows([7, 2])), [1, 2]);
        const groups = await all.groupBy(["s"]);
        assert.deepEqual(await xs(concat(groups.map(({ batch }) => batch)).slice(-1)), [5]);
        const derived = await all.slice(1, 5).put({ y: numbers(4) });
        assert.deepEqual(plain(await all.slice(1, 5).union(derived).slice(3).materialize()), [{
          x: 4,
          s: "e",
          y: 3,
        }]);
      });

      defect(
        "B-03: a name on both sides is decided by the caller, not by what was read",
        async ({ put, bound }) => {
          const batch = await put({ x: numbers(2), k: numbers(2) }, 2);
          const view = batch.selectRows([1, 0]);
          const derived = await view.put({ x: new Int32Array([70, 80]) });
          for (const read of [[], [view], [derived], [view, derived]]) {
            for (const some of read) await some.materialize(["x"]);
            assert.throws(() => view.union(derived), /onConflict/);
            // the column of a batch bound to row ids is the one put last, on whichever side
            assert.deepEqual(
              await xs(view.union(derived, { onConflict: "left" })),
              bound ? [70, 80] : [1, 0],
            );
            assert.deepEqual(await xs(view.union(derived, { onConflict: "right" })), [70, 80]);
            assert.deepEqual(view.union(derived, { onConflict: "right" }).fields, ["x", "k"]);
          }
        },
      );

      defect("B-04: taking a field out of a view takes it out of nothing else", async ({ put }) => {
        const batch = await put({ x: numbers(3), y: numbers(3) }, 3);
        const views = [
          batch.slice(0, 2),
          batch.select(["x", "y"]),
          batch.selectRows([2, 1]),
          batch.repeat(2),
        ];
        for (const view of views) {
          assert.deepEqual(view.without(["x"]).fields, ["y"]);
          assert.deepEqual(view.pop(["x"]).map(({ fields }) => fields), [["x"], ["y"]]);
          assert.deepEqual(view.rename({ x: "z" }).fields, ["z", "y"]);
          (view.fields as string[]).length = 0;
        }
        for (const view of [batch, ...views]) {
          assert.deepEqual(view.fields, ["x", "y"]);
          assert.deepEqual((await view.materialize()).fields, ["x", "y"]);
        }
      });

      defect("B-05: copies of a row are never mixed up", async ({ put, transfer, bound }) => {
        const batch = await put({ x: numbers(3) }, 3);
        const view = batch.selectRows([0, 1, 1, 2]);
        const adv = new Int32Array([1, 2, 3, 4]);
        if (bound) {
          // one id is one row: there is no place for two values
          const before = await transfer.list("p");
          await assert.rejects(view.put({ adv }), SchemaError);
          assert.deepEqual(await transfer.list("p"), before);
        } else {
          const derived = await view.put({ adv });
          assert.deepEqual(await xs(view.union(derived), "adv"), [1, 2, 3, 4]);
          assert.deepEqual(await xs(view.union(derived).selectRows([2, 1]), "adv"), [3, 2]);
          const again = transfer.importHandle(JSON.stringify(view.union(derived).toHandle()));
          assert.deepEqual(await xs(again, "adv"), [1, 2, 3, 4]);
        }
        const compact = await view.compact();
        assert.deepEqual(await xs(compact), [0, 1, 1, 2]);
        await assert.rejects(transfer.put("p", ["a", "b", "a"], { adv: adv.slice(1) }, 3), SchemaError);
      });

      defect("B-06: dropping a view frees nothing that others need", async ({ put, transfer }) => {
        const batch = await put({ x: numbers(4), y: strings(["a", "b", "c", "d"]) }, 4);
        const before = plain(await batch.materialize());
        const views = [
          batch.select(["x"]),
          batch.slice(1),
          batch.selectRows([true, false, true, true]),
          batch.pop(["y"])[0],
          batch.pop(["y"])[1],
          batch.rename({ x: "z" }).without(["y"]),
          ...batch.chunk(2),
        ];
        for (const view of views) await assert.rejects(view.drop(), OwnershipError);
        assert.deepEqual(plain(await batch.materialize()), before);
        // a batch that covers one bundle, and another partly, frees neither
        const other = await put({ x: numbers(2), y: strings(["e", "f"]) }, 2, ids(2, "other"));
        await assert.rejects(concat([other, batch.slice(2)]).drop(), OwnershipError);
        assert.deepEqual(await xs(other), [0, 1]);
        assert.equal((await transfer.list("p")).length, 2);
        // all of it in any order is all of it
        await concat([...batch.chunk(3)].reverse()).drop();
        assert.equal((await transfer.list("p")).length, 1);
        await assert.rejects(batch.materialize());
        assert.deepEqual(await xs(other), [0, 1]);
      });

      defect(
        "B-07: a scope owns all that was put",
        async ({ transfer, other, bound }) => {
          {
            await using step = await transfer.scope("p");
            const rollout = await step.put({ x: numbers(6) }, { rowIds: ids(6) });
            await step.publish("rollout", rollout);
            // bound before anything is derived, as the one that is dropped at the end of a step
            const early = bound ? transfer.rows("p", ids(6), ["x"]) : rollout;
            const seen = await other.lookup("p", "rollout");
            for (const chunk of seen.chunk(3)) await chunk.put({ logp: new Float32Array(chunk.rows) });
            const values = await early.selectRows([5, 4]).put({ value: numbers(2) });
            assert.deepEqual(await xs(early.selectRows([5, 4]).union(values), "value"), [0, 1]);
            await other.put("p", null, { reward: numbers(1) }, 1);
            await other.delete("p", ["row-0"], ["x"]);
            assert.equal((await transfer.list("p")).length, 6);
          }
          assert.deepEqual(await transfer.list(), []);
          assert.deepEqual(await other.list(), []);
          await assert.rejects(other.lookup("p", "rollout", { timeoutMs: 5 }), fails("TIMEOUT"));
        },
      );

      defect("B-08: fewer rows than asked for are an error", async ({ put, transfer }) => {
        await put({ x: numbers(3) }, 3);
        const more = transfer.rows("p", [...ids(3), "row-3"], ["x"]);
        await assert.rejects(more.materialize(), (error: BatchferryError) => {
          assert.equal(error.code, "NOT_READY");
          assert.deepEqual(error.details.rows, ["row-3"]);
          return true;
        });
        await assert.rejects(transfer.get("p", ["row-2", "row-3"], ["x"]), fails("NOT_FOUND"));
        // a handle that claims more rows than were put
        const whole = await transfer.put("q", null, { x: numbers(3), s: strings(["a", "b", "c"]) }, 3);
        const claim = JSON.stringify(whole.slice(1).toHandle()).replaceAll('"rows":3', '"rows":9');
        assert.notEqual(claim, JSON.stringify(whole.slice(1).toHandle()));
        assert.throws(() => transfer.importHandle(claim), CorruptionError);
      });

      defect(
        "B-08: bytes that are missing in the store are an error",
        async ({ put }) => {
          const batch = await put({ x: numbers(8), s: strings(Array(8).fill("text")) }, 8);
          await assert.rejects(batch.materialize(["x"]), CorruptionError);
          await assert.rejects(batch.slice(7).materialize(["x"]), CorruptionError);
          await assert.rejects(batch.materialize(["s"]), CorruptionError);
        },
        // every payload loses its last byte on the way in, the manifest goes on saying that it is there
        (store) => ({
          writeBundle: (id, objects, options) =>
            store.writeBundle(
              id,
              objects.map(({ key, parts }) => {
                const last = parts.findLastIndex((part) => part.byteLength > 0);
                if (!key.includes("/buffer/") || last < 0) return { key, parts };
                return { key, parts: parts.map((part, i) => i === last ? part.subarray(0, -1) : part) };
              }),
              options,
            ),
        }),
      );

      defect("B-09: an unknown row stops no delete, and is told", async ({ put, transfer, other }) => {
        await put({ x: numbers(4), y: numbers(4) }, 4);
        assert.deepEqual(await transfer.delete("p", ["row-0", "row-1", "no"], []), {
          deleted: 2,
          absent: ["no"],
        });
        // overlapping with what is gone already, in another process too
        assert.deepEqual(await other.delete("p", ["row-1", "row-2", "row-9"], []), {
          deleted: 1,
          absent: ["row-1", "row-9"],
        });
        assert.equal((await transfer.list("p")).length, 1);
        assert.deepEqual(await transfer.delete("p", ids(4), []), {
          deleted: 1,
          absent: ["row-0", "row-1", "row-2"],
        });
        assert.deepEqual(await transfer.list("p"), []);
        assert.deepEqual(await transfer.delete("p", ids(2), []), { deleted: 0, absent: ids(2) });
      });

      defect("B-10: a round trip changes no kinds", async ({ put }) => {
        const batch = await put({
          lists: ragged("int64", [[1, 2], [3, 4]]),
          arrays: ragged("float32", [new Float32Array([1, 2]), new Float32Array([3, 4])]),
          numbers: scalars("int32", [1, 2]),
          array: new Int32Array([1, 2]),
          nested: json([[1, 2], [3, 4]]),
          raw: bytes([new Uint8Array([1]), new Uint8Array([2])]),
          one: ragged("int8", [[1], [2]]),
        }, 2);
        for (const view of [batch, batch.selectRows([0, 1]), concat([batch.slice(0, 1), batch.slice(1)])]) {
          const data = await view.materialize();
          assert.deepEqual(data.fields.map((field) => data.column(field).kind), [
            "ragged",
            "ragged",
            "scalars",
            "tensor",
            "json",
            "bytes",
            "ragged",
          ]);
          assert.deepEqual(data.ragged("lists").toArray(), [[1, 2], [3, 4]]);
          assert.deepEqual(data.ragged("arrays").toArray(), [
            new Float32Array([1, 2]),
            new Float32Array([3, 4]),
          ]);
          assert.deepEqual(data.scalars("numbers").toArray(), [1, 2]);
          assert.deepEqual(data.tensor("array").data, new Int32Array([1, 2]));
          assert.deepEqual(data.ragged("one").toArray(), [[1], [2]]);
        }
      });

      defect("B-11: no rows are as good as some", async ({ put, transfer }) => {
        const fields = () => ({
          x: tensor("float32", [0, 3], []),
          s: strings([]),
          j: json([]),
          r: ragged("int8", []),
        });
        const empty = await put(fields(), 0);
        const full = await put(
          {
            x: tensor("float32", [2, 3], [1, 2, 3, 4, 5, 6]),
            s: strings(["a", "b"]),
            j: json([1, 2]),
            r: ragged("int8", [[1], []]),
          },
          2,
          ids(2, "full"),
        );
        const none = full.slice(2);
        for (
          const batch of [none, ...(bound ? [] : [empty]), none.repeat(3), none.chunk(2)[1] as RemoteBatch]
        ) {
          assert.equal(batch.rows, 0);
          assert.deepEqual(batch.chunk(2).map(({ rows }) => rows), [0, 0]);
          assert.equal(batch.repeat(2).rows, 0);
          const data = await batch.materialize();
          assert.deepEqual(data.tensor("x").shape, [0, 3]);
          assert.deepEqual([data.strings("s").toArray(), data.json("j").toArray()], [[], []]);
          assert.deepEqual(data.ragged("r").toArray(), []);
          assert.deepEqual(await batch.groupBy(["s"]), []);
          assert.deepEqual(plain(await concat([batch, full, batch]).materialize(["s"])), [{ s: "a" }, {
            s: "b",
          }]);
          const derived = await batch.put({ y: new Int32Array(0) });
          assert.deepEqual((await batch.union(derived).materialize()).fields, ["x", "s", "j", "r", "y"]);
          assert.equal((await transfer.importHandle(JSON.stringify(batch.toHandle())).materialize()).rows, 0);
          using lease = await batch.borrow();
          assert.equal(lease.batch.rows, 0);
        }
        assert.equal((await full.select([]).materialize()).rows, 2);
        assert.equal(full.repeat(0).rows, 0);
        assert.deepEqual(full.selectRows([false, false]).rows, 0);
        assert.deepEqual(full.chunk(3).map(({ rows }) => rows), [1, 1, 0]);
      });

      defect("B-12: -1 is the last row, and beyond the ends there is none", async ({ put }) => {
        const batch = await put({ x: numbers(3) }, 3);
        assert.deepEqual(await xs(batch.selectRows([-1])), [2]);
        assert.deepEqual(await xs(batch.slice(-1)), [2]);
        const data = await batch.materialize();
        assert.deepEqual(data.at(-1), { x: 2 });
        for (const row of [3, -4, 0.5, NaN]) {
          assert.throws(() => batch.selectRows([row]), SchemaError);
          assert.throws(() => data.at(row), SchemaError);
        }
      });

      defect("B-13: a mask has one value a row, or fails at the call", async ({ put }) => {
        const batch = await put({ x: numbers(4) }, 4);
        for (
          const view of [batch, batch.selectRows([3, 2, 1, 0]), concat([batch.slice(0, 2), batch.slice(2)])]
        ) {
          assert.throws(() => view.selectRows([true, false]), SchemaError);
          assert.throws(() => view.selectRows([true, false, true, false, true]), SchemaError);
          assert.throws(() => view.selectRows([0, 4]), SchemaError);
          assert.throws(() => view.selectRows(Uint32Array.of(4)), SchemaError);
          assert.equal(view.selectRows([true, false, true, false]).rows, 2);
        }
      });

      defect("B-14: slices go backwards", async ({ put }) => {
        const batch = await put({ x: numbers(6) }, 6);
        assert.deepEqual(await xs(batch.slice(undefined, undefined, -1)), [5, 4, 3, 2, 1, 0]);
        assert.deepEqual(await xs(batch.slice(4, 0, -2)), [4, 2]);
        assert.deepEqual(await xs(batch.slice(-2, undefined, -3)), [4, 1]);
        assert.deepEqual(await xs(batch.slice(1, 4, -1)), []);
        assert.deepEqual(await xs(batch.slice(5, -99, -1).slice(0, 2)), [5, 4]);
        assert.throws(() => batch.slice(0, 6, 0), SchemaError);
      });

      defect("B-15: errors say what, where and what was expected", async ({ put, transfer }) => {
        const batch = await put({ x: numbers(2) }, 2);
        const wrong: [() => unknown, ErrorCode, Record<string, unknown>][] = [
          [() => batch.materialize(["y"]), "SCHEMA", { field: "y", partition: "p", expected: ["x"] }],
          [() => batch.select(["y"]), "SCHEMA", { field: "y" }],
          [() => batch.put({ y: numbers(3) }), "SCHEMA", { field: "y", expected: 2, actual: 3 }],
          [() => batch.union(batch.slice(1)), "SCHEMA", { partition: "p", expected: 2, actual: 1 }],
          [() => transfer.get("p", ["no"], ["x"]), "NOT_FOUND", { partition: "p", rows: ["no"] }],
          [() => transfer.rows("p", ["no"], ["x"]).materialize(), "NOT_READY", {
            partition: "p",
            rows: ["no"],
          }],
          [() => transfer.get("p", ["row-0"], ["y"]), "NOT_READY", { field: "y", rows: ["row-0"] }],
          [() => batch.slice(1).drop(), "NOT_OWNER", { partition: "p", field: "x" }],
          [() => transfer.scope("p"), "NOT_OWNER", { partition: "p" }],
          [() => transfer.lookup("p", "no", { timeoutMs: 1 }), "TIMEOUT", { partition: "p" }],
          [() => transfer.importHandle("{}"), "CORRUPT", {}],
        ];
        for (const [work, code, details] of wrong) {
          await assert.rejects(async () => await work(), (error: unknown) => {
            assert.ok(error instanceof BatchferryError, String(error));
            assert.equal(error.code, code, error.message);
            assert.ok(error.message.length > 10);
            for (const [name, value] of Object.entries(details)) {
              assert.deepEqual(error.details[name as "key"], value, `${name} of ${error.message}`);
            }
            return true;
          });
        }
      });

      defect("B-16: what fails has changed nothing, and nobody shares meta", async ({ put, transfer }) => {
        const batch = await put({ x: numbers(2), y: numbers(2) }, 2);
        const stored = await transfer.list();
        const { bytesWritten } = await transfer.info();
        await assert.rejects(batch.put({ x: numbers(3) }), SchemaError);
        await assert.rejects(batch.put({ x: numbers(2), "y/z": numbers(2) }), SchemaError);
        await assert.rejects(batch.compact({ stage: "a/b" }), SchemaError);
        assert.throws(() => batch.rename({ x: "y" }), SchemaError);
        assert.throws(() => batch.rename({ x: "a/b" }), SchemaError);
        assert.throws(() => batch.union(batch.rename({ x: "z" }).slice(1)), SchemaError);
        assert.deepEqual(batch.fields, ["x", "y"]);
        assert.deepEqual(await xs(batch), [0, 1]);
        assert.deepEqual(await transfer.list(), stored);
        assert.equal((await transfer.info()).bytesWritten, bytesWritten);

        const meta = { step: 1, deep: { list: [1] } };
        const source = (await transfer.put("p", null, { x: numbers(4) }, 4, { meta })).withMeta({
          more: [2],
        });
        meta.deep.list.push(9);
        const [first, second] = source.chunk(2) as [ColumnRemoteBatch, ColumnRemoteBatch];
        assert.throws(() => ((first.meta as { step: number }).step = 2), TypeError);
        assert.throws(() => (first.meta.deep as { list: number[] }).list.push(3), TypeError);
        assert.deepEqual(first.withMeta({ step: 2, more: undefined }).meta, { step: 2, deep: { list: [1] } });
        for (const view of [source, first, second, source.repeat(2)]) {
          assert.deepEqual(view.meta, { step: 1, deep: { list: [1] }, more: [2] });
        }
      });

      defect("B-17: one kind of column, and every operation takes it", async ({ put, transfer }) => {
        const batch = await put({ x: numbers(2), s: strings(["a", "b"]) }, 2);
        assert.deepEqual(plain(await batch.select(["s"]).materialize()), [{ s: "a" }, { s: "b" }]);
        assert.throws(() => batch.pop(["no"]), SchemaError);
        assert.throws(() => batch.pop(["x", "x"]), SchemaError);
        assert.throws(() => batch.without(["no"]), SchemaError);
        assert.throws(() => concat([batch, batch.select(["x"])]), SchemaError);
        assert.throws(() => concat([]), SchemaError);
        // what is local becomes remote as it is, and the other way round
        const local = await batch.materialize();
        assert.ok(local instanceof Batch);
        const again = await transfer.put("p", ids(2, "again"), local, 2);
        assert.deepEqual(plain(await concat<RemoteBatch>([batch, again]).materialize()), [
          ...plain(local),
          ...plain(local),
        ]);
        const derived = await batch.put(await again.rename({ x: "x2", s: "s2" }).materialize());
        assert.deepEqual(batch.union(derived).fields, ["x", "s", "x2", "s2"]);
      });

      defect("B-18: groups and shards read their rows, not whole columns", async ({ put, transfer }) => {
        const rows = 64;
        const width = 1024;
        const batch = await put({
          prompt: scalars("int64", Array.from({ length: rows }, (_, i) => i % 16)),
          x: tensor("uint8", [rows, width], new Uint8Array(rows * width)),
        }, rows);
        const shuffled = concat((await batch.groupBy(["prompt"])).map((group) => group.batch));
        const before = (await transfer.info()).bytesRead;
        await (shuffled.chunk(4)[2] as RemoteBatch).materialize(["x"]);
        assert.equal((await transfer.info()).bytesRead - before, rows * width / 4);
        await shuffled.materialize(["x"]);
        assert.equal((await transfer.info()).bytesRead - before, rows * width / 4 + rows * width);
      });

      defect("B-19: a handle names what its rows lie in, and no more", async ({ put }) => {
        const parts: RemoteBatch[] = [];
        for (let i = 0; i < 64; i++) {
          parts.push(await put({ x: numbers(2), s: strings(["a", "b"]) }, 2, ids(2, `part-${i}`)));
        }
        const all = concat(parts);
        const text = (batch: RemoteBatch) => JSON.stringify(batch.toHandle());
        const small = text(all.slice(5, 6));
        assert.ok(small.length < 700, small);
        // history leaves no trace
        const long = all.repeat(3).slice(3).selectRows([2]);
        assert.deepEqual(long.toHandle(), all.slice(5, 6).toHandle());
        const chunks = all.chunk(16).map(text);
        assert.ok(Math.max(...chunks.map(({ length }) => length)) < 4096);
      });

      defect("B-20: data belongs to who read it; what was put is kept by the store only", async ({ put }) => {
        const given = numbers(4);
        const batch = await put({
          x: given,
          r: ragged("int32", [new Int32Array([1]), [2], [], [3]].map((r) => Int32Array.from(r))),
        }, 4);
        given.fill(99);
        const first = await batch.materialize();
        (first.tensor("x").data as Int32Array).fill(-1);
        (first.ragged("r").at(0) as Int32Array)[0] = -1;
        const second = await batch.materialize();
        assert.deepEqual(second.tensor("x").toNumbers(), [0, 1, 2, 3]);
        assert.deepEqual(second.ragged("r").at(0), new Int32Array([1]));
        const view = await batch.select(["x"]).slice(0, 2).materialize();
        assert.notEqual(view.tensor("x").bytes.buffer, second.tensor("x").bytes.buffer);
        using lease = await batch.borrow(["x"]);
        (lease.batch.tensor("x").data as Int32Array).fill(5);
        assert.deepEqual(await xs(batch), [0, 1, 2, 3]);
      });

      defect("B-22: calls run side by side, and stop when told to", async ({ put, transfer }) => {
        const batch = await put({ x: numbers(512), s: strings(Array(512).fill("text")) }, 512);
        const shards = await Promise.all(batch.chunk(16).map((chunk) => chunk.materialize()));
        assert.deepEqual(shards.flatMap((data) => data.tensor("x").toNumbers()), [...numbers(512)]);
        const controller = new AbortController();
        const waiting = transfer.lookup("p", "never", { signal: controller.signal });
        controller.abort();
        await assert.rejects(waiting, fails("ABORTED"));
        const { signal } = controller;
        const calls = [
          () => batch.materialize(["x"], { signal }),
          () => batch.borrow(["x"], { signal }),
          () => batch.groupBy(["x"], { signal }),
          () => batch.put({ y: numbers(512) }, { signal }),
          () => batch.compact({ signal }),
          () => batch.drop({ signal }),
          () => transfer.get("p", ["row-0"], ["x"], { signal }),
          () => transfer.delete("p", ["row-0"], [], { signal }),
          () => transfer.put("p", null, { y: numbers(1) }, 1, { signal }),
          () => transfer.list("p", { signal }),
          () => transfer.scope("q", { signal }),
          () => transfer.dropPartition("p", { signal }),
          () => transfer.publish("p", "n", batch, { signal }),
          () => transfer.allocate({ x: { dtype: "int8" } }, 1, { signal }),
          () => transfer.gc({ signal }),
        ];
        for (const call of calls) await assert.rejects(call, fails("ABORTED"), String(call));
        for (const timeoutMs of [0, -1]) {
          await assert.rejects(batch.materialize(["x"], { timeoutMs }), fails("TIMEOUT"));
        }
        assert.equal((await transfer.list("p")).length, 1);
        assert.deepEqual(await xs(batch.slice(-1)), [511]);
      });

      defect("B-23: put always gives a batch, and mismatches throw", async ({ put, transfer, bound }) => {
        const batch = await put({ x: numbers(2) }, 2);
        assert.equal(batch instanceof RowRemoteBatch, bound);
        for (
          const made of [
            await transfer.put("p", null, {}, 0),
            await batch.put({ y: numbers(2) }),
            await batch.compact(),
          ]
        ) {
          assert.equal(typeof made.toHandle().type, "string");
        }
        const stored = (await transfer.list()).length;
        await assert.rejects(batch.slice(1).put({ y: numbers(2) }), SchemaError);
        await assert.rejects(transfer.put("p", ["a"], { x: numbers(2) }, 2), SchemaError);
        assert.equal((await transfer.list()).length, stored);
        const elsewhere = await transfer.put("q", ids(2), { z: numbers(2) }, 2);
        assert.throws(() => batch.union(elsewhere), SchemaError);
        assert.throws(() => concat<RemoteBatch>([batch.rename({ x: "z" }), elsewhere]), SchemaError);
        // a put belongs to the partition of the rows it is for
        assert.equal((await batch.put({ w: numbers(2) })).partition, "p");
      });

      defect("B-24: partitions are names, listed and dropped one by one", async ({ transfer, other }) => {
        const names = [
          "a",
          "a.",
          "a.c",
          "abc",
          "a*",
          "a|b",
          "(a",
          "a+",
          "^a$",
          "..",
          "ä 名",
          "a%2Fb",
          "[a-z]",
          "\\",
        ];
        for (const name of names) await transfer.put(name, ["id"], { x: numbers(1) }, 1);
        for (const name of ["", "a/b", "/", "a\0", "a\nb", "\ud800"]) {
          await assert.rejects(transfer.put(name, null, { x: numbers(1) }, 1), SchemaError);
          await assert.rejects(transfer.dropPartition(name), SchemaError);
          assert.throws(() => transfer.rows(name, ["id"], ["x"]), SchemaError);
        }
        assert.deepEqual((await other.list()).map(({ partition }) => partition).sort(), [...names].sort());
        const left = new Set(names);
        for (const name of names) {
          assert.equal((await other.get(name, ["id"], ["x"])).rows, 1);
          assert.deepEqual((await other.list(name)).map(({ rows }) => rows), [1]);
          assert.equal(await transfer.dropPartition(name), 1);
          left.delete(name);
          assert.deepEqual(
            (await transfer.list()).map(({ partition }) => partition).sort(),
            [...left].sort(),
          );
        }
      });

      defect(
        "B-25: a drop is known to all",
        async ({ put, transfer, other, bound }) => {
          const batch = await put({ x: numbers(3) }, 3);
          const handle = JSON.stringify(batch.toHandle());
          const theirs = other.importHandle(handle);
          assert.deepEqual(await xs(theirs), [0, 1, 2]);
          await batch.drop();
          await assert.rejects(theirs.materialize(), bound ? fails("NOT_READY") : DroppedError);
          if (!bound) {
            await theirs.drop();
            await batch.drop();
            await assert.rejects(other.importHandle(handle).materialize(), DroppedError);
            await assert.rejects(batch.put({ y: numbers(3) }), DroppedError);
          }
          assert.deepEqual(await transfer.list("p"), []);
          assert.equal(await other.dropPartition("p"), 0);
          // names do not come back as something else
          await put({ x: new Int32Array([7, 7, 7]) }, 3);
          if (!bound) await assert.rejects(theirs.materialize(), DroppedError);
        },
      );

      defect("B-26: many read and lend at once", async ({ put, transfer, other }) => {
        const batch = await put({
          x: tensor("int32", [64, 256], Int32Array.from({ length: 64 * 256 }, (_, i) => i >> 8)),
        }, 64);
        const theirs = other.importHandle(JSON.stringify(batch.toHandle()));
        const leases = await Promise.all(
          [batch, theirs, batch.slice(8), theirs.slice(8)].map((view) => view.borrow()),
        );
        const reads = await Promise.all(
          Array.from({ length: 32 }, (_, i) => (i % 2 === 0 ? batch : theirs).slice(i, i + 8).materialize()),
        );
        reads.forEach((data, i) => assert.equal(data.tensor("x").data[7 * 256], i + 7));
        leases.forEach(({ batch }, i) => assert.equal(batch.tensor("x").data[256], i < 2 ? 1 : 9));
        await transfer.dropPartition("p");
        // what is lent stays what it was until it is given back
        leases.forEach(({ batch }, i) => assert.equal(batch.tensor("x").data[256], i < 2 ? 1 : 9));
        for (const lease of leases) lease.release();
      });

      {
        const failure = new Error("the disk is on fire");
        let writes = 0;
        defect(
          "B-27: a put is there as a whole or not at all",
          async ({ put, transfer, other }) => {
            writes = 0;
            const batch = await put({ x: numbers(2) }, 2);
            await assert.rejects(batch.put({ y: numbers(2) }), (error) => error === failure);
            await assert.rejects(put({ z: numbers(2) }, 2, ids(2, "z")), (error) => error === failure);
            await assert.rejects(batch.compact(), (error) => error === failure);
            for (const transferOf of [transfer, other]) {
              assert.equal((await transferOf.list()).length, 1);
              await assert.rejects(transferOf.get("p", ["z-0"], ["z"]), fails("NOT_FOUND"));
              await assert.rejects(transferOf.get("p", ["row-0"], ["y"]), fails("NOT_READY"));
            }
            assert.deepEqual(await xs(batch), [0, 1]);
          },
          (store) => ({
            async writeBundle(id, objects, options) {
              if (++writes > 1) throw failure;
              await store.writeBundle(id, objects, options);
            },
          }),
        );
      }

      defect(
        "B-28: which of two columns counts is said, and the other one goes with its own drop",
        async ({ put, transfer, bound }) => {
          const batch = await put({ x: numbers(2) }, 2);
          const newer = await batch.put({ x: new Int32Array([8, 9]) });
          // by row id the later put counts
          assert.deepEqual((await transfer.get("p", ids(2), ["x"])).tensor("x").toNumbers(), [8, 9]);
          assert.deepEqual(await xs(transfer.rows("p", ids(2), ["x"])), [8, 9]);
          if (bound) return;
          const united = batch.union(newer, { onConflict: "right" });
          assert.deepEqual([await xs(united), await xs(batch)], [[8, 9], [0, 1]]);
          await united.drop();
          assert.deepEqual(await xs(batch), [0, 1]);
          assert.deepEqual((await transfer.get("p", ids(2), ["x"])).tensor("x").toNumbers(), [0, 1]);
          await batch.drop();
          assert.deepEqual(await transfer.list(), []);
        },
      );

      defect("B-29: a stage reads the fields it declares", async ({ put, transfer }) => {
        const batch = await put({
          x: tensor("uint8", [8, 1024], new Uint8Array(8192)),
          y: tensor("uint8", [8, 2048], new Uint8Array(16384)),
          s: strings(Array(8).fill("a".repeat(1000))),
        }, 8);
        const { bytesRead } = await transfer.info();
        await batch.materialize(["x"]);
        assert.equal((await transfer.info()).bytesRead - bytesRead, 8192);
        await batch.select(["y"]).slice(0, 4).materialize();
        assert.equal((await transfer.info()).bytesRead - bytesRead, 8192 + 8192);
      });

      defect("B-30: rename and groupBy bring no data", async ({ put, transfer }) => {
        const batch = await put({
          key: scalars("int8", [1, 2, 1]),
          x: tensor("uint8", [3, 4096], new Uint8Array(12288)),
        }, 3);
        const { bytesRead } = await transfer.info();
        const groups = await batch.rename({ x: "y" }).groupBy(["key"]);
        assert.ok((await transfer.info()).bytesRead - bytesRead < 1024);
        assert.deepEqual(groups.map(({ key, batch }) => [key, batch.rows, batch.fields]), [
          [{ key: 1 }, 2, ["key", "y"]],
          [{ key: 2 }, 1, ["key", "y"]],
        ]);
      });
    });
  }
}
