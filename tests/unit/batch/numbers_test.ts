import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { newArray } from "../../../src/batch/dtype.ts";
import { bytesAs, encodeNarrow, fillNumbers } from "../../../src/batch/numbers.ts";
import { random } from "./random.ts";

const where = (index: number) => `at index ${index}`;

describe("fillNumbers", () => {
  it("writes from a position on and marks nulls only where they may be", () => {
    for (const dtype of ["int32", "int64", "float32"] as const) {
      const out = newArray(dtype, 5);
      const nulls = new Uint8Array(3);
      fillNumbers(dtype, [1, null, 3], out, 1, where, nulls);
      assert.deepEqual(Array.from(out, Number), [0, 1, 0, 3, 0]);
      assert.deepEqual([...nulls], [0, 1, 0]);
      assert.throws(() => fillNumbers(dtype, [1, null], out, 0, where), /cannot hold null at index 1/);
    }
  });

  it("writes 64-bit integers as BigInt would", () => {
    const rng = random("fillNumbers");
    const signed: number[] = [];
    for (let i = 0; i < 2000; i++) signed.push(Math.floor((rng.next() - 0.5) * 2 ** (1 + rng.below(53))));
    const out = new BigInt64Array(signed.length);
    fillNumbers("int64", signed, out, 0, where);
    assert.deepEqual([...out], signed.map(BigInt), `seed ${rng.seed}`);
    const unsigned = signed.map((value) => Math.abs(value));
    const whole = new BigUint64Array(signed.length);
    fillNumbers("uint64", unsigned, whole, 0, where);
    assert.deepEqual([...whole], unsigned.map(BigInt), `seed ${rng.seed}`);
  });
});

describe("bytesAs", () => {
  it("is the array's own memory", () => {
    const part = new Int16Array(4).subarray(1, 3);
    const bytes = bytesAs("int16", part);
    assert.deepEqual([bytes.buffer, bytes.byteOffset, bytes.byteLength], [part.buffer, 2, 4]);
    assert.throws(
      () => bytesAs("int32", part, " in row 4"),
      /int32 data cannot come from a Int16Array in row 4/,
    );
  });
});

describe("encodeNarrow", () => {
  it("refuses what is no number", () => {
    assert.deepEqual([...encodeNarrow("float8_e5m2", [1], where)], [0x3c]);
    assert.throws(() => encodeNarrow("bfloat16", [1, null], where), /bfloat16 cannot hold null at index 1/);
  });
});
