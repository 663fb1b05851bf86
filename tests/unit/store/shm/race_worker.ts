/**
 * A process for tests: reads whatever bundles it finds in the folder given, by copies and by leases, until its input
 * ends; then says how many it read, and how many of those held another bundle's bytes.
 */

import process from "node:process";
import { setImmediate } from "node:timers";
import { DroppedError } from "../../../../src/errors.ts";
import { openShmStore } from "../../../../src/store/shm.ts";

const [directory, role] = process.argv.slice(2);
const store = await openShmStore({ directory: directory! });
let stopped = false;
process.stdin.on("data", () => stopped = true).on("end", () => stopped = true);
process.stdout.write("ready\n");

const counts = { right: 0, wrong: 0, dropped: 0 };

/** Every number of a payload is the bundle's own. */
function check(numbers: Uint32Array, expected: number): void {
  if (numbers.every((number) => number === expected)) counts.right++;
  else counts.wrong++;
}

while (!stopped) {
  for await (const manifest of store.list!("race/")) {
    const objectId = manifest.slice(0, -"/manifest".length);
    const expected = parseInt(objectId.slice(-8), 16);
    const key = `${objectId}/data`;
    try {
      if (role === "delete" && expected % 3 === 0) {
        await store.delete([manifest]);
        continue;
      }
      const into = new Uint8Array(await store.size(key) ?? 0);
      await store.read([{ key, offset: 0, into }]);
      check(new Uint32Array(into.buffer), expected);
      using lease = store.view!(objectId, [key]);
      const numbers = new Uint32Array(lease.payloads.get(key)!);
      check(numbers, expected);
      if (expected % 7 === 0) {
        await new Promise((resolve) => setTimeout(resolve, 1));
        check(numbers, expected); // the bundle may be gone by now, the lease is not
      }
      numbers.fill(0xffff_ffff);
    } catch (error) {
      if (!(error instanceof DroppedError)) throw error;
      counts.dropped++;
    }
  }
  await new Promise((resolve) => setImmediate(resolve));
}
await store.close();
process.stdout.write(`${JSON.stringify(counts)}\n`);
process.exit(0);
