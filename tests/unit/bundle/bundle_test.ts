import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { strings } from "../../../src/batch/build.ts";
import { RowSet } from "../../../src/batch/rowset.ts";
import type { PayloadRange } from "../../../src/bundle/ranges.ts";
import { readColumn, toChunks } from "../../../src/bundle/read.ts";
import {
  build,
  handField,
  handmade,
  type HandMember,
  ndarray,
  open,
  rawBytes,
  stored,
  toBytes,
  toText,
} from "./helpers.ts";

/** A member that claims to be larger than anything that is stored. */
function claimed(member: HandMember, bytes: number): HandMember {
  const key = "rl/p0/00000000000000000000000000000009/buffer/huge";
  return { ...member, payload: { key, bytes, chunks: [{ key, bytes }] } };
}

describe("openBundle()", () => {
  it("refuses facts that contradict the bundle", () => {
    const built = build({ s: strings(["a", "b"]) }, { rowIds: { base: "x", count: 2 }, hex: "a".repeat(32) });
    const objects = stored(built);
    const key = `${built.bundle.objectId}/meta`;
    objects.set(key, toBytes(toText(objects.get(key)!).replace('"count":2', '"count":3')));
    assert.throws(() => open(objects, built.bundle.manifestKey), {
      code: "CORRUPT",
      message: /batchferry\.rowIds\.count of .*\/meta is not 2/,
    });
  });
});

describe("payloads of 4 GiB and more", () => {
  const rows = 2 ** 20;
  const rowBytes = 2 ** 14;
  const made = handmade(rows, {
    "batch.x": claimed({
      spec: { encoding: "ndarray", dtype: "|u1", shape: [rows, rowBytes] },
      bytes: new Uint8Array(0),
    }, rows * rowBytes),
  });

  it("are read in parts", () => {
    const reading = readColumn(made.bundle, "x", RowSet.of([rows - 1, 3]));
    const ranges = toChunks(made.bundle, reading.next().value as readonly PayloadRange[]);
    assert.deepEqual(ranges.map(({ offset, into }) => [offset, into.length]), [
      [3 * rowBytes, rowBytes],
      [(rows - 1) * rowBytes, rowBytes],
    ]);
  });

  it("are not read as a whole", () => {
    assert.throws(() => readColumn(made.bundle, "x", RowSet.all(rows)).next(), {
      code: "SCHEMA",
      message: /read fewer rows at a time/,
    });
  });

  it("may have offsets beyond 32 bits, but not within one read", () => {
    const parts = {
      data: claimed(rawBytes(new Uint8Array(0)), 2 ** 40),
      offsets: ndarray("<i8", [4], [0, 2 ** 39, 2 ** 39 + 5, 2 ** 40]),
      nulls: ndarray("|b1", [3], [0, 0, 0]),
    };
    const { bundle, objects } = handField(3, "bytes_ragged", {}, parts);
    const data = (rows: RowSet): readonly PayloadRange[] => {
      const reading = readColumn(bundle, "f", rows);
      for (const { key, offset, into } of toChunks(bundle, reading.next().value as readonly PayloadRange[])) {
        into.set(objects.get(key)!.subarray(offset, offset + into.length));
      }
      return reading.next().value as readonly PayloadRange[];
    };
    assert.deepEqual(data(RowSet.of([1])).map(({ offset, into }) => [offset, into.length]), [[2 ** 39, 5]]);
    assert.throws(() => data(RowSet.of([0])), { code: "SCHEMA", message: /read fewer rows at a time/ });
  });
});
