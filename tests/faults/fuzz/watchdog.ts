/**
 * A worker that notices when an input never ends, says which one it is, and ends the process.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import process from "node:process";

/** What the worker is told once: the shared memory that the main thread writes its inputs to. */
export interface Shared {
  /** [number of the input, bytes of the input]. */
  readonly state: SharedArrayBuffer;
  readonly input: SharedArrayBuffer;
  readonly timeoutMs: number;
}

const scope = globalThis as unknown as { onmessage: ((event: { data: Shared }) => void) | null };

scope.onmessage = ({ data: { state, input, timeoutMs } }) => {
  const numbers = new Int32Array(state);
  let last = -1;
  let since = performance.now();
  setInterval(() => {
    const current = Atomics.load(numbers, 0);
    if (current !== last || current === 0) {
      last = current;
      since = performance.now();
    } else if (performance.now() - since > timeoutMs) {
      const bytes = Buffer.from(new Uint8Array(input, 0, Atomics.load(numbers, 1)));
      console.error(`input ${current} does not end: ${bytes.toString("base64")}`);
      process.kill(process.pid, "SIGKILL");
    }
  }, 500);
};
