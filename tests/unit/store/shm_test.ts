import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import {
  ClosedError,
  ConfigError,
  CorruptionError,
  DroppedError,
  SchemaError,
  TimeoutError,
} from "../../../src/errors.ts";
import { openShmStore } from "../../../src/store/shm.ts";
import { temporaryFolder } from "../../support/runtime.ts";
import { keysOf, newObjectId, pattern, readAll, sampleBundle, storeSuite } from "./suite.ts";

storeSuite("shm", async (use) => {
  using folder = temporaryFolder();
  await using store = await openShmStore({ directory: folder.path });
  await use(store);
});

storeSuite("shm without a pool", async (use) => {
  using folder = temporaryFolder();
  await using store = await openShmStore({ directory: folder.path, poolBytes: 0 });
  await use(store);
});

// one instance writes and deletes, the other one reads
storeSuite("shm, seen by another", async (use) => {
  using folder = temporaryFolder();
  await using writer = await openShmStore({ directory: folder.path });
  await using reader = await openShmStore({ directory: folder.path });
  await use(
    new Proxy(writer, {
      get(_, name) {
        const store = name === "read" || name === "size" || name === "view" || name === "list"
          ? reader
          : writer;
        if (name === "close") return async () => (await writer.close(), await reader.close());
        const value = Reflect.get(store, name) as unknown;
        return typeof value === "function" ? value.bind(store) : value;
      },
    }),
  );
});

// one instance writes, the other one deletes
storeSuite("shm, deleted by another", async (use) => {
  using folder = temporaryFolder();
  await using writer = await openShmStore({ directory: folder.path });
  await using other = await openShmStore({ directory: folder.path });
  await use(
    new Proxy(writer, {
      get(_, name) {
        const store = name === "delete" || name === "deletePrefix" ? other : writer;
        if (name === "close") return async () => (await writer.close(), await other.close());
        const value = Reflect.get(store, name) as unknown;
        return typeof value === "function" ? value.bind(store) : value;
      },
    }),
  );
});

const root = (folder: { readonly path: string }) => join(folder.path, `batchferry-${process.geteuid!()}`);

