import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { bytesOf, type DType, itemSize, newArray } from "../../../src/batch/dtype.ts";
import { RowSet } from "../../../src/batch/rowset.ts";
import { Tensor } from "../../../src/batch/tensor.ts";
import type { BundleInfo } from "../../../src/bundle/bundle.ts";
import { writeTensorHeader } from "../../../src/bundle/tensor_header.ts";
import { assertTagged, handmade, type Objects, randomBytes, seeded, toHex, values } from "./helpers.ts";

function part(dtype: DType, shape: readonly number[], data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(304 + data.length);
  bytes.set(writeTensorHeader(dtype, shape));
  bytes.set(data, 304);
  return bytes;
}

function int64(values: readonly number[]): Uint8Array {
  const array = newArray("int64", values.length) as BigInt64Array;
  values.forEach((value, i) => array[i] = BigInt(value));
  return part("int64", [values.length], bytesOf(array));
}

function jagged(
  rows: number,
  dtype: string,
  parts: readonly Uint8Array[],
  spec: Record<string, unknown> = {},
): { bundle: BundleInfo; objects: Objects } {
  return handmade(rows, {
    "batch.f": {
      spec: {
        encoding: "torch_tensor",
        dtype,
        nested: true,
        format: "tensor_parts",
        partBytes: parts.map(({ length }) => length),
        hasLengths: parts.length === 3,
        raggedIdx: 1,
        ...spec,
      },
      bytes: Uint8Array.from(parts.flatMap((part) => [...part])),
    },
  });
}

const random = seeded(11);

describe("jagged tensors", () => {
  it("are ragged columns, also where parts begin at odd places", () => {
    const made = jagged(3, "torch.int8", [
      part("int8", [5], Uint8Array.of(1, 2, 3, 4, 5)),
      int64([0, 2, 2, 5]),
    ]);
    assert.equal(made.bundle.fields.get("f")!.kind, "ragged");
    assert.deepEqual(values(made), [Int8Array.of(1, 2), Int8Array.of(), Int8Array.of(3, 4, 5)]);
    assert.deepEqual(values(made, RowSet.of([2, 2, 1])), [
      Int8Array.of(3, 4, 5),
      Int8Array.of(3, 4, 5),
      Int8Array.of(),
    ]);
  });

  it("keep further dimensions", () => {
    const data = randomBytes(random, 3 * 2 * 4);
    const made = jagged(2, "torch.float32", [part("float32", [3, 2], data), int64([0, 1, 3])]);
    const [first, second] = values(made);
    assertTagged(first, { $torch: "torch.float32", shape: [1, 2], hex: toHex(data.subarray(0, 8)) });
    assertTagged(second, { $torch: "torch.float32", shape: [2, 2], hex: toHex(data.subarray(8)) });
  });

  it("leave out what lies between rows", () => {
    const values_ = part("int8", [6], Uint8Array.of(1, 2, 3, 4, 5, 6));
    const made = jagged(2, "torch.int8", [values_, int64([1, 3, 6]), int64([1, 2])]);
    assert.deepEqual(values(made), [Int8Array.of(2), Int8Array.of(4, 5)]);
  });

  for (const dtype of ["bfloat16", "float8_e5m2"] as const) {
    it(`of ${dtype} are records of tensors`, () => {
      const data = randomBytes(random, 3 * itemSize(dtype));
      const made = jagged(2, `torch.${dtype}`, [part(dtype, [3], data), int64([0, 1, 3])]);
      const [, second] = values(made) as Tensor[];
      assert.equal(made.bundle.fields.get("f")!.kind, "records");
      assert.deepEqual([second!.dtype, second!.shape, toHex(second!.bytes)], [
        dtype,
        [2],
        toHex(data.subarray(itemSize(dtype))),
      ]);
    });
  }

  const good = [part("int8", [3], Uint8Array.of(1, 2, 3)), int64([0, 1, 3])];
  const wrong: readonly (readonly [
    what: string,
    parts: readonly Uint8Array[],
    spec: Record<string, unknown>,
    code: string,
  ])[] = [
    ["offsets beyond the values", [good[0]!, int64([0, 1, 4])], {}, "CORRUPT"],
    ["offsets that go down", [good[0]!, int64([0, 3, 1])], {}, "CORRUPT"],
    ["negative offsets", [good[0]!, int64([-1, 1, 3])], {}, "CORRUPT"],
    ["offsets of other rows", [good[0]!, int64([0, 3])], {}, "CORRUPT"],
    ["offsets that are not int64", [good[0]!, part("int32", [3], new Uint8Array(12))], {}, "CORRUPT"],
    ["lengths beyond the next row", [...good, int64([2, 2])], {}, "CORRUPT"],
    ["negative lengths", [...good, int64([-1, 2])], {}, "CORRUPT"],
    ["one part", [good[0]!], {}, "CORRUPT"],
    ["no part lengths", good, { partBytes: undefined }, "CORRUPT"],
    ["part lengths that do not add up", good, { partBytes: [307, 327] }, "CORRUPT"],
    ["part lengths that cut elsewhere", good, { partBytes: [308, 327] }, "CORRUPT"],
    ["values of another dtype", good, { dtype: "torch.uint8" }, "CORRUPT"],
    ["an unknown dtype", good, { dtype: "torch.complex64" }, "SCHEMA"],
    ["another jagged dimension", good, { raggedIdx: 2 }, "SCHEMA"],
  ];
  for (const [what, parts, spec, code] of wrong) {
    it(`with ${what} are refused`, () => {
      const made = jagged(2, "torch.int8", parts, spec);
      assert.throws(() => values(made), { code });
    });
  }
});
