/**
 * Inputs made to cost more than they weigh: too large to keep as files, so they are made here.
 *
 * @module
 */

import type { Parts } from "./targets.ts";

/** An input, and the target it is for. */
export interface Grown {
  readonly bug: string;
  readonly target: string;
  make(): Parts;
}

const encoder = new TextEncoder();
const BASE = "rl/p0/00000000000000000000000000000001";

/** A part as another writer might have stored it. */
interface Part {
  readonly bytes: Uint8Array;
  /** Absent: raw bytes. */
  readonly dtype?: string;
  readonly shape?: readonly number[];
}

const mask = (rows: number): Part => ({ bytes: new Uint8Array(rows), dtype: "|b1", shape: [rows] });
const int64 = (...values: readonly number[]): Part => ({
  bytes: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
  dtype: "<i8",
  shape: [values.length],
});

/** A bundle of members by name, and a handle that says how they are encoded. */
function bundle(
  rows: number,
  members: Readonly<Record<string, Part>>,
  encoded: Readonly<Record<string, unknown>>,
): Parts {
  const parts = new Map<string, Uint8Array>();
  const place = (key: string, bytes: Uint8Array): unknown => {
    parts.set(key, bytes);
    return { key, bytes: bytes.length, chunks: bytes.length === 0 ? [] : [{ key, bytes: bytes.length }] };
  };
  const meta = {
    layout: "dataproto_stage",
    dataproto: { version: 1, namespace: "ns", partition: "p0", stage: "gen", batch_size: rows },
    __mooncake_structured_fields__: Object.fromEntries(
      Object.entries(members).map(([name, { dtype, shape }]) => [
        name,
        dtype === undefined ? { encoding: "bytes" } : { encoding: "ndarray", dtype, shape },
      ]),
    ),
  };
  const buffers = Object.fromEntries(
    Object.entries(members).map(([name, { bytes }]) => [name, place(`${BASE}/buffer/${name}`, bytes)]),
  );
  const metaPlace = place(`${BASE}/meta`, encoder.encode(JSON.stringify(meta)));
  const manifest = { version: 1, layout: "bundle", object_id: BASE.slice(3), meta: metaPlace, buffers };
  parts.set(`${BASE}/manifest`, encoder.encode(JSON.stringify(manifest)));
  const handle = {
    type: "mooncake_dataproto_ref",
    version: 1,
    kind: "bundle_stages",
    batch_size: rows,
    namespace: "ns",
    partition: "p0",
    global_indexes: null,
    stage_refs: { gen: { manifest_key: `${BASE}/manifest` } },
    field_index: {},
    meta_info: {},
    encoded_non_tensor: encoded,
  };
  parts.set("handle", encoder.encode(JSON.stringify(handle)));
  return parts;
}

/** A bundle with one encoded field `f`. */
function field(rows: number, codec: string, metadata: unknown, parts: Readonly<Record<string, Part>>): Parts {
  const name = (part: string): string => `non_tensor_batch.f.${part}`;
  const members = Object.fromEntries(Object.entries(parts).map(([part, value]) => [name(part), value]));
  const payload_members = Object.fromEntries(Object.keys(parts).map((part) => [part, name(part)]));
  return bundle(rows, members, { f: { codec, rows, metadata, payload_members } });
}

const ROWS = 20_000;
const times = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));

/** Columns of numbers, strings of one letter, and the like. */
function lines(count: number, line: string): string {
  return `${line}\n`.repeat(count);
}

function file(content: string | Uint8Array, schema?: unknown): Parts {
  const parts = new Map([["file", typeof content === "string" ? encoder.encode(content) : content]]);
  if (schema !== undefined) parts.set("schema", encoder.encode(JSON.stringify(schema)));
  return parts;
}

function safetensors(header: string, data = new Uint8Array(0)): Uint8Array {
  const text = encoder.encode(header);
  const out = new Uint8Array(8 + text.length + data.length);
  new DataView(out.buffer).setBigUint64(0, BigInt(text.length), true);
  out.set(text, 8);
  out.set(data, 8 + text.length);
  return out;
}

function npy(header: string): Uint8Array {
  const text = encoder.encode(header);
  const out = new Uint8Array(12 + text.length);
  out.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 2, 0]);
  new DataView(out.buffer).setUint32(8, text.length, true);
  out.set(text, 12);
  return out;
}

