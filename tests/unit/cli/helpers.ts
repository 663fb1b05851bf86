/** What the tests of the command line share. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Column } from "../../../src/batch/column.ts";
import { Batch } from "../../../src/batch/batch.ts";
import { type DType, itemSize } from "../../../src/batch/dtype.ts";
import { Tensor } from "../../../src/batch/tensor.ts";
import { BatchferryError } from "../../../src/errors.ts";
import { readInputs } from "../../../src/cli/inputs.ts";
import { writeOutput } from "../../../src/cli/outputs.ts";

/** A folder that is gone after the test. */
export class TemporaryFolder implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), "batchferry-cli-"));

  join(name: string): string {
    return join(this.path, name);
  }

  /** Writes a file and gives its path. */
  write(name: string, content: string | Uint8Array): string {
    writeFileSync(this.join(name), content);
    return this.join(name);
  }

  read(name: string): Uint8Array {
    return new Uint8Array(readFileSync(this.join(name)));
  }

  text(name: string): string {
    return readFileSync(this.join(name), "utf8");
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Numbers of [0, 1), the same in every run (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A tensor with every byte set; bools are 0 and 1. */
export function patternTensor(dtype: DType, shape: readonly number[], seed = 1): Tensor {
  const random = seededRandom(seed);
  const length = shape.reduce((product, extent) => product * extent, itemSize(dtype));
  const bytes = new Uint8Array(new ArrayBuffer(length));
  for (let i = 0; i < length; i++) bytes[i] = Math.floor(random() * (dtype === "bool" ? 2 : 256));
  return new Tensor(dtype, shape, bytes);
}

/** Writes a batch, reads the file, gives the columns. */
export async function throughFile(path: string, batch: Batch): Promise<Map<string, Column>> {
  await writeOutput(path, batch);
  return readInputs([path]).columns;
}

/** The batch of a file. */
export function batchOf(path: string): Batch {
  const { rows, columns } = readInputs([path]);
  return new Batch(rows, columns);
}

/** Runs `act`, which must throw an error of ours; gives it. */
export function typedError(act: () => unknown): BatchferryError {
  try {
    act();
  } catch (error) {
    if (error instanceof BatchferryError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

/** Runs `act` on damaged input: it may succeed, or throw an error of ours; any other error is passed on. */
export function survives(act: () => unknown): boolean {
  try {
    act();
    return true;
  } catch (error) {
    if (error instanceof BatchferryError) return false;
    throw error;
  }
}

/** Bytes from base64, for files made by other programs. */
export function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}
