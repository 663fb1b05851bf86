/**
 * The fields of a bundle: members put together again.
 *
 * @module
 */

import type { Kind } from "../batch/column.ts";
import type { DType } from "../batch/dtype.ts";
import { BatchferryError } from "../errors.ts";
import { codecNamed } from "./codecs/registry.ts";
import type { EncodedFields, EncodedNonTensor } from "./encoded.ts";
import { BrokenReader, EncodedReader, type FieldReader } from "./field_reader.ts";
import { JaggedReader } from "./jagged_reader.ts";
import type { PayloadSpec } from "./manifest.ts";
import type { FieldSpec } from "./meta.ts";
import {
  fieldCorruption,
  type FieldSite,
  PartSource,
  type StoredMember,
  unsupportedField,
} from "./part_source.ts";
import { TensorReader } from "./tensor_reader.ts";

/** The two parts of a DataProto. */
export type Section = "batch" | "non_tensor_batch";

/** A field as it is stored. */
export interface StoredField {
  readonly name: string;
  readonly section: Section;
  readonly kind: Kind;
  /** For tensor, scalars and ragged, unless only the header of a tensor says it. */
  readonly dtype?: DType;
  /** For tensor: the shape of one row. */
  readonly rowShape?: readonly number[];
  /** For ragged. */
  readonly rowFormat?: "list" | "ndarray";
  /** The codec of a non-tensor field. */
  readonly codec?: string;
  /** Stored bytes of all its members. */
  readonly bytes: number;
  /** Why it cannot be read, if it cannot; reading throws this. */
  readonly problem?: BatchferryError;
  /** Reads it. */
  readonly reader: FieldReader;
}

/** What fields are made from. */
export interface FieldsSource {
  readonly manifestKey: string;
  readonly partition: string;
  readonly rows: number;
  readonly payloads: ReadonlyMap<string, PayloadSpec>;
  readonly specs: ReadonlyMap<string, FieldSpec>;
  readonly encoded: EncodedFields;
}

const BYTES: FieldSpec = { encoding: "bytes" };
const SECTIONS: readonly Section[] = ["batch", "non_tensor_batch"];

/**
 * The fields of a bundle in the order of their members.
 *
 * A field that cannot be read does not hide the others: it is there, with its problem.
 */
export function openFields(source: FieldsSource): ReadonlyMap<string, StoredField> {
  const owners = new Map<string, string>();
  for (const [field, encoded] of source.encoded) {
    for (const name of encoded.payloadMembers.values()) {
      if (source.payloads.has(name)) owners.set(name, field);
    }
  }
  const lost = membersWithoutCodec(source, owners);
  const lostMembers = Map.groupBy(lost.keys(), (name) => lost.get(name));
  const fields = new Map<string, StoredField>();
  for (const name of source.payloads.keys()) {
    const section = SECTIONS.find((section) => name.startsWith(`${section}.`));
    if (section === undefined) continue;
    const owner = owners.get(name) ?? lost.get(name);
    const field = owner ?? name.slice(section.length + 1);
    if (fields.has(field)) continue;
    const site: FieldSite = { partition: source.partition, field, key: source.manifestKey };
    if (owner === undefined) {
      fields.set(field, openRaw(source, site, section, storedMember(source, name)));
    } else if (lost.has(name)) {
      const members = lostMembers.get(owner)!.map((name) => storedMember(source, name));
      fields.set(field, openLost(site, section, members));
    } else {
      fields.set(field, openEncoded(source, site, section, source.encoded.get(owner)!));
    }
  }
  return fields;
}

function storedMember(source: FieldsSource, name: string): StoredMember {
  return { name, spec: source.specs.get(name) ?? BYTES, payload: source.payloads.get(name)! };
}

function totalBytes(members: readonly StoredMember[]): number {
  return members.reduce((sum, { payload }) => sum + payload.bytes, 0);
}

/** Runs `open`; what it throws becomes the field's problem. */
function orBroken<Opened extends Partial<StoredField>>(
  members: readonly StoredMember[],
  fallback: Opened,
  open: () => Opened & { reader: FieldReader },
): Opened & { reader: FieldReader; problem?: BatchferryError } {
  try {
    return open();
  } catch (problem) {
    if (!(problem instanceof BatchferryError)) throw problem;
    return { ...fallback, problem, reader: new BrokenReader(members, problem) };
  }
}

type Opened = Pick<StoredField, "kind" | "dtype" | "rowShape" | "rowFormat">;