/** All of them. */
export const grown: readonly Grown[] = [
  {
    bug: "leaves of a structure that share their parts are each read again",
    target: "bundle",
    make: () =>
      field(ROWS, "structured_recursive", {
        root_path: "r",
        nodes: [],
        leaves: times(4000, (i) => ({
          path: i === 0 ? "r" : `r.${i}`,
          codec: "ndarray",
          payload_members: { data: "data", nulls: "nulls", missing: "missing" },
        })),
      }, { data: mask(ROWS), nulls: mask(ROWS), missing: mask(ROWS) }),
  },
  {
    bug: "nodes of a structure that share their masks are each made again",
    target: "bundle",
    make: () =>
      field(ROWS, "structured_recursive", {
        root_path: "r",
        nodes: times(4000, (i) => ({
          path: i === 0 ? "r" : `r.${i}`,
          node_type: "dict",
          children: [],
          missing_payload: "mask",
          row_mask_payload: "mask",
        })),
        leaves: [],
      }, { mask: mask(ROWS) }),
  },
  {
    bug: "a dict with one key ten thousand times",
    target: "bundle",
    make: () =>
      field(ROWS, "structured_recursive", {
        root_path: "r",
        nodes: [{
          path: "r",
          node_type: "dict",
          children: times(10_000, () => "a"),
          row_mask_payload: "mask",
        }],
        leaves: [{
          path: "r.a",
          codec: "ndarray",
          payload_members: { data: "data", nulls: "nulls", missing: "missing" },
        }],
      }, {
        mask: { ...mask(ROWS), bytes: new Uint8Array(ROWS).fill(1) },
        data: mask(ROWS),
        nulls: mask(ROWS),
        missing: mask(ROWS),
      }),
  },
  {
    bug: "a dict of tensors with one key ten thousand times",
    target: "bundle",
    make: () =>
      field(ROWS, "ragged_tensor_dict", { keys: times(10_000, () => "a"), key_codecs: { a: {} } }, {
        null_mask: mask(ROWS),
        "a.data": { bytes: new Uint8Array(0), dtype: "<f4", shape: [0] },
        "a.offsets": int64(...times(ROWS + 1, () => 0)),
        "a.shapes": { ...int64(...times(ROWS, () => 0)), shape: [ROWS, 1] },
        "a.ndims": int64(...times(ROWS, () => 1)),
        "a.nulls": mask(ROWS),
      }),
  },
  {
    bug: "parts that all name one member are each read again",
    target: "bundle",
    make: () => {
      const rows = 1_000_000;
      const made = bundle(rows, { "non_tensor_batch.f.nulls": mask(rows) }, {
        f: {
          codec: "ragged_tensor_dict",
          metadata: { keys: times(300, (i) => `k${i}`) },
          payload_members: Object.fromEntries([
            ["null_mask", "non_tensor_batch.f.nulls"],
            ...times(
              300,
              (i) =>
                ["data", "offsets", "shapes", "ndims", "nulls"].map((part) =>
                  [`k${i}.${part}`, "non_tensor_batch.f.nulls"] as const
                ),
            ).flat(),
          ]),
        },
      });
      return made;
    },
  },
  {
    bug: "members that look like parts of fields nobody knows are compared with one another",
    target: "bundle",
    make: () => {
      const empty: Part = { bytes: new Uint8Array(0) };
      return bundle(
        0,
        Object.fromEntries(times(8000, (i) => [`non_tensor_batch.${i}.null_mask`, empty])),
        {},
      );
    },
  },
  {
    bug: "members that look like parts of structures, and do not end as one",
    target: "bundle",
    make: () => {
      const empty: Part = { bytes: new Uint8Array(0) };
      return bundle(0, { [`non_tensor_batch.${"x.leaf.1.".repeat(20_000)}\u2028`]: empty }, {});
    },
  },
  {
    bug: "a JSONL file of many fields in its first line and nothing in the others",
    target: "jsonl",
    make: () => file(`{${times(4000, (i) => `"f${i}":1`).join()}}\n${lines(30_000, "{}")}`),
  },
  {
    bug: "a JSONL file of four thousand fields in one line",
    target: "jsonl",
    make: () => file(`{${times(4000, (i) => `"f${i}":1`).join()}}\n`),
  },
  {
    bug: "a JSONL string of two million escapes",
    target: "jsonl",
    make: () => file(`{"a":"${"\\n".repeat(2_000_000)}","b":[[1],"${"\\u0041".repeat(500_000)}"]}\n`),
  },
  {
    bug: "a JSONL value of a million brackets",
    target: "jsonl",
    make: () => file(`{"a":${"[".repeat(1_000_000)}${"]".repeat(1_000_000)}}\n`),
  },
  {
    bug: "a schema whose dtype is a list of four thousand levels",
    target: "jsonl",
    make: () => {
      const dtype = "[".repeat(4_000) + "]".repeat(4_000);
      return new Map([
        ...file(`{"a":[1]}\n`),
        ["schema", encoder.encode(`{"a":{"kind":"ragged","dtype":${dtype}}}`)],
      ]);
    },
  },
  {
    bug: "a safetensors key of four million escapes",
    target: "safetensors",
    make: () =>
      file(safetensors(`{"${"\\n".repeat(4_000_000)}":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`)),
  },
  {
    bug: "a safetensors header of a million brackets",
    target: "safetensors",
    make: () => file(safetensors("[".repeat(1_000_000))),
  },
  {
    bug: "an npy header with a string of a million escapes",
    target: "npy",
    make: () => file(npy(`{'descr': '${"\\n".repeat(2_000_000)}', 'fortran_order': False, 'shape': (0,), }`)),
  },
  {
    bug: "an npy header with a number of ten million digits",
    target: "npy",
    make: () =>
      file(npy(`{'descr': '<f4', 'fortran_order': False, 'shape': (${"1".repeat(10_000_000)},), }`)),
  },
  {
    bug: "a handle that is a million brackets",
    target: "handle",
    make: () => new Map([["handle", encoder.encode("[".repeat(1_000_000))]]),
  },
  {
    bug: "a handle of a million backslashes",
    target: "handle",
    make: () => new Map([["handle", encoder.encode(`{"type":"${"\\\\".repeat(1_000_000)}":"\\`)]]),
  },
];
