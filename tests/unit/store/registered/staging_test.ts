import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Deadline } from "../../../../src/deadline.ts";
import { StagingPool, type StagingSlot } from "../../../../src/store/registered/staging.ts";

const KIB = 1024;
const soon = (timeoutMs = 5000) => new Deadline("test", { timeoutMs });

describe("StagingPool", () => {
  it("never hands out a byte twice, and gets everything back", () =>
    fc.assert(fc.asyncProperty(
      fc.array(fc.oneof(fc.integer({ min: 1, max: 40_000 }), fc.integer({ min: -20, max: -1 })), {
        maxLength: 60,
      }),
      async (steps) => {
        const pool = new StagingPool(128 * KIB);
        const held: StagingSlot[] = [];
        for (const step of steps) {
          if (step > 0) {
            const slot = await pool.reserve(step, new Deadline("test", { timeoutMs: 1 })).catch(() =>
              undefined
            );
            if (slot !== undefined) held.push(slot);
          } else held.splice(-step % Math.max(1, held.length), 1)[0]?.release();
          const places = held.map(({ offset, bytes }) => [offset, offset + bytes] as const).sort((a, b) =>
            a[0] - b[0]
          );
          places.forEach(([start, end], i) => {
            assert.ok(start >= 0 && end <= 128 * KIB);
            if (i > 0) assert.ok(places[i - 1]![1] <= start, "two slots share bytes");
          });
        }
        for (const slot of held) slot.release();
        assert.deepEqual(pool.use, {
          total: 128 * KIB,
          free: 128 * KIB,
          quarantined: 0,
          slots: 0,
          waiting: 0,
        });
        // in one piece again
        (await pool.reserve(128 * KIB, soon())).release();
      },
    )));

  it("serves in the order of the requests, so that a large one is not passed by for ever", async () => {
    const pool = new StagingPool(16 * KIB);
    const first = await pool.reserve(12 * KIB, soon());
    const order: string[] = [];
    const large = pool.reserve(16 * KIB, soon()).then((slot) => (order.push("large"), slot));
    const small = pool.reserve(4 * KIB, soon()).then((slot) => (order.push("small"), slot));
    assert.equal(pool.use.waiting, 2);
    first.release();
    (await large).release();
    (await small).release();
    assert.deepEqual(order, ["large", "small"]);
  });

  it("keeps a slot that a call still writes to", async () => {
    const pool = new StagingPool(8 * KIB);
    const slot = await pool.reserve(8 * KIB, soon());
    const call = Promise.withResolvers<void>();
    slot.hold(call.promise);
    slot.release();
    slot.release();
    assert.deepEqual([pool.use.free, pool.use.quarantined, pool.use.slots], [0, 8 * KIB, 0]);
    await assert.rejects(pool.reserve(1, soon(20)), { code: "TIMEOUT" });
    const next = pool.reserve(1, soon());
    call.reject(new Error("failed in the end"));
    assert.equal((await next).offset, 0);
    assert.equal(pool.use.quarantined, 0);
  });

  it("waits no longer than the deadline, and lets the next one in", async () => {
    const pool = new StagingPool(8 * KIB);
    const slot = await pool.reserve(4 * KIB, soon());
    const large = pool.reserve(8 * KIB, soon(30));
    const small = pool.reserve(4 * KIB, soon());
    await assert.rejects(large, { code: "TIMEOUT", message: /raise localBufferSize/ });
    (await small).release();
    const abort = new AbortController();
    const aborted = pool.reserve(8 * KIB, new Deadline("test", { signal: abort.signal }));
    abort.abort();
    await assert.rejects(aborted, { code: "ABORTED" });
    slot.release();
    assert.equal(pool.use.free, 8 * KIB);
  });

  it("refuses what can never fit, and everything once it is closed", async () => {
    const pool = new StagingPool(8 * KIB + 5);
    assert.equal(pool.fits(8 * KIB), true);
    assert.equal(pool.fits(8 * KIB + 1), false);
    await assert.rejects(pool.reserve(8 * KIB + 1, soon()), { code: "SCHEMA" });
    const slot = await pool.reserve(8 * KIB, soon());
    const waiting = pool.reserve(1, soon());
    pool.close();
    await assert.rejects(waiting, { code: "CLOSED" });
    slot.release();
    await assert.rejects(pool.reserve(1, soon()), { code: "CLOSED" });
  });
});
