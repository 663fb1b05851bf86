import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { crc32 } from "node:zlib";
import {
  BackendUnavailableError,
  type BatchferryError,
  CapacityError,
  ClosedError,
  ConfigError,
  CorruptionError,
  DroppedError,
} from "../../../src/errors.ts";
import { openPeerStore, type PeerOptions } from "../../../src/store/peer.ts";
import { newNonce, proof, readSecret } from "../../../src/store/peer/secret.ts";
import type { ObjectStore } from "../../../src/store/store.ts";
import { receive, send } from "../../../src/store/wire.ts";
import { freePort, ownRuntimeFolder } from "../../support/mooncake.ts";
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
      (error: ConfigError) => error.code === "CONFIG" && /another secret/.test(error.message),
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

  it("takes a larger bundle where smaller ones were", async () => {
    // segments of their own for each of these, and none is large enough for what comes then
    const { store, plane } = await open(`larger-${groups++}`, { memoryBytes: 160 << 20, timeoutMs: 5000 });
    for (let i = 0; i < 2; i++) {
      const id = newObjectId();
      await store.writeBundle(id, sampleBundle(id, new Uint8Array(60 << 20)));
    }
    assert.equal(plane.open.registrations, 2);
    await store.deletePrefix("bundle/");
    const id = newObjectId();
    await store.writeBundle(id, sampleBundle(id, new Uint8Array(120 << 20)));
    assert.equal(await store.size(`${id}/buffer/batch.x`), (120 << 20) + 304);
    await store.close();
    assert.equal(plane.open.registrations, 0);
  });

  it("ends what is under way when it is closed", async () => {
    const group = `ends-${groups++}`;
    const [writer, reader] = [await open(group), await open(group)];
    const id = newObjectId();
    await writer.store.writeBundle(id, sampleBundle(id, pattern(300_000)));
    const { promise: begun, resolve } = Promise.withResolvers<void>();
    reader.plane.beforeRead = () => (resolve(), new Promise((go) => setTimeout(go, 50)));
    const read = reader.store.read([{ key: `${id}/meta`, offset: 0, into: new Uint8Array(77) }]);
    const ended = assert.rejects(read, ClosedError);
    await begun;
    await reader.store.close();
    await ended;
    assert.deepEqual(reader.plane.open, { registrations: 0, links: 0, accepted: 0 });

    const allocating = writer.store.allocate!([100 << 10]);
    const outcome = allocating.then((lease) => lease.payloads[0]!.byteLength, (error) => error);
    await writer.store.close();
    // either it was not to be had any more, or it was taken back
    const seen = await outcome;
    assert.ok(seen instanceof ClosedError || seen === 100 << 10, String(seen));
    if (!(seen instanceof ClosedError)) assert.equal((await allocating).payloads[0]!.byteLength, 0);
    assert.deepEqual(writer.plane.open, { registrations: 0, links: 0, accepted: 0 });
  });

  it("keeps memory that is being published from being given back", async () => {
    const { store } = await open(`publishing-${groups++}`);
    const [id, other] = [newObjectId(), newObjectId()];
    const lease = await store.allocate!([1000]);
    lease.payloads[0]!.fill(7);
    const rest = sampleBundle(id).slice(-1);
    const placed = [{ key: `${id}/x`, bytes: 1000 }];
    const publishing = lease.publish(id, placed, rest);
    lease.release();
    await assert.rejects(lease.publish(other, placed, rest), ClosedError);
    await publishing;
    // nobody else was given its memory
    await store.writeBundle(other, sampleBundle(other));
    assert.ok((await readAll(store, `${id}/x`)).every((byte) => byte === 7));
    // and one that failed is given back
    const failing = await store.allocate!([6 << 20]);
    const failed = failing.publish(id, [{ key: `${id}/x`, bytes: 1 }], rest);
    failing.release();
    await assert.rejects(failed);
    (await store.allocate!([6 << 20])).release();
    await store.close();
  });

  it("reads again where its connection failed for another's sake", async () => {
    const group = `again-${groups++}`;
    const [writer, reader] = [await open(group), await open(group)];
    const id = newObjectId();
    await writer.store.writeBundle(id, sampleBundle(id));
    let failures = 0;
    reader.plane.beforeRead = () => {
      if (failures++ === 0) throw new BackendUnavailableError("PEER_LOST", "the queue pair was in ERR");
    };
    assert.deepEqual(await readAll(reader.store, `${id}/meta`), pattern(77, 4));
    assert.ok(failures > 1);
    await reader.store.close();
    await writer.store.close();
  });

  it("makes one link, however many reads begin at once", async () => {
    const group = `links-${groups++}`;
    const [writer, reader] = [await open(group), await open(group)];
    const ids = Array.from({ length: 8 }, () => newObjectId());
    for (const id of ids) await writer.store.writeBundle(id, sampleBundle(id));
    const stop = new AbortController();
    const reads = ids.map((id, i) =>
      reader.store.read(
        [{ key: `${id}/meta`, offset: 0, into: new Uint8Array(77) }],
        i === 0 ? { signal: stop.signal } : {},
      )
    );
    stop.abort();
    const [first, ...rest] = await Promise.allSettled(reads);
    // whose link it was gave up, and nobody else did
    assert.equal((first as PromiseRejectedResult).reason.code, "ABORTED");
    assert.deepEqual(rest.map(({ status }) => status), rest.map(() => "fulfilled"));
    assert.equal(reader.plane.open.links, 1);
    assert.equal(writer.plane.open.accepted, 1);
    await reader.store.close();
    await writer.store.close();
  });

  it("has the newest of small objects that were put in two places", async () => {
    const group = `newest-${groups++}`;
    const [one, two, three] = [await open(group), await open(group), await open(group)];
    const key = "bundle/p/names/n";
    for (let round = 0; round < 20; round++) {
      const values = [pattern(10, round), pattern(10, round + 50)];
      await Promise.all([one.store.put(key, values[0]!), two.store.put(key, values[1]!)]);
      const seen = await three.store.get!(key);
      assert.ok(values.some((value) => Buffer.compare(value, seen!) === 0), `round ${round}`);
      await two.store.put(key, pattern(10, 99));
      assert.deepEqual(await one.store.get!(key), pattern(10, 99));
    }
    for (const { store } of [three, two, one]) await store.close();
  });

  it("goes on where a peer is silent, names no address, or comes later", async () => {
    // listens, and says nothing
    const silent = createServer(() => {});
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const { port } = silent.address() as { port: number };
    const group = `silent-${groups++}`;
    const late = await freePort();
    const peers = [`127.0.0.1:${port}`, `127.0.0.1:${late}`];
    const writer = await open(group);
    const reader = await open(group, { peers, timeoutMs: 2000 });
    for (const uri of ["stand-in://a:b:c", "stand-in://x:99999", "stand-in://x", "stand-in://%:1/"]) {
      reader.store.learn!(uri, [`${newObjectId()}/manifest`]);
    }
    const id = newObjectId();
    await writer.store.writeBundle(id, sampleBundle(id));
    // the first to ask waits for it for a while, the next ones do not
    assert.deepEqual(await readAll(reader.store, `${id}/meta`), pattern(77, 4));
    for (let i = 0; i < 5; i++) {
      await reader.store.put("bundle/p/names/n", pattern(3));
      assert.ok((await keysOf(reader.store, "bundle/")).includes(`${id}/manifest`));
    }
    // what it may have is not said to be gone
    await assert.rejects(reader.store.delete([`${id}/manifest`]), /did not answer|is silent/);
    assert.ok(!(await keysOf(writer.store, "bundle/")).includes(`${id}/manifest`));
    // one of the configuration is asked again and again
    const other = await open(`elsewhere-${groups++}`, { port: late });
    await other.store.writeBundle(id, sampleBundle(id));
    assert.deepEqual(await readAll(reader.store, `${id}/meta`), pattern(77, 4));
    for (const { store } of [other, reader, writer]) await store.close();
    silent.close();
  });

  it("is told nonsense by a peer, and says so", async () => {
    using folder = temporaryFolder();
    const secretFile = join(folder.path, "secret");
    writeFileSync(secretFile, "0123456789abcdef0123456789abcdef", { mode: 0o600 });
    const secret = readSecret(secretFile);
    const answers = [{ error: null }, { error: { code: 5 } }, { result: { size: 2 ** 52 } }, { result: 7 }];
    let next = 0;
    const liar = createServer((socket) => {
      const nonce = newNonce();
      let trusted = false;
      socket.on("error", () => {});
      receive<Record<string, unknown>>(socket, (frame) => {
        if (!trusted) {
          trusted = true;
          return send(socket, { proof: proof(secret, "writer", [nonce, frame.nonce as string]) });
        }
        send(socket, { id: frame.id, ...answers[next++ % answers.length] });
      }, () => {});
      send(socket, { nonce });
    });
    await new Promise<void>((resolve) => liar.listen(0, "127.0.0.1", resolve));
    const { port } = liar.address() as { port: number };
    const { store } = await open(`liar-${groups++}`, { secretFile, peers: [`127.0.0.1:${port}`] });
    const id = newObjectId();
    for (let i = 0; i < answers.length; i++) {
      store.learn!(`stand-in://127.0.0.1:${port}`, [`${id}/manifest`]);
      await assert.rejects(
        store.read([{ key: `${id}/meta`, offset: 0, into: new Uint8Array(77) }]),
        (error: BatchferryError) => ["CORRUPT", "DROPPED"].includes(error.code),
      );
    }
    await store.close();
    liar.close();
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
