/**
 * Random columns that TypeScript and Mooncake's Python class can both hold.
 *
 * @module
 */

import type { Kind, StoredAs } from "../../../src/batch/column.ts";
import {
  bytesOf,
  type DType,
  DTYPES,
  isFloat,
  isNumericDType,
  newArray,
  type NumericDType,
} from "../../../src/batch/dtype.ts";
import type { Random } from "../../support/runtime.ts";
import { type ArrayValue, hexOf, numberOut, type Row, type Values } from "./neutral.ts";

/** The dtypes NumPy has. */
export const NUMPY_DTYPES: readonly NumericDType[] = DTYPES.filter(isNumericDType);

/** A column, and how Python is to write it. */
export interface Field {
  readonly name: string;
  /** What it is in TypeScript. */
  readonly kind: Kind;
  readonly dtype?: DType;
  readonly values: Values;
  /** How TypeScript is to store it, where not in its kind's own way. */
  readonly storedAs?: StoredAs;
  /** What Python is told: a declared codec, or the section of an array. Without a codec Python infers one. */
  readonly python: {
    readonly codec?: string;
    readonly metadata?: { readonly dtype: string };
    readonly section?: "batch" | "non_tensor_batch";
    /** The byte order in which Python holds and stores an array. */
    readonly order?: ">";
  };
}

/** A field as `server.py` takes it. */
export function fieldForPython({ name, values, python }: Field): unknown {
  const { order, ...rest } = python;
  return "array" in values
    ? { name, array: { ...values.array, order }, ...rest }
    : { name, rows: values.rows, ...rest };
}

type Make = (random: Random, rows: number) => Omit<Field, "name">;

/** What Python can write, by the codec it uses. */
const PYTHON: Readonly<Record<string, Make>> = {
  dense: (random, rows) => {
    const array = denseArray(random, rows, random.pick(NUMPY_DTYPES));
    const section = random.chance(0.3) ? "non_tensor_batch" : "batch";
    return {
      kind: "tensor",
      values: { array },
      python: { section, ...(random.chance(0.2) ? { order: ">" } : {}) },
    };
  },
  ndarray: (random, rows) => {
    const dtype = random.pick(NUMPY_DTYPES);
    return {
      kind: "scalars",
      dtype,
      values: { rows: nullable(random, rows, () => numbers(random, dtype, 1)[0] as Row) },
      python: { codec: "ndarray", metadata: { dtype } },
    };
  },
  "typed_ragged of lists": (random, rows) => raggedField(random, rows, "list"),
  "typed_ragged of arrays": (random, rows) => raggedField(random, rows, "ndarray"),
  utf8_ragged: (random, rows) => ({
    kind: "strings",
    values: { rows: nullable(random, rows, () => text(random)) },
    python: { codec: "utf8_ragged" },
  }),
  bytes_ragged: (random, rows) => ({
    kind: "bytes",
    values: { rows: nullable(random, rows, () => someBytes(random)) },
    python: { codec: "bytes_ragged" },
  }),
  json_ragged: (random, rows) => ({
    kind: "json",
    // Python writes NaN and infinities as bare words
    values: { rows: nullable(random, rows, () => jsonValue(random, 3, { special: true })) },
    python: { codec: "json_ragged" },
  }),
  msgpack_ragged: (random, rows) => ({
    kind: "records",
    values: {
      rows: nullable(
        random,
        rows,
        () => dict(random, 4, () => jsonValue(random, 3, { special: true, msgpack: true })),
      ),
    },
    python: { codec: "msgpack_ragged" },
  }),
  media_bytes: (random, rows) => ({
    kind: "bytes",
    values: { rows: nullable(random, rows, () => someBytes(random)) },
    python: { codec: "media_bytes" },
  }),
  media_list_ragged: (random, rows) => ({
    kind: "records",
    values: { rows: nullable(random, rows, () => list(random, 4, () => someBytes(random))) },
    python: { codec: "media_list_ragged" },
  }),
  structured_recursive: (random, rows) => ({
    kind: "records",
    values: { rows: recordRows(random, rows) },
    python: {},
  }),
};

