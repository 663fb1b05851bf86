import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RowSet } from "../../../src/batch/rowset.ts";
import { Tensor } from "../../../src/batch/tensor.ts";
import { writeTensorHeader } from "../../../src/bundle/tensor_header.ts";
import { readTensorInto, tensorPlace } from "../../../src/bundle/read.ts";
import {
  assertTagged,
  column,
  goldenCase,
  handField,
  handmade,
  type HandMember,
  ndarray,
  objectsOf,
  open,
  rawBytes,
  run,
  toBytes,
  values,
} from "./helpers.ts";

function torch(spec: HandMember["spec"], header: Uint8Array, data: Uint8Array): HandMember {
  const bytes = new Uint8Array(header.length + data.length);
  bytes.set(header);
  bytes.set(data, header.length);
  return { spec, bytes };
}

const text = {
  data: rawBytes(toBytes("hiyou")),
  offsets: ndarray("<i8", [4], [0, 2, 2, 5]),
  nulls: ndarray("|b1", [3], [0, 1, 0]),
};

describe("tensors of other writers", () => {
  it("a torch tensor without dtype and shape is read by its header", () => {
    const data = Uint8Array.of(1, 2, 3, 4, 5, 6);
    const made = handmade(3, {
      "batch.x": torch({ encoding: "torch_tensor" }, writeTensorHeader("int8", [3, 2]), data),
    });
    const field = made.bundle.fields.get("x")!;
    assert.deepEqual([field.kind, field.dtype, field.problem], ["tensor", undefined, undefined]);
    assert.equal(tensorPlace(made.bundle, "x"), undefined);
    const result = column(made.objects, made.bundle, "x", RowSet.of([2, 0])) as Tensor;
    assert.deepEqual([result.dtype, result.shape, [...result.bytes]], ["int8", [2, 2], [5, 6, 1, 2]]);
  });

  it("the header is trusted where the metadata does not fit the payload", () => {
    const header = new Uint8Array(320);
    header.set(writeTensorHeader("int16", [2]));
    new DataView(header.buffer).setBigUint64(24, 320n, true);
    const spec = { encoding: "torch_tensor", dtype: "torch.int16", shape: [2] };
    const made = handmade(2, { "batch.x": torch(spec, header, Uint8Array.of(1, 0, 2, 0)) });
    assert.deepEqual([...(column(made.objects, made.bundle, "x") as Tensor).data], [1, 2]);
  });

  it("a torch scalar has one row", () => {
    const spec = { encoding: "torch_tensor", dtype: "torch.float64", shape: [] };
    const made = handmade(1, { "batch.x": torch(spec, writeTensorHeader("float64", []), new Uint8Array(8)) });
    assert.deepEqual((column(made.objects, made.bundle, "x") as Tensor).shape, [1]);
  });

  it("big-endian numbers are turned round, and never used in place", () => {
    const made = handmade(3, { "batch.x": ndarray(">i2", [3, 2], [1, 2, 3, 4, 5, 6]) });
    assert.equal(tensorPlace(made.bundle, "x"), undefined);
    assert.deepEqual([...(column(made.objects, made.bundle, "x", RowSet.of([2, 2])) as Tensor).data], [
      5,
      6,
      5,
      6,
    ]);
    const out = new Uint8Array(12);
    run(
      made.objects,
      made.bundle,
      readTensorInto(made.bundle, "x", RowSet.of([2, 0]), out, RowSet.of([0, 2])),
    );
    assert.deepEqual([...new Int16Array(out.buffer)], [5, 6, 0, 0, 1, 2]);
  });

  it("dense arrays and bytes beside encoded fields are tensors too", () => {
    const made = handmade(3, {
      "non_tensor_batch.x": ndarray("<f8", [3], [1, 2, 3]),
      "batch.raw": rawBytes(Uint8Array.of(7, 8, 9)),
    });
    assert.deepEqual([...made.bundle.fields.values()].map(({ name, section }) => [name, section]), [
      ["x", "non_tensor_batch"],
      ["raw", "batch"],
    ]);
    assert.deepEqual([...(column(made.objects, made.bundle, "x") as Tensor).data], [1, 2, 3]);
    assert.deepEqual((column(made.objects, made.bundle, "raw", RowSet.of([1])) as Tensor).toNested(), [8]);
  });

  const unreadable: readonly (readonly [what: string, member: HandMember, code: string, message: RegExp])[] =
    [
      [
        "text",
        { spec: { encoding: "ndarray", dtype: "<U1", shape: [2] }, bytes: new Uint8Array(8) },
        "SCHEMA",
        /unsupported dtype <U1/,
      ],
      [
        "byte strings",
        { spec: { encoding: "ndarray", dtype: "|S4", shape: [2] }, bytes: new Uint8Array(8) },
        "SCHEMA",
        /unsupported dtype \|S4/,
      ],
      [
        "dates",
        { spec: { encoding: "ndarray", dtype: "<M8[ns]", shape: [2] }, bytes: new Uint8Array(16) },
        "SCHEMA",
        /unsupported dtype <M8\[ns\]/,
      ],
      [
        "complex numbers",
        { spec: { encoding: "ndarray", dtype: "<c8", shape: [2] }, bytes: new Uint8Array(16) },
        "SCHEMA",
        /unsupported dtype <c8/,
      ],
      [
        "void",
        { spec: { encoding: "ndarray", dtype: "|V2", shape: [2] }, bytes: new Uint8Array(4) },
        "SCHEMA",
        /unsupported dtype/,
      ],
      [
        "no dtype",
        { spec: { encoding: "ndarray", shape: [2] }, bytes: new Uint8Array(4) },
        "SCHEMA",
        /unsupported dtype/,
      ],
      [
        "an unknown encoding",
        { spec: { encoding: "zstd" }, bytes: new Uint8Array(4) },
        "SCHEMA",
        /unknown encoding "zstd"/,
      ],
      ["nine dimensions", ndarray("|i1", [2, 1, 1, 1, 1, 1, 1, 1, 1], [1, 2]), "SCHEMA", /9 dimensions/],
      [
        "pickle",
        {
          ...rawBytes(new Uint8Array(4)),
          spec: { encoding: "torch_tensor" },
          payload: { format: "torch_save" },
        },
        "SCHEMA",
        /field "x" .* torch_save/,
      ],
      [
        "a nested tensor in pickle",
        {
          spec: { encoding: "torch_tensor", dtype: "torch.int8", nested: true, format: "torch_save" },
          bytes: new Uint8Array(9),
        },
        "SCHEMA",
        /field "x" .* torch_save/,
      ],
      [
        "other rows than the bundle",
        ndarray("<i4", [3], [1, 2, 3]),
        "CORRUPT",
        /has 3 rows, but its bundle has 2/,
      ],
      ["no dimensions", ndarray("<i4", [], [1]), "CORRUPT", /has no rows/],
      [
        "a shape that needs more bytes",
        { ...ndarray("<i4", [2], [1, 2]), spec: { encoding: "ndarray", dtype: "<i4", shape: [2, 1000] } },
        "CORRUPT",
        /8 bytes for the shape \[2,1000\]/,
      ],
      [
        "a shape beyond all numbers",
        {
          ...ndarray("<i4", [2], [1, 2]),
          spec: { encoding: "ndarray", dtype: "<i4", shape: [2, 2 ** 52, 2 ** 52] },
        },
        "CORRUPT",
        /for the shape/,
      ],
      ["bytes of another number", rawBytes(new Uint8Array(3)), "CORRUPT", /3 rows/],
      [
        "a torch tensor without room for a header",
        { spec: { encoding: "torch_tensor" }, bytes: new Uint8Array(9) },
        "CORRUPT",
        /wrong length/,
      ],
      [
        "a torch tensor without header",
        { spec: { encoding: "torch_tensor" }, bytes: new Uint8Array(400) },
        "CORRUPT",
        /wrong magic/,
      ],
      [
        "a header of other rows",
        torch({ encoding: "torch_tensor" }, writeTensorHeader("int8", [4]), new Uint8Array(4)),
        "CORRUPT",
        /has 4 rows/,
      ],
    ];
  for (const [what, member, code, message] of unreadable) {
    it(`${what}: an error that names the field, and other fields can be read`, () => {
      const made = handmade(2, { "batch.x": member, "batch.y": ndarray("|u1", [2], [4, 5]) });
      assert.throws(() => column(made.objects, made.bundle, "x"), { code, message });
      assert.deepEqual([...(column(made.objects, made.bundle, "y") as Tensor).data], [4, 5]);
    });
  }
});

