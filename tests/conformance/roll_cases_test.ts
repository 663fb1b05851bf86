/**
 * Cases of the tests of ROLL's transfer backend and of its peers that no other file has; the numbers are those of the list
 * that was made of them.
 *
 * Left out, as they are about what there is not here: client scopes and node actors (1, 2, 15), caches of batches (24),
 * pool owners (10, 14), pickled identity (25). Unions that fail (29) leave nothing behind, as they touch no store.
 *
 * @module
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  Batch,
  bytes,
  concat,
  json,
  OwnershipError,
  ragged,
  records,
  type RemoteBatch,
  scalars,
  SchemaError,
  strings,
  tensor,
} from "../../mod.ts";
import { type Changes, fails, ids, numbers, type Subject, withSubject, xs } from "./subject.ts";
import { plain } from "./suite.ts";

for (const backend of ["memory", "shm"] as const) {
  for (const bound of [false, true]) {
    const roll = (name: string, test: (subject: Subject) => Promise<void>, changes?: Changes) =>
      it(name, () => withSubject(backend, bound, test, changes));

    describe(`cases of ROLL's, on ${backend}, bound to ${bound ? "row ids" : "bundles"}`, () => {
      roll("4: a value of no column kind is refused by its name", async ({ transfer }) => {
        for (
          const value of [
            [1],
            ["a"],
            {},
            null,
            undefined,
            "text",
            7,
            new DataView(new ArrayBuffer(2)),
            new Date(),
          ]
        ) {
          await assert.rejects(
            transfer.put("p", null, { fine: numbers(1), odd: value as never }, 1),
            (error: SchemaError) => {
              assert.ok(error instanceof SchemaError);
              assert.match(error.message, /odd/);
              return true;
            },
          );
        }
        assert.deepEqual(await transfer.list(), []);
      });

      roll("7: a batch without tensors", async ({ put }) => {
        const batch = await put({ s: strings(["a", null]), b: bytes([Uint8Array.of(0), null]) }, 2);
        assert.deepEqual(plain(await batch.materialize()), [{ s: "a", b: Uint8Array.of(0) }, {
          s: null,
          b: null,
        }]);
      });

      roll("11: a read that fails gives back what it had", async ({ put, transfer }) => {
        const batch = await put({ x: numbers(4), s: strings(["a", "b", "c", "d"]) }, 4);
        await assert.rejects(batch.borrow(["x", "no"]), SchemaError);
        await assert.rejects(batch.materialize(["x", "no"]), SchemaError);
        const missing = transfer.rows("p", ids(5), ["x"]);
        await assert.rejects(missing.borrow(), fails("NOT_READY"));
        assert.deepEqual(await xs(batch), [0, 1, 2, 3]);
      });

      {
        let broken = 0;
        const attempts: string[] = [];
        roll(
          "12, 32: drop goes on after a failure, throws the first, and only that is tried again",
          async ({ put, transfer }) => {
            attempts.length = 0;
            const parts = [];
            for (let i = 0; i < 3; i++) parts.push(await put({ x: numbers(2) }, 2, ids(2, `part-${i}`)));
            const all = concat<RemoteBatch>(parts);
            broken = 1;
            await assert.rejects(all.drop(), /no master/);
            assert.equal(attempts.length, 3);
            assert.equal((await transfer.list("p")).length, 1);
            if (bound) {
              // what is left is found by its ids
              const left = parts.filter((_, i) => attempts[i] === "failed");
              assert.equal(left.length, 1);
              await left[0]?.drop();
            } else {
              await all.drop();
              assert.equal(attempts.length, 4);
              await all.drop();
              assert.equal(attempts.length, 4);
            }
            assert.deepEqual(await transfer.list("p"), []);
          },
          (store) => ({
            async delete(keys, options) {
              attempts.push(broken > 0 ? "failed" : "done");
              if (broken-- > 0) throw new Error("no master");
              await store.delete(keys, options);
            },
          }),
        );
      }

      roll("16: the same again and again, results kept, memory given back", async ({ put, transfer }) => {
        const kept: Batch[] = [];
        const long = BigInt64Array.from({ length: 1 << 17 }, (_, i) => BigInt(i));
        for (let turn = 0; turn < 10; turn++) {
          const batch = await put({
            ids: new Int32Array([turn, turn + 1]),
            text: strings([`turn ${turn}`, "b"]),
            tokens: ragged("int64", [long.subarray(turn), long.subarray(1)]),
            nothing: strings([null, null]),
          }, 2);
          kept.push(await batch.materialize());
          await transfer.dropPartition("p");
          await assert.rejects(batch.materialize());
        }
        kept.forEach((data, turn) => {
          assert.deepEqual(data.tensor("ids").toNumbers(), [turn, turn + 1]);
          assert.equal(data.strings("text").at(0), `turn ${turn}`);
          assert.deepEqual((data.ragged("tokens").at(0) as BigInt64Array).at(-1), BigInt((1 << 17) - 1));
          assert.deepEqual(data.strings("nothing").toArray(), [null, null]);
        });
      });

      roll(
        "18: nested concat, a handle, union with a direct batch, slice, two reads, one drop",
        async ({ put, transfer }) => {
          const a = await put({ x: numbers(3), s: strings(["a", "b", "c"]) }, 3, ids(3, "a"));
          const b = await put({ x: new Int32Array([3, 4]), s: strings(["d", "e"]) }, 2, ids(2, "b"));
          const nested = concat([concat([a.slice(0, 1), a.slice(1)]), b]);
          const imported = transfer.importHandle(JSON.stringify(nested.toHandle()));
          const direct = await imported.put({ y: new Int32Array([10, 11, 12, 13, 14]) });
          const both = imported.union(direct);
          const slice = both.slice(1, 4);
          assert.deepEqual(await xs(slice, "y"), [11, 12, 13]);
          assert.deepEqual(plain(await slice.materialize(["s", "x"])), [
            { s: "b", x: 1 },
            { s: "c", x: 2 },
            { s: "d", x: 3 },
          ]);
          assert.equal((await transfer.list("p")).length, 3);
          await assert.rejects(slice.drop(), OwnershipError);
          await both.drop();
          assert.deepEqual(await transfer.list("p"), []);
        },
      );

      roll("19: derived columns of two ranks, joined, reordered and repeated", async ({ put }) => {
        const batch = await put({ x: numbers(4) }, 4);
        const chunks = batch.chunk(2);
        const derived = await Promise.all(chunks.map(async (chunk) => {
          const [first] = await xs(chunk);
          return chunk.put({
            y: Int32Array.from({ length: chunk.rows }, (_, i) => 10 * (Number(first) + i)),
          });
        }));
        const joined = concat<RemoteBatch>(chunks).union(concat<RemoteBatch>(derived));
        const view = joined.selectRows([3, 0, 2]).repeat(2);
        assert.deepEqual(await view.rowIds(), [3, 0, 2, 3, 0, 2].map((i) => `row-${i}`));
        assert.deepEqual(plain(await view.materialize()), [3, 0, 2, 3, 0, 2].map((x) => ({ x, y: 10 * x })));
        // the same rows cut otherwise are the same rows
        assert.deepEqual(batch.union(concat<RemoteBatch>(derived)).fields, ["x", "y"]);
      });

      roll("20: cutting and joining again adds nothing", async ({ put }) => {
        const parts: RemoteBatch[] = [];
        for (let i = 0; i < 16; i++) {
          parts.push(await put({ x: new Int32Array([2 * i, 2 * i + 1]) }, 2, ids(2, `part-${i}`)));
        }
        const all = concat(parts);
        let again = all;
        for (const count of [16, 3, 64, 1, 5]) again = concat(again.chunk(count));
        assert.deepEqual(again.toHandle(), all.toHandle());
        assert.deepEqual(await xs(again), [...numbers(32)]);
      });

      roll(
        "21: ids go with their rows through everything, and views change nobody else",
        async ({ put, transfer }) => {
          const batch = await put({ x: numbers(6), y: numbers(6) }, 6);
          const cases: [RemoteBatch, number[]][] = [
            [batch.select(["y"]), [0, 1, 2, 3, 4, 5]],
            [batch.slice(0, 6, 2), [0, 2, 4]],
            [batch.selectRows([5, 5, 0]), [5, 5, 0]],
            [batch.slice(4).repeat(2), [4, 5, 4, 5]],
            [batch.slice(4).repeat(2, { interleave: true }), [4, 4, 5, 5]],
            [concat([batch.slice(5), batch.slice(0, 1)]), [5, 0]],
            [batch.selectRows(Array(6).fill(false) as boolean[]), []],
            [batch.selectRows([]), []],
          ];
          for (const [view, rows] of cases) {
            const expected = rows.map((i) => `row-${i}`);
            assert.deepEqual(await view.rowIds(), expected);
            assert.deepEqual(await transfer.importHandle(JSON.stringify(view.toHandle())).rowIds(), expected);
          }
          await batch.slice(2).put({ z: numbers(4) });
          assert.deepEqual([batch.rows, batch.fields], [6, ["x", "y"]]);
        },
      );

      roll(
        "22, 26, 27: dropping a union drops what it covers, an earlier batch only its own",
        async ({ put, transfer }) => {
          const batch = await put({ x: numbers(2) }, 2);
          const derived = await batch.put({ y: numbers(2), z: numbers(2) });
          const stored = async () => (await transfer.list("p")).map(({ fields }) => fields.join());
          // one of two fields of a bundle is a part of it
          await assert.rejects(batch.union(derived.select(["y"])).drop(), OwnershipError);
          assert.deepEqual(await stored(), ["x", "y,z"]);
          const united = batch.union(derived);
          await batch.drop();
          assert.deepEqual(await stored(), ["y,z"]);
          if (bound) {
            await assert.rejects(united.drop(), fails("NOT_READY"));
            await derived.drop();
          } else {
            await united.drop();
          }
          assert.deepEqual(await stored(), []);
        },
      );

      roll(
        "33: aliases dropped at the same time delete once, readers get all or nothing",
        async ({ put, transfer }) => {
          const batch = await put({ x: numbers(64), s: strings(Array(64).fill("a")) }, 64);
          const aliases = [
            batch,
            batch.slice(0),
            concat(batch.chunk(4)),
            transfer.importHandle(batch.toHandle()),
          ];
          const reads = Array.from({ length: 8 }, () => batch.materialize());
          const drops = await Promise.allSettled(aliases.map((alias) => alias.drop()));
          for (const read of await Promise.allSettled(reads)) {
            if (read.status === "fulfilled") {
              assert.deepEqual(read.value.tensor("x").toNumbers(), [...numbers(64)]);
            } else {assert.ok(
                ["DROPPED", "NOT_READY"].includes((read.reason as { code: string }).code),
                String(read.reason),
              );}
          }
          assert.ok(drops.some(({ status }) => status === "fulfilled"));
          // by id there is nothing left that could be dropped
          for (const drop of drops) {
            if (drop.status === "rejected") {
              assert.ok(bound && fails("NOT_READY")(drop.reason), String(drop.reason));
            }
          }
          assert.deepEqual(await transfer.list("p"), []);
        },
      );

      roll("4.2: groups by tensors, texts and both", async ({ put }) => {
        const batch = await put({
          pair: tensor("int32", [5, 2], [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]),
          flat: new Float32Array([0.5, 0.5, 0.5, 1, 0.5]),
          text: strings(["a", "a", "b", "a", "b"]),
          list: ragged("int8", [[1], [1], [1, 1], [], [1]]),
          info: json([{ a: 1 }, { a: 1 }, { a: 2 }, null, { a: 1 }]),
          same: scalars("bool", Array(5).fill(true)),
        }, 5);
        const groups = async (...fields: string[]) => {
          const found = [];
          for (const { batch: group } of await batch.groupBy(fields)) {
            found.push((await group.rowIds()).map((id) => Number(id.slice(4))));
          }
          return found;
        };
        assert.deepEqual(await groups("pair"), [[0, 2, 4], [1, 3]]);
        assert.deepEqual(await groups("flat"), [[0, 1, 2, 4], [3]]);
        assert.deepEqual(await groups("text"), [[0, 1, 3], [2, 4]]);
        assert.deepEqual(await groups("pair", "text"), [[0], [1, 3], [2, 4]]);
        assert.deepEqual(await groups("list"), [[0, 1, 4], [2], [3]]);
        assert.deepEqual(await groups("info"), [[0, 1, 4], [2], [3]]);
        assert.deepEqual(await groups("same"), [[0, 1, 2, 3, 4]]);
        await assert.rejects(batch.groupBy(["no"]), SchemaError);
        await assert.rejects(batch.groupBy([]), SchemaError);
      });

      roll("4.2: padding to a divisor and taking it off again", async ({ put }) => {
        const batch = await put({ x: numbers(7), s: strings([..."abcdefg"]) }, 7);
        const pad = (rows: number, to: number) =>
          Array.from({ length: Math.ceil(rows / to) * to }, (_, i) => i % rows);
        const padded = batch.selectRows(pad(7, 4));
        assert.deepEqual(await xs(padded), [0, 1, 2, 3, 4, 5, 6, 0]);
        assert.deepEqual(plain(await padded.slice(0, 7).materialize()), plain(await batch.materialize()));
        assert.equal(batch.slice(0, 1).selectRows(pad(1, 8)).rows, 8);
      });

      roll("4.3: rows of one shape, nested rows and nulls keep their layout", async ({ put }) => {
        const nested = [{ a: [[1, [2]], []] }, { a: null }, {}, [], [[]], "", 0, false, null, {
          "": { "": "" },
        }];
        const rows = nested.length;
        const batch = await put({
          info: json(nested as never),
          equal: ragged("int64", Array.from({ length: rows }, (_, i) => [i, i + 1])),
          record: records(
            Array.from({ length: rows }, (_, i) => i === 3 ? null : { a: null, b: [i], c: { d: `${i}` } }),
          ),
          text: strings(Array(rows).fill("")),
          none: ragged("float32", Array(rows).fill(null)),
        }, rows);
        for (const order of [[...Array(rows).keys()], [3, 2, 9, 0], [1, 1], [8]]) {
          const view = batch.selectRows(order);
          for (const part of [view, concat(view.chunk(2))]) {
            const data = await part.materialize();
            assert.deepEqual(data.json("info").toArray(), order.map((i) => nested[i]));
            assert.deepEqual(data.ragged("equal").toArray(), order.map((i) => [i, i + 1]));
            assert.deepEqual(
              data.records("record").at(0),
              order[0] === 3 ? null : { a: null, b: [order[0]], c: { d: `${order[0]}` } },
            );
            assert.deepEqual(data.strings("text").toArray(), order.map(() => ""));
            assert.deepEqual(data.ragged("none").toArray(), order.map(() => null));
          }
        }
      });

      roll("4.3: fields come one by one, and in parts", async ({ transfer }) => {
        await transfer.put("p", ids(4), { x: numbers(4) }, 4);
        const rows = transfer.rows("p", ids(4), ["x", "y"]);
        await assert.rejects(rows.materialize(), fails("NOT_READY"));
        await transfer.put("p", ids(2), { y: strings(["a", "b"]) }, 2);
        assert.deepEqual(plain(await rows.slice(0, 2).materialize()), [{ x: 0, y: "a" }, { x: 1, y: "b" }]);
        await assert.rejects(rows.slice(1, 3).materialize(), fails("NOT_READY"));
        await transfer.put("p", ["row-3", "row-2", "row-0"], { y: strings(["d", "c", "A"]) }, 3);
        assert.deepEqual(plain(await rows.materialize()), ["A", "b", "c", "d"].map((y, x) => ({ x, y })));
      });

      roll("4.3: what was cleared does not come back in another partition", async ({ transfer }) => {
        for (let turn = 0; turn < 4; turn++) {
          const partition = `p${turn}`;
          await transfer.put(partition, ids(2), { x: Int32Array.of(turn, turn) }, 2);
          for (let other = 0; other < 4; other++) {
            const read = transfer.get(`p${other}`, ids(2), ["x"]);
            if (other === turn) assert.deepEqual((await read).tensor("x").toNumbers(), [turn, turn]);
            else await assert.rejects(read, fails("NOT_FOUND"));
          }
          if (turn % 2 === 0) await transfer.delete(partition, ids(2), []);
          else await transfer.dropPartition(partition);
        }
        assert.deepEqual(await transfer.list(), []);
      });

      roll("4.3: payloads without bytes, and the ends of wide rows", async ({ put }) => {
        const shape = [5, 2, 3, 4];
        const all = Array.from({ length: 120 }, (_, i) => i);
        const batch = await put(
          { none: tensor("int16", [5, 0, 3], []), wide: tensor("uint8", shape, all) },
          5,
        );
        for (
          const [start, end, step] of [[0, 5, 1], [4, 5, 1], [0, 5, 4], [0, 4, 3], [
            4,
            undefined,
            -2,
          ]] as const
        ) {
          const data = await batch.slice(start, end, step).materialize();
          const rows = [...Array(5).keys()].slice(0, end).filter((i) =>
            step > 0 && i >= start && (i - start) % step === 0
          );
          const expected = step > 0 ? rows : [4, 2, 0];
          assert.deepEqual(data.tensor("none").shape, [expected.length, 0, 3]);
          assert.deepEqual(
            data.tensor("wide").toNumbers(),
            expected.flatMap((i) => all.slice(i * 24, i * 24 + 24)),
          );
          using lease = await batch.slice(start, end, step).borrow();
          assert.deepEqual(lease.batch.tensor("wide").toNumbers(), data.tensor("wide").toNumbers());
        }
      });

      roll("4.4: rows that were filtered out can be freed by id", async ({ put, transfer }) => {
        const batch = await put({ x: numbers(4), y: numbers(4) }, 4);
        const keep = [true, false, true, false];
        const rejected = batch.selectRows(keep.map((kept) => !kept));
        await assert.rejects(rejected.drop(), OwnershipError);
        assert.deepEqual(await transfer.delete("p", await rejected.rowIds(), []), { deleted: 2, absent: [] });
        assert.deepEqual(await xs(batch.selectRows(keep)), [0, 2]);
        await assert.rejects(transfer.get("p", ["row-1"], ["x"]), fails("NOT_FOUND"));
        assert.deepEqual(await transfer.delete("p", ids(4), []), { deleted: 2, absent: ["row-1", "row-3"] });
        assert.deepEqual(await transfer.list(), []);
      });
    });
  }
}
