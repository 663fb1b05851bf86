import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { fileSize } from "../../../../src/store/shm/pool.ts";
import { openShmStore } from "../../../../src/store/shm.ts";
import type { ObjectStore } from "../../../../src/store/store.ts";
import { temporaryFolder } from "../../../support/runtime.ts";
import { newObjectId, pattern, readAll, sampleBundle } from "../suite.ts";

interface Folder {
  readonly path: string;
}

const root = ({ path }: Folder) => join(path, `batchferry-${process.geteuid!()}`);
const inode = (folder: Folder, objectId: string) =>
  statSync(join(root(folder), "live", "bundle%2Ftrain", objectId.slice(-32)), { bigint: true }).ino;

/** The names in all pool folders. */
function pooled(folder: Folder): string[] {
  const pool = join(root(folder), "pool");
  return readdirSync(pool).flatMap((owner) => readdirSync(join(pool, owner)));
}

async function write(store: ObjectStore, bytes = 100_000, seed = 0): Promise<string> {
  const objectId = newObjectId();
  await store.writeBundle(objectId, sampleBundle(objectId, pattern(bytes, seed)));
  return objectId;
}

const remove = (store: ObjectStore, objectId: string) => store.delete([`${objectId}/manifest`]);

describe("fileSize()", () => {
  it("rounds up in steps of an eighth, to whole pages", () => {
    for (const bytes of [1, 4096, 4097, 5000, 40_000, 100_000, 3 * 2 ** 20 + 1, 84 * 2 ** 20, 2 ** 40 + 1]) {
      const size = fileSize(bytes);
      assert.ok(size >= bytes && size % 4096 === 0, `${bytes}`);
      assert.ok(size <= Math.max(bytes * 1.125, bytes + 4096), `${bytes}`);
      assert.equal(fileSize(size), size);
    }
  });
});

