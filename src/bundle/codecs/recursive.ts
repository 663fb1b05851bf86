/**
 * `structured_recursive`: nested dicts and lists whose leaves are columns of their own. The reading half.
 *
 * @module
 */

import type { RowSet } from "../../batch/rowset.ts";
import { asArray, asName, asObject, asString, below, corrupt, member, type Origin } from "../json_text.ts";
import type { PartSource } from "../part_source.ts";
import type { PartLayout, Parts } from "../parts.ts";
import type { Codec } from "./codec.ts";
import { maskLayout } from "./common.ts";
import { integerWidth, readIntegers } from "../integers.ts";
import { innerLayouts, innerParts, type PartNames } from "./nesting.ts";
import { recordsColumn, recordValues, setKey } from "./values.ts";

/** Stands for a value that is absent in its parent, which null is not. */
const MISSING = Symbol("missing");

/** A dict or a list. */
interface Node {
  readonly path: string;
  readonly isDict: boolean;
  /** Keys of a dict, or positions of a list, with the path of each. */
  readonly children: readonly { readonly key: string; readonly path: string }[];
  /** Part names. */
  readonly missing: string | undefined;
  readonly rowMask: string;
  readonly lengths: string | undefined;
}

/** A column at one path. */
interface Leaf {
  readonly path: string;
  readonly codecName: string;
  readonly codec: Codec;
  readonly names: PartNames;
  readonly missing: string;
  readonly source: PartSource;
}

interface Structure {
  readonly rootPath: string;
  /** Deepest first. */
  readonly nodes: readonly Node[];
  readonly leaves: readonly Leaf[];
}

/** The path of a dict's child. */
export function dictPath(parent: string, key: string): string {
  return `${parent}.${key.replace(/[\\.[]/g, (special) => `\\${special}`)}`;
}

/** The path of a list's child. */
export function listPath(parent: string, index: number): string {
  return `${parent}[${index}]`;
}

/**
 * As Python counts it; brackets and dots of escaped keys count too, which keeps children deeper than parents.
 */
