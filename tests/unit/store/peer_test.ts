import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { crc32 } from "node:zlib";
import {
  BackendUnavailableError,
  CapacityError,
  ConfigError,
  CorruptionError,
  DroppedError,
} from "../../../src/errors.ts";
import { openPeerStore, type PeerOptions } from "../../../src/store/peer.ts";
import type { ObjectStore } from "../../../src/store/store.ts";
import { ownRuntimeFolder } from "../../support/mooncake.ts";
import { temporaryFolder } from "../../support/runtime.ts";
import { StandInPlane } from "./peer/stand_in.ts";
import { joined, keysOf, newObjectId, pattern, readAll, sampleBundle, storeSuite } from "./suite.ts";

const runtime = ownRuntimeFolder();
after(() => runtime[Symbol.dispose]());

let groups = 0;

async function open(
  group: string,
  options: Partial<PeerOptions> = {},
): Promise<{ store: ObjectStore; plane: StandInPlane }> {
  const plane = new StandInPlane();
  const store = await openPeerStore({
    plane,
    localHostname: "127.0.0.1",
    secretFile: undefined,
    peers: [],
    group,
    memoryBytes: 8 << 20,
    landingBytes: 64 * 1024,
    verify: true,
    timeoutMs: 5000,
    lingerMs: 0,
    ...options,
  });
  return { store, plane };
}

/** Two stores that find each other. */
async function both(
  test: (
    writer: ObjectStore,
    reader: ObjectStore,
    planes: { writer: StandInPlane; reader: StandInPlane },
  ) => Promise<void>,
  options: Partial<PeerOptions> = {},
): Promise<void> {
  const group = `pair-${groups++}`;
  const writer = await open(group, options);
  const reader = await open(group, options);
  try {
    await test(writer.store, reader.store, { writer: writer.plane, reader: reader.plane });
  } finally {
    await reader.store.close();
    await writer.store.close();
  }
  assert.deepEqual(writer.plane.open, { registrations: 0, links: 0, accepted: 0 });
  assert.deepEqual(reader.plane.open, { registrations: 0, links: 0, accepted: 0 });
  assert.ok(writer.plane.closed && reader.plane.closed);
}

storeSuite("peer, own bundles", async (use) => {
  const { store } = await open(`own-${groups++}`);
  await use(store);
  await store.close();
}, { views: false });

storeSuite("peer, seen by another", async (use) => {
  const group = `other-${groups++}`;
  const [writer, reader] = [await open(group), await open(group)];
  // what is put by one is read, listed and deleted by the other
  const read = ["read", "size", "get", "list", "delete", "deletePrefix"];
  const store = new Proxy(writer.store, {
    get(target, name) {
      const of = read.includes(name as string) ? reader.store : target;
      const value = Reflect.get(of, name, of) as unknown;
      if (name === "close") return async () => (await reader.store.close(), await writer.store.close());
      return typeof value === "function" ? value.bind(of) : value;
    },
  });
  await use(store);
  await store.close();
}, { views: false });