describe("the pool", () => {
  it("fills the file of a deleted bundle anew", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const first = await write(store);
    const ino = inode(folder, first);
    for (let i = 0; i < 20; i++) {
      const before = i === 0 ? first : newObjectId();
      if (i > 0) await store.writeBundle(before, sampleBundle(before, pattern(100_000 - 500 * i, i)));
      assert.equal(inode(folder, before), ino);
      assert.equal(
        Buffer.compare(
          (await readAll(store, `${before}/buffer/batch.x`)).subarray(304),
          pattern(100_000 - 500 * i, i),
        ),
        0,
      );
      await remove(store, before);
    }
    assert.equal(pooled(folder).length, 1);
  });

  it("never fills a file that a lease still shows", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    await using reader = await openShmStore({ directory: folder.path });
    const first = await write(store);
    const ino = inode(folder, first);
    const lease = reader.view!(first, [`${first}/buffer/batch.x`]);
    await remove(store, first);
    const second = await write(store, 100_000, 1);
    assert.notEqual(inode(folder, second), ino);
    const seen = new Uint8Array(lease.payloads.get(`${first}/buffer/batch.x`)!);
    assert.equal(Buffer.compare(seen.subarray(304), pattern(100_000)), 0);
    lease.release();
    const third = await write(store, 100_000, 2);
    assert.equal(inode(folder, third), ino);
  });

  it("does not waste a large file on a small bundle", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const large = await write(store, 2 ** 20);
    const ino = inode(folder, large);
    await remove(store, large);
    assert.notEqual(inode(folder, await write(store, 100_000)), ino);
    assert.equal(inode(folder, await write(store, 600_000)), ino);
  });

  it("takes back what others deleted", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    await using other = await openShmStore({ directory: folder.path });
    const first = await write(store);
    const ino = inode(folder, first);
    await remove(other, first);
    assert.deepEqual(pooled(folder), [first.slice(-32)]);
    assert.equal(inode(folder, await write(store)), ino);
  });

  it("is not filled by others without bound", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path, poolBytes: 2 ** 30 });
    await using other = await openShmStore({ directory: folder.path, poolBytes: 500_000 });
    const written: string[] = [];
    for (let i = 0; i < 10; i++) written.push(await write(store));
    for (const objectId of written) await remove(other, objectId);
    const size = fileSize(100_000 + 2000);
    assert.equal(pooled(folder).length, Math.floor(500_000 / size));
  });

  it("keeps no more mappings than poolBytes, and unlinks files without one", async () => {
    using folder = temporaryFolder();
    const size = fileSize(100_000 + 2000);
    await using store = await openShmStore({ directory: folder.path, poolBytes: 3 * size });
    await using other = await openShmStore({ directory: folder.path });
    const written: string[] = [];
    for (let i = 0; i < 5; i++) written.push(await write(store));
    await remove(store, written[0]!);
    assert.deepEqual(pooled(folder), []);
    await remove(store, written[4]!);
    assert.deepEqual(pooled(folder), [written[4]!.slice(-32)]);
    // one without a mapping comes into the pool by another's hand, and goes with the next look
    await remove(other, written[1]!);
    assert.equal(pooled(folder).length, 2);
    await write(store, 2 ** 20);
    assert.equal(pooled(folder).includes(written[1]!.slice(-32)), false);
  });

  it("keeps at most 1,024 mappings", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const written: string[] = [];
    for (let i = 0; i < 1030; i++) {
      const objectId = newObjectId();
      await store.writeBundle(objectId, [{ key: `${objectId}/manifest`, parts: [pattern(10)] }]);
      written.push(objectId);
    }
    for (const objectId of written) await remove(store, objectId);
    assert.equal(pooled(folder).length, 1024);
  });

  it("has no bundle larger than itself", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path, poolBytes: 50_000 });
    const large = await write(store);
    assert.equal(
      Buffer.compare((await readAll(store, `${large}/buffer/batch.x`)).subarray(304), pattern(100_000)),
      0,
    );
    await remove(store, large);
    assert.deepEqual(pooled(folder), []);
    const lease = await store.allocate!([100_000]);
    lease.release();
    assert.deepEqual(pooled(folder), []);
  });

  it("takes memory that was allocated and not used for the next bundle", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const lease = await store.allocate!([100_000]);
    lease.payloads[0]!.fill(1);
    await write(store); // while it is held
    lease.release();
    assert.equal(pooled(folder).length, 1);
    const objectId = await write(store);
    assert.equal(pooled(folder).length, 0);
    assert.equal(
      Buffer.compare((await readAll(store, `${objectId}/buffer/batch.x`)).subarray(304), pattern(100_000)),
      0,
    );
  });

  it("does not lose a file that is filled slowly to its own looking around", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const first = await write(store, 2 ** 21);
    await remove(store, first);
    const lease = await store.allocate!([2 ** 21]); // the file of `first`, under its name
    await write(store, 4 * 2 ** 20);
    await write(store, 4 * 2 ** 20);
    const objectId = newObjectId();
    await lease.publish(objectId, [{ key: `${objectId}/x`, bytes: 5 }], [
      { key: `${objectId}/manifest`, parts: [pattern(3)] },
    ]);
    assert.deepEqual(await readAll(store, `${objectId}/manifest`), pattern(3));
  });

  it("writes many bundles at once", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const rounds = Array.from({ length: 3 }, (_, round) => round);
    for (const round of rounds) {
      const written = await Promise.all(
        [1, 2, 3, 4, 5].map((i) => write(store, 2 ** 20 + i * 1000, i + round)),
      );
      for (const [i, objectId] of written.entries()) {
        const expected = pattern(2 ** 20 + (i + 1) * 1000, i + 1 + round);
        assert.equal(
          Buffer.compare((await readAll(store, `${objectId}/buffer/batch.x`)).subarray(304), expected),
          0,
        );
      }
      await Promise.all(written.map((objectId) => remove(store, objectId)));
    }
  });
});