/** What TypeScript can write, by kind. */
const TYPESCRIPT: Readonly<Record<string, Make>> = {
  tensor: (random, rows) => ({
    kind: "tensor",
    values: { array: denseArray(random, rows, random.pick(NUMPY_DTYPES)) },
    python: {},
  }),
  scalars: PYTHON.ndarray as Make,
  "ragged of lists": PYTHON["typed_ragged of lists"] as Make,
  "ragged of arrays": PYTHON["typed_ragged of arrays"] as Make,
  strings: PYTHON.utf8_ragged as Make,
  bytes: PYTHON.bytes_ragged as Make,
  json: (random, rows) => ({
    kind: "json",
    values: { rows: nullable(random, rows, () => jsonValue(random, 3, {})) },
    python: {},
  }),
  records: PYTHON.structured_recursive as Make,
  "records as msgpack": (random, rows) => ({
    ...PYTHON.msgpack_ragged!(random, rows),
    storedAs: "msgpack_ragged",
  }),
  "bytes as media": (random, rows) => ({ ...PYTHON.media_bytes!(random, rows), storedAs: "media_bytes" }),
  "lists of bytes": (random, rows) => ({
    ...PYTHON.media_list_ragged!(random, rows),
    storedAs: "media_list_ragged",
  }),
};

/** The columns that one side can write, by name. */
export const WRITERS: Readonly<Record<"python" | "typescript", Readonly<Record<string, Make>>>> = {
  python: PYTHON,
  typescript: TYPESCRIPT,
};

/** One to five random columns of one side; `prefix` keeps their names apart from others'. */
export function randomFields(random: Random, side: keyof typeof WRITERS, rows: number, prefix = ""): Field[] {
  const makers = Object.values(WRITERS[side]);
  // Python cannot infer a codec from no rows, nor from nulls alone
  const usable = rows > 0
    ? makers
    : makers.filter((make) => make !== PYTHON.structured_recursive || side !== "python");
  return Array.from({ length: 1 + random.int(5) }, (_, i) => ({
    name: `${prefix}${random.pick(["x", "input ids", "名前", "a.b", "é\u2028", '"', "..", "𝄞"])}${i}`,
    ...random.pick(usable)(random, rows),
  }));
}

/** A field of one kind of writer. */
export function fieldOf(side: keyof typeof WRITERS, writer: string, random: Random, rows: number): Field {
  return { name: writer, ...WRITERS[side][writer]!(random, rows) };
}

/** An array of random numbers, rows first. */
export function denseArray(random: Random, rows: number, dtype: DType): ArrayValue {
  const inner = random.pick([[], [], [1], [3], [2, 3], [1, 1, 2], [0]]);
  const shape = [rows, ...inner];
  return { dtype, shape, hex: elements(random, dtype, shape.reduce((size, n) => size * n, 1)).hex };
}

function raggedField(random: Random, rows: number, format: "list" | "ndarray"): Omit<Field, "name"> {
  const dtype = random.pick(NUMPY_DTYPES);
  const dimensions = random.chance(0.7) ? 1 : 2;
  const row = (): Row => {
    const shape = Array.from({ length: dimensions }, () => random.int(5));
    const count = shape.reduce((size, n) => size * n, 1);
    if (format === "ndarray") return { $a: dtype, shape, hex: elements(random, dtype, count).hex };
    const flat = numbers(random, dtype, count);
    const [length = 0, width = 0] = shape;
    // a nested list without items has lost its inner dimension
    if (dimensions === 1 || length === 0) return flat;
    return Array.from({ length }, (_, i) => flat.slice(i * width, (i + 1) * width));
  };
  return {
    kind: "ragged",
    dtype,
    values: { rows: nullable(random, rows, row) },
    python: { codec: "typed_ragged", metadata: { dtype } },
  };
}

/** Random elements: small, extreme, and any bits, with one form of NaN. */
function elements(
  random: Random,
  dtype: DType,
  count: number,
): { readonly hex: string; readonly numbers: Row[] } {
  const array = newArray(dtype, count);
  const raw = bytesOf(array);
  for (let i = 0; i < raw.length; i++) raw[i] = dtype === "bool" ? random.int(2) : random.int(256);
  for (let i = 0; i < count; i++) {
    if (dtype === "bool" || random.chance(0.3)) continue;
    if (isFloat(dtype)) {
      array[i] = random.pick([0, -0, 1, 0.5, -3, Infinity, -Infinity, NaN, random.int(2000) / 8]);
    } else array[i] = (typeof array[i] === "bigint" ? BigInt(random.int(100)) : random.int(100)) as never;
  }
  if (isFloat(dtype)) { for (let i = 0; i < count; i++) if (Number.isNaN(array[i])) array[i] = NaN as never; }
  return {
    hex: hexOf(raw),
    numbers: Array.from(
      array as ArrayLike<number | bigint>,
      (n) => dtype === "bool" ? n !== 0 : numberOut(n),
    ),
  };
}

function numbers(random: Random, dtype: DType, count: number): Row[] {
  return elements(random, dtype, count).numbers;
}

/** Rows of which some are null: few, none or all. */
function nullable(random: Random, rows: number, make: () => Row): Row[] {
  const chance = random.pick([0, 0.2, 0.2, 0.9, 1]);
  return Array.from({ length: rows }, () => random.chance(chance) ? null : make());
}

