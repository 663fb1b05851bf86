/**
 * Batches as output files.
 *
 * @module
 */

import type { Batch } from "../batch/batch.ts";
import { writeWhole } from "./files.ts";
import { formatOf } from "./inputs.ts";

/**
 * Writes a batch in the format of the file's extension: all of it, or no file.
 *
 * @returns the bytes written
 */
export function writeOutput(path: string, batch: Batch): Promise<number> {
  const format = formatOf(path);
  return writeWhole(path, (file) => format.write(file, batch));
}
