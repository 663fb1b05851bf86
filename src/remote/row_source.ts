/**
 * Rows named by id: which bundles hold them is found out when they are read.
 *
 * @module
 */

/** A list of row ids of one partition; stands where a bundle stands in the pieces of a row-bound batch. */
export class RowSource {
  readonly partition: string;
  readonly ids: readonly string[];

  constructor(partition: string, ids: readonly string[]) {
    this.partition = partition;
    this.ids = Object.freeze([...ids]);
  }

  /** The number of ids. */
  get rows(): number {
    return this.ids.length;
  }
}