function depth(path: string): number {
  return path.split(/[.[]/).length;
}

/**
 * The codec, reading leaves by `codecNamed`.
 *
 * It takes the look-up as a parameter because the registry in turn holds this codec.
 */
export function recursiveCodec(codecNamed: (name: string) => Codec | undefined): Codec {
  const structures = new WeakMap<PartSource, Structure>();
  const structureOf = (source: PartSource): Structure => {
    let structure = structures.get(source);
    if (structure === undefined) structures.set(source, structure = parseStructure(source, codecNamed));
    return structure;
  };
  return {
    info: (source) => {
      for (const { codec, source: inner } of structureOf(source).leaves) codec.info(inner);
      return { kind: "records" };
    },
    layout: (source) => layoutOf(source, structureOf(source)),
    decode: (source, rows, parts) => recordsColumn(rebuild(source, structureOf(source), rows, parts)),
  };
}

function parseStructure(source: PartSource, codecNamed: (name: string) => Codec | undefined): Structure {
  const { metadata } = source;
  const at: Origin = { key: source.site.key, path: `${source.site.field}.metadata` };
  const list = (name: string): readonly unknown[] => asArray(member(metadata, name), below(at, name));
  const nodes = list("nodes").map((item, index) => parseNode(item, below(below(at, "nodes"), index)));
  const leaves = list("leaves").map((item, index) =>
    parseLeaf(source, item, below(below(at, "leaves"), index), codecNamed)
  );
  checkParts(source, nodes, leaves);
  return {
    rootPath: asString(member(metadata, "root_path"), below(at, "root_path")),
    nodes: nodes.toSorted((a, b) => depth(b.path) - depth(a.path)),
    leaves,
  };
}

/** A part has one place: if many shared it, a small field would come out as a large one. */
function checkParts(source: PartSource, nodes: readonly Node[], leaves: readonly Leaf[]): void {
  const seen = new Set<string>();
  const add = (part: string | undefined): void => {
    if (part === undefined) return;
    if (seen.has(part)) {
      throw source.corruption(`uses its part ${JSON.stringify(part)} twice`, { actual: part });
    }
    seen.add(part);
  };
  for (const { missing, rowMask, lengths } of nodes) [missing, rowMask, lengths].forEach(add);
  for (const { names } of leaves) names.forEach(add);
}

function parseNode(value: unknown, at: Origin): Node {
  const json = asObject(value, at);
  const type = member(json, "node_type");
  if (type !== "dict" && type !== "list") corrupt(below(at, "node_type"), "is neither dict nor list", type);
  const path = asName(member(json, "path"), below(at, "path"));
  const isDict = type === "dict";
  const keys = new Set<string>();
  const children = asArray(member(json, "children"), below(at, "children")).map((child, index) => {
    if (isDict) {
      const key = asString(child, below(below(at, "children"), index));
      if (keys.has(key)) corrupt(below(below(at, "children"), index), "comes twice", key);
      keys.add(key);
      return { key, path: dictPath(path, key) };
    }
    if (child !== index) corrupt(below(below(at, "children"), index), `is not ${index}`, child);
    return { key: String(index), path: listPath(path, index) };
  });
  const part = (name: string): string | undefined => {
    const given = member(json, name) ?? undefined;
    return given === undefined ? undefined : asString(given, below(at, name));
  };
  return {
    path,
    isDict,
    children,
    missing: part("missing_payload"),
    // a byte a row: without it nothing would bear out how many rows there are
    rowMask: asString(member(json, "row_mask_payload"), below(at, "row_mask_payload")),
    lengths: part("lengths_payload"),
  };
}

function parseLeaf(
  source: PartSource,
  value: unknown,
  at: Origin,
  codecNamed: (name: string) => Codec | undefined,
): Leaf {
  const json = asObject(value, at);
  const codecName = asName(member(json, "codec"), below(at, "codec"));
  const codec = codecName === "structured_recursive" ? undefined : codecNamed(codecName);
  if (codec === undefined) {
    throw source.unsupported(`has a leaf of the unknown codec ${JSON.stringify(codecName)}`, {
      actual: codecName,
    });
  }
  const membersAt = below(at, "payload_members");
  const names = new Map<string, string>();
  for (const [part, name] of Object.entries(asObject(member(json, "payload_members"), membersAt))) {
    names.set(part, asString(name, below(membersAt, part)));
  }
  const missing = names.get("missing") ?? corrupt(membersAt, 'has no "missing"');
  return {
    path: asName(member(json, "path"), below(at, "path")),
    codecName,
    codec,
    names,
    missing,
    source: source.inner(names, asObject(member(json, "metadata") ?? {}, below(at, "metadata"))),
  };
}

function layoutOf(source: PartSource, { nodes, leaves }: Structure): readonly PartLayout[] {
  const layouts: PartLayout[] = [];
  for (const { missing, rowMask, lengths } of nodes) {
    if (missing !== undefined) layouts.push(maskLayout(missing));
    layouts.push(maskLayout(rowMask));
    if (lengths !== undefined) layouts.push({ part: lengths, width: integerWidth(source, lengths) });
  }
  for (const { codec, names, missing, source: inner } of leaves) {
    layouts.push(maskLayout(missing), ...innerLayouts(codec.layout(inner), names));
  }
  return layouts;
}

function rebuild(source: PartSource, structure: Structure, rows: RowSet, parts: Parts): unknown[] {
  const columns = new Map<string, unknown[]>();
  for (const { path, codecName, codec, names, missing, source: inner } of structure.leaves) {
    const column = codec.decode(inner, rows, innerParts(parts, names));
    const values = recordValues(column, codecName === "ragged_tensor");
    parts.bytes(missing).forEach((byte, row) => {
      if (byte !== 0) values[row] = MISSING;
    });
    columns.set(path, values);
  }
  const columnAt = (path: string): unknown[] => {
    const column = columns.get(path);
    if (column !== undefined) return column;
    throw source.corruption(`has nothing at ${JSON.stringify(path)}`, { actual: [...columns.keys()] });
  };
  for (const node of structure.nodes) {
    const missing = node.missing === undefined ? undefined : parts.bytes(node.missing);
    const mask = parts.bytes(node.rowMask);
    const container = node.isDict ? dictMaker(node, columnAt) : listMaker(source, node, columnAt, parts);
    columns.set(
      node.path,
      Array.from({ length: rows.length }, (_, row) => {
        if (missing !== undefined && missing[row] !== 0) return MISSING;
        return mask[row] === 0 ? null : container(row);
      }),
    );
  }
  return columnAt(structure.rootPath).map((value) => value === MISSING ? null : value);
}

function dictMaker(node: Node, columnAt: (path: string) => unknown[]): (row: number) => unknown {
  const children = node.children.map(({ key, path }) => ({ key, values: columnAt(path) }));
  return (row) => {
    const out: Record<string, unknown> = {};
    for (const { key, values } of children) if (values[row] !== MISSING) setKey(out, key, values[row]);
    return out;
  };
}

function listMaker(
  source: PartSource,
  node: Node,
  columnAt: (path: string) => unknown[],
  parts: Parts,
): (row: number) => unknown {
  const children = node.children.map(({ path }) => columnAt(path));
  const lengths = node.lengths === undefined
    ? undefined
    : readIntegers(source, source.member(node.lengths), parts.bytes(node.lengths));
  return (row) => {
    const length = lengths === undefined ? children.length : lengths[row]!;
    if (!(length >= 0 && length <= children.length)) {
      throw source.corruption(`has a list of ${length} items at ${JSON.stringify(node.path)}`, {
        expected: `at most ${children.length}`,
        actual: length,
      });
    }
    return children.slice(0, length).map((values) => values[row] === MISSING ? null : values[row]);
  };
}
