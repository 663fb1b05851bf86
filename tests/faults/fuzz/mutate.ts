/**
 * Damage: edits of JSON trees, and edits of bytes.
 *
 * @module
 */

import type { Random } from "../../support/runtime.ts";

/** JSON that may say anything: keys twice, numbers of any length, what no parser makes. */
type Node = string | Node[] | { readonly entries: [key: string, value: Node][] };

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Numbers that programs trip over; they stand for bytes, counts and offsets alike. */
const NUMBERS = [
  "0",
  "1",
  "2",
  "3",
  "7",
  "8",
  "64",
  "255",
  "256",
  "1000",
  "65535",
  "65536",
  "1048576",
  "2147483647",
  "2147483648",
  "4294967294",
  "4294967295",
  "4294967296",
  "1099511627776",
  "9007199254740991",
  "9007199254740992",
  "9007199254740993",
  "18446744073709551615",
  "123456789012345678901234567890",
  "-1",
  "-2",
  "-2147483648",
  "-9007199254740991",
  "-0",
  "-0.0",
  "0.5",
  "1.5",
  "1e3",
  "1e100",
  "1e308",
  "1e400",
  "NaN",
  "Infinity",
  "-Infinity",
];

const OTHERS = [
  "null",
  "true",
  "false",
  '""',
  '"a"',
  '"__proto__"',
  '"\\ud800"',
  '"\\u0000"',
  '"\u2028"',
  '"/"',
  '"../../x"',
  '"0"',
  '"toString"',
  '"😀"',
  "[]",
  "{}",
  "[[]]",
  "[{}]",
  "[null]",
  "[0]",
  "[-1]",
  "[1,2,3]",
  '{"__proto__":{"rows":1,"length":5}}',
  '{"__proto__":null}',
  '{"toString":1,"valueOf":2}',
  '{"toString":null,"constructor":null}',
  '{"length":4294967295}',
  '{"toJSON":1,"then":2}',
  '{"":0}',
  // cut short, and closed too often
  "[",
  "}",
  "",
];

const KEYS = [
  "",
  "0",
  "a",
  "__proto__",
  "constructor",
  "toString",
  "length",
  "hasOwnProperty",
  "a.b[0]",
  "😀",
];

function nested(random: Random): string {
  const depth = random.pick([3, 40, 511, 512, 513, 4000]);
  return random.chance(0.5)
    ? "[".repeat(depth) + "]".repeat(depth)
    : '{"a":'.repeat(depth) + "0" + "}".repeat(depth);
}

function anything(random: Random): string {
  const kind = random.next();
  if (kind < 0.5) return random.pick(NUMBERS);
  if (kind < 0.9) return random.pick(OTHERS);
  if (kind < 0.95) return nested(random);
  return JSON.stringify(random.pick(["x", "é", "\\", '"', "."]).repeat(random.pick([100, 5000, 20000])));
}

function toNode(value: unknown): Node {
  if (Array.isArray(value)) return value.map(toNode);
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return { entries: Object.entries(value).map(([key, item]) => [key, toNode(item)]) };
}

function toText(node: Node): string {
  if (typeof node === "string") return node;
  if (Array.isArray(node)) return `[${node.map(toText).join(",")}]`;
  return `{${node.entries.map(([key, item]) => `${JSON.stringify(key)}:${toText(item)}`).join(",")}}`;
}

/** A place in a tree: an item of an array, or an entry of an object. */
interface Place {
  readonly parent: Node[] | { readonly entries: [string, Node][] };
  readonly index: number;
}

function places(node: Node, out: Place[] = []): Place[] {
  if (typeof node === "string") return out;
  const items = Array.isArray(node) ? node : node.entries;
  for (let index = 0; index < items.length; index++) {
    out.push({ parent: node, index });
    places(Array.isArray(node) ? node[index]! : node.entries[index]![1], out);
  }
  return out;
}

function get({ parent, index }: Place): Node {
  return Array.isArray(parent) ? parent[index]! : parent.entries[index]![1];
}

function set({ parent, index }: Place, value: Node): void {
  if (Array.isArray(parent)) parent[index] = value;
  else parent.entries[index]![1] = value;
}

