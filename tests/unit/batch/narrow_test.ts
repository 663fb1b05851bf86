import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decodeBFloat16, decodeFloat8, encodeBFloat16, encodeFloat8 } from "../../../src/batch/narrow.ts";
import { random } from "./random.ts";

const FORMATS = ["float8_e4m3fn", "float8_e5m2"] as const;

/** All finite non-negative values in order; position is code. */
function finite(decode: (code: number) => number, end: number): number[] {
  return Array.from({ length: end }, (_, code) => decode(code));
}

/** The nearest value, ties to the even code, by comparing with all of them. */
function nearest(values: readonly number[], next: number, overflow: number, value: number): number {
  let low = 0;
  let high = values.length;
  while (low + 1 < high) {
    const middle = (low + high) >>> 1;
    if (values[middle]! <= value) low = middle;
    else high = middle;
  }
  const below = value - values[low]!;
  const above = (values[high] ?? next) - value;
  const code = below < above ? low : above < below ? high : low % 2 === 0 ? low : high;
  return code < values.length ? code : overflow;
}

describe("bfloat16", () => {
  const all = decodeBFloat16(Uint16Array.from({ length: 65536 }, (_, code) => code));

  it("decodes and encodes every code to itself", () => {
    const back = encodeBFloat16(all);
    for (let code = 0; code < 65536; code++) {
      const isNaN = (code & 0x7fff) > 0x7f80;
      assert.equal(Number.isNaN(all[code]), isNaN, code.toString(16));
      assert.equal(back[code], isNaN ? 0x7fc0 : code, code.toString(16));
    }
    assert.deepEqual([all[0x3f80], all[0xc000], all[0x7f80], all[1]], [1, -2, Infinity, 2 ** -133]);
  });

  it("rounds once, to nearest, ties to even", () => {
    const cases: [number, number][] = [
      [1 + 2 ** -8, 0x3f80],
      [1 + 3 * 2 ** -8, 0x3f82],
      // through float32 this would be a tie, and even
      [1 + 2 ** -8 + 2 ** -40, 0x3f81],
      [1 + 3 * 2 ** -8 - 2 ** -40, 0x3f81],
      [-0, 0x8000],
      [3.3895313892515355e38, 0x7f7f],
      [3.3961775292304601e38, 0x7f80],
      [3.3961775292304594e38, 0x7f7f],
      [1e308, 0x7f80],
      [-1e308, 0xff80],
      [2 ** -134, 0],
      [2 ** -134 + 2 ** -170, 1],
      [5e-324, 0],
      [NaN, 0x7fc0],
      [-Infinity, 0xff80],
    ];
    for (const [value, code] of cases) {
      assert.equal(encodeBFloat16([value])[0]!.toString(16), code.toString(16), String(value));
    }
    const rng = random("bfloat16");
    const values = finite((code) => all[code]!, 0x7f80);
    for (let i = 0; i < 20_000; i++) {
      const value = rng.next() * 2 ** (rng.below(270) - 140);
      const expected = nearest(values, 2 ** 128, 0x7f80, value);
      assert.equal(encodeBFloat16([value])[0], expected, `seed ${rng.seed}: ${value}`);
      assert.equal(encodeBFloat16([-value])[0], expected | 0x8000, `seed ${rng.seed}: ${-value}`);
    }
  });
});

describe("float8", () => {
  for (const dtype of FORMATS) {
    const last = dtype === "float8_e5m2" ? 0x7b : 0x7e;
    const all = decodeFloat8(dtype, Uint8Array.from({ length: 256 }, (_, code) => code));

    it(`${dtype} decodes and encodes every code to itself`, () => {
      const back = encodeFloat8(dtype, all);
      for (let code = 0; code < 256; code++) {
        const magnitude = code & 0x7f;
        const isNaN = dtype === "float8_e5m2" ? magnitude > 0x7c : magnitude === 0x7f;
        assert.equal(Number.isNaN(all[code]), isNaN, code.toString(16));
        if (!isNaN) assert.equal(back[code], code, code.toString(16));
        else assert.equal(back[code]! & 0x7f, 0x7f, code.toString(16));
      }
      for (let code = 1; code <= last; code++) assert.ok(all[code]! > all[code - 1]!, code.toString(16));
      assert.ok(Object.is(all[0x80], -0));
    });

    it(`${dtype} rounds once, to nearest, ties to even`, () => {
      const rng = random(dtype);
      const values = finite((code) => all[code]!, last + 1);
      const next = dtype === "float8_e5m2" ? 65536 : 480;
      const overflow = dtype === "float8_e5m2" ? 0x7c : 0x7f;
      const tried = values.flatMap((value, code) => {
        const tie = (value + (values[code + 1] ?? next)) / 2;
        return [value, tie, tie * (1 + 2 ** -40), tie * (1 - 2 ** -40)];
      });
      for (let i = 0; i < 20_000; i++) tried.push(rng.next() * 2 ** (rng.below(40) - 20));
      for (const value of tried) {
        const expected = nearest(values, next, overflow, value);
        assert.equal(encodeFloat8(dtype, [value])[0], expected, `seed ${rng.seed}: ${value}`);
        assert.equal(encodeFloat8(dtype, [-value])[0], expected | 0x80, `seed ${rng.seed}: ${-value}`);
      }
    });
  }

  it("has the values and the overflow PyTorch has", () => {
    const e4m3: [number, number][] = [
      [1, 0x38],
      [448, 0x7e],
      [464, 0x7e],
      [464.0001, 0x7f],
      [480, 0x7f],
      [1e30, 0x7f],
      [Infinity, 0x7f],
      [-Infinity, 0xff],
      [2 ** -9, 0x01],
      [2 ** -10, 0x00],
      [-240, 0xf7],
    ];
    for (const [value, code] of e4m3) {
      assert.equal(encodeFloat8("float8_e4m3fn", [value])[0], code, String(value));
    }
    const e5m2: [number, number][] = [
      [1, 0x3c],
      [57344, 0x7b],
      [61439.99, 0x7b],
      [61440, 0x7c],
      [1e300, 0x7c],
      [-Infinity, 0xfc],
      [2 ** -16, 0x01],
      [2 ** -17, 0x00],
    ];
    for (const [value, code] of e5m2) {
      assert.equal(encodeFloat8("float8_e5m2", [value])[0], code, String(value));
    }
  });
});