describe("fields of bundles", () => {
  it("fields without their handle are there, and say what is missing", () => {
    for (const name of ["strings", "scalars", "ints_ragged", "recursive", "dict_msgpack"]) {
      const item = goldenCase(name);
      const bundle = open(objectsOf(item), "rl/p0/00000000000000000000000000000002/manifest");
      assert.deepEqual([...bundle.fields.keys()], Object.keys(item.decoded!.non_tensor_batch));
      const [field] = bundle.fields.values();
      assert.throws(() => column(objectsOf(item), bundle, field!.name), {
        code: "SCHEMA",
        message: /through the handle/,
      });
    }
  });

  it("a handle's encodings of other stages are left alone", () => {
    const made = handField(3, "utf8_ragged", {}, text);
    const encoded = new Map([
      ["f", {
        codec: "utf8_ragged",
        rows: 3,
        metadata: {},
        payloadMembers: new Map(Object.keys(text).map((part) => [part, `non_tensor_batch.f.${part}`])),
      }],
      ["g", {
        codec: "utf8_ragged",
        rows: 3,
        metadata: {},
        payloadMembers: new Map([["data", "non_tensor_batch.g.data"]]),
      }],
    ]);
    const bundle = open(made.objects, made.bundle.manifestKey, encoded);
    assert.deepEqual([...bundle.fields.keys()], ["f"]);
  });

  it("integers of other widths and byte orders are read", () => {
    for (
      const [offsets, nulls] of [["<i4", "|u1"], [">i8", "|b1"], ["<u2", "|i1"], [">u4", "|b1"], [
        "|u1",
        "|b1",
      ], ["<u8", "|b1"]] as const
    ) {
      const made = handField(3, "utf8_ragged", {}, {
        data: text.data,
        offsets: offsets === "<u8"
          ? { ...text.offsets, spec: { ...text.offsets.spec, dtype: "<u8" } }
          : ndarray(offsets, [4], [0, 2, 2, 5]),
        nulls: ndarray(nulls, [3], [0, 1, 0]),
      });
      assert.deepEqual(values(made), ["hi", null, "you"]);
      assert.deepEqual(values(made, RowSet.of([2, 0])), ["you", "hi"]);
    }
  });

  it("a column without rows may lack its first offset", () => {
    const made = handField(0, "utf8_ragged", {}, {
      data: rawBytes(new Uint8Array(0)),
      offsets: ndarray("<i8", [0], []),
      nulls: ndarray("|b1", [0], []),
    });
    assert.deepEqual(values(made), []);
  });

  it("a column of nulls only is read", () => {
    const made = handField(2, "json_ragged", {}, {
      data: rawBytes(new Uint8Array(0)),
      offsets: ndarray("<i8", [3], [0, 0, 0]),
      nulls: ndarray("|b1", [2], [1, 1]),
    });
    assert.deepEqual(values(made), [null, null]);
    assert.deepEqual(values(made, RowSet.of([1])), [null]);
  });

  const corrupt:
    readonly (readonly [what: string, parts: Record<string, HandMember | undefined>, message: RegExp])[] = [
      [
        "offsets that go down",
        { offsets: ndarray("<i8", [4], [0, 3, 2, 5]) },
        /"offsets" that do not ascend at 2/,
      ],
      ["negative offsets", { offsets: ndarray("<i8", [4], [-1, 2, 2, 5]) }, /do not ascend at 0/],
      ["offsets beyond the data", { offsets: ndarray("<i8", [4], [0, 2, 2, 6]) }, /reach beyond its 5 bytes/],
      ["huge offsets", { offsets: ndarray("<i8", [4], [0, 2, 2, 2 ** 53]) }, /do not ascend|reach beyond/],
      [
        "offsets for fewer rows",
        { offsets: ndarray("<i8", [3], [0, 2, 5]) },
        /24 bytes of "offsets", not 32/,
      ],
      [
        "offsets for more rows",
        { offsets: ndarray("<i8", [5], [0, 2, 2, 5, 5]) },
        /40 bytes of "offsets", not 32/,
      ],
      ["nulls for other rows", { nulls: ndarray("|b1", [4], [0, 1, 0, 0]) }, /4 bytes of "nulls", not 3/],
      ["a null row with data", { nulls: ndarray("|b1", [3], [1, 0, 0]) }, /null row with data/],
      ["no offsets", { offsets: undefined }, /no part "offsets"/],
      ["no data", { data: undefined }, /no part "data"/],
      [
        "offsets that are fractions",
        { offsets: ndarray("<f8", [4], [0, 2, 2, 5]) },
        /"offsets" that are not integers/,
      ],
    ];
  for (const [what, changes, message] of corrupt) {
    it(`${what}: CorruptionError`, () => {
      const parts = Object.fromEntries(
        Object.entries({ ...text, ...changes }).filter((entry): entry is [string, HandMember] =>
          entry[1] !== undefined
        ),
      );
      const made = handField(3, "utf8_ragged", {}, parts);
      assert.throws(() => values(made), { code: "CORRUPT", message });
    });
  }

  it("offsets that are text: SchemaError", () => {
    const offsets = { spec: { encoding: "ndarray", dtype: "<U1", shape: [4] }, bytes: new Uint8Array(16) };
    assert.throws(() => values(handField(3, "utf8_ragged", {}, { ...text, offsets })), { code: "SCHEMA" });
  });

  it("an unknown codec: SchemaError", () => {
    const made = handField(3, "arrow", {}, text);
    assert.equal(made.bundle.fields.get("f")!.codec, "arrow");
    assert.throws(() => values(made), { code: "SCHEMA", message: /unknown codec "arrow"/ });
  });
});

