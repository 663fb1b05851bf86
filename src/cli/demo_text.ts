/**
 * What `demo` moves: text as a batch of a language model's training.
 *
 * @module
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { crc32 } from "node:zlib";
import { Batch } from "../batch/batch.ts";
import { ragged, scalars, strings, tensor } from "../batch/build.ts";
import { bytesOf } from "../batch/dtype.ts";
import { ConfigError } from "../errors.ts";
import { fileError } from "./files.ts";

/** The columns the consumer reads; it leaves the others where they are. */
export const READ_FIELDS: readonly string[] = ["input_ids", "reward"];
/** It reads every eighth row. */
export const READ_STEP = 8;

/** The files the demo takes where none are given: the README and the documentation of this package. */
export function defaultFiles(): string[] {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json")) && dirname(folder) !== folder) folder = dirname(folder);
  const docs = join(folder, "docs");
  const pages = existsSync(docs)
    ? readdirSync(docs, { recursive: true }).map(String).filter((name) => name.endsWith(".md")).sort()
    : [];
  return [join(folder, "README.md"), ...pages.map((name) => join(docs, name))].filter((path) =>
    existsSync(path)
  );
}

/** The paragraphs of text files. */
export function readParagraphs(files: readonly string[]): string[] {
  const paragraphs: string[] = [];
  for (const file of files) {
    let text: string;
    try {
      text = readFileSync(file, "utf8");
    } catch (error) {
      throw fileError(error, "read", file);
    }
    paragraphs.push(...text.split(/\n\s*\n/).map((part) => part.trim()).filter((part) => part !== ""));
  }
  if (paragraphs.length === 0) {
    throw new ConfigError("there is no text to move", { hint: "name files with --input FILE" });
  }
  return paragraphs;
}

/** Paragraphs as rows: the prompt, its bytes as token ids, a mask of as many ones, a reward. */
export function textBatch(paragraphs: readonly string[]): Batch {
  const prompts = paragraphs.map((text) => new TextEncoder().encode(text));
  return new Batch(paragraphs.length, [
    ["prompt", strings(paragraphs)],
    ["input_ids", ragged("int64", prompts.map((bytes) => BigInt64Array.from(bytes, BigInt)))],
    ["attention_mask", ragged("uint8", prompts.map((bytes) => new Uint8Array(bytes.length).fill(1)))],
    ["reward", scalars("float32", prompts.map((bytes) => Math.tanh(bytes.length / 500)))],
  ]);
}

/** The length of a packed row. */
const PACKED = 512;

/** The same text over and over, packed into rows of one length as trainers do: about `bytes` bytes of token ids. */
export function packedBatch(paragraphs: readonly string[], bytes: number): Batch {
  const text = new TextEncoder().encode(paragraphs.join("\n\n"));
  const rows = Math.ceil(bytes / 8 / PACKED);
  const ids = new BigInt64Array(new ArrayBuffer(rows * PACKED * 8));
  const once = Math.min(text.length, ids.length);
  for (let i = 0; i < once; i++) ids[i] = BigInt(text[i]!);
  for (let filled = once; filled < ids.length; filled *= 2) ids.copyWithin(filled, 0, filled);
  return new Batch(rows, [["packed_ids", tensor("int64", [rows, PACKED], ids)]]);
}

/** A checksum over values of `READ_FIELDS`, in row order: what was put and what was read must agree. */
export function checksum(batch: Batch, step = 1): number {
  const ids = batch.ragged("input_ids");
  const rewards = batch.scalars("reward");
  let crc = 0;
  for (let row = 0; row < batch.rows; row += step) {
    crc = crc32(bytesOf(ids.at(row) as BigInt64Array), crc);
    crc = crc32(bytesOf(Float32Array.of(rewards.at(row) as number)), crc);
  }
  return crc;
}

/** A checksum over all of a packed batch. */
export function packedChecksum(batch: Batch): number {
  return crc32(batch.tensor("packed_ids").bytes);
}