function editTree(random: Random, root: Node[], donors: readonly Node[]): void {
  // the root itself is the only item of the outermost array
  const all = places(root);
  const place = random.pick(all);
  const { parent, index } = place;
  const value = get(place);
  const items: unknown[] = Array.isArray(parent) ? parent : parent.entries;
  switch (random.int(9)) {
    case 0:
      if (parent !== root) items.splice(index, 1);
      break;
    case 1: {
      if (parent === root) break;
      const times = random.pick([1, 1, 2, 50]);
      for (let i = 0; i < times; i++) {
        const copy = structuredClone(value);
        if (Array.isArray(parent)) parent.splice(index, 0, copy);
        else {
          const key = parent.entries[index]![0];
          parent.entries.splice(index, 0, [random.pick([key, `${key}${i}`, random.pick(KEYS)]), copy]);
        }
      }
      break;
    }
    case 2:
      set(place, structuredClone(get(random.pick(all))));
      break;
    case 3: {
      const other = random.pick(all);
      set(place, structuredClone(get(other)));
      set(other, structuredClone(value));
      break;
    }
    case 4:
      if (!Array.isArray(parent)) {
        const other = random.pick(all);
        const keys = Array.isArray(other.parent) ? KEYS : other.parent.entries.map(([key]) => key);
        parent.entries[index]![0] = random.pick([random.pick(KEYS), random.pick(keys)]);
      }
      break;
    case 5:
      set(place, structuredClone(random.pick(donors)));
      break;
    case 6:
      if (typeof value === "string" && /^-?\d+$/.test(value) && value.length < 16) {
        const number = Number(value);
        set(place, String(random.pick([number + 1, number - 1, number * 2, -number, number + 0.5])));
        break;
      }
      if (typeof value === "string" && value.startsWith('"')) {
        set(place, editString(random, value));
        break;
      }
      set(place, anything(random));
      break;
    default:
      set(place, anything(random));
  }
}

function editString(random: Random, token: string): string {
  const text = JSON.parse(token) as string;
  const at = random.int(text.length + 1);
  const piece = random.pick(["", ".", "/", "x", "0", "\u0000", "\ud800", text, "chunk/1", "torch.", "<"]);
  return JSON.stringify(text.slice(0, at) + piece + text.slice(at + random.int(3)));
}

/** JSON text with some of its values changed. What is no JSON, or nests too deep, is damaged as bytes. */
export function mutateJson(random: Random, text: Uint8Array, donor: Uint8Array): Uint8Array {
  try {
    const root = [toNode(JSON.parse(decoder.decode(text)))];
    const donors: Node[] = ["null"];
    for (const place of places([toNode(JSON.parse(decoder.decode(donor)))])) donors.push(get(place));
    const edits = random.pick([1, 1, 1, 2, 3, 6]);
    for (let i = 0; i < edits; i++) editTree(random, root, donors);
    return encoder.encode(toText(root[0]!));
  } catch {
    return mutateBytes(random, text, donor);
  }
}

/** Whole numbers of 1, 2, 4 and 8 bytes. */
const INTEGERS = [
  0n,
  1n,
  2n,
  7n,
  8n,
  9n,
  0x7fn,
  0xffn,
  0x7fffn,
  0xffffn,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  1n << 32n,
  1n << 40n,
  (1n << 53n) - 1n,
  1n << 53n,
  (1n << 63n) - 1n,
  1n << 63n,
  (1n << 64n) - 1n,
  (1n << 64n) - 8n,
];

/** Bytes with some of them changed, lost, added, or taken from another input. */
export function mutateBytes(random: Random, bytes: Uint8Array, donor: Uint8Array): Uint8Array {
  let out: Uint8Array = bytes.slice();
  const edits = random.pick([1, 1, 2, 4, 16]);
  for (let i = 0; i < edits; i++) out = editBytes(random, out, donor);
  return out;
}

function editBytes(random: Random, bytes: Uint8Array, donor: Uint8Array): Uint8Array {
  const at = random.int(bytes.length + 1);
  const length = Math.min(bytes.length - at, random.pick([1, 2, 4, 8, 16, random.int(bytes.length + 1)]));
  switch (random.int(8)) {
    case 0:
      if (at < bytes.length) bytes[at]! ^= 1 << random.int(8);
      return bytes;
    case 1:
      if (at < bytes.length) {
        bytes[at] = random.pick([0, 1, 0x20, 0x22, 0x5c, 0x7f, 0x80, 0xff, random.int(256)]);
      }
      return bytes;
    case 2:
      return bytes.slice(0, at);
    case 3:
      return joined(bytes.subarray(0, at), bytes.subarray(at + length));
    case 4: {
      const inserted = new Uint8Array(random.pick([1, 2, 8, 300]));
      for (let i = 0; i < inserted.length; i++) inserted[i] = random.int(256);
      return joined(bytes.subarray(0, at), inserted, bytes.subarray(at));
    }
    case 5: {
      const from = random.int(donor.length + 1);
      const part = donor.subarray(from, from + random.pick([4, 8, 64, donor.length]));
      return joined(bytes.subarray(0, at), part, bytes.subarray(random.chance(0.5) ? at : at + part.length));
    }
    case 6:
      return joined(
        bytes.subarray(0, at + length),
        bytes.subarray(at, at + length),
        bytes.subarray(at + length),
      );
    default: {
      const width = random.pick([1, 2, 4, 8]);
      const place = random.chance(0.8) ? at - at % width : at;
      let value = random.pick(INTEGERS);
      for (let i = place; i < Math.min(place + width, bytes.length); i++) {
        bytes[i] = Number(value & 0xffn);
        value >>= 8n;
      }
      return bytes;
    }
  }
}

/** Byte strings one after the other. */
export function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
