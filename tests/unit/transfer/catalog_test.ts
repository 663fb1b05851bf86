/**
 * The catalog: rows by id over what this process knows and what a listing tells it.
 *
 * @module
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BatchferryError, type ErrorCode, scalars, strings, TransferBackend } from "../../../mod.ts";
import { openMemoryStore } from "../../../src/store/memory.ts";
import type { ObjectStore } from "../../../src/store/store.ts";
import { resolveConfig } from "../../../src/transfer/config.ts";
import { newSeed, Random, scaled } from "../../support/runtime.ts";

const fails = (code: ErrorCode, rows?: readonly string[]) => (error: unknown) => {
  assert.ok(error instanceof BatchferryError, String(error));
  assert.equal(error.code, code, error.message);
  if (rows !== undefined) assert.deepEqual(error.details.rows, rows);
  return true;
};

const x = (...values: number[]) => ({ x: Int32Array.from(values) });
const read = async (transfer: TransferBackend, keys: readonly string[], field = "x") =>
  (await transfer.get("p", keys, [field])).tensor(field).toNumbers();

/** Two transfers over one store, as two processes have them; `change` replaces methods of the store. */
async function two(
  test: (a: TransferBackend, b: TransferBackend, store: ObjectStore) => Promise<void>,
  change: (store: ObjectStore) => Partial<Record<keyof ObjectStore, unknown>> = () => ({}),
): Promise<void> {
  const store = await openMemoryStore();
  const changes = change(store);
  const proxy = new Proxy(store, {
    get(target, name) {
      const value: unknown = name in changes
        ? changes[name as keyof ObjectStore]
        : Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const make = () => new TransferBackend(resolveConfig({ backend: "memory" }), proxy);
  await test(make(), make(), store);
  await store.close();
}

/** Past the time in which a partition is listed once only. */
const later = () => new Promise((resolve) => setTimeout(resolve, 260));

describe("the catalog", () => {
  it("finds what other processes put, dropped and deleted", () =>
    two(async (a, b) => {
      const batch = await a.put("p", ["a", "b"], { ...x(1, 2), s: strings(["A", "B"]) }, 2);
      assert.deepEqual(await read(b, ["b", "a"]), [2, 1]);
      await a.put("p", ["b", "c"], x(20, 30), 2);
      await later();
      assert.deepEqual(await read(b, ["a", "b", "c"]), [1, 20, 30]);
      await a.delete("p", ["b"], ["x"]);
      await later();
      await assert.rejects(read(b, ["a", "b"]), fails("NOT_READY", ["b"]));
      await batch.drop();
      await later();
      await assert.rejects(read(b, ["a", "c"]), fails("NOT_FOUND", ["a"]));
      assert.deepEqual(await read(b, ["c"]), [30]);
    }));

  it("looks a second time where what it knew of was dropped since", () =>
    two(async (a, b) => {
      const old = await a.put("p", ["a", "b"], x(1, 2), 2);
      assert.deepEqual(await read(b, ["a", "b"]), [1, 2]);
      const bound = b.rows("p", ["b"], ["x"]);
      // no time passes: the listing is fresh, and wrong
      await a.put("p", ["b", "a"], x(12, 11), 2);
      await old.drop();
      assert.deepEqual(await read(b, ["a", "b"]), [11, 12]);
      assert.deepEqual((await bound.materialize()).tensor("x").toNumbers(), [12]);
      using lease = await bound.borrow();
      assert.deepEqual(lease.batch.tensor("x").toNumbers(), [12]);
      await a.dropPartition("p");
      await assert.rejects(read(b, ["a"]), fails("NOT_FOUND", ["a"]));
      await assert.rejects(bound.materialize(), fails("NOT_READY", ["b"]));
    }));

  it("lists once for all who ask at the same time", async () => {
    let listings = 0;
    await two(
      async (a, b) => {
        await a.put("p", ["a", "b"], x(1, 2), 2);
        listings = 0;
        const rows = b.rows("p", ["b", "a"], ["x"]);
        const read = await Promise.all(
          Array.from({ length: 20 }, (_, i) => rows.slice(i % 2, i % 2 + 1).materialize()),
        );
        assert.deepEqual(
          read.map((data) => data.tensor("x").toNumbers()[0]),
          Array.from({ length: 20 }, (_, i) => 2 - i % 2),
        );
        assert.equal(listings, 1);
      },
      (store) => ({
        async *list(prefix: string) {
          listings++;
          // slower than the others ask
          await new Promise((resolve) => setTimeout(resolve, 20));
          yield* (store.list as NonNullable<ObjectStore["list"]>)(prefix);
        },
      }),
    );
  });

  it("knows what it wrote and imported where the store cannot list", () =>
    two(async (a, b) => {
      assert.equal((await a.info()).catalog, "local");
      const batch = await a.put("p", ["a", "b"], x(1, 2), 2);
      assert.deepEqual(await read(a, ["b"]), [2]);
      await assert.rejects(read(b, ["b"]), fails("NOT_FOUND"));
      b.importHandle(batch.toHandle());
      assert.deepEqual(await read(b, ["b"]), [2]);
      assert.deepEqual((await b.list("p")).map(({ rows }) => rows), [2]);
      await b.dropPartition("p");
      await assert.rejects(read(a, ["b"]), fails("NOT_FOUND"));
      assert.deepEqual(await a.list(), []);
    }, () => ({ list: undefined })));

  it("gives columns put over rows the ids of these rows, as long as they are there", () =>
    two(async (a, b) => {
      const batch = await a.put("p", ["a", "b", "c"], x(1, 2, 3), 3);
      const derived = await batch.selectRows([2, 0]).put({ y: Int32Array.of(33, 11) });
      const second = await derived.slice(0, 1).put({ z: scalars("int8", [7]) });
      for (const transfer of [a, b]) {
        assert.deepEqual(await read(transfer, ["a", "c"], "y"), [11, 33]);
        await assert.rejects(read(transfer, ["a", "b"], "y"), fails("NOT_READY", ["b"]));
        assert.deepEqual((await transfer.get("p", ["c"], ["z", "x"])).scalars("z").toArray(), [7]);
      }
      assert.deepEqual([await derived.rowIds(), await second.rowIds()], [["c", "a"], ["c"]]);
      // generated ids are ids like others
      const generated = await a.put("p", null, x(8, 9), 2);
      const [, last] = await generated.rowIds();
      assert.deepEqual(
        await read(b, [last as string]).catch(() => later().then(() => read(b, [last as string]))),
        [9],
      );
      for (
        const wrong of [
          `${last}0`,
          `${last}`.replace(/1$/, "01"),
          `${last}`.replace(/1$/, "2"),
          `${last}`.slice(0, -2),
        ]
      ) {
        await assert.rejects(read(a, [wrong]), fails("NOT_FOUND", [wrong]));
      }
    }));

  it("does as a plain table does, for random puts, deletes and drops by two processes", async () => {
    const seed = newSeed("catalog");
    for (let round = 0; round < scaled(300); round++) {
      const random = new Random(seed + round);
      await two(async (a, b) => {
        // cells by row and field; newest first, each with the bundle it is in
        const cells = new Map<string, { bundle: number; value: number; alive: boolean }[]>();
        const dropped = new Set<number>();
        const batches: { drop(): Promise<void> }[] = [];
        const cell = (id: string, field: string) =>
          cells.get(`${id} ${field}`)?.find(({ bundle }) => !dropped.has(bundle));
        const ids = Array.from({ length: 6 }, (_, i) => `id-${i}`);
        for (let step = 0; step < 12; step++) {
          const transfer = random.pick([a, b]);
          const some = ids.filter(() => random.chance(0.5));
          const fields = ["x", "y"].filter(() => random.chance(0.6));
          if (fields.length === 0) fields.push("x");
          const choice = random.int(4);
          if (choice < 2) {
            const bundle = batches.length;
            batches.push(
              await transfer.put(
                "p",
                some,
                Object.fromEntries(
                  fields.map((field, f) => [field, Int32Array.from(some, (_, i) => step * 100 + f * 10 + i)]),
                ),
                some.length,
              ),
            );
            fields.forEach((field, f) =>
              some.forEach((id, i) => {
                const key = `${id} ${field}`;
                cells.set(key, [
                  { bundle, value: step * 100 + f * 10 + i, alive: true },
                  ...cells.get(key) ?? [],
                ]);
              })
            );
          } else if (choice === 2) {
            const all = random.chance(0.3);
            const named = all ? ["x", "y"] : fields;
            const found = new Set<string>();
            for (const id of some) {
              for (const field of named) {
                for (const entry of cells.get(`${id} ${field}`) ?? []) {
                  if (!entry.alive || dropped.has(entry.bundle)) continue;
                  entry.alive = false;
                  found.add(id);
                }
              }
            }
            // what the other one did last is seen by a listing
            await transfer.list("p");
            assert.deepEqual(await transfer.delete("p", some, all ? [] : fields), {
              deleted: found.size,
              absent: some.filter((id) => !found.has(id)),
            });
          } else if (batches.length > 0) {
            const bundle = random.int(batches.length);
            await batches[bundle]?.drop();
            dropped.add(bundle);
          }
          // a bundle whose cells are all dead is gone, and older ones do not come back for it
          await a.list("p");
          await b.list("p");
          for (const reader of [a, b]) {
            for (const field of ["x", "y"]) {
              const here = ids.filter((id) => cell(id, field)?.alive === true);
              assert.deepEqual(
                here.length === 0 ? [] : await read(reader, here, field),
                here.map((id) => cell(id, field)?.value),
              );
              for (const id of ids) {
                if (!here.includes(id)) await assert.rejects(read(reader, [id], field), BatchferryError);
              }
            }
          }
        }
      });
    }
  });

  it("leaves no tombstones behind", () =>
    two(async (a, b, store) => {
      const keys = async () =>
        await Array.fromAsync((store.list as NonNullable<ObjectStore["list"]>)("bundle/"));
      const put = async () => {
        const batch = await a.put("p", ["a", "b"], x(1, 2), 2);
        await b.list("p");
        return batch;
      };
      const known = await put();
      await a.delete("p", ["a"], []);
      await b.delete("p", ["b"], ["no such field"]);
      assert.equal((await keys()).length, 2);
      await known.drop();
      assert.deepEqual(await keys(), []);
      // of another's deletion nothing is known here
      const unknown = await put();
      await b.delete("p", ["a"], ["x"]);
      await unknown.drop();
      assert.equal((await keys()).length, 1);
      const kept = await put();
      await b.delete("p", ["a"], ["x"]);
      for (const transfer of [b, a]) {
        assert.equal(await transfer.gc(), 0);
        assert.equal((await keys()).length, 2);
        await assert.rejects(read(transfer, ["a"]), fails("NOT_FOUND"));
      }
      await kept.drop();
      assert.deepEqual(await keys(), []);
      // and where nothing else is left in a partition
      const last = await put();
      await b.delete("p", ["a"], ["x"]);
      await last.drop();
      assert.equal(await b.gc(), 0);
      assert.deepEqual(await keys(), []);
    }));

  it("keeps every call to the configured limit", async () => {
    const store = await openMemoryStore();
    const limits: (number | undefined)[] = [];
    const proxy = new Proxy(store, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        return (...args: unknown[]) => {
          const options = args.at(-1) as { timeoutMs?: number } | undefined;
          if (name !== "list" && name !== "view") limits.push(options?.timeoutMs);
          return value.apply(target, args);
        };
      },
    });
    const transfer = new TransferBackend(resolveConfig({ backend: "memory", timeoutMs: 4321 }), proxy);
    const batch = await transfer.put("p", ["a", "b"], { ...x(1, 2), s: strings(["A", "B"]) }, 2);
    await batch.materialize();
    await transfer.rows("p", ["a"], ["s"]).materialize();
    (await batch.borrow()).release();
    await (await batch.slice(1).put(x(3))).drop();
    await (await batch.compact()).drop();
    await transfer.publish("p", "name", batch);
    await (await transfer.lookup("p", "name")).materialize(["x"], { timeoutMs: 1234 });
    await transfer.delete("p", ["a"], []);
    await transfer.dropPartition("p");
    assert.ok(limits.length > 10);
    for (const limit of limits) assert.ok(limit !== undefined && limit <= 4321, `${limit}`);
    assert.ok(limits.some((limit) => limit as number <= 1234));
    await store.close();
  });
});
