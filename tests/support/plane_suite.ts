/**
 * What every plane must do, whatever moves its bytes.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Deadline } from "../../src/deadline.ts";
import { BackendUnavailableError, CorruptionError, TimeoutError } from "../../src/errors.ts";
import type { Link, Plane, ReadPiece, Registration, Wire } from "../../src/store/peer/plane.ts";
import { type MappedMemory, newMemory } from "../../src/store/registered/memory.ts";
import { fillPattern, openPlane, type PlaneKind } from "./planes.ts";
import { ROOT, RUNTIME } from "./runtime.ts";
import { Worker } from "./worker.ts";

const MIB = 2 ** 20;
/** The lab's processor is emulated. */
const LIMIT_MS = 120_000;

function deadline(timeoutMs = LIMIT_MS): Deadline {
  return new Deadline("the test's read", { timeoutMs });
}

const never = (): void => assert.fail("nothing is to be quarantined");

/** One end of a connection with its memory. */
class End implements AsyncDisposable {
  readonly plane: Plane;
  readonly memory: MappedMemory;
  readonly registration: Registration;

  private constructor(plane: Plane, memory: MappedMemory, registration: Registration) {
    this.plane = plane;
    this.memory = memory;
    this.registration = registration;
  }

  static async open(kind: PlaneKind, side: "reader" | "writer", bytes: number): Promise<End> {
    const plane = await openPlane(kind, side);
    const memory = newMemory(bytes);
    if (side === "writer") fillPattern(memory.bytes);
    else memory.bytes.fill(0xa5);
    return new End(plane, memory, await plane.register(memory.address, bytes));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.plane.close();
    this.memory.close();
  }
}

async function connect(reader: Plane, writer: Plane): Promise<Link> {
  const offer = await reader.offer();
  const { answer } = await writer.accept(throughJson(offer.hello), deadline());
  return await offer.open(throughJson(answer), deadline());
}

/** As it would come from another process. */
function throughJson(value: Wire): Wire {
  return JSON.parse(JSON.stringify(value)) as Wire;
}

/** The writing side in another process. */
async function startPeer(kind: PlaneKind, bytes: number): Promise<{ worker: Worker; remote: Wire }> {
  const worker = new Worker(RUNTIME, join(ROOT, "tests", "support", "plane_peer.ts"), [kind, String(bytes)]);
  return { worker, remote: await worker.tell({ op: "remote" }) as Wire };
}

async function connectTo(reader: Plane, worker: Worker): Promise<Link> {
  const offer = await reader.offer();
  return await offer.open(await worker.tell({ op: "accept", hello: offer.hello }) as Wire, deadline());
}

function isLost(error: unknown): boolean {
  assert.ok(error instanceof BackendUnavailableError, String(error));
  assert.equal(error.code, "PEER_LOST", error.message);
  return true;
}

/** Options of the suite. */
export interface PlaneSuite {
  readonly skip: string | false;
  /** The size of the large reads: an emulated machine moves some 30 MB/s. */
  readonly largeBytes: number;
  /** Whether a stopped process can still be read: its device answers for it. */
  readonly answersWhileStopped: boolean;
}

