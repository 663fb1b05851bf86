import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { attachMemory, newMemory } from "../../../../src/store/registered/memory.ts";

describe("staging memory", () => {
  it("is shared by its path, and detached when it is closed", () => {
    using mine = newMemory(10_000);
    assert.equal(mine.bytes.byteLength, 10_000);
    assert.ok(mine.bytes.every((byte) => byte === 0));
    const other = attachMemory(mine.path, 10_000);
    assert.notEqual(other.address, mine.address);
    mine.bytes[9_999] = 7;
    other.bytes[0] = 8;
    assert.deepEqual([other.bytes[9_999], mine.bytes[0]], [7, 8]);
    const view = other.bytes.subarray(5);
    other.close();
    other.close();
    assert.deepEqual([other.bytes.byteLength, view.byteLength, mine.bytes[0]], [0, 0, 8]);
    mine.close();
    assert.throws(() => attachMemory(mine.path, 10_000), { code: "NATIVE" });
  });

  it("has a size that an array can have", () => {
    for (const bytes of [0, -1, 1.5, 2 ** 32 + 1]) assert.throws(() => newMemory(bytes), { code: "CONFIG" });
  });
});