describe("a peer store reads another one", () => {
  it("whole objects, ranges, sizes, lists and loose objects", () =>
    both(async (writer, reader) => {
      const id = newObjectId();
      const objects = sampleBundle(id, pattern(300_000));
      await writer.writeBundle(id, objects);
      for (const { key, parts } of objects) {
        assert.deepEqual(await readAll(reader, key), joined(parts), key);
        assert.deepEqual(await reader.get!(key), joined(parts));
      }
      const x = joined(objects[0]!.parts);
      const ranges = [[0, 1], [1000, 77], [1077, 3], [5000, 100_000], [300_303, 1], [17, 0], [
        900,
        200,
      ]] as const;
      const reads = ranges.map(([offset, bytes]) => ({
        key: `${id}/buffer/batch.x`,
        offset,
        into: new Uint8Array(bytes),
      }));
      await reader.read(reads);
      for (const { offset, into } of reads) assert.deepEqual(into, x.slice(offset, offset + into.length));
      await writer.put("bundle/train/names/a", pattern(10));
      assert.deepEqual(await reader.get!("bundle/train/names/a"), pattern(10));
      assert.equal(await reader.size("bundle/train/names/a"), 10);
      assert.deepEqual(
        await keysOf(reader, "bundle/train/"),
        [`${id}/manifest`, "bundle/train/names/a"].sort(),
      );
      // the newest one counts
      await reader.put("bundle/train/names/a", pattern(3));
      assert.deepEqual(await writer.get!("bundle/train/names/a"), pattern(3));
      assert.equal(await reader.deletePrefix("bundle/train/"), 2);
      assert.deepEqual(await keysOf(writer, "bundle/"), []);
    }));

  it("a deleted bundle is a DroppedError, also from a table that is known", () =>
    both(async (writer, reader) => {
      const id = newObjectId();
      await writer.writeBundle(id, sampleBundle(id));
      await readAll(reader, `${id}/meta`);
      await writer.delete([`${id}/manifest`]);
      await assert.rejects(
        reader.read([{ key: `${id}/meta`, offset: 0, into: new Uint8Array(77) }]),
        DroppedError,
      );
      await assert.rejects(
        reader.read([{ key: `${id}/meta`, offset: 0, into: new Uint8Array(77) }]),
        DroppedError,
      );
      assert.equal(await reader.size(`${id}/meta`), undefined);
    }));

  it("memory that is used again while it is read never gives the new bundle's bytes", () =>
    both(async (writer, reader, planes) => {
      let wrong = 0;
      for (let round = 0; round < 50; round++) {
        const id = newObjectId();
        await writer.writeBundle(id, sampleBundle(id, pattern(40_000, round)));
        const into = new Uint8Array(40_304);
        let reads = 0;
        planes.reader.beforeRead = async () => {
          // before the second of the windows: the bundle goes, and another takes its place
          if (reads++ !== round % 3) return;
          await writer.delete([`${id}/manifest`]);
          const next = newObjectId();
          await writer.writeBundle(next, sampleBundle(next, pattern(40_000, round + 100)));
        };
        const read = reader.read([{ key: `${id}/buffer/batch.x`, offset: 0, into }]);
        await read.then(() => {
          if (!into.subarray(304).every((byte, i) => byte === pattern(40_000, round)[i])) wrong++;
        }, (error) => assert.ok(error instanceof DroppedError, String(error)));
        planes.reader.beforeRead = undefined;
        await writer.deletePrefix("bundle/");
      }
      assert.equal(wrong, 0);
    }));

  it("ranges beyond an object and wrong checksums are CorruptionErrors", () =>
    both(async (writer, reader) => {
      const id = newObjectId();
      await writer.writeBundle(id, sampleBundle(id));
      const key = `${id}/meta`;
      await assert.rejects(reader.read([{ key, offset: 70, into: new Uint8Array(8) }]), CorruptionError);
      const object = { bytes: 77, crc32: crc32(pattern(77, 4)) };
      await reader.read([{ key, offset: 0, into: new Uint8Array(77), object }]);
      const wrong = { bytes: 77, crc32: 1 };
      await assert.rejects(
        reader.read([{ key, offset: 0, into: new Uint8Array(77), object: wrong }]),
        /checksum/,
      );
    }));

  it("whose process is gone is PEER_LOST where a handle named it, and DROPPED where nobody did", async () => {
    const group = `gone-${groups++}`;
    const writer = await open(group);
    const reader = await open(group);
    const id = newObjectId();
    await writer.store.writeBundle(id, sampleBundle(id));
    const { uri } = writer.store;
    reader.store.learn!(uri, [`${id}/manifest`]);
    await readAll(reader.store, `${id}/meta`);
    await writer.store.close();
    const read = () => reader.store.read([{ key: `${id}/meta`, offset: 0, into: new Uint8Array(77) }]);
    await assert.rejects(read(), (error: BackendUnavailableError) => error.code === "PEER_LOST");
    const other = newObjectId();
    await assert.rejects(
      reader.store.read([{ key: `${other}/meta`, offset: 0, into: new Uint8Array(77) }]),
      DroppedError,
    );
    assert.deepEqual(await keysOf(reader.store, "bundle/"), []);
    await reader.store.close();
  });

  it("is found through a peer of a peer", async () => {
    const [writer, middle, reader] = [
      await open(`m-${groups}a`),
      await open(`m-${groups}b`),
      await open(`m-${groups++}c`),
    ];
    const address = (store: ObjectStore) => [`${store.uri}/x`];
    middle.store.learn!(writer.store.uri, address(writer.store));
    reader.store.learn!(middle.store.uri, address(middle.store));
    const id = newObjectId();
    await writer.store.writeBundle(id, sampleBundle(id));
    assert.deepEqual(await readAll(reader.store, `${id}/meta`), pattern(77, 4));
    for (const { store } of [reader, middle, writer]) await store.close();
  });
});

