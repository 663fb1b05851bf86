/**
 * What every object store does alike; run by the test of each.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  ClosedError,
  CorruptionError,
  DroppedError,
  SchemaError,
  TimeoutError,
} from "../../../src/errors.ts";
import type { ObjectStore, StoreObject } from "../../../src/store/store.ts";

let ids = 0;

/** A new object id below `dir`. */
export function newObjectId(dir = "bundle/train"): string {
  return `${dir}/${(ids++).toString(16).padStart(32, "0")}`;
}

/** Bytes that count up from `seed`. */
export function pattern(bytes: number, seed = 0): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i++) out[i] = seed + i * 7 + (i >> 8);
  return out;
}

/** A bundle with a tensor payload in two parts, an unaligned one, an empty one, meta and manifest. */
export function sampleBundle(objectId: string, data: Uint8Array = pattern(1000)): StoreObject[] {
  return [
    { key: `${objectId}/buffer/batch.x`, parts: [pattern(304, 1), data] },
    { key: `${objectId}/buffer/text`, parts: [pattern(13, 2).subarray(3), pattern(5, 3)] },
    { key: `${objectId}/buffer/empty`, parts: [] },
    { key: `${objectId}/meta`, parts: [pattern(77, 4)] },
    { key: `${objectId}/manifest`, parts: [pattern(99, 5)] },
  ];
}

/** The bytes of an object. */
export function joined(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

/** All keys below a prefix, sorted. */
export async function keysOf(store: ObjectStore, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const key of store.list!(prefix)) keys.push(key);
  return keys.sort();
}

/** Reads a whole object. */
export async function readAll(store: ObjectStore, key: string): Promise<Uint8Array> {
  const into = new Uint8Array(await store.size(key) ?? 0);
  await store.read([{ key, offset: 0, into }]);
  return into;
}

/** Runs a function with a store that is closed afterwards. */
export type WithStore = (use: (store: ObjectStore) => Promise<void>) => Promise<void>;

