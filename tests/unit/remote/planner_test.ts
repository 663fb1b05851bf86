/**
 * What the planner asks of the store: everything that can be asked at once in one call, no byte twice.
 *
 * @module
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  BatchferryError,
  type Column,
  concat,
  CorruptionError,
  DataLostError,
  DroppedError,
  ragged,
  type RemoteBatch,
  scalars,
  SchemaError,
  strings,
  tensor,
  TransferBackend,
} from "../../../mod.ts";
import { openMemoryStore } from "../../../src/store/memory.ts";
import type { ObjectStore, ReadRange } from "../../../src/store/store.ts";
import { resolveConfig } from "../../../src/transfer/config.ts";
import { newSeed, Random, scaled } from "../../support/runtime.ts";

/** One call of `read`: key, offset and bytes of each range. */
type Call = readonly (readonly [key: string, offset: number, bytes: number])[];

interface Watched {
  readonly transfer: TransferBackend;
  /** Another transfer over the same store, that knows nothing yet. */
  readonly another: () => TransferBackend;
  readonly store: ObjectStore;
  /** The reads of the store so far; emptied by the caller. */
  readonly calls: Call[];
  /** Called before each read. */
  onRead: (ranges: readonly ReadRange[]) => Promise<void> | void;
}

async function watched(test: (watched: Watched) => Promise<void>): Promise<void> {
  const store = await openMemoryStore();
  const calls: Call[] = [];
  const proxy = new Proxy(store, {
    get(target, name) {
      if (name === "read") {
        return async (ranges: readonly ReadRange[]) => {
          await subject.onRead(ranges);
          calls.push(
            ranges.map((
              { key, offset, into },
            ) => [key.slice(key.indexOf("/buffer/")), offset, into.byteLength]),
          );
          await target.read(ranges);
        };
      }
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const another = () => new TransferBackend(resolveConfig({ backend: "memory" }), proxy);
  const subject: Watched = { transfer: another(), another, store, calls, onRead: () => {} };
  await test(subject);
  await store.close();
}

const ROW = 512;

/** Rows of 512 bytes, each full of its number. */
function wide(rows: number, from = 0): Column {
  return tensor(
    "uint8",
    [rows, ROW],
    Uint8Array.from({ length: rows * ROW }, (_, i) => from + Math.floor(i / ROW)),
  );
}

const numbersOf = async (batch: RemoteBatch, field = "x") => {
  const data = (await batch.materialize([field])).tensor(field).data;
  return Array.from({ length: batch.rows }, (_, i) => data[i * ROW]);
};

describe("the planner", () => {
  it("asks for everything at once", () =>
    watched(async ({ transfer, calls }) => {
      const parts: RemoteBatch[] = [];
      for (let i = 0; i < 8; i++) {
        parts.push(
          await transfer.put(
            "p",
            null,
            { x: wide(4, i * 4), y: wide(4), s: strings(["a", "b", "c", "d"]) },
            4,
          ),
        );
      }
      const batch = concat(parts);
      await batch.materialize(["x", "y"]);
      assert.equal(calls.length, 1);
      assert.equal(calls[0]?.length, 16);
      // texts need a second round, as offsets come first; the other columns do not wait for it
      calls.length = 0;
      await batch.materialize();
      assert.equal(calls.length, 2);
      assert.ok(calls[0]?.some(([key]) => key === "/buffer/batch.x"));
      assert.ok(calls[1]?.every(([key]) => key === "/buffer/non_tensor_batch.s.data"));
      assert.equal(calls[1]?.length, 8);
    }));

  it("reads no byte twice, for random selections of several bundles", () => {
    const seed = newSeed("planner");
    return watched(async ({ transfer, calls }) => {
      const parts: RemoteBatch[] = [];
      for (let i = 0; i < 3; i++) {
        parts.push(await transfer.put("p", null, { [`x${i}`]: wide(40, i * 40) }, 40));
      }
      const batch = concat(parts.map((part, i) => part.rename({ [`x${i}`]: "x" })));
      for (let round = 0; round < scaled(2000); round++) {
        const random = new Random(seed + round);
        const rows = Array.from({ length: random.int(30) }, () => random.int(120));
        calls.length = 0;
        assert.deepEqual(await numbersOf(batch.selectRows(rows)), rows);
        const seen = new Map<string, Set<number>>();
        for (const [key, offset, bytes] of calls.flat()) {
          const of = seen.get(key) ?? new Set();
          seen.set(key, of);
          for (let at = offset; at < offset + bytes; at++) {
            assert.ok(!of.has(at), `byte ${at} of ${key} is read twice for ${rows}`);
            of.add(at);
          }
        }
        const bytes = [...seen.values()].reduce((sum, of) => sum + of.size, 0);
        assert.equal(bytes, new Set(rows).size * ROW);
        assert.ok(calls.length <= 1);
      }
    });
  });

  it("takes neighbours in one range", () =>
    watched(async ({ transfer, calls }) => {
      const batch = await transfer.put("p", null, { x: wide(64) }, 64);
      await batch.slice(10, 50).materialize();
      // the header of 304 bytes comes first
      assert.deepEqual(calls, [[["/buffer/batch.x", 304 + 10 * ROW, 40 * ROW]]]);
      calls.length = 0;
      await concat([batch.slice(0, 8), batch.slice(8, 16)]).materialize();
      assert.deepEqual(calls, [[["/buffer/batch.x", 304, 16 * ROW]]]);
      // columns of nothing need no call
      calls.length = 0;
      await batch.slice(0, 0).materialize();
      await batch.materialize([]);
      assert.deepEqual(calls, []);
    }));

  it("learns what a bundle holds once, however many ask at the same time", () =>
    watched(async ({ transfer, another, calls }) => {
      const batch = await transfer.put("p", null, { x: wide(8), s: strings(Array(8).fill("a")) }, 8);
      const handle = batch.toHandle();
      const other = another();
      const views = other.importHandle(handle).chunk(4);
      const again = other.importHandle(JSON.stringify(handle));
      calls.length = 0;
      await Promise.all([...views, again].map((view) => view.materialize(["x"])));
      // a manifest, a meta, and what was asked for
      assert.equal(calls.length, 2 + 5);
      calls.length = 0;
      await views[0]?.materialize(["s"]);
      assert.equal(calls.length, 2);
    }));

  it("fills memory it was given, and only if it fits", () =>
    watched(async ({ transfer }) => {
      const batch = await transfer.put("p", null, {
        x: wide(8),
        y: wide(8),
        n: scalars("int8", Array(8).fill(1)),
      }, 8);
      const into = await batch.slice(0, 4).materialize();
      const memory = into.tensor("x").bytes;
      const filled = await batch.slice(4).materialize(["n", "x"], { into: { x: into.tensor("x") } });
      assert.equal(filled.tensor("x").bytes, memory);
      assert.deepEqual(filled.fields, ["n", "x"]);
      assert.equal(memory[0], 4);
      for (const other of [batch, batch.slice(0, 3), batch.rename({ y: "x", x: "y" }).slice(0, 5)]) {
        await assert.rejects(other.materialize(["x"], { into }), SchemaError);
      }
      await assert.rejects(batch.slice(4).materialize(["x"], { into: { x: memory as never } }), SchemaError);
      // scattered rows, some twice, from the other end
      await batch.selectRows([7, 0, 7, 3]).materialize(["x"], { into });
      assert.deepEqual([0, 1, 2, 3].map((row) => memory[row * ROW]), [7, 0, 7, 3]);
    }));

  it("refuses a column of two forms, and a field that a bundle does not have", () =>
    watched(async ({ transfer }) => {
      const forms = [
        wide(2),
        tensor("uint8", [2, 4], new Uint8Array(8)),
        tensor("int8", [2, ROW], new Int8Array(2 * ROW)),
        scalars("uint8", [1, 2]),
        ragged("uint8", [[1], [2]]),
        strings(["a", "b"]),
      ];
      const batches: RemoteBatch[] = [];
      for (const [i, form] of forms.entries()) {
        // a partition has one form to a field, so each has a name of its own
        const name = `x${i}`;
        batches.push((await transfer.put("p", null, { [name]: form }, 2)).rename({ [name]: "x" }));
      }
      for (const a of batches) {
        for (const b of batches) {
          if (a === b) continue;
          await assert.rejects(concat([a, b]).materialize(), (error: SchemaError) => {
            assert.ok(error instanceof SchemaError);
            assert.equal(error.details.field, "x");
            return true;
          });
        }
      }
      const handle = JSON.stringify((batches[0] as RemoteBatch).slice(1).toHandle());
      const wrong = transfer.importHandle(handle.replace('"x0"', '"nope"'));
      await assert.rejects(wrong.materialize(), CorruptionError);
    }));

  it("tells a bundle that was dropped from one that lost a payload", () =>
    watched(async (subject) => {
      const { transfer, another, store } = subject;
      const batch = await transfer.put("p", null, { x: wide(4) }, 4);
      const other = another();
      const theirs = other.importHandle(batch.toHandle());
      await theirs.materialize();
      // gone between two reads: once is forgiven, as a payload may have moved
      let failures = 1;
      subject.onRead = ([range]) => {
        if (failures-- > 0) throw new DroppedError("gone", { key: range?.key });
      };
      assert.deepEqual(await numbersOf(theirs), [0, 1, 2, 3]);
      failures = 2;
      await assert.rejects(theirs.materialize(), DataLostError);
      failures = 0;
      assert.deepEqual(await numbersOf(theirs), [0, 1, 2, 3]);
      await store.deletePrefix("bundle/p/");
      await assert.rejects(theirs.materialize(), DroppedError);
      await assert.rejects(batch.materialize(), (error) =>
        error instanceof BatchferryError && error.code === "DROPPED");
    }));
});
