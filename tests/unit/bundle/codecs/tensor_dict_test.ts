import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RowSet } from "../../../../src/batch/rowset.ts";
import { assertTagged, handField, ndarray, values } from "../helpers.ts";

const parts = {
  null_mask: ndarray("|b1", [3], [0, 1, 0]),
  "b.data": ndarray("<i2", [3], [1, 2, 3]),
  "b.offsets": ndarray("<i8", [4], [0, 2, 2, 3]),
  "b.shapes": ndarray("<i8", [3, 1], [2, 0, 1]),
  "b.ndims": ndarray("<i2", [3], [1, 0, 1]),
  "b.nulls": ndarray("|b1", [3], [0, 1, 0]),
  "a.data": ndarray("<f4", [2], [1, 2]),
  "a.offsets": ndarray("<i8", [4], [0, 2, 2, 2]),
  "a.shapes": ndarray("<i8", [3, 2], [1, 2, 0, 0, 0, 0]),
  "a.ndims": ndarray("<i2", [3], [2, 0, 0]),
  "a.nulls": ndarray("|b1", [3], [0, 1, 1]),
};
const metadata = {
  keys: ["b", "a"],
  key_codecs: { a: { dtype: "torch.float32" }, b: { dtype: "torch.int16", row_format: "ndarray" } },
};
const first = {
  $dict: [
    ["b", { $torch: "torch.int16", shape: [2], hex: "01000200" }],
    ["a", { $torch: "torch.float32", shape: [1, 2], hex: "0000803f00000040" }],
  ],
};
const last = { $dict: [["b", { $torch: "torch.int16", shape: [1], hex: "0300" }]] };

describe("ragged_tensor_dict", () => {
  it("is dicts of tensors, without the keys a row does not have", () => {
    const made = handField(3, "ragged_tensor_dict", metadata, parts);
    assertTagged(values(made), [first, null, last]);
    assertTagged(values(made, RowSet.of([2, 1, 0, 2])), [last, null, first, last]);
  });

  it("refuses keys without parts, unknown dtypes and metadata of another form", () => {
    const wrong: readonly (readonly [metadata: typeof metadata | object, code: string])[] = [
      [{ ...metadata, keys: ["b", "c"] }, "CORRUPT"],
      [{ ...metadata, keys: [""] }, "CORRUPT"],
      [{ ...metadata, keys: "ab" }, "CORRUPT"],
      [{ ...metadata, key_codecs: [] }, "CORRUPT"],
      [{ ...metadata, key_codecs: { a: { dtype: "torch.bfloat16" } } }, "SCHEMA"],
    ];
    for (const [changed, code] of wrong) {
      const made = handField(3, "ragged_tensor_dict", changed as typeof metadata, parts);
      assert.throws(() => values(made), { code });
    }
  });
});