describe("a peer store", () => {
  it("refuses strangers", async () => {
    using folder = temporaryFolder();
    const secretFile = join(folder.path, "secret");
    writeFileSync(secretFile, "0123456789abcdef0123456789abcdef", { mode: 0o600 });
    const writer = await open(`s-${groups++}`, { secretFile });
    const id = newObjectId();
    await writer.store.writeBundle(id, sampleBundle(id));
    const stranger = await open(`s-${groups++}`);
    stranger.store.learn!(writer.store.uri, [`${id}/manifest`]);
    await assert.rejects(
      stranger.store.read([{ key: `${id}/meta`, offset: 0, into: new Uint8Array(77) }]),
      (error: BackendUnavailableError) => error.code === "PEER_LOST",
    );
    assert.equal(stranger.plane.open.links, 0);
    await stranger.store.close();
    const friend = await open(`s-${groups++}`, { secretFile });
    friend.store.learn!(writer.store.uri, [`${id}/manifest`]);
    assert.deepEqual(await readAll(friend.store, `${id}/meta`), pattern(77, 4));
    await friend.store.close();
    // long or senseless first words end the connection
    const [, host, port] = /:\/\/(.*):(\d+)$/.exec(writer.store.uri)!;
    for (
      const words of [new Uint8Array(100_000), Buffer.from("\x04\0\0\0null"), Buffer.from("\x02\0\0\0{}")]
    ) {
      await new Promise<void>((resolve) => {
        const socket = connect({ host: host!, port: Number(port) });
        socket.on("error", () => {});
        socket.on("close", () => resolve());
        socket.on("data", () => {});
        socket.write(words);
      });
    }
    assert.deepEqual(await readAll(writer.store, `${id}/meta`), pattern(77, 4));
    await writer.store.close();
  });

  it("does not take a secret that others can read, or a short one", async () => {
    using folder = temporaryFolder();
    const secretFile = join(folder.path, "secret");
    writeFileSync(secretFile, "0123456789abcdef0123456789abcdef", { mode: 0o644 });
    await assert.rejects(open("s", { secretFile }), (error: ConfigError) => /chmod 600/.test(error.message));
    writeFileSync(join(folder.path, "short"), "abc", { mode: 0o600 });
    await assert.rejects(open("s", { secretFile: join(folder.path, "short") }), ConfigError);
    await assert.rejects(open("s", { secretFile: join(folder.path, "none") }), ConfigError);
  });

  it("is full when its memory is, and has room again after a delete", async () => {
    const { store } = await open(`full-${groups++}`, { timeoutMs: 300 });
    const id = newObjectId();
    await store.writeBundle(id, sampleBundle(id, pattern(7 << 20)));
    const other = newObjectId();
    await assert.rejects(store.writeBundle(other, sampleBundle(other, pattern(2 << 20))), CapacityError);
    await assert.rejects(store.writeBundle(other, sampleBundle(other, pattern(9 << 20))), CapacityError);
    await store.delete([`${id}/manifest`]);
    await store.writeBundle(other, sampleBundle(other, pattern(7 << 20)));
    await store.close();
  });

  it("waits at its close for others to drop what it has put, as long as it is told to", async () => {
    const group = `linger-${groups++}`;
    const writer = await open(group, { lingerMs: 20_000 });
    const reader = await open(group);
    const id = newObjectId();
    await writer.store.writeBundle(id, sampleBundle(id));
    const closing = writer.store.close();
    assert.deepEqual(await readAll(reader.store, `${id}/meta`), pattern(77, 4));
    await reader.store.delete([`${id}/manifest`]);
    await closing;
    await reader.store.close();
  });

  it("does not keep what it announced", async () => {
    const { store } = await open("announce");
    await store.close();
    const { store: other } = await open("announce");
    assert.deepEqual(await keysOf(other, "bundle/"), []);
    assert.deepEqual(other.peers, []);
    await other.close();
  });
});
