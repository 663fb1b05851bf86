import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RowSet } from "../../../../src/batch/rowset.ts";
import { handField, ndarray, rawBytes, values } from "../helpers.ts";

const image = { kind: "pil_raw", mode: "L", size: [2, 1], format: "PNG" };
const plain = { kind: "bytes" };

describe("media_bytes", () => {
  const parts = {
    data: rawBytes(Uint8Array.of(1, 2, 3, 4, 5)),
    offsets: ndarray("<i8", [5], [0, 2, 2, 3, 5]),
    nulls: ndarray("|b1", [4], [0, 1, 0, 0]),
  };

  it("without images is a bytes column", () => {
    for (const metadata of [{}, { media_encodings: [plain, { kind: "null" }, plain, plain] }]) {
      const made = handField(4, "media_bytes", metadata, parts);
      assert.equal(made.bundle.fields.get("f")!.kind, "bytes");
      assert.deepEqual(values(made, RowSet.of([3, 0])), [Uint8Array.of(4, 5), Uint8Array.of(1, 2)]);
    }
  });

  it("with images is records, and rows keep their own encoding", () => {
    const encodings = [image, { kind: "null" }, plain, { ...image, mode: "1", format: null }];
    const made = handField(4, "media_bytes", { media_encodings: encodings }, parts);
    assert.equal(made.bundle.fields.get("f")!.kind, "records");
    assert.deepEqual(values(made, RowSet.of([3, 2, 1, 0])), [
      { mode: "1", size: [2, 1], format: null, data: Uint8Array.of(4, 5) },
      Uint8Array.of(3),
      null,
      { mode: "L", size: [2, 1], format: "PNG", data: Uint8Array.of(1, 2) },
    ]);
  });

  it("with broken metadata is refused", () => {
    for (
      const media_encodings of ["x", [{ kind: "pil_raw" }], [{ ...image, size: 3 }], [{
        ...image,
        size: [-1, 1],
      }]]
    ) {
      assert.throws(() => values(handField(4, "media_bytes", { media_encodings }, parts)), {
        code: "CORRUPT",
      });
    }
  });
});

describe("media_list_ragged", () => {
  const parts = {
    data: rawBytes(Uint8Array.of(1, 2, 3, 4, 5, 6)),
    row_offsets: ndarray("<i8", [6], [0, 2, 2, 2, 3, 5]),
    byte_offsets: ndarray("<i8", [6], [0, 1, 3, 3, 5, 6]),
    nulls: ndarray("|b1", [5], [0, 1, 0, 0, 0]),
  };
  const metadata = { media_encodings: [plain, image, plain, image, { kind: "null" }] };
  const expected = [
    [Uint8Array.of(1), { mode: "L", size: [2, 1], format: "PNG", data: Uint8Array.of(2, 3) }],
    null,
    [],
    [Uint8Array.of()],
    [{ mode: "L", size: [2, 1], format: "PNG", data: Uint8Array.of(4, 5) }, null],
  ];

  it("is lists of bytes and images", () => {
    assert.deepEqual(values(handField(5, "media_list_ragged", metadata, parts)), expected);
  });

  it("takes the encodings of the items of the rows asked for", () => {
    const made = handField(5, "media_list_ragged", metadata, parts);
    for (const rows of [[4], [0, 4], [4, 3, 3, 0], [1, 2], [2, 3, 4]]) {
      assert.deepEqual(values(made, RowSet.of(rows)), rows.map((row) => expected[row]));
    }
  });

  it("takes lists without metadata for bytes", () => {
    assert.deepEqual(values(handField(5, "media_list_ragged", {}, parts))[4], [
      Uint8Array.of(4, 5),
      Uint8Array.of(6),
    ]);
  });

  const wrong: readonly (readonly [what: string, changes: object])[] = [
    ["row offsets beyond the items", { row_offsets: ndarray("<i8", [6], [0, 2, 2, 2, 3, 6]) }],
    ["byte offsets beyond the data", { byte_offsets: ndarray("<i8", [6], [0, 1, 3, 3, 5, 7]) }],
    ["byte offsets that go down", { byte_offsets: ndarray("<i8", [6], [0, 4, 3, 3, 5, 6]) }],
    ["no byte offsets", { byte_offsets: ndarray("<i8", [0], []) }],
  ];
  for (const [what, changes] of wrong) {
    it(`refuses ${what}`, () => {
      const made = handField(5, "media_list_ragged", metadata, { ...parts, ...changes });
      assert.throws(() => values(made), { code: "CORRUPT" });
    });
  }
});
