/**
 * What can read a stored field.
 *
 * @module
 */

import type { Column, Guard } from "../batch/column.ts";
import { gather } from "../batch/gather.ts";
import { RowSet } from "../batch/rowset.ts";
import type { BatchferryError } from "../errors.ts";
import type { Codec } from "./codecs/codec.ts";
import type { PartSource, StoredMember } from "./part_source.ts";
import { readParts, wholeParts } from "./parts.ts";
import type { Reading } from "./ranges.ts";
import { orderRows, Spans } from "./spans.ts";

/** Gives the whole payload of a member. */
export type PayloadLookup = (member: StoredMember) => Uint8Array;

/** Reads one field of a bundle. */
export interface FieldReader {
  readonly members: readonly StoredMember[];
  /** Reads rows in the order asked; each row once, however often it is asked for. Rows are in range. */
  read(rows: RowSet): Reading<Column>;
  /** The whole field, from whole payloads and without copying their data. */
  decode(payload: PayloadLookup, guard?: Guard): Column;
}

/** Reads a field that a codec encoded. */
export class EncodedReader implements FieldReader {
  readonly members: readonly StoredMember[];
  readonly #codec: Codec;
  readonly #source: PartSource;

  constructor(codec: Codec, source: PartSource) {
    this.members = [...source.members.values()];
    this.#codec = codec;
    this.#source = source;
  }

  *read(rows: RowSet): Reading<Column> {
    const source = this.#source;
    const { unique, ranks } = orderRows(rows);
    const parts = yield* readParts(source, this.#codec.layout(source), Spans.ofRows(unique));
    const column = this.#codec.decode(source, unique, parts);
    return ranks === null ? column : gather(column, RowSet.of(ranks));
  }

  decode(payload: PayloadLookup, guard?: Guard): Column {
    const source = this.#source;
    const parts = wholeParts(source, this.#codec.layout(source), payload);
    return this.#codec.decode(source, RowSet.all(source.rows), parts, guard);
  }
}

/** Stands for a field that cannot be read. */
export class BrokenReader implements FieldReader {
  readonly members: readonly StoredMember[];
  readonly problem: BatchferryError;

  constructor(members: readonly StoredMember[], problem: BatchferryError) {
    this.members = members;
    this.problem = problem;
  }

  // deno-lint-ignore require-yield
  *read(_rows: RowSet): Reading<Column> {
    throw this.problem;
  }

  decode(): Column {
    throw this.problem;
  }
}
