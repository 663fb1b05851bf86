import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import { describe, it } from "node:test";
import {
  BackendUnavailableError,
  CapacityError,
  DataLostError,
  NotFoundError,
  TimeoutError,
} from "../../../src/errors.ts";
import { fromWire, receive, send, toWire } from "../../../src/store/wire.ts";
import type { Frame } from "../../../src/transfer/agent/protocol.ts";
import { newSeed, Random } from "../../support/runtime.ts";

/** The bytes that `send` writes. */
function bytesOf(frames: readonly Frame[]): Uint8Array {
  const written: Uint8Array[] = [];
  const socket = { destroyed: false, write: (bytes: Uint8Array) => written.push(bytes) } as unknown as Socket;
  for (const frame of frames) send(socket, frame);
  return new Uint8Array(written.flatMap((bytes) => [...bytes]));
}

describe("the agent's protocol", () => {
  it("gives frames back however their bytes come", () => {
    const random = new Random(newSeed("frames"));
    const frames = Array.from(
      { length: 30 },
      (_, id): Frame => ({ id, result: "é".repeat(random.int(300)) }),
    );
    const bytes = bytesOf(frames);
    for (let round = 0; round < 20; round++) {
      const socket = new EventEmitter();
      const got: Frame[] = [];
      receive<Frame>(socket as unknown as Socket, (frame) => got.push(frame), (error) => assert.fail(error));
      for (let at = 0; at < bytes.length;) {
        const length = 1 + random.int(round === 0 ? 1 : 700);
        socket.emit("data", bytes.subarray(at, at + length));
        at += length;
      }
      assert.deepEqual(got, frames);
    }
  });

  it("ends at what is no frame", () => {
    for (const bytes of [[255, 255, 255, 255, 1], [1, 0, 0, 0, 123]]) {
      const socket = new EventEmitter();
      let broken = 0;
      receive<Frame>(socket as unknown as Socket, () => assert.fail("a frame"), () => broken++);
      socket.emit("data", new Uint8Array(bytes));
      socket.emit("data", new Uint8Array(bytes));
      assert.equal(broken, 1);
    }
  });

  it("carries errors with class, code, details and hint", () => {
    const errors = [
      new BackendUnavailableError("MASTER_UNREACHABLE", "no master", { hint: "start it", expected: "h:1" }),
      new CapacityError("full", { nativeName: "NO_AVAILABLE_HANDLE", nativeCode: -200 }),
      new DataLostError("lost", { key: "k" }, "LEASE_EXPIRED"),
      new TimeoutError("late", {}, "ABORTED"),
      new NotFoundError("not yet", { rows: ["a"] }, "NOT_READY"),
    ];
    for (const error of errors) {
      const back = fromWire(JSON.parse(JSON.stringify(toWire(error))));
      assert.equal(back.constructor, error.constructor);
      assert.deepEqual([back.code, back.message, back.details], [error.code, error.message, error.details]);
    }
    const other = fromWire(toWire(new RangeError("a bug")));
    assert.deepEqual([other.code, other.message], ["NATIVE", "a bug"]);
  });
});
