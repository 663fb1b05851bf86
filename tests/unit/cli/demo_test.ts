import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { describe, it } from "node:test";
import { checksum, packedBatch, readParagraphs, textBatch } from "../../../src/cli/demo_text.ts";
import { TemporaryFolder } from "./helpers.ts";
import { batchferry, programOf } from "./run.ts";

describe("demo", () => {
  const runtimes = ["deno", "bun"] as const;
  for (const consumer of [undefined, ...runtimes]) {
    const absent = consumer !== undefined && programOf(consumer) === undefined;
    const name = consumer === undefined ? "in one runtime" : `with a consumer in ${consumer}`;
    it(`moves text ${name} and leaves nothing`, {
      skip: absent && "no such runtime; run npm ci in scripts/tools",
    }, () => {
      using folder = new TemporaryFolder();
      using store = new TemporaryFolder();
      const input = folder.write("text.md", "One.\n\nTwo, ünï.\n\n\n" + "Many words.\n\n".repeat(100));
      const args = [
        "demo",
        "--input",
        input,
        "--json",
        ...(consumer === undefined ? [] : ["--consumer", consumer]),
      ];
      const { code, stdout, stderr } = batchferry({ cwd: folder.path, store: store.path }, ...args);
      assert.equal(`${code} ${stderr}`, "0 ");
      const report = JSON.parse(stdout);
      assert.equal(report.producer.rows, 102);
      assert.equal(report.consumer.rows, 13);
      assert.notEqual(report.producer.pid, report.consumer.pid);
      if (consumer !== undefined) {
        assert.match(report.consumer.runtime.toLowerCase(), new RegExp(`^${consumer} `));
      }
      // Two columns of every eighth row are less than was put.
      assert.ok(report.consumer.bytesRead > 0 && report.timed.bytes >= 32e6);
      assert.equal(report.bundlesLeft, 0);
      assert.deepEqual(
        readdirSync(store.path, { recursive: true }).filter((name) =>
          /live|pool|owners\/./.test(String(name))
        ),
        [],
      );
    });
  }

  it("says so where there is no text", () => {
    using folder = new TemporaryFolder();
    const input = folder.write("text.md", "\n\n \n");
    const place = { cwd: folder.path, store: folder.path };
    for (const [file, message] of [[input, /no text/], ["none.md", /none\.md/]] as const) {
      const { code, stdout, stderr } = batchferry(place, "demo", "--input", file);
      assert.deepEqual([code, stdout], [1, ""]);
      assert.match(stderr, message);
    }
  });

  it("makes rows of paragraphs, with a checksum of what is read", () => {
    using folder = new TemporaryFolder();
    const paragraphs = readParagraphs([folder.write("a.md", "é\n\nbc\n"), folder.write("b.md", "d")]);
    const batch = textBatch(paragraphs);
    assert.deepEqual(batch.strings("prompt").toArray(), ["é", "bc", "d"]);
    assert.deepEqual(batch.ragged("input_ids").at(0), BigInt64Array.of(0xc3n, 0xa9n));
    assert.deepEqual(batch.ragged("attention_mask").at(1), Uint8Array.of(1, 1));
    assert.equal(batch.scalars("reward").length, 3);
    assert.notEqual(checksum(batch, 1), checksum(batch, 2));
    assert.equal(checksum(batch, 2), checksum(textBatch(paragraphs), 2));
  });

  it("packs text over and over into rows of one length", () => {
    const ids = packedBatch(["abc"], 10_000).tensor("packed_ids");
    assert.deepEqual(ids.shape, [3, 512]);
    ids.toNumbers().forEach((id, i) => assert.equal(id, 97 + i % 3));
    const long = packedBatch(["x".repeat(5000)], 8).tensor("packed_ids");
    assert.deepEqual([long.shape, long.toNumbers().every((id) => id === 120)], [[1, 512], true]);
  });
});
