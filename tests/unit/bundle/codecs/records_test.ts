import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { records, tensor } from "../../../../src/batch/build.ts";
import type { Column } from "../../../../src/batch/column.ts";
import type { JsonObject } from "../../../../src/batch/json.ts";
import { rowsOf } from "../../../../src/batch/rows.ts";
import { RowSet } from "../../../../src/batch/rowset.ts";
import { Tensor } from "../../../../src/batch/tensor.ts";
import { build, column, goldenCase, open, openGolden, plain, stored } from "../helpers.ts";

function roundTrip(rows: readonly unknown[], selected?: RowSet): Column {
  const built = build({ r: records(rows) });
  const objects = stored(built);
  return column(objects, open(objects, built.bundle.manifestKey), "r", selected);
}

/** The codec of each leaf by its path. */
function leaves(rows: readonly unknown[]): Record<string, string> {
  const { bundle } = build({ r: records(rows) });
  const metadata = bundle.facts!.encoded.get("r")!.metadata as { leaves: { path: string; codec: string }[] };
  return Object.fromEntries(
    metadata.leaves.map(({ path, codec }) => [path.slice("non_tensor_batch.r".length), codec]),
  );
}

const pixels = tensor("uint8", [2, 2], [1, 2, 3, 4]);
const half = new Float16Array([1.5, 2.5]);
const raw = Uint8Array.of(0, 255);

