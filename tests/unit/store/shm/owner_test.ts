import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { openShmStore } from "../../../../src/store/shm.ts";
import { isOwner } from "../../../../src/store/shm/names.ts";
import { command, runScript, RUNTIME, RUNTIMES, temporaryFolder } from "../../../support/runtime.ts";
import { newObjectId, pattern, readAll, sampleBundle } from "../suite.ts";

const holder = fileURLToPath(new URL("./holder.ts", import.meta.url));
const root = ({ path }: { readonly path: string }) => join(path, `batchferry-${process.geteuid!()}`);
const names = (folder: { readonly path: string }, ...parts: string[]) =>
  readdirSync(join(root(folder), ...parts));

/** A process that holds the store open, and the bundle it published. */
async function startHolder(directory: string) {
  const [file, ...args] = command(RUNTIME, holder, [directory, "stay"]) as [string, ...string[]];
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "inherit"] });
  const [chunk] = await once(child.stdout!, "data") as [Uint8Array];
  return { child, objectId: new TextDecoder().decode(chunk).trim() };
}

async function kill(child: ReturnType<typeof spawn>): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, "exit");
  child.kill("SIGKILL");
  await gone;
}

describe("owners", () => {
  it("lock a file named after process, start and chance", async () => {
    using folder = temporaryFolder();
    await using _one = await openShmStore({ directory: folder.path });
    await using _two = await openShmStore({ directory: folder.path });
    const owners = names(folder, "owners");
    assert.equal(owners.length, 2);
    for (const owner of owners) {
      assert.ok(isOwner(owner) && owner.startsWith(`${process.pid}-`), owner);
    }
  });

  it("that are dead are swept at the next open, their bundles stay", async () => {
    using folder = temporaryFolder();
    const { child, objectId } = await startHolder(folder.path);
    try {
      assert.equal(names(folder, "owners").length, 1);
      const [owner] = names(folder, "pool") as [string];
      assert.equal(names(folder, "pool", owner).length, 2);
      {
        await using _store = await openShmStore({ directory: folder.path }); // it lives: nothing is swept
        assert.ok(names(folder, "owners").includes(owner));
        assert.equal(names(folder, "pool", owner).length, 2);
      }
      await kill(child);
      await using store = await openShmStore({ directory: folder.path });
      assert.equal(names(folder, "owners").includes(owner), false);
      assert.equal(names(folder, "pool").includes(owner), false);
      assert.deepEqual(
        await readAll(store, `${objectId}/buffer/batch.x`),
        new Uint8Array([
          ...pattern(304, 1),
          ...pattern(1000),
        ]),
      );
      await store.delete([`${objectId}/manifest`]);
      assert.equal(await store.size(`${objectId}/manifest`), undefined);
    } finally {
      await kill(child);
    }
    assert.deepEqual(readdirSync(folder.path), []);
  });

  it("that died meanwhile get no files into their pools", async () => {
    using folder = temporaryFolder();
    const { child, objectId } = await startHolder(folder.path);
    await using store = await openShmStore({ directory: folder.path });
    await kill(child);
    await store.delete([`${objectId}/manifest`]);
    assert.equal(names(folder, "owners").length, 1);
    for (const owner of names(folder, "pool")) assert.deepEqual(names(folder, "pool", owner), []);
  });

  it("without a lock are orphans, and what is no owner's is left alone", async () => {
    using folder = temporaryFolder();
    await using _first = await openShmStore({ directory: folder.path });
    const orphan = "1-1-0123456789abcdef";
    mkdirSync(join(root(folder), "pool", orphan), { recursive: true });
    writeFileSync(join(root(folder), "pool", orphan, "w-0"), "half");
    writeFileSync(join(root(folder), "owners", "README"), "");
    await using _second = await openShmStore({ directory: folder.path });
    assert.equal(names(folder, "pool").includes(orphan), false);
    assert.ok(names(folder, "owners").includes("README"));
  });

  it("named in a hostile file do not lead out of the pool", async () => {
    using folder = temporaryFolder();
    await using store = await openShmStore({ directory: folder.path });
    const objectId = newObjectId();
    await store.writeBundle(objectId, sampleBundle(objectId));
    const file = join(root(folder), "live", "bundle%2Ftrain", objectId.slice(-32));
    const { readFileSync } = await import("node:fs");
    const bytes = readFileSync(file);
    bytes.fill(0, 64, 128).write("../../..", 64);
    const twin = newObjectId();
    writeFileSync(file.replace(objectId.slice(-32), twin.slice(-32)), bytes);
    mkdirSync(join(root(folder), "pool"), { recursive: true });
    assert.equal(await store.deletePrefix("bundle/train/"), 2);
    assert.deepEqual(readdirSync(folder.path), [`batchferry-${process.geteuid!()}`]);
    assert.deepEqual(names(folder).sort(), ["live", "owners", "pool"]);
  });

  for (const end of ["exit", "Deno.exit", "return"]) {
    it(`leave nothing but their bundles when the program ends by ${end}`, async () => {
      using folder = temporaryFolder();
      for (const runtime of RUNTIMES) {
        const { status, stdout } = await runScript(runtime, holder, [folder.path, end]);
        assert.equal(status, 0);
        assert.match(stdout, /bundle\/child/);
        assert.deepEqual(names(folder), ["live"], runtime);
      }
    });
  }
});
