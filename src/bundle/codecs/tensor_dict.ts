/**
 * `ragged_tensor_dict`: dicts of tensors. `tensor_dict_write.ts` writes it.
 *
 * @module
 */

import { asArray, asName, asObject, below, corrupt, member, type Origin } from "../json_text.ts";
import type { PartSource } from "../part_source.ts";
import type { Codec } from "./codec.ts";
import { maskLayout } from "./common.ts";
import { innerLayouts, innerParts } from "./nesting.ts";
import { raggedTensor } from "./ragged.ts";
import { recordsColumn, recordValues, setKey } from "./values.ts";

const PARTS = ["data", "offsets", "shapes", "ndims", "nulls"];

/** One key of the dicts: a ragged tensor column in which rows without the key are null. */
interface KeySource {
  readonly key: string;
  readonly names: ReadonlyMap<string, string>;
  readonly source: PartSource;
}

function keySources(source: PartSource): readonly KeySource[] {
  const at: Origin = { key: source.site.key, path: `${source.site.field}.metadata` };
  const codecs = asObject(source.metadata.key_codecs ?? {}, below(at, "key_codecs"));
  const seen = new Set<string>();
  return asArray(source.metadata.keys ?? [], below(at, "keys")).map((item, index) => {
    const key = asName(item, below(below(at, "keys"), index));
    if (seen.has(key)) corrupt(below(below(at, "keys"), index), "comes twice", key);
    seen.add(key);
    const names = new Map(PARTS.map((part) => [part, `${key}.${part}`]));
    const metadata = asObject(member(codecs, key) ?? {}, below(below(at, "key_codecs"), key));
    return { key, names, source: source.inner(names, metadata) };
  });
}

/** Dicts of tensors. */
export const raggedTensorDict: Codec = {
  info: (source) => {
    for (const { source: inner } of keySources(source)) raggedTensor.info(inner);
    return { kind: "records" };
  },
  layout: (source) => [
    maskLayout("null_mask"),
    ...keySources(source).flatMap(({ names, source: inner }) =>
      innerLayouts(raggedTensor.layout(inner), names)
    ),
  ],
  decode: (source, rows, parts) => {
    const nulls = parts.bytes("null_mask");
    const columns = keySources(source).map(({ key, names, source: inner }) => ({
      key,
      values: recordValues(raggedTensor.decode(inner, rows, innerParts(parts, names)), true),
    }));
    const dict = (row: number): Record<string, unknown> => {
      const out: Record<string, unknown> = {};
      for (const { key, values } of columns) {
        if (values[row] !== null) setKey(out, key, values[row]);
      }
      return out;
    };
    return recordsColumn(
      Array.from({ length: rows.length }, (_, row) => nulls[row] === 0 ? dict(row) : null),
      "ragged_tensor_dict",
    );
  },
};
