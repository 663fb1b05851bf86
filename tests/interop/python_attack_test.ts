/**
 * The shared-memory protocol under attack with Python in it: TypeScript owners in both runtimes fill files again, while
 * Python and TypeScript read, delete and write in the same folder.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { openShmStore } from "../../src/store/shm.ts";
import { runPython, setUpPython } from "../support/python.ts";
import { LEVEL, newSeed, Random, ROOT, runScript, temporaryFolder } from "../support/runtime.ts";

const PYTHON_WORKER = join(ROOT, "tests", "interop", "python", "attack.py");
const TYPESCRIPT_WORKER = join(ROOT, "tests", "faults", "shm_attack_worker.ts");
const { executable = "", skip } = await setUpPython();

describe("shm under attack with Python", { skip }, () => {
  const seconds = LEVEL === "long" ? 20 : 4;

  it(`reads nothing wrong for ${seconds} s and leaves nothing behind`, async () => {
    const random = new Random(newSeed("shm attack with Python"));
    using folder = temporaryFolder();
    const python = (role: string) =>
      runPython(executable, [PYTHON_WORKER, role, folder.path, String(seconds)]);
    const script = (runtime: "deno" | "bun", role: string) =>
      runScript(runtime, TYPESCRIPT_WORKER, [
        role,
        folder.path,
        String(seconds),
        String(random.int(2 ** 32)),
      ]);
    const runs = await Promise.all([
      script("deno", "owner"),
      script("bun", "owner"),
      script(random.pick(["deno", "bun"]), "reader"),
      python("reader"),
      python("deleter"),
      python("writer"),
    ]);
    const counts = runs.map(({ status, stdout, stderr }) => {
      assert.equal(status, 0, stderr);
      return JSON.parse(stdout.trim().split("\n").at(-1) as string) as Record<string, number>;
    });
    const [deno, bun, reader, pythonReader, pythonDeleter, pythonWriter] = counts as [
      Record<string, number>,
      ...Record<string, number>[],
    ] as Record<string, number>[];
    console.log(
      JSON.stringify({
        owners: [deno?.wrote, bun?.wrote],
        reader,
        pythonReader,
        pythonDeleter,
        pythonWriter,
      }),
    );
    assert.equal(reader?.wrong, 0, "TypeScript read wrong bytes");
    assert.equal(pythonReader?.wrong, 0, "Python read wrong bytes");
    for (
      const count of [
        deno?.wrote,
        bun?.wrote,
        reader?.reads,
        pythonReader?.reads,
        pythonDeleter?.deleted,
        pythonWriter?.wrote,
      ]
    ) {
      assert.ok(count! > 50, "the attack did not happen");
    }
    const store = await openShmStore({ directory: folder.path });
    await store.deletePrefix("bundle/attack/");
    await store.close();
    assert.deepEqual(readdirSync(folder.path), []);
  });
});
