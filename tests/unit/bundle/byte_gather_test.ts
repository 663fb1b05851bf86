import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ByteGather } from "../../../src/bundle/byte_gather.ts";
import { randomBytes, seeded } from "./helpers.ts";

const source = randomBytes(seeded(4), 200_000);

type Piece = readonly [from: number, length: number, to: number];

/** Gathers pieces; gives the output and how many bytes each read had. */
function gather(pieces: readonly Piece[], size: number): { out: Uint8Array; reads: number[] } {
  const out = new Uint8Array(size);
  const gatherer = new ByteGather("m", out);
  for (const piece of pieces) gatherer.add(...piece);
  const ranges = gatherer.ranges();
  for (const { offset, into } of ranges) into.set(source.subarray(offset, offset + into.length));
  gatherer.scatter();
  for (const [from, length, to] of pieces) {
    assert.deepEqual(out.subarray(to, to + length), source.subarray(from, from + length));
  }
  return { out, reads: ranges.map(({ into }) => into.length) };
}

describe("ByteGather", () => {
  it("reads pieces that continue one another at once, straight to the output", () => {
    const out = new Uint8Array(1000);
    const gatherer = new ByteGather("m", out);
    for (let i = 0; i < 1000; i += 10) gatherer.add(50 + i, 10, i);
    const [range, ...others] = gatherer.ranges();
    assert.equal(others.length, 0);
    assert.equal(range!.offset, 50);
    assert.equal(range!.into.buffer, out.buffer);
  });

  it("reads nothing for nothing", () => assert.deepEqual(gather([[5, 0, 0]], 0).reads, []));

  it("reads along small gaps, not along large ones", () => {
    assert.deepEqual(gather([[0, 10, 0], [266, 10, 10]], 20).reads, [276]);
    assert.deepEqual(gather([[0, 10, 0], [267, 10, 10]], 20).reads, [10, 10]);
  });

  it("reads long pieces where they belong", () => {
    assert.deepEqual(gather([[0, 5000, 0], [5010, 10, 5000]], 5010).reads, [5000, 10]);
    assert.deepEqual(gather([[0, 600, 600], [600, 600, 0]], 1200).reads, [600, 600]);
  });

  it("gives the right bytes for any pieces", () => {
    for (let seed = 0; seed < 30; seed++) {
      const random = seeded(seed);
      const count = 1 + random() % 200;
      const longest = [2, 40, 700, 6000][random() % 4]!;
      const widest = [1, 100, 400][random() % 3]!;
      const pieces: { from: number; length: number }[] = [];
      for (let i = 0, at = 0; i < count; i++) {
        at += random() % widest;
        const length = random() % longest;
        if (at + length > source.length) break;
        pieces.push({ from: at, length });
        at += length;
      }
      const order = pieces.map((_, i) => i).sort(() => random() % 3 - 1);
      const to: number[] = [];
      let size = 0;
      for (const i of seed % 2 === 0 ? order : order.toSorted((a, b) => a - b)) {
        to[i] = size;
        size += pieces[i]!.length;
      }
      gather(pieces.map(({ from, length }, i) => [from, length, to[i]!]), size);
    }
  });
});
