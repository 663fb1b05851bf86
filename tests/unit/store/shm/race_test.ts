import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers";
import { fileURLToPath } from "node:url";
import { openShmStore } from "../../../../src/store/shm.ts";
import {
  command,
  LEVEL,
  Random,
  type RuntimeName,
  RUNTIMES,
  temporaryFolder,
} from "../../../support/runtime.ts";
import { newObjectId } from "../suite.ts";

const script = fileURLToPath(new URL("./race_worker.ts", import.meta.url));
const MILLISECONDS = LEVEL === "long" ? 20_000 : 1500;

async function startWorker(runtime: RuntimeName, directory: string, role: string) {
  const [file, ...args] = command(runtime, script, [directory, role]) as [string, ...string[]];
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
  let output = "";
  child.stdout!.setEncoding("utf8").on("data", (text: string) => output += text);
  const closed = once(child, "close");
  await once(child.stdout!, "data");
  return async () => {
    child.stdin!.end();
    await closed;
    return JSON.parse(output.split("\n")[1]!) as { right: number; wrong: number; dropped: number };
  };
}

describe("readers and deleters beside a writer that reuses its files", () => {
  it("see a bundle's own bytes, or that it is gone", async () => {
    using folder = temporaryFolder();
    const random = new Random(1);
    let written = 0;
    const results: { right: number; wrong: number; dropped: number }[] = [];
    {
      await using store = await openShmStore({ directory: folder.path, poolBytes: 2 ** 22 });
      const stop = await Promise.all(
        RUNTIMES.map((runtime, i) => startWorker(runtime, folder.path, i === 0 ? "read" : "delete")),
      );
      const live: string[] = [];
      const end = performance.now() + MILLISECONDS;
      while (performance.now() < end) {
        const objectId = newObjectId("race/p");
        const number = parseInt(objectId.slice(-8), 16);
        // small ones are read by copying, large ones by mapping
        const data = new Uint32Array(random.pick([500, 4000, 40_000, 100_000])).fill(number);
        await store.writeBundle(objectId, [
          { key: `${objectId}/data`, parts: [new Uint8Array(data.buffer)] },
          { key: `${objectId}/manifest`, parts: [new Uint8Array(1)] },
        ]);
        live.push(objectId);
        written++;
        if (live.length > 6) {
          const [gone] = live.splice(random.int(live.length), 1);
          await store.delete([`${gone}/manifest`]);
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
      for (const worker of stop) results.push(await worker());
      await store.deletePrefix("race/");
    }
    assert.equal(results.reduce((sum, { wrong }) => sum + wrong, 0), 0, JSON.stringify(results));
    for (const { right } of results) assert.ok(right > 20, JSON.stringify(results));
    assert.ok(written > 50, `${written}`);
    assert.deepEqual(readdirSync(folder.path), []);
    if (LEVEL === "long") console.log(JSON.stringify({ written, results }));
  });
});
