import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DTYPES, itemSize } from "../../../src/batch/dtype.ts";
import {
  elementCount,
  parseTensorHeader,
  TENSOR_HEADER_BYTES,
  writeTensorHeader,
} from "../../../src/bundle/tensor_header.ts";
import { fromHex, goldenCase, toHex } from "./helpers.ts";

function payload(header: Uint8Array, dataBytes: number): Uint8Array {
  const bytes = new Uint8Array(header.length + dataBytes);
  bytes.set(header);
  return bytes;
}

describe("writeTensorHeader()", () => {
  it("writes what Mooncake's own serializer writes", () => {
    const stored = goldenCase("torch_f32_2x3_native").objects[
      "rl/p0/00000000000000000000000000000002/buffer/batch.obs"
    ]!;
    assert.equal(toHex(writeTensorHeader("float32", [2, 3])), stored.slice(0, 2 * TENSOR_HEADER_BYTES));
  });

  for (const dtype of DTYPES) {
    it(`is read back for ${dtype}`, () => {
      for (const shape of [[0], [3], [2, 0], [0, 5], [2, 1, 3], [1, 1, 1, 1, 1, 1, 1, 2]]) {
        const dataBytes = elementCount(shape)! * itemSize(dtype);
        const bytes = payload(writeTensorHeader(dtype, shape), dataBytes);
        assert.deepEqual(parseTensorHeader(bytes, bytes.length, "k"), {
          dtype,
          shape,
          dataOffset: 304,
          dataBytes,
        });
      }
    });
  }
});

describe("parseTensorHeader()", () => {
  const good = payload(writeTensorHeader("float32", [2, 3]), 24);

  it("honours a larger data offset", () => {
    const bytes = payload(good.slice(0, 304), 40);
    new DataView(bytes.buffer).setBigUint64(24, 320n, true);
    assert.equal(parseTensorHeader(bytes, bytes.length, "k").dataOffset, 320);
  });

  it("takes the local shape of a shard", () => {
    const bytes = good.slice();
    const view = new DataView(bytes.buffer);
    view.setUint32(16, 1, true);
    view.setBigInt64(40, 4n, true);
    assert.deepEqual(parseTensorHeader(bytes, bytes.length, "k").shape, [2, 3]);
  });

  it("takes a header that is not aligned", () => {
    const bytes = new Uint8Array(good.length + 1);
    bytes.set(good, 1);
    assert.deepEqual(parseTensorHeader(bytes.subarray(1), good.length, "k").shape, [2, 3]);
  });

  const wrong: readonly (readonly [what: string, at: number, hex: string])[] = [
    ["the magic", 0, "4e4f4f4e"],
    ["the version", 4, "0200"],
    ["the header size", 6, "2f01"],
    ["a dtype code beyond the last", 8, "0f000000"],
    ["a negative dtype code", 8, "ffffffff"],
    ["nine dimensions", 12, "09000000"],
    ["negative dimensions", 12, "ffffffff"],
    ["one dimension less than sizes", 12, "01000000"],
    ["the layout", 16, "02000000"],
    ["a data offset inside the header", 24, "2f01000000000000"],
    ["a data offset beyond the payload", 24, "4901000000000000"],
    ["a huge data offset", 24, "ffffffffffffffff"],
    ["the data length", 32, "1700000000000000"],
    ["a negative size", 104, "feffffffffffffff"],
    ["a huge size", 104, "ffffffffffffff7f"],
    ["sizes for other data", 112, "0400000000000000"],
    ["an unused dimension that is not −1", 120, "0000000000000000"],
    ["five axes", 168, "05000000"],
  ];
  for (const [what, at, hex] of wrong) {
    it(`refuses ${what}`, () => {
      const bytes = good.slice();
      bytes.set(fromHex(hex), at);
      assert.throws(() => parseTensorHeader(bytes, bytes.length, "rl/key"), {
        code: "CORRUPT",
        message: /rl\/key/,
      });
    });
  }

  it("refuses a payload that is too short, and one of another length", () => {
    for (const length of [0, 303, 304, 327, 329]) {
      const bytes = payload(good, 8).subarray(0, length);
      assert.throws(() => parseTensorHeader(bytes, length, "k"), { code: "CORRUPT" });
    }
  });
});