describe("openShmStore()", () => {
  it("says where it is and what it can", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    assert.equal(store.uri, `shm:${folder.path}`);
    assert.deepEqual(store.capabilities, {
      rangeReads: true,
      list: true,
      checksums: false,
      chunkBytes: null,
    });
    assert.equal(statSync(root(folder)).mode & 0o7777, 0o700);
    await store.put("names/x", pattern(3));
    assert.equal(statSync(join(root(folder), "live", "%", "names~x")).mode & 0o7777, 0o600);
  });

  it("refuses a root that others may write to, or that is no folder", async () => {
    using folder = temporaryFolder();
    mkdirSync(root(folder), { mode: 0o700 });
    chmodSync(root(folder), 0o755);
    await assert.rejects(
      openShmStore({ directory: folder.path }),
      (error) =>
        error instanceof ConfigError && /0755/.test(error.message) &&
        /0700/.test(String(error.details.expected)),
    );
    rmSync(root(folder), { recursive: true });
    writeFileSync(root(folder), "");
    await assert.rejects(openShmStore({ directory: folder.path }), ConfigError);
    rmSync(root(folder));
    mkdirSync(join(folder.path, "elsewhere"), { mode: 0o700 });
    symlinkSync(join(folder.path, "elsewhere"), root(folder));
    await assert.rejects(openShmStore({ directory: folder.path }), ConfigError);
    assert.deepEqual(readdirSync(join(folder.path, "elsewhere")), []);
  });

  it("refuses a directory that is not there, and sizes that are none", async () => {
    using folder = temporaryFolder();
    await assert.rejects(openShmStore({ directory: join(folder.path, "none") }), ConfigError);
    for (const poolBytes of [-1, 1.5, NaN]) {
      await assert.rejects(openShmStore({ directory: folder.path, poolBytes }), ConfigError);
    }
  });

  it("leaves the folder empty once everything was deleted and closed", async () => {
    using folder = temporaryFolder();
    const store = await openShmStore({ directory: folder.path });
    for (const dir of ["a", "b/c", ""]) {
      const objectId = newObjectId(dir).replace(/^\//, "");
      await store.writeBundle(objectId, sampleBundle(objectId));
      await store.delete([`${objectId}/manifest`]);
    }
    await store.put("a/names/x", pattern(1));
    await store.delete(["a/names/x"]);
    const allocation = await store.allocate!([2 ** 21]);
    const other = await openShmStore({ directory: folder.path });
    await store.close();
    assert.equal(allocation.payloads[0]!.length, 0);
    assert.equal(existsSync(root(folder)), true); // the other one's
    await other.close();
    assert.deepEqual(readdirSync(folder.path), []);
  });

  it("leaves published bundles to others", async () => {
    using folder = temporaryFolder();
    const objectId = newObjectId();
    const writer = await openShmStore({ directory: folder.path });
    await writer.writeBundle(objectId, sampleBundle(objectId));
    await writer.put("bundle/train/names/x", pattern(3));
    await writer.close();
    assert.deepEqual(readdirSync(root(folder)), ["live"]);
    await using reader = await openShmStore({ directory: folder.path });
    assert.deepEqual(await readAll(reader, `${objectId}/meta`), pattern(77, 4));
    assert.deepEqual(await keysOf(reader, "bundle/"), [`${objectId}/manifest`, "bundle/train/names/x"]);
    await reader.delete([`${objectId}/manifest`]);
    assert.equal(await reader.size(`${objectId}/meta`), undefined);
  });

  it("goes on after its root was removed by hand", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const lost = newObjectId();
    await store.writeBundle(lost, sampleBundle(lost));
    rmSync(root(folder), { recursive: true });
    await assert.rejects(readAll(store, `${lost}/meta`), DroppedError);
    await store.delete([`${lost}/meta`]);
    for (let i = 0; i < 3; i++) {
      const objectId = newObjectId();
      await store.writeBundle(objectId, sampleBundle(objectId));
      await using other = await openShmStore({ directory: folder.path }); // must not take its pool for an orphan's
      assert.deepEqual(await readAll(other, `${objectId}/meta`), pattern(77, 4));
      await store.delete([`${objectId}/meta`]);
    }
    assert.equal(readdirSync(join(root(folder), "owners")).length, 1);
  });

  it("tells a damaged file from one that is gone, and can delete it", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const [bad, good] = [newObjectId(), newObjectId()];
    await store.writeBundle(good, sampleBundle(good));
    const file = join(root(folder), "live", "bundle%2Ftrain", bad.slice(-32));
    for (const bytes of [0, 100, 5000, 100_000]) {
      writeFileSync(file, pattern(bytes));
      await assert.rejects(readAll(store, `${bad}/meta`), CorruptionError, `${bytes}`);
      assert.throws(() => store.view!(bad, [`${bad}/meta`]), CorruptionError);
      assert.deepEqual(await keysOf(store, "bundle/"), [`${good}/manifest`]);
      await store.delete([`${bad}/manifest`]);
      assert.equal(existsSync(file), false);
    }
    writeFileSync(file, "");
    assert.equal(await store.deletePrefix("bundle/train/"), 2);
  });

  it("refuses an object id that it has in use", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const objectId = newObjectId();
    await store.writeBundle(objectId, sampleBundle(objectId));
    await assert.rejects(store.writeBundle(objectId, sampleBundle(objectId, pattern(5))), SchemaError);
    assert.equal(await store.size(`${objectId}/buffer/batch.x`), 1304);
  });

  it("does not take a bundle for another with the same file name", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const objectId = newObjectId("a");
    await store.writeBundle(objectId, sampleBundle(objectId));
    const twin = objectId.replace("a/", "b/");
    await store.writeBundle(twin, sampleBundle(twin, pattern(1000, 6)));
    await store.delete([`${objectId}/meta`]);
    assert.equal(await store.size(`${objectId}/meta`), undefined);
    assert.deepEqual((await readAll(store, `${twin}/buffer/batch.x`)).subarray(304), pattern(1000, 6));
    await store.delete([`${twin}/meta`]);
    assert.deepEqual(await keysOf(store, ""), []);
  });

  it("makes a lease within a millisecond, whatever the size", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const objectId = newObjectId();
    const data = new Uint8Array(32 * 2 ** 20).fill(7);
    await store.writeBundle(objectId, sampleBundle(objectId, data));
    let best = Infinity;
    for (let i = 0; i < 10; i++) {
      const start = performance.now();
      const lease = store.view!(objectId, [`${objectId}/buffer/batch.x`]);
      best = Math.min(best, performance.now() - start);
      assert.equal(lease.copiedBytes, 0);
      assert.equal(lease.payloads.get(`${objectId}/buffer/batch.x`)!.byteLength, data.length + 304);
      lease.release();
    }
    assert.ok(best < 1, `${best} ms`);
  });

  it("places tensor data on 64 bytes", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const objectId = newObjectId();
    await store.writeBundle(objectId, sampleBundle(objectId));
    using lease = store.view!(objectId, [`${objectId}/buffer/batch.x`, `${objectId}/buffer/text`]);
    const { native } = await import("../../../ffi/native.ts");
    const at = (key: string) =>
      native.addressOf(new Uint8Array(lease.payloads.get(`${objectId}/${key}`)!)) % 64n;
    assert.equal(at("buffer/batch.x"), 16n);
    assert.equal(at("buffer/text"), 0n);
  });

  it("reads a loose file that was replaced while its lease lasts", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const objectId = newObjectId();
    await store.put(`${objectId}/side`, pattern(100_000));
    using lease = store.view!(objectId, [`${objectId}/side`]);
    await store.put(`${objectId}/side`, pattern(100_000, 1));
    assert.deepEqual(new Uint8Array(lease.payloads.get(`${objectId}/side`)!), pattern(100_000));
    assert.deepEqual(await readAll(store, `${objectId}/side`), pattern(100_000, 1));
  });

  it("leaves nothing of a large write that was aborted, closed away, or whose memory went", async () => {
    using folder = temporaryFolder();
    const owners = () => readdirSync(join(root(folder), "pool"));
    const poolFiles = () => owners().flatMap((owner) => readdirSync(join(root(folder), "pool", owner)));
    const write = (data: Uint8Array, options = {}) => {
      const objectId = newObjectId();
      return store.writeBundle(objectId, sampleBundle(objectId, data), options);
    };
    const store = await openShmStore({ directory: folder.path });

    const controller = new AbortController();
    const aborted = write(new Uint8Array(2 ** 21), { signal: controller.signal });
    controller.abort(new Error("enough"));
    await assert.rejects(aborted, (error) => error instanceof TimeoutError && error.code === "ABORTED");
    assert.deepEqual(poolFiles(), []);

    const data = new Uint8Array(new ArrayBuffer(2 ** 21));
    const gone = write(data);
    data.buffer.transfer(0);
    await assert.rejects(gone, SchemaError);
    assert.deepEqual(await keysOf(store, ""), []);
    await write(new Uint8Array(2 ** 21)); // from the pool, where the memory went
    assert.deepEqual(poolFiles(), []);
    await store.deletePrefix("bundle/");

    const late = write(new Uint8Array(2 ** 23));
    await store.close();
    await assert.rejects(late, ClosedError);
    assert.deepEqual(readdirSync(folder.path), []);
  });
});
