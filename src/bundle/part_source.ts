/**
 * The stored members behind one field.
 *
 * @module
 */

import type { JsonObject } from "../batch/json.ts";
import { CorruptionError, type ErrorDetails, SchemaError } from "../errors.ts";
import type { PayloadSpec } from "./manifest.ts";
import type { FieldSpec } from "./meta.ts";

/** Whose data it is; what errors name. */
export interface FieldSite {
  readonly partition: string;
  readonly field: string;
  /** The manifest key of the bundle. */
  readonly key: string;
}

/** The error for stored bytes of a field that contradict themselves. */
export function fieldCorruption(
  site: FieldSite,
  problem: string,
  details: ErrorDetails = {},
): CorruptionError {
  return new CorruptionError(`field ${JSON.stringify(site.field)} of ${site.key} ${problem}`, {
    ...site,
    ...details,
  });
}

/** The error for a field that is stored in a way this library does not read. */
export function unsupportedField(site: FieldSite, problem: string, details: ErrorDetails = {}): SchemaError {
  return new SchemaError(`field ${JSON.stringify(site.field)} of ${site.key} ${problem}`, {
    ...site,
    ...details,
  });
}

/** A member of the bundle: what its payload is, and where it lies. */
export interface StoredMember {
  readonly name: string;
  readonly spec: FieldSpec;
  readonly payload: PayloadSpec;
}

/** What a codec sees of a field: its parts by their names, and the metadata it was written with. */
export class PartSource {
  readonly site: FieldSite;
  /** Rows of the bundle. */
  readonly rows: number;
  readonly metadata: JsonObject;
  readonly members: ReadonlyMap<string, StoredMember>;

  constructor(
    site: FieldSite,
    rows: number,
    metadata: JsonObject,
    members: ReadonlyMap<string, StoredMember>,
  ) {
    this.site = site;
    this.rows = rows;
    this.metadata = metadata;
    this.members = members;
  }

  /**
   * The member that holds a part.
   *
   * @throws CorruptionError if there is none.
   */
  member(part: string): StoredMember {
    const member = this.members.get(part);
    if (member !== undefined) return member;
    throw fieldCorruption(this.site, `has no part ${JSON.stringify(part)}`, {
      actual: [...this.members.keys()],
    });
  }

  /**
   * A view of some parts as a field of their own.
   *
   * @param names The inner part name → this source's part name.
   */
  inner(names: ReadonlyMap<string, string>, metadata: JsonObject): PartSource {
    const members = new Map([...names].map(([inner, outer]) => [inner, this.member(outer)]));
    return new PartSource(this.site, this.rows, metadata, members);
  }

  /** The error for contradictions. */
  corruption(problem: string, details?: ErrorDetails): CorruptionError {
    return fieldCorruption(this.site, problem, details);
  }

  /** The error for what is not supported. */
  unsupported(problem: string, details?: ErrorDetails): SchemaError {
    return unsupportedField(this.site, problem, details);
  }
}
