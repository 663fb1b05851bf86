import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { crc32 } from "node:zlib";
import { chunkSizes, cutPayload } from "../../../src/bundle/chunking.ts";
import { payloadToChunks, verifyRanges, wholePayloadReads } from "../../../src/bundle/ranges.ts";
import { joined, type Objects, randomBytes, readRanges, seeded } from "./helpers.ts";

describe("chunkSizes()", () => {
  const cases: readonly (readonly [
    what: string,
    input: readonly [bytes: number, header: number, row: number | null, chunk: number | null],
    sizes: readonly number[],
  ])[] = [
    ["nothing for nothing", [0, 0, null, 10], []],
    ["one chunk without a limit", [100, 0, 8, null], [100]],
    ["one chunk below the limit", [10, 0, 3, 10], [10]],
    ["exact pieces where rows have no length", [25, 0, null, 10], [10, 10, 5]],
    ["whole rows", [24, 0, 8, 10], [8, 8, 8]],
    ["several whole rows", [40, 0, 3, 10], [9, 9, 9, 9, 4]],
    ["exact pieces where a row does not fit", [24, 0, 12, 10], [10, 10, 4]],
    ["exact pieces for rows of nothing", [304, 304, 0, 100], [100, 100, 100, 4]],
    ["a header alone", [304 + 96, 304, 12, 330], [304, 96]],
    ["a header alone where no row fits beside it", [304 + 96, 304, 12, 310], [304, 96]],
    ["the header in pieces, then whole rows", [304 + 96, 304, 12, 100], [100, 100, 100, 4, 96]],
    ["the header in pieces, then rows in chunks", [304 + 96, 304, 12, 40], [
      40,
      40,
      40,
      40,
      40,
      40,
      40,
      24,
      36,
      36,
      24,
    ]],
  ];
  for (const [what, input, sizes] of cases) {
    it(`gives ${what}`, () => assert.deepEqual(chunkSizes(...input), sizes));
  }
});

describe("cutPayload()", () => {
  const random = seeded(1);
  const parts = [7, 0, 300, 1, 42].map((length) => randomBytes(random, length));
  const whole = Uint8Array.from(parts.flatMap((part) => [...part]));

  for (const chunkBytes of [null, 1, 10, 299, 350, 1000]) {
    it(`cuts parts into chunks of ${chunkBytes} bytes that put together give the payload, without a copy`, () => {
      const { payload, objects } = cutPayload({ key: "k", parts, rowBytes: null }, {
        chunkBytes,
        checksums: true,
      });
      assert.deepEqual(Uint8Array.from(objects.flatMap((object) => [...joined(object)])), whole);
      assert.equal(payload.bytes, whole.length);
      assert.deepEqual(payload.chunks.map(({ bytes }) => bytes), chunkSizes(350, 0, null, chunkBytes));
      assert.deepEqual(
        payload.chunks.map(({ crc32 }) => crc32),
        objects.map((object) => crc32(joined(object))),
      );
      assert.deepEqual(
        payload.chunks.map(({ key }) => key),
        objects.length === 1 ? ["k"] : objects.map((_, i) => `k/chunk/${i}`),
      );
      for (const { parts: taken } of objects) {
        for (const part of taken) assert.ok(parts.some(({ buffer }) => buffer === part.buffer));
      }
    });
  }

  it("has nothing to store for an empty payload", () => {
    const cut = cutPayload({ key: "k", parts: [new Uint8Array(0)], rowBytes: 8 }, {
      chunkBytes: 10,
      checksums: true,
    });
    assert.deepEqual(cut, { payload: { key: "k", bytes: 0, chunks: [] }, objects: [] });
  });
});

describe("payloadToChunks()", () => {
  const random = seeded(2);
  const bytes = randomBytes(random, 200);
  const sizes = [80, 0, 40, 0, 0, 80, 0];
  const chunks = sizes.map((size, i) => ({ key: `k/${i}`, bytes: size }));
  const payload = { key: "k", bytes: 200, chunks };
  const objects: Objects = new Map();
  let at = 0;
  for (const { key, bytes: size } of chunks) objects.set(key, bytes.subarray(at, at += size));

  it("reads any range across unequal and empty chunks", () => {
    for (let offset = 0; offset <= 200; offset += 3) {
      for (let end = offset; end <= 200; end += 7) {
        const into = new Uint8Array(end - offset);
        readRanges(objects, payloadToChunks(payload, [{ member: "", offset, into }]));
        assert.deepEqual(into, bytes.slice(offset, end));
      }
    }
  });

  it("refuses ranges beyond the payload", () => {
    for (const [offset, length] of [[0, 201], [200, 1], [-1, 1]] as const) {
      assert.throws(() => payloadToChunks(payload, [{ member: "", offset, into: new Uint8Array(length) }]), {
        code: "CORRUPT",
      });
    }
  });

  it("does not split what lies in one chunk", () => {
    const into = new Uint8Array(40);
    assert.equal(payloadToChunks(payload, [{ member: "", offset: 80, into }])[0]!.into, into);
  });
});

describe("verifyRanges()", () => {
  const source = { key: "k", parts: [randomBytes(seeded(3), 100)], rowBytes: null };
  const { payload, objects } = cutPayload(source, { chunkBytes: 40, checksums: true });
  const stored: Objects = new Map(objects.map((object) => [object.key, joined(object)]));

  it("checks chunks that were read whole", () => {
    const { ranges } = wholePayloadReads(payload);
    readRanges(stored, ranges);
    verifyRanges(ranges);
    ranges[1]!.into[3]! ^= 1;
    assert.throws(() => verifyRanges(ranges), { code: "CORRUPT", message: /^k\/chunk\/1 / });
  });

  it("cannot check parts of chunks", () => {
    const ranges = payloadToChunks(payload, [{ member: "", offset: 1, into: new Uint8Array(79) }]);
    readRanges(stored, ranges);
    ranges[0]!.into[3]! ^= 1; // 39 of 40 bytes
    verifyRanges(ranges);
    ranges[1]!.into[3]! ^= 1;
    assert.throws(() => verifyRanges(ranges), { code: "CORRUPT", message: /^k\/chunk\/1 / });
  });
});
