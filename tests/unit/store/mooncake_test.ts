import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { crc32 } from "node:zlib";
import { MooncakeStore, prefixPattern } from "../../../src/store/mooncake.ts";
import { MasterPages } from "../../../src/store/mooncake/master.ts";
import { windowsOf } from "../../../src/store/mooncake/windows.ts";
import type { StoreObject } from "../../../src/store/store.ts";
import { StandIn } from "./mooncake/stand_in.ts";
import { joined, newObjectId, pattern, readAll, sampleBundle } from "./suite.ts";

// port 9 of loopback: nobody has pages there
const PAGES = new MasterPages("127.0.0.1:1", "127.0.0.1:9");

function open(options: { verify?: boolean } = {}): { store: MooncakeStore; client: StandIn } {
  const client = new StandIn();
  const store = new MooncakeStore(client, PAGES, false, {
    masterServerAddr: "127.0.0.1:1",
    chunkBytes: 4 << 20,
    verify: options.verify ?? true,
    pin: "hard",
    replicas: 1,
    timeoutMs: 2000,
    roomWaitMs: 60,
  });
  return { store, client };
}

describe("the Mooncake store", () => {
  it("writes the manifest last and alone, and reads everything back", async () => {
    const { store, client } = open();
    const id = newObjectId();
    const objects = sampleBundle(id);
    await store.writeBundle(id, objects);
    assert.equal(client.calls.at(-1), `put ${id}/manifest`);
    for (const { key, parts } of objects) {
      if (parts.length > 0) assert.deepEqual(await readAll(store, key), joined(parts));
    }
    assert.equal(client.objects.has(`${id}/buffer/empty`), false, "Mooncake keeps no empty objects");
    assert.equal(client.held, 0);
    await store.close();
    assert.equal(client.closed, true);
    await assert.rejects(store.size("x"), { code: "CLOSED" });
    await assert.rejects(store.get("x"), { code: "CLOSED" });
  });

  it("tells objects their checksums before it asks for the manifest's bytes", async () => {
    const { store } = open();
    const id = newObjectId();
    const seen: number[] = [];
    const bytes = [pattern(300_000, 1), pattern(5, 2)];
    const objects: StoreObject[] = [
      { key: `${id}/buffer/a`, parts: bytes, written: (crc) => seen.push(crc) },
      {
        key: `${id}/manifest`,
        get parts() {
          return [new TextEncoder().encode(JSON.stringify(seen))];
        },
      },
    ];
    await store.writeBundle(id, objects);
    const manifest = new TextDecoder().decode(await store.get(`${id}/manifest`));
    assert.deepEqual(JSON.parse(manifest), [crc32(joined(bytes))]);
  });

  it("removes everything where a put fails, and throws that failure", async () => {
    const { store, client } = open();
    const id = newObjectId();
    client.next("put", `${id}/meta`, -1);
    await assert.rejects(store.writeBundle(id, sampleBundle(id)), {
      code: "NATIVE",
      message: /INTERNAL_ERROR \(-1\)/,
    });
    assert.deepEqual([...client.objects.keys()], []);
    assert.equal(client.held, 0);
  });

  it("waits for room, then says that there is none", async () => {
    const { store, client } = open();
    const id = newObjectId();
    client.next("put", `${id}/meta`, -200, -200);
    await store.writeBundle(id, sampleBundle(id));
    // only what had no room was put again
    assert.deepEqual(client.calls.slice(1, 3), [`put ${id}/meta`, `put ${id}/meta`]);
    const other = newObjectId();
    client.next("put", `${other}/meta`, ...Array(1000).fill(-200));
    await assert.rejects(store.writeBundle(other, sampleBundle(other)), {
      code: "CAPACITY",
      message: /77 bytes/,
    });
    assert.deepEqual([...client.objects.keys()].filter((key) => key.startsWith(other)), []);
  });

  it("fetches an object once for all its ranges", async () => {
    const { store, client } = open();
    client.objects.set("a", pattern(1000));
    client.objects.set("b", pattern(10));
    const [x, y, z] = [new Uint8Array(10), new Uint8Array(5), new Uint8Array(3)];
    const object = { bytes: 1000 };
    await store.read([
      { key: "a", offset: 7, into: x, object },
      { key: "b", offset: 2, into: z, object: { bytes: 10 } },
      { key: "a", offset: 990, into: y, object },
      { key: "nothing is asked of it", offset: 0, into: new Uint8Array(0) },
    ]);
    assert.deepEqual(client.calls, ["get a,b"]);
    assert.deepEqual([x, y, z], [
      pattern(1000).slice(7, 17),
      pattern(1000).slice(990, 995),
      pattern(10).slice(2, 5),
    ]);
  });

  it("finds out sizes that nobody told", async () => {
    const { store, client } = open();
    const large = pattern(200_000);
    client.objects.set("large", large);
    const into = new Uint8Array(10);
    await store.read([{ key: "large", offset: 0, into }]);
    assert.deepEqual(into, large.slice(0, 10));
    assert.deepEqual(client.calls, ["get large", "size large", "get large"]);
    assert.deepEqual(await store.get("large"), large);
    assert.equal(await store.get("absent"), undefined);
    assert.equal(await store.size("absent"), undefined);
  });

  it("reads once more what was read wrong, and says so where it stays wrong", async () => {
    const { store, client } = open();
    const good = pattern(100);
    const object = { bytes: 100, crc32: crc32(good) };
    const bad = good.slice();
    bad[50]! ^= 1;
    client.objects.set("a", bad);
    for (const length of [100, 20]) {
      const into = new Uint8Array(length);
      await assert.rejects(store.read([{ key: "a", offset: 0, into, object }]), {
        code: "CORRUPT",
        message: /checksum/,
      });
    }
    assert.equal(client.calls.length, 4);
    const get = client.get.bind(client);
    let first = true;
    client.get = (staging, objects) => {
      if (!first) client.objects.set("a", good);
      first = false;
      return get(staging, objects);
    };
    const into = new Uint8Array(100);
    await store.read([{ key: "a", offset: 0, into, object }]);
    assert.deepEqual(into, good);
    client.objects.set("a", bad);
    const off = open({ verify: false });
    off.client.objects.set("a", bad);
    await off.store.read([{ key: "a", offset: 0, into, object }]);
    assert.deepEqual(into, bad);
  });

  const outcomes: readonly (readonly [codes: readonly number[], code: string | undefined])[] = [
    [[-704], "DROPPED"],
    [[-703], "DROPPED"],
    [[-712], "DROPPED"],
    [[-707], undefined],
    [[-707, -707], "LEASE_EXPIRED"],
    [[-800], "DATA_LOST"],
    [[-900], "MASTER_UNREACHABLE"],
    [[-901], "MASTER_UNREACHABLE"],
    [[-1], "NATIVE"],
    [[50], "CORRUPT"],
  ];
  for (const [codes, code] of outcomes) {
    it(`makes of ${codes.join(", ")} ${code ?? "a success"}`, async () => {
      const { store, client } = open();
      client.objects.set("a", pattern(100));
      client.next("get", "a", ...codes);
      const into = new Uint8Array(10);
      const read = store.read([{ key: "a", offset: 0, into, object: { bytes: 100 } }]);
      if (code === undefined) await read;
      else await assert.rejects(read, { code });
      assert.equal(client.held, 0);
    });
  }

  it("says that an object is longer or shorter than its manifest says", async () => {
    const { store, client } = open();
    client.objects.set("a", pattern(100));
    for (const bytes of [99, 101]) {
      const range = { key: "a", offset: 0, into: new Uint8Array(10), object: { bytes } };
      await assert.rejects(store.read([range]), { code: "CORRUPT", message: /not the size/ });
    }
  });

  it("replaces a loose object", async () => {
    const { store } = open();
    await store.put("names/x", pattern(3));
    await store.put("names/x", pattern(4));
    assert.deepEqual(await store.get("names/x"), pattern(4));
    await assert.rejects(store.put("names/x", new Uint8Array(0)), { code: "SCHEMA" });
  });

  it("deletes manifests after everything else, absent ones too, busy ones in the end", async () => {
    const { store, client } = open();
    for (const key of ["b/manifest", "b/meta", "b/x"]) client.objects.set(key, pattern(1));
    client.next("remove", "b/x", -703, -708);
    await store.delete(["b/manifest", "b/absent", "b/meta", "b/x"]);
    assert.deepEqual(client.calls, [
      "remove b/absent,b/meta,b/x",
      "remove b/x",
      "remove b/x",
      "remove b/manifest",
    ]);
    assert.equal(client.objects.size, 0);
  });

  it("keeps the manifest where a payload cannot be removed", async () => {
    const { store, client } = open();
    for (const key of ["b/manifest", "b/meta"]) client.objects.set(key, pattern(1));
    client.next("remove", "b/meta", -1);
    await assert.rejects(store.delete(["b/manifest", "b/meta"]), { code: "NATIVE" });
    assert.ok(client.objects.has("b/manifest"));
    await store.delete(["b/manifest", "b/meta"]);
    assert.equal(client.objects.size, 0);
  });

  it("deletes by prefix whatever characters it has", async () => {
    const { store, client } = open();
    const names = ["step-7", "step-70", "step.7", "stepX7", "a+b", "aab", "(x)|[y]{2}^$*?", "é\\d", "4"];
    for (const name of names) client.objects.set(`p/${name}/k`, pattern(1));
    for (const name of names) {
      const others = [...client.objects.keys()].filter((key) => key !== `p/${name}/k`);
      assert.equal(await store.deletePrefix(`p/${name}/`), 1, name);
      assert.deepEqual([...client.objects.keys()], others);
    }
    assert.equal(prefixPattern("a.b/"), "^a\\.b/");
    await assert.rejects(store.deletePrefix("p"), { code: "SCHEMA" });
  });

  it("tells how many bytes have moved", async () => {
    const { store } = open();
    let moved = 0;
    const id = newObjectId();
    const objects = sampleBundle(id, pattern(40 << 20));
    await store.writeBundle(id, objects, { progress: (bytes) => moved += bytes });
    assert.ok(moved >= 40 << 20);
    moved = 0;
    const into = new Uint8Array(40 << 20);
    const range = { key: `${id}/buffer/batch.x`, offset: 304, into };
    await store.read([range], { progress: (bytes) => moved += bytes });
    assert.ok(moved >= 40 << 20);
    assert.deepEqual(into.slice(-9), pattern(40 << 20).slice(-9));
  });
});

describe("windowsOf()", () => {
  it("cuts by bytes and by count, and keeps the order", () => {
    const sizes = [10 << 20, 5 << 20, 2 << 20, 40 << 20, 1, 100];
    const windows = windowsOf(sizes, (bytes) => bytes);
    assert.deepEqual(windows.map(({ placed }) => placed.map(({ item }) => item)), [
      [10 << 20, 5 << 20],
      [2 << 20],
      [40 << 20],
      [1, 100],
    ]);
    assert.deepEqual(windows[3]!.placed.map(({ offset }) => offset), [0, 64]);
    assert.equal(windows[3]!.bytes, 164);
    assert.equal(windowsOf(Array(600).fill(1), () => 1).length, 3);
    assert.equal(windowsOf([1, 2, 3], (bytes) => bytes, 1).length, 3);
    assert.deepEqual(windowsOf([], () => 1), []);
  });
});