/** Registers the tests. */
export function planeSuite(kind: PlaneKind, { skip, largeBytes, answersWhileStopped }: PlaneSuite): void {
  describe(`the plane ${kind}`, () => {
    it("reads exact ranges and nothing beside them", { skip }, async () => {
      await using writer = await End.open(kind, "writer", 2 * MIB);
      await using reader = await End.open(kind, "reader", 2 * MIB);
      const link = await connect(reader.plane, writer.plane);
      const ranges = [[0, 0], [0, 1], [4095, 2], [8191, 5], [2 * MIB - 7, 7], [1000, 777_777]] as const;
      let at = 64;
      const pieces = ranges.map(([remoteOffset, bytes]): ReadPiece => {
        const localOffset = at + 3;
        at = localOffset + bytes + 61;
        return { localOffset, remoteOffset, bytes };
      });
      await link.read(
        reader.registration,
        throughJson(writer.registration.remote),
        pieces,
        deadline(),
        never,
      );
      const expected = new Uint8Array(2 * MIB).fill(0xa5);
      for (const { localOffset, remoteOffset, bytes } of pieces) {
        expected.set(writer.memory.bytes.subarray(remoteOffset, remoteOffset + bytes), localOffset);
      }
      assert.equal(Buffer.compare(reader.memory.bytes, expected), 0);
      await link.close();
      await link.close();
      assert.equal(link.alive, false);
      await assert.rejects(
        link.read(reader.registration, writer.registration.remote, pieces, deadline(), never),
        isLost,
      );
    });

    it("reads much at once, from several callers, while the event loop goes on", { skip }, async () => {
      await using writer = await End.open(kind, "writer", largeBytes);
      await using reader = await End.open(kind, "reader", largeBytes);
      const link = await connect(reader.plane, writer.plane);
      const { remote } = writer.registration;
      const half = largeBytes / 2;
      let ticks = 0;
      const timer = setInterval(() => ticks++, 1);
      const one = [{ localOffset: 0, remoteOffset: 0, bytes: half }];
      const size = half / 512;
      const many = Array.from({ length: 512 }, (_, i): ReadPiece => ({
        localOffset: half + i * size,
        remoteOffset: half + i * size,
        bytes: size,
      }));
      await Promise.all(
        [one, many].map((pieces) => link.read(reader.registration, remote, pieces, deadline(), never)),
      );
      clearInterval(timer);
      assert.ok(ticks >= 3, `the event loop turned ${ticks} times`);
      assert.equal(Buffer.compare(reader.memory.bytes, writer.memory.bytes), 0);
    });

    it("reads memory that was registered after the connection was made", { skip }, async () => {
      await using writer = await End.open(kind, "writer", MIB);
      await using reader = await End.open(kind, "reader", MIB);
      const link = await connect(reader.plane, writer.plane);
      const memory = newMemory(MIB);
      memory.bytes.fill(7);
      const registration = await writer.plane.register(memory.address, MIB);
      const piece = { localOffset: 0, remoteOffset: 0, bytes: MIB };
      await link.read(reader.registration, registration.remote, [piece], deadline(), never);
      assert.equal(Buffer.compare(reader.memory.bytes, memory.bytes), 0);
      await registration.close();
      await registration.close();
      // nobody may read it now
      await assert.rejects(
        link.read(reader.registration, registration.remote, [piece], deadline(), never),
        isLost,
      );
      assert.equal(link.alive, false);
      memory.close();
      const next = await connect(reader.plane, writer.plane);
      await next.read(reader.registration, writer.registration.remote, [piece], deadline(), never);
      assert.equal(Buffer.compare(reader.memory.bytes, writer.memory.bytes), 0);
    });

    it("refuses what the other side cannot have meant", { skip }, async () => {
      await using writer = await End.open(kind, "writer", MIB);
      await using reader = await End.open(kind, "reader", MIB);
      for (const hello of [null, 1, "x", [], {}, { engine: 5 }, { qpn: -1, psn: 0, gid: "0".repeat(32) }]) {
        await assert.rejects(writer.plane.accept(hello, deadline()), CorruptionError, JSON.stringify(hello));
        const offer = await reader.plane.offer();
        await assert.rejects(offer.open(hello, deadline()), CorruptionError);
        await offer.close();
      }
      const link = await connect(reader.plane, writer.plane);
      const { remote } = writer.registration;
      const wrong = [
        { localOffset: 0, remoteOffset: MIB - 1, bytes: 2 },
        { localOffset: MIB, remoteOffset: 0, bytes: 1 },
        { localOffset: 0, remoteOffset: -1, bytes: 1 },
        { localOffset: 0, remoteOffset: 0, bytes: -1 },
        { localOffset: 0.5, remoteOffset: 0, bytes: 1 },
        { localOffset: 0, remoteOffset: 2 ** 60, bytes: 1 },
      ];
      for (const piece of wrong) {
        await assert.rejects(
          link.read(reader.registration, remote, [piece], deadline(), never),
          CorruptionError,
        );
      }
      for (const other of [null, {}, { address: "xyz", bytes: 1 }, { address: 5 }]) {
        const piece = { localOffset: 0, remoteOffset: 0, bytes: 1 };
        await assert.rejects(
          link.read(reader.registration, other, [piece], deadline(), never),
          CorruptionError,
        );
      }
      assert.equal(link.alive, true);
      assert.ok(reader.memory.bytes.every((byte) => byte === 0xa5));
    });

    it("tells when time is up, and when nothing writes any more", { skip }, async () => {
      await using writer = await End.open(kind, "writer", largeBytes);
      await using reader = await End.open(kind, "reader", largeBytes);
      const link = await connect(reader.plane, writer.plane);
      const { remote } = writer.registration;
      const pieces = [{ localOffset: 0, remoteOffset: 0, bytes: largeBytes }];
      let quarantined: Promise<unknown> | undefined;
      const stop = new AbortController();
      const read = link.read(
        reader.registration,
        remote,
        pieces,
        new Deadline("read", { signal: stop.signal }, LIMIT_MS),
        (ended) => quarantined = ended,
      );
      setTimeout(() => stop.abort(), 1);
      // a fast machine may have read all of it
      await read.catch((error) =>
        assert.ok(error instanceof TimeoutError && error.code === "ABORTED", String(error))
      );
      const awake = setInterval(() => {}, 1000); // what was given up keeps no process
      await quarantined;
      clearInterval(awake);
      const before = reader.memory.bytes.slice();
      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.equal(Buffer.compare(reader.memory.bytes, before), 0);
    });

    it("reads another process, and tells when it is killed in the middle", { skip }, async () => {
      await using reader = await End.open(kind, "reader", largeBytes);
      const expected = new Uint8Array(new ArrayBuffer(largeBytes));
      fillPattern(expected);
      const { worker, remote } = await startPeer(kind, largeBytes);
      const link = await connectTo(reader.plane, worker);
      const pieces = [{ localOffset: 0, remoteOffset: 0, bytes: largeBytes }];
      const read = (over: Link, of: Wire) =>
        over.read(reader.registration, of, pieces, deadline(8000), () => {});
      await read(link, remote);
      assert.equal(Buffer.compare(reader.memory.bytes, expected), 0);
      if (answersWhileStopped) {
        reader.memory.bytes.fill(0);
        worker.signal("SIGSTOP");
        await read(link, remote);
        worker.signal("SIGCONT");
        assert.equal(Buffer.compare(reader.memory.bytes, expected), 0);
      }
      let outcome = "";
      const reading = (async () => {
        for (let round = 0; round < 100; round++) {
          reader.memory.bytes.fill(0);
          await read(link, remote);
          if (Buffer.compare(reader.memory.bytes, expected) !== 0) outcome = "wrong bytes";
        }
      })();
      setTimeout(() => void worker.kill(), 30);
      await assert.rejects(reading, (error) => {
        assert.ok(error instanceof TimeoutError || isLost(error), String(error));
        return true;
      });
      assert.equal(outcome, "");
      await link.close();
      // the plane is as good as before
      const next = await startPeer(kind, largeBytes);
      const other = await connectTo(reader.plane, next.worker);
      await read(other, next.remote);
      assert.equal(Buffer.compare(reader.memory.bytes, expected), 0);
      await other.close();
      await next.worker[Symbol.asyncDispose]();
    });
  });
}