describe("ragged rows of other writers", () => {
  const parts = {
    data: ndarray("<i4", [5], [1, 2, 3, 4, 5]),
    offsets: ndarray("<i8", [4], [0, 4, 4, 5]),
    shapes: ndarray("<i8", [3, 2], [2, 2, 0, 0, 1, 0]),
    ndims: ndarray("<i2", [3], [2, 0, 0]),
    nulls: ndarray("|b1", [3], [0, 1, 0]),
  };
  const lists = { dtype: "int32", row_format: "list" };

  it("rows of several dimensions and of none", () => {
    const made = handField(3, "typed_ragged", lists, parts);
    assert.deepEqual(values(made), [[[1, 2], [3, 4]], null, 5]);
    assert.deepEqual(values(made, RowSet.of([2])), [5]);
    const arrays = values(handField(3, "typed_ragged", { dtype: "int32", row_format: "ndarray" }, parts));
    assertTagged(arrays[0], { $ndarray: "<i4", shape: [2, 2], hex: "01000000020000000300000004000000" });
  });

  it("mixed rows come back as lists", () => {
    const metadata = { dtype: "int32", row_format: "mixed", ndarray_rows: [true, false, false] };
    assert.deepEqual(values(handField(3, "typed_ragged", metadata, parts)), [[[1, 2], [3, 4]], null, 5]);
  });

  it("without a dtype rows are int64, as Python reads them", () => {
    const made = handField(1, "typed_ragged", {}, {
      data: ndarray("<i8", [1], [-3]),
      offsets: ndarray("<i8", [2], [0, 1]),
      shapes: ndarray("<i8", [1, 1], [1]),
      ndims: ndarray("<i2", [1], [1]),
      nulls: ndarray("|b1", [1], [0]),
    });
    assert.deepEqual(values(made), [[-3]]);
    assert.equal(made.bundle.fields.get("f")!.dtype, "int64");
  });

  it("big-endian rows are turned round", () => {
    const data = ndarray(">i4", [5], [1, 2, 3, 4, 5]);
    const metadata = { dtype: ">i4", row_format: "list" };
    assert.deepEqual(values(handField(3, "typed_ragged", metadata, { ...parts, data })), [
      [[1, 2], [3, 4]],
      null,
      5,
    ]);
  });

  const corrupt: readonly (readonly [what: string, changes: Record<string, HandMember>])[] = [
    ["a shape of another size", { shapes: ndarray("<i8", [3, 2], [2, 3, 0, 0, 1, 0]) }],
    ["a negative size", { shapes: ndarray("<i8", [3, 2], [-2, -2, 0, 0, 1, 0]) }],
    ["more dimensions than shapes", { ndims: ndarray("<i2", [3], [3, 0, 0]) }],
    ["negative dimensions", { ndims: ndarray("<i2", [3], [-1, 0, 0]) }],
    ["no dimension for several elements", { ndims: ndarray("<i2", [3], [0, 0, 0]) }],
    ["shapes of other rows", { shapes: ndarray("<i8", [2, 2], [2, 2, 0, 0]) }],
    ["shapes of a huge size", {
      shapes: { ...parts.shapes, spec: { encoding: "ndarray", dtype: "<i8", shape: [3, 2 ** 40] } },
    }],
  ];
  for (const [what, changes] of corrupt) {
    it(`${what}: CorruptionError`, () => {
      const made = handField(3, "typed_ragged", lists, { ...parts, ...changes });
      assert.throws(() => values(made), { code: "CORRUPT" });
    });
  }

  for (const dtype of ["complex64", "object", "bfloat16", ""]) {
    it(`dtype ${JSON.stringify(dtype)}: SchemaError`, () => {
      const made = handField(3, "typed_ragged", { dtype, row_format: "list" }, parts);
      assert.throws(() => values(made), { code: "SCHEMA", message: /unsupported dtype/ });
    });
  }
});