function openRaw(source: FieldsSource, site: FieldSite, section: Section, member: StoredMember): StoredField {
  const opened = orBroken<Opened>([member], { kind: "tensor" }, () => {
    if (member.spec.encoding === "torch_tensor" && member.spec.nested) {
      const reader = new JaggedReader(site, source.rows, member);
      return { ...reader.info, reader };
    }
    const reader = new TensorReader(site, source.rows, member);
    const { dtype, rowShape } = reader.known ?? {};
    return {
      kind: "tensor",
      ...(dtype === undefined ? {} : { dtype }),
      ...(rowShape === undefined ? {} : { rowShape }),
      reader,
    };
  });
  return { name: site.field, section, bytes: totalBytes([member]), ...opened };
}

function openEncoded(
  source: FieldsSource,
  site: FieldSite,
  section: Section,
  encoded: EncodedNonTensor,
): StoredField {
  const members = new Map<string, StoredMember>();
  for (const [part, name] of encoded.payloadMembers) {
    if (source.payloads.has(name)) members.set(part, storedMember(source, name));
  }
  const parts = new PartSource(site, source.rows, encoded.metadata, members);
  const opened = orBroken<Opened>([...members.values()], { kind: "records" }, () => {
    // each part is read by itself: if many named one member, a small field would cost as much as a large one
    const names = new Set(encoded.payloadMembers.values());
    if (names.size < encoded.payloadMembers.size) {
      throw fieldCorruption(site, "has one member for several parts", {
        expected: encoded.payloadMembers.size,
        actual: names.size,
      });
    }
    const codec = codecNamed(encoded.codec);
    if (codec === undefined) {
      throw unsupportedField(site, `has the unknown codec ${JSON.stringify(encoded.codec)}`, {
        actual: encoded.codec,
      });
    }
    return { ...codec.info(parts), reader: new EncodedReader(codec, parts) };
  });
  return {
    name: site.field,
    section,
    codec: encoded.codec,
    bytes: totalBytes([...members.values()]),
    ...opened,
  };
}

const STRUCTURE_PART = /^(.+?)\.(?:node\.\d+\.(?:missing|row_mask|lengths)|leaf\.\d+\..+)$/s;
const CODEC_PARTS = ["data", "offsets", "shapes", "ndims", "row_offsets", "byte_offsets", "nulls"];

/**
 * Members that must be parts of encoded fields whose codec is not known, because the handle is not there:
 * member → field.
 */
function membersWithoutCodec(
  source: FieldsSource,
  owners: ReadonlyMap<string, string>,
): ReadonlyMap<string, string> {
  const prefix = "non_tensor_batch.";
  const free = new Set(
    [...source.payloads.keys()].filter((name) => name.startsWith(prefix) && !owners.has(name)),
  );
  const lost = new Map<string, string>();
  const claim = (name: string, field: string): void => {
    if (free.delete(name)) lost.set(name, field);
  };
  for (const name of free) {
    const field = STRUCTURE_PART.exec(name.slice(prefix.length))?.[1];
    if (field !== undefined) claim(name, field);
  }
  // sorted, the members below a name are next to one another
  const sorted = [...free].sort();
  for (const name of free) {
    if (!name.endsWith(".null_mask")) continue;
    const field = name.slice(prefix.length, name.lastIndexOf("."));
    const start = `${prefix}${field}.`;
    for (let i = firstFrom(sorted, start); sorted[i]?.startsWith(start); i++) claim(sorted[i]!, field);
  }
  for (const name of free) {
    const field = name.slice(prefix.length, name.lastIndexOf("."));
    if (!name.endsWith(".nulls") || !free.has(`${prefix}${field}.data`)) continue;
    for (const part of CODEC_PARTS) claim(`${prefix}${field}.${part}`, field);
  }
  return lost;
}

/** The position of the first of ascending names that is not before `start`. */
function firstFrom(names: readonly string[], start: string): number {
  let low = 0;
  let high = names.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (names[middle]! < start) low = middle + 1;
    else high = middle;
  }
  return low;
}

function openLost(site: FieldSite, section: Section, members: readonly StoredMember[]): StoredField {
  const has = (part: string): boolean =>
    members.some(({ name }) => name === `${section}.${site.field}.${part}`);
  const kind = has("shapes") ? "ragged" : has("offsets") ? "bytes" : has("data") ? "scalars" : "records";
  const problem = unsupportedField(site, "can only be read through the handle it was put with", {
    hint: "import that handle; Python keeps the codec of a field nowhere else",
  });
  return {
    name: site.field,
    section,
    kind,
    bytes: totalBytes(members),
    problem,
    reader: new BrokenReader(members, problem),
  };
}
