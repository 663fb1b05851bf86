/**
 * Codecs inside codecs: the parts of an inner field under the names they have in the outer one.
 *
 * @module
 */

import type { PartLayout, Parts } from "../parts.ts";

/** Inner part name → outer part name. */
export type PartNames = ReadonlyMap<string, string>;

/** Inner layouts as outer ones. */
export function innerLayouts(layouts: readonly PartLayout[], names: PartNames): readonly PartLayout[] {
  return layouts.map((layout) => ({
    ...layout,
    part: names.get(layout.part)!,
    of: layout.of === undefined ? undefined : names.get(layout.of)!,
  }));
}

/** The outer parts as an inner codec sees them. */
export function innerParts(parts: Parts, names: PartNames): Parts {
  return {
    bytes: (part) => parts.bytes(names.get(part)!),
    offsets: (part) => parts.offsets(names.get(part)!),
    elements: (part) => parts.elements(names.get(part)!),
  };
}