function text(random: Random): string {
  const words = [
    "",
    "a",
    "two words",
    "\u0000",
    "\ufeffbom",
    "日本語",
    "𝄞😀",
    "\ufffd",
    '"\\\n',
    "x".repeat(300),
  ];
  return Array.from({ length: random.int(3) }, () => random.pick(words)).join("");
}

function someBytes(random: Random): Row {
  const data = new Uint8Array(random.pick([0, 1, 5, 40]));
  for (let i = 0; i < data.length; i++) data[i] = random.int(256);
  return { $b: hexOf(data) };
}

function list(random: Random, most: number, make: () => Row): Row[] {
  return Array.from({ length: random.int(most) }, make);
}

function dict(random: Random, most: number, make: () => Row): Row {
  const names = [
    "a",
    "",
    "b c",
    "1",
    "10",
    "2",
    "__proto__",
    "é",
    "𝄞",
    "\uffff",
    "constructor",
    "x.y",
    "z[0]",
    "w\\",
  ];
  const keys = new Set(Array.from({ length: random.int(most) }, () => random.pick(names)));
  return { $d: [...keys].sort((a, b) => a < b ? -1 : 1).map((key) => [key, make()]) };
}

interface JsonOptions {
  /** NaN and infinities. */
  readonly special?: boolean;
  /** Bytes, and no integers of more than 64 bits. */
  readonly msgpack?: boolean;
}

function jsonValue(random: Random, depth: number, options: JsonOptions): Row {
  const kinds = depth > 0 ? 8 : 6;
  switch (random.int(kinds)) {
    case 0:
      return random.pick([null, true, false]);
    case 1:
      return text(random);
    case 2:
      return random.pick([
        0,
        1,
        -1,
        127,
        128,
        255,
        256,
        65536,
        2 ** 32,
        -(2 ** 31) - 1,
        Number.MAX_SAFE_INTEGER,
      ]);
    case 3: {
      const big = [
        2n ** 53n,
        -(2n ** 63n),
        2n ** 64n - 1n,
        ...(options.msgpack ? [] : [10n ** 40n, -(10n ** 30n)]),
      ];
      return numberOut(random.pick(big));
    }
    case 4:
      return numberOut(
        random.pick([0.1, -1.5, 1e300, 5e-324, -0, ...(options.special ? [NaN, Infinity, -Infinity] : [])]),
      );
    case 5:
      return options.msgpack ? someBytes(random) : text(random);
    case 6:
      return list(random, 4, () => jsonValue(random, depth - 1, options));
    default:
      return dict(random, 4, () => jsonValue(random, depth - 1, options));
  }
}

/** What is at one place in every record: records of one column have one form. */
type Form = (random: Random) => Row;

function recordForm(random: Random, depth: number): Form {
  const dtype = random.pick(NUMPY_DTYPES.filter((dtype) => dtype !== "bool" && dtype !== "uint8"));
  switch (random.int(depth > 0 ? 7 : 5)) {
    case 0:
      return (random) => {
        const length = random.int(4);
        return { $a: dtype, shape: [length], hex: elements(random, dtype, length).hex };
      };
    case 1:
      return someBytes;
    case 2:
      return text;
    case 3:
      return (random) => random.int(1000) - 500;
    case 4:
      return (random) => numberOut(random.int(1000) / 7);
    case 5: {
      const item = recordDict(random, depth - 1);
      return (random) => list(random, 4, () => random.chance(0.2) ? null : item(random));
    }
    default:
      return recordDict(random, depth - 1);
  }
}

function recordDict(random: Random, depth: number): Form {
  const names = ["a", "b.c", "d[0]", "e\\", "é", "__proto__", "10"].filter(() => random.chance(0.4));
  const forms = names.sort((a, b) => a < b ? -1 : 1).map((name) =>
    [name, recordForm(random, depth)] as const
  );
  return (random) => ({
    $d: forms.filter(() => random.chance(0.8)).map((
      [name, form],
    ) => [name, random.chance(0.1) ? null : form(random)]),
  });
}

/** Rows of one nested form, with bytes in the first: without any, Python would choose another codec for all of them. */
function recordRows(random: Random, rows: number): Row[] {
  const form = recordDict(random, 2);
  const out = nullable(random, rows, () => form(random));
  const blob = (row: Row): Row => {
    const entries = row === null || typeof row !== "object" || !("$d" in row) ? [] : row.$d;
    return { $d: [...entries, ["zz", someBytes(random)] as const].sort(([a], [b]) => a < b ? -1 : 1) };
  };
  return out.map((row, i) => i === 0 ? blob(form(random)) : row);
}
