import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { CapacityError } from "../../../../src/errors.ts";
import { openShmStore } from "../../../../src/store/shm.ts";
import { keysOf, newObjectId, pattern, readAll, sampleBundle } from "../suite.ts";

/** A file system of a few MiB, or the reason why there is none. */
function mountSmall(): { readonly path: string } & Disposable | string {
  if (process.platform !== "linux" || process.geteuid!() !== 0) {
    return "only root may mount a small file system";
  }
  const path = mkdtempSync(join(tmpdir(), "batchferry-full-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "batchferry-test", path], { stdio: "ignore" });
  } catch {
    rmdirSync(path);
    return "this container may not mount a small file system";
  }
  return {
    path,
    [Symbol.dispose]: () => {
      execFileSync("umount", ["--lazy", path]);
      rmdirSync(path);
    },
  };
}

const probe = mountSmall();
const skip = typeof probe === "string" ? probe : false;
if (typeof probe !== "string") probe[Symbol.dispose]();

const full = (error: unknown) =>
  error instanceof CapacityError && /MiB needed/.test(error.message) && /free/.test(error.message) &&
  /--shm-size/.test(error.message) && /directory/.test(error.message);

describe("a full file system", { skip }, () => {
  const mounted = () => mountSmall() as { readonly path: string } & Disposable;
  const poolOf = (path: string) => {
    const pool = join(path, `batchferry-${process.geteuid!()}`, "pool");
    return readdirSync(pool).flatMap((owner) => readdirSync(join(pool, owner)));
  };

  it("is a CapacityError that says what to do, and leaves nothing behind", async () => {
    using folder = mounted();
    await using store = await openShmStore({ directory: folder.path });
    const objectId = newObjectId();
    await assert.rejects(
      store.writeBundle(objectId, sampleBundle(objectId, new Uint8Array(5 * 2 ** 20))),
      full,
    );
    await assert.rejects(store.put("p/names/x", new Uint8Array(5 * 2 ** 20)), full);
    await assert.rejects(store.allocate!([5 * 2 ** 20]), full);
    assert.deepEqual(await keysOf(store, ""), []);
    assert.deepEqual(poolOf(folder.path), []);
    await store.writeBundle(objectId, sampleBundle(objectId));
    assert.deepEqual(await readAll(store, `${objectId}/meta`), pattern(77, 4));
  });

  it("fills up to the last bundle that fits, and all of them stay readable", async () => {
    using folder = mounted();
    await using store = await openShmStore({ directory: folder.path });
    const written: string[] = [];
    for (;;) {
      const objectId = newObjectId();
      try {
        await store.writeBundle(objectId, sampleBundle(objectId, pattern(300_000, written.length)));
      } catch (error) {
        assert.ok(error instanceof CapacityError, String(error));
        break;
      }
      written.push(objectId);
    }
    assert.ok(written.length >= 10, `${written.length}`);
    for (const [i, objectId] of written.entries()) {
      using lease = store.view!(objectId, [`${objectId}/buffer/batch.x`]);
      const seen = new Uint8Array(lease.payloads.get(`${objectId}/buffer/batch.x`)!);
      assert.equal(Buffer.compare(seen.subarray(304), pattern(300_000, i)), 0);
    }
  });

  it("fits a bundle that leaves no room for rounding", async () => {
    using folder = mounted();
    await using store = await openShmStore({ directory: folder.path });
    const objectId = newObjectId();
    await store.put("p/names/x", pattern(1));
    // rounded up it would ask for all 4 MiB
    await store.writeBundle(objectId, sampleBundle(objectId, pattern(3_950_000)));
    assert.equal(await store.size(`${objectId}/buffer/batch.x`), 3_950_304);
    await store.delete([`${objectId}/manifest`]);
    assert.deepEqual(poolOf(folder.path), []);
  });

  it("gives up pooled memory before it gives up a write", async () => {
    using folder = mounted();
    await using store = await openShmStore({ directory: folder.path });
    await using other = await openShmStore({ directory: folder.path });
    for (const deleter of [store, other]) {
      const small = await Promise.all([1, 2, 3, 4].map(async (i) => {
        const objectId = newObjectId();
        await store.writeBundle(objectId, sampleBundle(objectId, new Uint8Array(700_000 + i * 50_000)));
        return objectId;
      }));
      for (const objectId of small) await deleter.delete([`${objectId}/manifest`]);
      const large = newObjectId();
      await store.writeBundle(large, sampleBundle(large, pattern(3 * 2 ** 20)));
      assert.equal((await readAll(store, `${large}/buffer/batch.x`)).length, 3 * 2 ** 20 + 304);
      await deleter.delete([`${large}/manifest`]);
      await store.put("p/names/x", new Uint8Array(3 * 2 ** 20));
      await store.delete(["p/names/x"]);
    }
  });
});