/** The tests; those of leases only where the store has views. */
export function storeSuite(
  name: string,
  withStore: WithStore,
  { views = true }: { readonly views?: boolean } = {},
): void {
  const test = (what: string, use: (store: ObjectStore) => Promise<void>) => it(what, () => withStore(use));
  const testView = views ? test : () => {};

  describe(`${name}: as every store`, () => {
    test("a bundle reads back, whole and in ranges", async (store) => {
      const objectId = newObjectId();
      const objects = sampleBundle(objectId);
      await store.writeBundle(objectId, objects);
      for (const { key, parts } of objects) {
        assert.deepEqual(await readAll(store, key), joined(parts), key);
        assert.equal(await store.size(key), joined(parts).length);
      }
      const [first, second] = [new Uint8Array(10), new Uint8Array(5)];
      await store.read([
        { key: objects[0]!.key, offset: 300, into: first },
        { key: objects[3]!.key, offset: 72, into: second },
      ]);
      assert.deepEqual(first, joined(objects[0]!.parts).subarray(300, 310));
      assert.deepEqual(second, joined(objects[3]!.parts).subarray(72));
    });

    test("ranges of several bundles and loose keys are read in one call", async (store) => {
      const [a, b] = [newObjectId(), newObjectId("other/place")];
      await store.writeBundle(a, sampleBundle(a));
      await store.writeBundle(b, sampleBundle(b, pattern(200_000, 9)));
      await store.put(`${a}/row_ids`, pattern(40, 8));
      await store.put("bundle/train/names/last", pattern(20, 7));
      const into = [10, 100, 40, 20].map((n) => new Uint8Array(n));
      await store.read([
        { key: `${a}/meta`, offset: 1, into: into[0]! },
        { key: `${b}/buffer/batch.x`, offset: 150_000, into: into[1]! },
        { key: `${a}/row_ids`, offset: 0, into: into[2]! },
        { key: "bundle/train/names/last", offset: 0, into: into[3]! },
      ]);
      assert.deepEqual(into[0], pattern(77, 4).subarray(1, 11));
      assert.deepEqual(into[1], pattern(200_000, 9).subarray(150_000 - 304, 150_100 - 304));
      assert.deepEqual(into[2], pattern(40, 8));
      assert.deepEqual(into[3], pattern(20, 7));
    });

    test("what was written is the store's own", async (store) => {
      const objectId = newObjectId();
      const data = pattern(1000);
      await store.writeBundle(objectId, sampleBundle(objectId, data));
      data.fill(0);
      const read = await readAll(store, `${objectId}/buffer/batch.x`);
      assert.deepEqual(read.subarray(304), pattern(1000));
    });

    test("large payloads read back", async (store) => {
      const objectId = newObjectId();
      const data = pattern(3 * 2 ** 20 + 1);
      await store.writeBundle(objectId, sampleBundle(objectId, data));
      const read = await readAll(store, `${objectId}/buffer/batch.x`);
      assert.equal(Buffer.compare(read.subarray(304), data), 0);
    });

    test("a loose key is replaced by the next put", async (store) => {
      for (const key of ["a/names/x", "lone", "a/b/c", `${newObjectId()}/tombstone`, "p/ключ ü/~%"]) {
        await store.put(key, pattern(10));
        await store.put(key, pattern(2000, 1));
        assert.deepEqual(await readAll(store, key), pattern(2000, 1), key);
        await store.put(key, new Uint8Array(0));
        assert.equal(await store.size(key), 0);
      }
    });

    test("what is not there", async (store) => {
      const objectId = newObjectId();
      assert.equal(await store.size(`${objectId}/manifest`), undefined);
      assert.equal(await store.size("bundle/train/names/none"), undefined);
      const into = new Uint8Array(1);
      await assert.rejects(
        store.read([{ key: `${objectId}/manifest`, offset: 0, into }]),
        (error) => error instanceof DroppedError && error.details.key === `${objectId}/manifest`,
      );
      if (views) assert.throws(() => store.view!(objectId, [`${objectId}/meta`]), DroppedError);
      await store.writeBundle(objectId, sampleBundle(objectId));
      await assert.rejects(store.read([{ key: `${objectId}/absent`, offset: 0, into }]), DroppedError);
      if (views) {
        assert.throws(() => store.view!(objectId, [`${objectId}/meta`, `${objectId}/absent`]), DroppedError);
      }
      assert.equal(await store.size(`${objectId}/absent`), undefined);
      await store.delete([`${newObjectId()}/manifest`, "bundle/train/names/none"]);
      assert.equal(await store.deletePrefix("nobody/nowhere/"), 0);
    });

    test("a range beyond its object is an error", async (store) => {
      const objectId = newObjectId();
      await store.writeBundle(objectId, sampleBundle(objectId));
      const key = `${objectId}/meta`;
      for (const [offset, bytes] of [[0, 78], [77, 1], [-1, 1], [0.5, 1], [2 ** 60, 1]] as const) {
        const range = { key, offset, into: new Uint8Array(bytes) };
        await assert.rejects(store.read([range]), CorruptionError, `${offset}+${bytes}`);
      }
      await store.read([{ key, offset: 77, into: new Uint8Array(0) }]);
    });

    testView("a lease shows payloads until it is released, and its writes stay in it", async (store) => {
      const objectId = newObjectId();
      const objects = sampleBundle(objectId, pattern(100_000));
      await store.writeBundle(objectId, objects);
      const keys = objects.map(({ key }) => key);
      const lease = store.view!(objectId, keys);
      const views = keys.map((key) => new Uint8Array(lease.payloads.get(key)!));
      views.forEach((view, i) => assert.deepEqual(view, joined(objects[i]!.parts), keys[i]!));
      views[0]!.fill(0);
      assert.deepEqual(await readAll(store, keys[0]!), joined(objects[0]!.parts));
      using other = store.view!(objectId, keys);
      assert.deepEqual(new Uint8Array(other.payloads.get(keys[0]!)!), joined(objects[0]!.parts));
      assert.equal(lease.released, false);
      lease.release();
      lease.release();
      assert.equal(lease.released, true);
      for (const view of views) assert.equal(view.length, 0);
      assert.equal(other.payloads.get(keys[0]!)!.byteLength, 100_304);
    });

    testView("a lease outlives its bundle", async (store) => {
      const objectId = newObjectId();
      await store.writeBundle(objectId, sampleBundle(objectId, pattern(100_000)));
      using lease = store.view!(objectId, [`${objectId}/buffer/batch.x`]);
      await store.delete([`${objectId}/manifest`]);
      assert.throws(() => store.view!(objectId, [`${objectId}/meta`]), DroppedError);
      for (let i = 0; i < 3; i++) {
        const next = newObjectId();
        await store.writeBundle(next, sampleBundle(next, pattern(100_000, i)));
      }
      const seen = new Uint8Array(lease.payloads.get(`${objectId}/buffer/batch.x`)!);
      assert.equal(Buffer.compare(seen.subarray(304), pattern(100_000)), 0);
    });

    testView("a lease covers keys that were put alone", async (store) => {
      const objectId = newObjectId();
      await store.writeBundle(objectId, sampleBundle(objectId));
      await store.put(`${objectId}/side`, pattern(5000, 3));
      using lease = store.view!(objectId, [`${objectId}/side`, `${objectId}/meta`]);
      assert.deepEqual(new Uint8Array(lease.payloads.get(`${objectId}/side`)!), pattern(5000, 3));
      assert.deepEqual(new Uint8Array(lease.payloads.get(`${objectId}/meta`)!), pattern(77, 4));
    });

    test("naming any key of a bundle deletes it whole; a key beside it goes alone", async (store) => {
      const [a, b] = [newObjectId(), newObjectId()];
      for (const id of [a, b]) {
        await store.writeBundle(id, sampleBundle(id));
        await store.put(`${id}/tombstone`, pattern(4));
      }
      await store.delete([`${a}/tombstone`]);
      assert.equal(await store.size(`${a}/manifest`), 99);
      assert.equal(await store.size(`${a}/tombstone`), undefined);
      await store.delete([`${a}/meta`, `${b}/manifest`, `${b}/tombstone`, `${b}/meta`]);
      for (const id of [a, b]) assert.equal(await store.size(`${id}/manifest`), undefined);
      assert.equal(await store.size(`${b}/tombstone`), undefined);
      await store.delete([`${a}/meta`, `${b}/manifest`]);
    });

    test("list and deletePrefix go by the keys", async (store) => {
      const a = newObjectId("p/one");
      const b = newObjectId("p/one/two");
      const c = newObjectId("p/onemore");
      const long = newObjectId(`p/${"длинное имя ".repeat(20)}`);
      for (const id of [a, b, c, long]) await store.writeBundle(id, sampleBundle(id));
      await store.put(`${a}/side`, pattern(1));
      await store.put("p/one/names/x", pattern(1));
      await store.put("p/one/names/y/z", pattern(1));
      await store.put(`${long}/${"n".repeat(300)}`, pattern(1));
      await store.put("lone", pattern(1));
      const manifest = (id: string) => `${id}/manifest`;
      assert.deepEqual(
        await keysOf(store, "p/one/"),
        [manifest(a), `${a}/side`, manifest(b), "p/one/names/x", "p/one/names/y/z"].sort(),
      );
      assert.deepEqual(await keysOf(store, "p/one/names/"), ["p/one/names/x", "p/one/names/y/z"]);
      assert.deepEqual(await keysOf(store, `${a}/`), [manifest(a), `${a}/side`].sort());
      assert.deepEqual(
        await keysOf(store, `${long}/`),
        [manifest(long), `${long}/${"n".repeat(300)}`].sort(),
      );
      assert.equal((await keysOf(store, "")).length, 9);
      assert.equal((await keysOf(store, "p/on")).length, 6);
      assert.deepEqual(await keysOf(store, "lon"), ["lone"]);

      assert.equal(await store.deletePrefix("p/one/names/y/"), 1);
      assert.equal(await store.deletePrefix(`${a}/`), 2);
      assert.equal(await store.size(manifest(a)), undefined);
      assert.equal(await store.deletePrefix("p/one/"), 2);
      assert.deepEqual(await keysOf(store, "p/one/"), []);
      assert.equal(await store.size(manifest(c)), 99);
      assert.equal(await store.deletePrefix(`${long.slice(0, long.lastIndexOf("/"))}/`), 2);
      assert.equal(await store.deletePrefix("p/"), 1);
      assert.deepEqual(await keysOf(store, ""), ["lone"]);
    });

    test("a prefix is a folder, not the start of a name", async (store) => {
      const id = newObjectId("p/step-10");
      await store.writeBundle(id, sampleBundle(id));
      assert.equal(await store.deletePrefix("p/step-1/"), 0);
      assert.equal(await store.size(`${id}/meta`), 77);
      await assert.rejects(store.deletePrefix("p/step-1"), SchemaError);
      await assert.rejects(store.deletePrefix("/"), SchemaError);
      await assert.rejects(store.deletePrefix(""), SchemaError);
    });

    test("allocated memory is published without a copy, and detached then", async (store) => {
      const lease = await store.allocate!([304 + 4000, 100, 0, 50]);
      const objectId = newObjectId();
      const [x, y, , unused] = lease.payloads as readonly Uint8Array[];
      assert.deepEqual(lease.payloads.map(({ length }) => length), [4304, 100, 0, 50]);
      x!.set(pattern(4304));
      y!.set(pattern(60, 1));
      await lease.publish(
        objectId,
        [
          { key: `${objectId}/x`, bytes: 4304 },
          { key: `${objectId}/y`, bytes: 60 },
          { key: `${objectId}/z`, bytes: 0 },
          { key: "", bytes: 0 },
        ],
        [{ key: `${objectId}/meta`, parts: [pattern(5)] }, {
          key: `${objectId}/manifest`,
          parts: [pattern(9)],
        }],
      );
      for (const view of [x!, y!, unused!]) assert.equal(view.length, 0);
      assert.deepEqual(await readAll(store, `${objectId}/x`), pattern(4304));
      assert.deepEqual(await readAll(store, `${objectId}/y`), pattern(60, 1));
      assert.equal(await store.size(`${objectId}/z`), 0);
      assert.deepEqual(await keysOf(store, "bundle/train/"), [`${objectId}/manifest`]);
      lease.release();
      assert.equal(await store.size(`${objectId}/x`), 4304);
      await assert.rejects(lease.publish(newObjectId(), [], []), ClosedError);
    });

    test("allocated memory may have a rest of any size", async (store) => {
      const lease = await store.allocate!([1000]);
      const objectId = newObjectId();
      lease.payloads[0]!.set(pattern(1000));
      const rowIds = pattern(300_000, 3);
      await lease.publish(objectId, [{ key: `${objectId}/x`, bytes: 1000 }], [
        { key: `${objectId}/row_ids`, parts: [rowIds.subarray(0, 7), rowIds.subarray(7)] },
        { key: `${objectId}/manifest`, parts: [pattern(9)] },
      ]);
      assert.deepEqual(await readAll(store, `${objectId}/x`), pattern(1000));
      assert.deepEqual(await readAll(store, `${objectId}/row_ids`), rowIds);
      await store.delete([`${objectId}/x`]);
      assert.deepEqual(await keysOf(store, ""), []);
    });

    test("allocated memory that is released leaves nothing, and a bad description leaves it as it was", async (store) => {
      const lease = await store.allocate!([100]);
      const objectId = newObjectId();
      const manifest = { key: `${objectId}/manifest`, parts: [pattern(9)] };
      const tooMuch = [{ key: `${objectId}/x`, bytes: 101 }];
      await assert.rejects(lease.publish(objectId, tooMuch, [manifest]), SchemaError);
      await assert.rejects(lease.publish(objectId, [], [manifest]), SchemaError);
      await assert.rejects(
        lease.publish(objectId, [{ key: "elsewhere", bytes: 1 }], [manifest]),
        SchemaError,
      );
      assert.deepEqual(await keysOf(store, ""), []);
      assert.equal(lease.payloads[0]!.length, 100);
      lease.release();
      assert.equal(lease.payloads[0]!.length, 0);
      await assert.rejects(store.allocate!([-1]), SchemaError);
      await assert.rejects(store.allocate!([1.5]), SchemaError);
    });

    test("wrong keys are refused before anything is written", async (store) => {
      const objectId = newObjectId();
      const write = (id: string, keys: string[]) =>
        store.writeBundle(id, keys.map((key) => ({ key, parts: [pattern(3)] })));
      await assert.rejects(write("bundle/train", ["bundle/train/manifest"]), SchemaError);
      await assert.rejects(write(objectId, []), SchemaError);
      await assert.rejects(write(objectId, ["bundle/other/manifest"]), SchemaError);
      await assert.rejects(write(objectId, [objectId]), SchemaError);
      await assert.rejects(write(objectId, [`${objectId}/x/${"0".repeat(32)}`]), SchemaError);
      await assert.rejects(write(objectId, [`${objectId}/a`, `${objectId}/a`]), SchemaError);
      for (const key of ["", "/a", "a/"]) await assert.rejects(store.put(key, pattern(1)), SchemaError);
      assert.deepEqual(await keysOf(store, ""), []);
    });

    test("signals and time limits are honoured", async (store) => {
      const objectId = newObjectId();
      const objects = sampleBundle(objectId);
      const aborted = (error: unknown) => error instanceof TimeoutError && error.code === "ABORTED";
      const late = (error: unknown) => error instanceof TimeoutError && error.code === "TIMEOUT";
      const options = { signal: AbortSignal.abort() };
      await assert.rejects(store.writeBundle(objectId, objects, options), aborted);
      await assert.rejects(store.put("a/b", pattern(1), options), aborted);
      await assert.rejects(store.read([], options), aborted);
      await assert.rejects(store.delete(["a/b"], options), aborted);
      await assert.rejects(store.writeBundle(objectId, objects, { timeoutMs: 0 }), late);
      assert.deepEqual(await keysOf(store, ""), []);
    });

    test("after close every call is a ClosedError, and leases are released", async (store) => {
      const objectId = newObjectId();
      const objects = sampleBundle(objectId);
      await store.writeBundle(objectId, objects);
      const lease = views ? store.view!(objectId, [`${objectId}/meta`]) : undefined;
      const allocation = await store.allocate!([10]);
      await store.close();
      await store.close();
      if (lease !== undefined) {
        assert.equal(lease.released, true);
        assert.equal(lease.payloads.get(`${objectId}/meta`)!.byteLength, 0);
      }
      assert.equal(allocation.payloads[0]!.length, 0);
      allocation.release();
      const calls: (() => Promise<unknown>)[] = [
        () => store.writeBundle(newObjectId(), objects),
        () => store.put("a", pattern(1)),
        () => store.read([]),
        () => store.size("a"),
        () => store.delete(["a"]),
        () => store.deletePrefix("a/"),
        () => store.allocate!([1]),
        () => allocation.publish(newObjectId(), [{ key: "", bytes: 0 }], objects),
        () => keysOf(store, ""),
      ];
      for (const call of calls) await assert.rejects(call(), ClosedError, call.toString());
      if (views) assert.throws(() => store.view!(objectId, []), ClosedError);
    });
  });
}