describe("records", () => {
  const cases: Readonly<Record<string, readonly unknown[]>> = {
    "nothing": [],
    "nulls": [null, null],
    "plain JSON": [{ a: [1, { b: null }] }, [], "text", 3, true, null, { "é": 2n ** 70n }],
    "dicts with everything in them": [
      { id: 1, name: "a", ok: true, x: 0.5, pixels, half, raw, tags: ["u", "v"], none: null },
      { id: 2n ** 60n, name: null, pixels: null },
      null,
      {},
    ],
    "absent, null and null parents": [
      { a: { b: raw } },
      { a: { b: null } },
      { a: {} },
      { a: null },
      {},
      null,
    ],
    "lists of different lengths": [[raw], [], [null, raw, null], null, [raw, raw]],
    "lists of dicts of lists": [
      { turns: [{ images: [pixels, pixels], text: "a" }, { images: [] }] },
      { turns: [] },
      { turns: [{ images: null }, null, { text: "c" }] },
    ],
    "numbers that JSON does not know": [
      { loss: NaN, steps: [1, Infinity] },
      null,
      { loss: 0.5, steps: [-Infinity] },
      { "": -Infinity },
    ],
    "leaves at the root": [raw, null, Uint8Array.of(7)],
    "tensors at the root": [pixels, null, tensor("uint8", [1], [9])],
    "arrays at the root": [Int32Array.of(1, 2), Int32Array.of(), null],
    "keys that mean something in paths": [
      { "a.b": raw, "a": { "b": raw, "[0]": raw }, "\\": raw, "a\\.b": raw, "": raw, "0": raw, "é": raw },
    ],
    "a key that is __proto__": [JSON.parse('{"__proto__": {"x": 1}, "y": 2}')],
    "a key that is __proto__ beside bytes": [Object.fromEntries([["__proto__", raw], ["y", raw]])],
    "big integers of both signs": [{ raw, n: 2n ** 63n - 1n }, { raw, n: -(2n ** 63n) }],
    "unsigned big integers": [{ raw, n: 2n ** 64n - 1n }, { raw, n: 0 }],
    "integers beyond 64 bits": [{ raw, n: 2n ** 64n }, { raw, n: -1 }],
    "fractions, infinities and negative zero": [{ raw, n: 0.1 }, { raw, n: -Infinity }, { raw, n: -0 }, {
      raw,
      n: NaN,
    }],
    "JSON of several types at one place": [{ raw, v: 1 }, { raw, v: "1" }, { raw, v: [1] }, {
      raw,
      v: { w: 2 },
    }],
    "a Buffer": [{ b: raw.slice() }],
    "the same object twice": [{ a: { raw }, b: null }, { a: { raw }, b: null }].map((row) => ({
      ...row,
      b: row.a,
    })),
  };
  for (const [what, rows] of Object.entries(cases)) {
    it(`come back as they were: ${what}`, () => {
      assert.deepEqual(plain(roundTrip(rows)), plain(records(rows)));
      for (const selected of [[], [0], [rows.length - 1, 0, 0]]) {
        if (rows.length === 0 && selected.length > 0) continue;
        const picked = selected.map((row) => rows[row]);
        assert.deepEqual(plain(roundTrip(rows, RowSet.of(selected))), plain(records(picked)));
      }
    });
  }

  it("are taken apart only where JSON does not do", () => {
    assert.deepEqual(
      leaves([{ a: { b: [1, 2], c: { d: null } }, n: 1, x: 0.5, s: "t", f: true, raw, half, pixels }]),
      {
        ".a": "json_ragged",
        ".f": "ndarray",
        ".half": "typed_ragged",
        ".n": "ndarray",
        ".pixels": "ragged_tensor",
        ".raw": "bytes_ragged",
        ".s": "utf8_ragged",
        ".x": "ndarray",
      },
    );
    assert.deepEqual(leaves([{ a: 1 }, { b: [2] }]), { "": "json_ragged" });
  });

  it("keep dtypes of arrays and tensors", () => {
    const [row] = rowsOf(roundTrip([{ half, pixels, bits: tensor("bool", [2], [true, false]) }])).toArray();
    const { half: array, pixels: image, bits } = row as { half: unknown; pixels: Tensor; bits: Tensor };
    assert.ok(array instanceof Float16Array);
    assert.deepEqual([image.dtype, image.shape, bits.dtype], ["uint8", [2, 2], "bool"]);
  });

  const wrong: readonly (readonly [what: string, rows: readonly unknown[], message: RegExp])[] = [
    ["undefined inside", [{ raw, a: undefined }], /non_tensor_batch\.r\.a has a value of the type undefined/],
    ["undefined in JSON", [{ raw, a: [undefined] }], /non_tensor_batch\.r\.a: .*undefined/],
    ["dates", [{ raw, a: new Date(0) }], /non_tensor_batch\.r\.a .*Date/],
    ["maps", [{ raw, a: [new Map()] }], /non_tensor_batch\.r\.a: .*Map/],
    ["symbols", [{ raw, a: Symbol("x") }], /non_tensor_batch\.r\.a .*Symbol/],
    ["DataViews", [{ a: new DataView(new ArrayBuffer(2)) }], /non_tensor_batch\.r\.a .*DataView/],
    ["bytes beside text", [{ a: raw }, { a: "x" }], /\.a is bytes in some rows and string in others/],
    ["arrays beside lists", [{ a: half }, { a: [1] }], /\.a is array in some rows and list in others/],
    [
      "dicts of bytes beside lists",
      [{ a: { raw } }, { a: [1] }],
      /\.a is a dict in some rows and a list in others/,
    ],
    [
      "arrays of several dtypes",
      [{ a: half }, { a: new Float32Array(1) }],
      /\.a is float16 in some rows and float32/,
    ],
    ["bfloat16", [{ a: tensor("bfloat16", [1], [1]) }], /\.a is bfloat16, which NumPy does not have/],
    ["half a surrogate pair", [{ raw, a: "\ud800" }], /\.a: /],
    ["a key with half a surrogate pair", [{ "\ud800": raw }], /half of a surrogate pair/],
    ["infinities beside text", [{ a: [Infinity] }, { a: ["text"] }], /\.a\[0\]: .*Infinity/],
    [
      "very many keys",
      [Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`k${i}`, raw]))],
      /more than 4096/,
    ],
    [
      "very long lists with bytes",
      [Array.from({ length: 5000 }, (_, i) => i === 0 ? { raw } : raw)],
      /lists of 5000 items/,
    ],
  ];
  for (const [what, rows, message] of wrong) {
    it(`refuse ${what}, naming field and path`, () => {
      assert.throws(
        () => build({ r: records(rows) }),
        (error: Error & { code?: string; details?: { field?: string } }) => {
          assert.equal(error.code, "SCHEMA");
          assert.match(error.message, message);
          assert.equal(error.details!.field, "r");
          return true;
        },
      );
    });
  }

  it("refuse cycles", () => {
    const cycle: Record<string, unknown> = { raw };
    cycle.self = cycle;
    assert.throws(() => build({ r: records([cycle]) }), { code: "SCHEMA" });
    const list: unknown[] = [];
    list.push(list, list);
    assert.throws(() => build({ r: records([list]) }), { code: "SCHEMA" });
  });

  it("take objects that are shared many times over in time", () => {
    let shared: unknown = { raw };
    for (let i = 0; i < 100; i++) shared = i < 90 ? { only: shared } : { only: shared, n: i };
    assert.deepEqual(plain(roundTrip([shared])), plain(records([shared])));
    let json: unknown = 1;
    for (let i = 0; i < 12; i++) json = [json, json];
    assert.deepEqual(plain(roundTrip([{ raw, json }])), plain(records([{ raw, json }])));
  });
});

