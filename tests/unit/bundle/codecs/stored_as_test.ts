import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { bytes, json, ragged, records, scalars, strings, tensor } from "../../../../src/batch/build.ts";
import type { Column, StoredAs } from "../../../../src/batch/column.ts";
import { concatColumns, gather } from "../../../../src/batch/gather.ts";
import { RowSet } from "../../../../src/batch/rowset.ts";
import { build, column, plain, stored } from "../helpers.ts";

const image = { mode: "RGB", size: [1, 1] as const, format: null, data: Uint8Array.of(1, 2, 3) };
const raw = Uint8Array.of(9);

/** A column, the codec it is stored with, and metadata that Python needs. */
const WAYS: readonly (readonly [codec: StoredAs, column: Column, metadata?: object])[] = [
  ["msgpack_ragged", records([{ a: 1 }, null], { storedAs: "msgpack_ragged" }), {}],
  ["msgpack_ragged", json([{ a: 1 }, [2]], { storedAs: "msgpack_ragged" }), {}],
  [
    "ragged_tensor",
    ragged("int32", [new Int32Array([1]), null], { storedAs: "ragged_tensor" }),
    { dtype: "torch.int32", row_format: "ndarray" },
  ],
  [
    "ragged_tensor_dict",
    records([{ x: new Float32Array(2) }, {}], { storedAs: "ragged_tensor_dict" }),
    { keys: ["x"], key_codecs: { x: { dtype: "torch.float32", row_format: "ndarray" } } },
  ],
  ["media_bytes", bytes([raw, null], { storedAs: "media_bytes" }), {}],
  [
    "media_bytes",
    records([image, raw]),
    {
      media_encodings: [{ kind: "pil_raw", mode: "RGB", size: [1, 1], format: null }, { kind: "bytes" }],
      encode_source: "raw_pixels_from_object",
      media_types: ["image/raw"],
    },
  ],
  [
    "media_list_ragged",
    records([[raw, null], null]),
    { media_encodings: [{ kind: "bytes" }, { kind: "null" }], encode_source: "raw_pixels_from_object" },
  ],
];

describe("ways to store a column", () => {
  for (const [codec, given, metadata] of WAYS) {
    it(`${given.kind} as ${codec}`, () => {
      const built = build({ f: given });
      const encoded = built.bundle.encoded.get("f");
      assert.equal(encoded?.codec, codec);
      assert.deepEqual(encoded?.metadata, metadata);
      const read = column(stored(built), built.bundle, "f");
      // what was read is put again as it was
      assert.equal(read.kind === "tensor" ? undefined : read.storedAs, codec);
      const again = build({ f: read });
      assert.deepEqual(again.bundle.encoded.get("f")?.codec, codec);
      assert.deepEqual(plain(column(stored(again), again.bundle, "f")), plain(read));
      const part = gather(read, RowSet.of([1]));
      const whole = concatColumns([part, read]);
      for (const made of [part, whole]) assert.equal((made as { storedAs?: string }).storedAs, codec);
    });
  }

  it("a jagged tensor is one member of the section batch", () => {
    const built = build({ f: ragged("int64", [[1, 2], [3]], { storedAs: "jagged" }) });
    assert.deepEqual([...built.bundle.payloads.keys()], ["batch.f"]);
    assert.equal(built.bundle.encoded.has("f"), false);
    const read = column(stored(built), built.bundle, "f");
    assert.equal((read as { storedAs?: string }).storedAs, "jagged");
    assert.deepEqual([...build({ f: read }).bundle.payloads.keys()], ["batch.f"]);
  });

  it("columns stored in different ways are one in their kind's own way", () => {
    const joined = concatColumns([records([{ a: 1 }], { storedAs: "msgpack_ragged" }), records([{ a: 2 }])]);
    assert.equal((joined as { storedAs?: string }).storedAs, undefined);
    assert.equal(build({ f: joined }).bundle.encoded.get("f")?.codec, "structured_recursive");
  });

  it("what was declared counts before what the column says", () => {
    const built = build({ f: json([1]) }, { storedAs: () => "msgpack_ragged" });
    assert.equal(built.bundle.encoded.get("f")?.codec, "msgpack_ragged");
  });

  const wrong: readonly (readonly [what: string, column: Column, message: RegExp])[] = [
    [
      "strings as tensors",
      { ...strings(["a"]), storedAs: "ragged_tensor" } as Column,
      /strings, which cannot be stored/,
    ],
    [
      "scalars as media",
      { ...scalars("int8", [1]), storedAs: "media_bytes" } as Column,
      /scalars, which cannot/,
    ],
    ["null rows in a jagged tensor", ragged("int8", [[1], null], { storedAs: "jagged" }), /has null rows/],
    [
      "uneven rows in a jagged tensor",
      ragged("int8", [tensor("int8", [1, 2], [1, 2]), tensor("int8", [1, 1], [1])], { storedAs: "jagged" }),
      /rows of the shapes \[1,2\] and \[1,1\]/,
    ],
    ["other values in a jagged tensor", records([1], { storedAs: "jagged" }), /not Tensors of one dtype/],
    [
      "arrays as MessagePack",
      records([new Int8Array(1)], { storedAs: "msgpack_ragged" }),
      /row 0 .*Int8Array.*structured_recursive/,
    ],
    [
      "large integers as MessagePack",
      records([2n ** 64n], { storedAs: "msgpack_ragged" }),
      /more than 64 bits/,
    ],
    [
      "half surrogates as MessagePack",
      records([{ "\ud800": 1 }], { storedAs: "msgpack_ragged" }),
      /surrogate/,
    ],
    [
      "numbers in a dict of tensors",
      records([{ a: 1 }], { storedAs: "ragged_tensor_dict" }),
      /no tensor under "a"/,
    ],
    ["lists as dicts of tensors", records([[1]], { storedAs: "ragged_tensor_dict" }), /row 0 is not a dict/],
    [
      "keys that Python refuses",
      records([{ "a.b": new Int8Array(1) }], { storedAs: "ragged_tensor_dict" }),
      /"a\.b" is empty or has one of/,
    ],
    [
      "two dtypes under a key",
      records([{ a: new Int8Array(1) }, { a: new Int16Array(1) }], { storedAs: "ragged_tensor_dict" }),
      /several dtypes: int8, int16/,
    ],
    ["text among images", records(["a"], { storedAs: "media_bytes" }), /row 0 is not bytes/],
    ["text in lists of images", records([["a"]], { storedAs: "media_list_ragged" }), /row 0 is not a list/],
  ];
  for (const [what, given, message] of wrong) {
    it(`refuses ${what}, naming the field`, () => {
      assert.throws(
        () => build({ f: given }),
        (error: Error & { code?: string; details?: { field?: string } }) => {
          assert.equal(error.code, "SCHEMA");
          assert.match(error.message, message);
          assert.equal(error.details?.field, "f");
          return true;
        },
      );
    });
  }

  it("refuses more MessagePack than Python reads", () => {
    const large = "x".repeat(60 * 2 ** 20);
    assert.throws(() => build({ f: records([large, large], { storedAs: "msgpack_ragged" }) }), {
      code: "SCHEMA",
      message: /more than 104857600 bytes as MessagePack.*json_ragged/,
    });
  });
});
