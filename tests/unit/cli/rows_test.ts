import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseRows } from "../../../src/cli/rows.ts";
import { UsageError } from "../../../src/cli/usage.ts";

const slice = (start?: number, end?: number, step?: number) => ({ kind: "slice", start, end, step });

describe("parseRows", () => {
  for (
    const [text, wanted] of [
      ["0:128", slice(0, 128)],
      ["-2:", slice(-2)],
      [":", slice()],
      [":-1", slice(undefined, -1)],
      ["::2", slice(undefined, undefined, 2)],
      ["::-1", slice(undefined, undefined, -1)],
      ["5:1:-2", slice(5, 1, -2)],
      [" 1 : 2 ", slice(1, 2)],
      ["3,1,2", { kind: "list", rows: [3, 1, 2] }],
      ["-1, -1", { kind: "list", rows: [-1, -1] }],
      ["7", { kind: "list", rows: [7] }],
    ] as const
  ) {
    it(`takes ${text}`, () => assert.deepEqual(parseRows(text), wanted));
  }

  for (
    const text of [
      "",
      ",",
      "1,",
      "a",
      "1.5",
      "1:2:3:4",
      "1:b",
      "0x10",
      "1e3",
      "::0",
      "1-3",
      "9007199254740993",
    ]
  ) {
    it(`refuses ${JSON.stringify(text)}`, () => assert.throws(() => parseRows(text), UsageError));
  }
});
