/**
 * How a non-tensor field was encoded: what a handle says in `encoded_non_tensor`, and `meta.batchferry`
 * repeats.
 *
 * @module
 */

import type { JsonObject } from "../batch/json.ts";
import {
  asCount,
  asName,
  asObject,
  asString,
  below,
  type JsonTree,
  member,
  type Origin,
} from "./json_text.ts";

/** One field's codec, and the member that holds each of its parts. */
export interface EncodedNonTensor {
  readonly codec: string;
  readonly rows: number;
  readonly metadata: JsonObject;
  /** Part name (`data`, `offsets`, …) → member name. */
  readonly payloadMembers: ReadonlyMap<string, string>;
}

/** Field → how it was encoded. */
export type EncodedFields = ReadonlyMap<string, EncodedNonTensor>;

/** The JSON of `encoded_non_tensor`, keys in Python's order. */
export function encodedTree(fields: EncodedFields): JsonTree {
  return new Map(
    [...fields].map(([field, encoded]) => [
      field,
      new Map<string, JsonTree>([
        ["codec", encoded.codec],
        ["rows", encoded.rows],
        ["metadata", encoded.metadata],
        ["payload_members", encoded.payloadMembers],
      ]),
    ]),
  );
}

/**
 * Reads and checks `encoded_non_tensor`.
 *
 * @throws CorruptionError naming the path.
 */
export function parseEncoded(value: unknown, origin: Origin): EncodedFields {
  const fields = new Map<string, EncodedNonTensor>();
  for (const [field, item] of Object.entries(asObject(value, origin))) {
    const at = below(origin, field);
    const json = asObject(item, at);
    const members = new Map<string, string>();
    const membersAt = below(at, "payload_members");
    for (const [part, name] of Object.entries(asObject(member(json, "payload_members"), membersAt))) {
      members.set(part, asString(name, below(membersAt, part)));
    }
    const metadata = member(json, "metadata");
    fields.set(field, {
      codec: asName(member(json, "codec"), below(at, "codec")),
      rows: asCount(member(json, "rows") ?? 0, below(at, "rows")),
      metadata: metadata === undefined || metadata === null ? {} : asObject(metadata, below(at, "metadata")),
      payloadMembers: members,
    });
  }
  return fields;
}
