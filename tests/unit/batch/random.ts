/**
 * Seeded randomness for property tests. A failure is repeated with the printed seed in BATCHFERRY_TEST_SEED.
 *
 * @module
 */

import process from "node:process";

export interface Random {
  readonly seed: number;
  /** A number of 0 (included) to 1 (not). */
  next(): number;
  /** A whole number below `end`. */
  below(end: number): number;
  /** One of the given values. */
  pick<T>(values: readonly T[]): T;
}

/** Mulberry32, started from the environment or the clock; prints its seed. */
export function random(what: string): Random {
  const given = process.env["BATCHFERRY_TEST_SEED"];
  const seed = (given === undefined ? Date.now() : Number(given)) >>> 0;
  console.log(`${what}: seed ${seed}`);
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (end: number) => Math.floor(next() * end);
  return { seed, next, below, pick: (values) => values[below(values.length)]! };
}
