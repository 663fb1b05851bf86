import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { LOCK_SH, sys } from "../../../../ffi/libc.ts";
import { DroppedError } from "../../../../src/errors.ts";
import { openShmStore } from "../../../../src/store/shm.ts";
import { keysOf, newObjectId, pattern, sampleBundle } from "../suite.ts";
import { temporaryFolder } from "../../../support/runtime.ts";

type Sys = typeof sys;

/** Runs `before` once, just ahead of the first call of a system call that `when` accepts. */
function ahead<K extends "pread" | "flock" | "mmap">(
  name: K,
  when: (...args: Parameters<Sys[K]>) => boolean,
  before: () => void,
): Disposable {
  const original = sys[name] as (...args: Parameters<Sys[K]>) => ReturnType<Sys[K]>;
  let done = false;
  const replaced = (...args: Parameters<Sys[K]>): ReturnType<Sys[K]> => {
    if (!done && when(...args)) {
      done = true;
      before();
    }
    return original(...args);
  };
  (sys as unknown as Record<string, unknown>)[name] = replaced;
  return { [Symbol.dispose]: () => void ((sys as unknown as Record<string, unknown>)[name] = original) };
}

/** A store, a bundle in it, and what deletes that bundle and fills its file anew at once. */
async function scene(bytes: number) {
  const folder = temporaryFolder();
  const store = await openShmStore({ directory: folder.path });
  const reader = await openShmStore({ directory: folder.path });
  const [first, second] = [newObjectId(), newObjectId()];
  await store.writeBundle(first, sampleBundle(first, pattern(bytes)));
  // everything in it happens before the first await, and so within the reader's system call
  const refill = () => {
    void store.delete([`${first}/manifest`]);
    void store.writeBundle(second, sampleBundle(second, pattern(bytes, 1)));
  };
  return {
    reader,
    first,
    second,
    refill,
    async [Symbol.asyncDispose]() {
      await reader.close();
      await store.close();
      folder[Symbol.dispose]();
    },
  };
}

describe("a reader whose file is filled anew under its hands", () => {
  it("gives no bytes of a small bundle it was late for", async () => {
    await using s = await scene(1000);
    const into = new Uint8Array(1304);
    {
      using _ = ahead("pread", () => true, s.refill);
      const read = s.reader.read([{ key: `${s.first}/buffer/batch.x`, offset: 0, into }]);
      await assert.rejects(read, DroppedError);
    }
    assert.deepEqual(into, new Uint8Array(1304));
    assert.deepEqual(await keysOf(s.reader, ""), [`${s.second}/manifest`]);
  });

  it("gives no bytes of a large bundle it was late for", async () => {
    await using s = await scene(200_000);
    const into = new Uint8Array(200_304);
    {
      using _ = ahead("flock", (_, operation) => (operation & LOCK_SH) !== 0, s.refill);
      const read = s.reader.read([{ key: `${s.first}/buffer/batch.x`, offset: 0, into }]);
      await assert.rejects(read, DroppedError);
    }
    assert.ok(into.every((byte) => byte === 0));
    assert.equal(await s.reader.size(`${s.second}/meta`), 77);
  });

  it("gives no lease on a bundle it was late for", async () => {
    await using s = await scene(200_000);
    {
      using _ = ahead("flock", (_, operation) => (operation & LOCK_SH) !== 0, s.refill);
      assert.throws(() => s.reader.view!(s.first, [`${s.first}/meta`]), DroppedError);
    }
    using lease = s.reader.view!(s.second, [`${s.second}/meta`]);
    assert.deepEqual(new Uint8Array(lease.payloads.get(`${s.second}/meta`)!), pattern(77, 4));
  });

  it("keeps the bytes of a bundle it was in time for", async () => {
    await using s = await scene(200_000);
    using _ = ahead("mmap", (_bytes, _prot, flags) => (flags & 2) !== 0, s.refill);
    using lease = s.reader.view!(s.first, [`${s.first}/buffer/batch.x`]);
    const seen = new Uint8Array(lease.payloads.get(`${s.first}/buffer/batch.x`)!);
    assert.equal(Buffer.compare(seen.subarray(304), pattern(200_000)), 0);
    await assert.rejects(
      s.reader.read([{ key: `${s.first}/meta`, offset: 0, into: new Uint8Array(1) }]),
      DroppedError,
    );
    // the writer found the file in use, and took another
    assert.equal(await s.reader.size(`${s.second}/meta`), 77);
  });
});
