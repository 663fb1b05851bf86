import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { native, withDeadline } from "../../../ffi/native.ts";
import { BlockingPipe } from "./pipe.ts";

// Deno has threads of its own for blocking calls
if (native.name === "bun") describe("Bun's pool of workers", pool);

function pool(): void {
  it("makes four calls at a time, the others wait in order", async () => {
    const pipe = new BlockingPipe();
    const blocked = Array.from({ length: 4 }, () => pipe.read());
    let answered = false;
    const waiting = pipe.labs(-5n).then((value) => {
      answered = true;
      return value;
    });
    await pause(50);
    assert.equal(answered, false, "a fifth call needs a worker that has returned");
    pipe.write(1);
    assert.equal(await waiting, 5n);
    pipe.write(3);
    assert.deepEqual(await Promise.all(blocked), [1n, 1n, 1n, 1n]);
    pipe.close();
  });

  it("never starts a call that was given up in the queue", async () => {
    const pipe = new BlockingPipe();
    const blocked = Array.from({ length: 4 }, () => pipe.read());
    const into = new Uint8Array(new ArrayBuffer(1));
    const queued = pipe.readInto(into);
    await assert.rejects(withDeadline(queued, { what: "reading", timeoutMs: 5 }), { code: "TIMEOUT" });
    await assert.rejects(queued, { code: "TIMEOUT", message: /before it started/ });
    pipe.write(5);
    await Promise.all(blocked);
    assert.equal(await pipe.read(), 1n, "the fifth byte is still there");
    assert.equal(into[0], 0);
    pipe.close();
  });

  it("starts another worker for a call that was given up under way, so that the queue moves", async () => {
    const pipe = new BlockingPipe();
    const blocked = Array.from({ length: 4 }, () => pipe.read());
    const waiting = pipe.labs(-6n);
    await assert.rejects(withDeadline(blocked[2]!, { what: "reading", timeoutMs: 5 }), { code: "TIMEOUT" });
    assert.equal(await waiting, 6n);
    pipe.write(4);
    assert.deepEqual(await Promise.all(blocked), [1n, 1n, 1n, 1n]);
    pipe.close();
  });
}