describe("structured_recursive of other writers", () => {
  const item = goldenCase("recursive");
  const { handle, objects, bundle } = openGolden(item);
  const encoded = handle.encodedNonTensor.get("d")!;

  function changed(
    change: (metadata: Record<string, never[]> & Record<string, unknown>) => void,
  ): () => unknown {
    const metadata = structuredClone(encoded.metadata) as Record<string, never[]>;
    change(metadata);
    const fields = new Map([["d", { ...encoded, metadata: metadata as unknown as JsonObject }]]);
    return () => column(objects, open(objects, bundle.manifestKey, fields), "d");
  }

  type Spec = Record<string, unknown>;
  const wrong: readonly (readonly [
    what: string,
    change: (metadata: { nodes: Spec[]; leaves: Spec[] } & Spec) => void,
  ])[] = [
    ["nodes that are no list", (metadata) => metadata.nodes = {} as Spec[]],
    ["no leaves", (metadata) => metadata.leaves = []],
    ["a node without a mask", (metadata) => delete metadata.nodes[0]!.row_mask_payload],
    ["no root", (metadata) => metadata.root_path = "x"],
    ["a root that is no text", (metadata) => metadata.root_path = 3],
    ["a node of another type", (metadata) => metadata.nodes[0]!.node_type = "set"],
    ["a node without path", (metadata) => delete metadata.nodes[0]!.path],
    ["a child that is not there", (metadata) => metadata.nodes[0]!.children = ["q", "s", "x", "y"]],
    ["children that are numbers", (metadata) => metadata.nodes[0]!.children = [0]],
    [
      "a list with other children",
      (metadata) => Object.assign(metadata.nodes[1]!, { node_type: "list", children: [1] }),
    ],
    ["a node that is its own child", (metadata) => metadata.nodes[1]!.path = "non_tensor_batch.d"],
    ["a mask that is not there", (metadata) => metadata.nodes[0]!.row_mask_payload = "node.9.row_mask"],
    [
      "lengths that are masks of another size",
      (metadata) => metadata.nodes[0]!.lengths_payload = "leaf.0.offsets",
    ],
    ["a leaf that is text", (metadata) => metadata.leaves[0] = "x" as unknown as Spec],
    ["a leaf without members", (metadata) => delete metadata.leaves[0]!.payload_members],
    ["a leaf without missing", (metadata) => delete (metadata.leaves[0]!.payload_members as Spec).missing],
    [
      "a leaf with members that are not there",
      (metadata) => (metadata.leaves[0]!.payload_members as Spec).data = "x",
    ],
    ["a leaf without a part", (metadata) => delete (metadata.leaves[0]!.payload_members as Spec).data],
    [
      "a leaf of an array for data",
      (metadata) => (metadata.leaves[2]!.payload_members as Spec).shapes = "leaf.2.ndims",
    ],
  ];
  for (const [what, change] of wrong) {
    it(`with ${what} is corrupt`, () => {
      assert.throws(changed(change as never), { code: "CORRUPT" });
    });
  }

  it("with leaves of unknown codecs is not supported", () => {
    for (const codec of ["arrow", "structured_recursive"]) {
      assert.throws(changed((metadata) => Object.assign(metadata.leaves![0]!, { codec })), {
        code: "SCHEMA",
      });
    }
  });

  it("with longer lists than it has items is corrupt, not a huge list", () => {
    const rows = [[{ b: Uint8Array.of(1) }], [{ b: Uint8Array.of(2) }, { b: Uint8Array.of(3) }]];
    const built = build({ r: records(rows) });
    const ours = stored(built);
    const key = `${built.bundle.objectId}/buffer/non_tensor_batch.r.node.0.lengths`;
    new DataView(ours.get(key)!.buffer).setBigInt64(8, 2n ** 40n, true);
    assert.throws(() => column(ours, built.bundle, "r"), {
      code: "CORRUPT",
      message: /list of 1099511627776 items/,
    });
    assert.deepEqual(plain(column(ours, built.bundle, "r", RowSet.of([0]))), plain(records([rows[0]])));
  });
});
