/**
 * `scripts/python/batchferry_shm.py` by itself, and Mooncake's own Python class over it, without TypeScript on either side.
 *
 * @module
 */

import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, readdirSync, rmdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { newSeed, Random, ROOT, scaled, temporaryFolder } from "../support/runtime.ts";
import { PythonServer, runPython, setUpPython } from "../support/python.ts";
import { fieldForPython, fieldOf, randomFields, WRITERS } from "./python/fields.ts";
import { filesIn } from "./python/folder.ts";
import { type Row, select, type Values } from "./python/neutral.ts";

const SERVER = join(ROOT, "tests", "interop", "python", "server.py");
const { executable = "", skip } = await setUpPython();

interface Batch {
  readonly columns: Record<string, Values>;
  readonly meta: Row;
}

const id = (digit: string): string => `bundle/step 7/${digit.repeat(32)}`;
const hex = (text: string) => ({
  $b: Array.from(new TextEncoder().encode(text), (n) => n.toString(16).padStart(2, "0")).join(""),
});

describe("ShmStore", { skip }, () => {
  it("stores, reads and removes keys as Mooncake's store does", async () => {
    using folder = temporaryFolder();
    await using python = PythonServer.start(executable, SERVER);
    await python.call("open", { directory: folder.path });
    const call = (name: string, ...args: unknown[]) => python.call("call", { name, args });
    const key = `${id("a")}/meta`;
    assert.equal(await call("put", key, hex("one")), 0);
    assert.equal(await call("put", key, hex("two")), 0, "an existing key is no error");
    assert.deepEqual(await call("get", key), hex("one"), "and keeps its bytes");
    assert.equal(await call("is_exist", key), 1);
    assert.equal(await call("get_size", key), 3);
    for (const absent of [`${id("b")}/meta`, `${id("a")}/other`, "other", "names/x", id("a")]) {
      assert.deepEqual(await call("get", absent), hex(""));
      assert.equal(await call("is_exist", absent), 0);
      assert.equal(await call("get_size", absent), -704);
      assert.equal(await call("remove", absent, true), -704);
    }
    assert.equal(await call("put", "empty", hex("")), -600);
    for (const bad of ["", "/x", "x/"]) assert.equal(await call("put", bad, hex("x")), -600);
    assert.equal(await call("register_buffer", 1, 2), 0);
    assert.equal(await call("unregister_buffer", 1), 0);
    const others = [
      "bundle/names/a/names/b",
      "alone",
      `${"long ".repeat(90)}é/${"f".repeat(32)}/${"y".repeat(300)}`,
    ];
    for (const other of others) assert.equal(await call("put", other, hex(other)), 0);
    for (const other of others) assert.deepEqual(await call("get", other), hex(other));
    assert.deepEqual(await call("batch_remove", [key, "absent", ...others], true), [0, -704, 0, 0, 0]);
    assert.equal(await call("remove", key), -704);
    assert.deepEqual(filesIn(folder.path), []);
    await python.call("close");
    assert.deepEqual(readdirSync(folder.path), [], "closing removes what is empty");
    await assert.rejects(call("get", key), /the store is closed/);
    await assert.rejects(call("put", key, hex("x")), /the store is closed/);
  });

  it("reads ranges, and says which are absent or out of bounds", async () => {
    using folder = temporaryFolder();
    await using python = PythonServer.start(executable, SERVER);
    await python.call("open", { directory: folder.path });
    const key = `${id("c")}/buffer/x`;
    await python.call("call", { name: "put", args: [key, hex("0123456789")] });
    const ranges = [[8, 2], [0, 0], [0, 3], [10, 0], [9, 2], [-1, 1], [11, 0]];
    const answer = await python.call<{ sizes: number[][][]; hex: string }>("ranges", { key, ranges });
    assert.deepEqual(answer.sizes, [[[2], [0], [3], [0], [-600], [-600], [-600]]]);
    assert.deepEqual({ $b: answer.hex }, hex("89012\0\0\0"));
    const absent = await python.call<{ sizes: number[][][] }>("ranges", {
      key: `${key}y`,
      ranges: [[0, 1], [0, 2]],
    });
    assert.deepEqual(absent.sizes, [[[-704], [-704]]]);
  });

  it("refuses a folder that it cannot trust", async () => {
    using folder = temporaryFolder();
    const open = () => runPython(executable, ["-c", "import batchferry_shm; batchferry_shm.ShmStore()"]);
    const before = process.env.BATCHFERRY_DIRECTORY;
    process.env.BATCHFERRY_DIRECTORY = folder.path;
    try {
      const root = join(folder.path, `batchferry-${process.getuid?.()}`);
      mkdirSync(root);
      chmodSync(root, 0o755);
      assert.match((await open()).stderr, /PermissionError: .*has mode 0755 .* instead of 0700 .*remove it/);
      rmdirSync(root);
      symlinkSync(folder.path, root);
      assert.match((await open()).stderr, /NotADirectoryError: .*is no folder; remove it/);
      process.env.BATCHFERRY_DIRECTORY = join(folder.path, "absent");
      assert.match((await open()).stderr, /FileNotFoundError/);
    } finally {
      if (before === undefined) delete process.env.BATCHFERRY_DIRECTORY;
      else process.env.BATCHFERRY_DIRECTORY = before;
    }
  });

  it("removes what a killed process left half-done, and nothing else", async () => {
    using folder = temporaryFolder();
    const program = `
import os, sys
from batchferry_shm import ShmStore
store = ShmStore(sys.argv[1])
assert store.put("kept", b"kept") == 0
open(store._path("pool", store._owner, "w-99"), "wb").close()
os.kill(os.getpid(), 9)`;
    assert.equal((await runPython(executable, ["-c", program, folder.path])).signal, "SIGKILL");
    const root = join(folder.path, readdirSync(folder.path)[0] as string);
    const [owner] = readdirSync(join(root, "owners"));
    assert.deepEqual(readdirSync(join(root, "pool", owner as string)), ["w-99"]);
    await using python = PythonServer.start(executable, SERVER);
    await python.call("open", { directory: folder.path });
    assert.deepEqual(readdirSync(join(root, "owners")), []);
    assert.deepEqual(readdirSync(join(root, "pool")), []);
    assert.deepEqual(await python.call("call", { name: "get", args: ["kept"] }), hex("kept"));
  });

  it("goes on in forked children, and removes its lock when the program ends", async () => {
    using folder = temporaryFolder();
    const program = `
import os, sys
from batchferry_shm import ShmStore
store = ShmStore(sys.argv[1])
store.put("parent", b"p")
child = os.fork()
assert store.put("child" if child == 0 else "also parent", b"x") == 0
assert store.get("parent") == b"p"
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert len(os.listdir(store._path("owners"))) == 1, "the child took its own lock only"
assert store.get("child") == b"x"
print(store.batch_remove(["parent", "child", "also parent"], True))`;
    const { stdout, stderr, status } = await runPython(executable, ["-c", program, folder.path]);
    assert.equal(status, 0, stderr);
    assert.equal(stdout, "[0, 0, 0]\n");
    assert.deepEqual(readdirSync(folder.path), []);
  });

  it("is shared by threads and processes that open and close at the same time", async () => {
    using folder = temporaryFolder();
    const program = `
import os, sys, threading
from batchferry_shm import ShmStore
def work(name):
    for i in range(int(sys.argv[2])):
        with ShmStore(sys.argv[1]) as store:
            key = f"p{i % 3}/{name}"
            assert store.put(key, name.encode() * 1000) == 0
            assert store.get(key) == name.encode() * 1000
            assert store.remove(key) == 0 and store.remove(key) == -704
failures = []
threading.excepthook = lambda args: failures.append(repr(args.exc_value))
threads = [threading.Thread(target=work, args=(f"{os.getpid()}-{i}",)) for i in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures`;
    const runs = await Promise.all(
      Array.from(
        { length: 3 },
        () => runPython(executable, ["-c", program, folder.path, String(scaled(200))]),
      ),
    );
    for (const { status, stderr } of runs) assert.equal(status, 0, stderr);
    assert.deepEqual(readdirSync(folder.path), []);
  });

  it("says what to do when the file system is full, and leaves nothing", async () => {
    using folder = temporaryFolder();
    const program = `
import errno, os, sys
import batchferry_shm
store = batchferry_shm.ShmStore(sys.argv[1])
def full(*_):
    raise OSError(errno.ENOSPC, "full")
os.pwrite = full
try:
    store.put("x", b"x")
except OSError as error:
    print(error)
print(os.listdir(store._path("pool", store._owner)), store.is_exist("x"))`;
    const { stdout, stderr } = await runPython(executable, ["-c", program, folder.path]);
    assert.match(stdout, /no room for \d+ bytes; drop batches .*\n\[\] 0\n$/, stderr);
  });

  it("tells damaged files from absent ones", async () => {
    using folder = temporaryFolder();
    const program = `
import os, sys
from batchferry_shm import ShmStore
store = ShmStore(sys.argv[1])
store.put("x", b"x" * 100)
[path] = store._paths("x")
good = open(path, "rb").read()
for at in (0, 8, 16, 24, 32, len(good) - 1):
    bad = bytearray(good)
    bad[at] ^= 0xff
    open(path, "wb").write(bad)
    try:
        print("read", at, store.get("x"))
    except ValueError as error:
        assert "damaged" in str(error), error
for length in (0, 1, 127, 128, len(good) - 1):
    open(path, "wb").write(good[:length])
    try:
        print("read", length, store.get("x"))
    except ValueError as error:
        assert "damaged" in str(error), error
open(path, "wb").write(good)
assert store.get("x") == b"x" * 100`;
    const { stdout, stderr, status } = await runPython(executable, [
      "-W",
      "error::SyntaxWarning",
      "-c",
      program,
      folder.path,
    ]);
    assert.equal(stdout, "", "a damaged file was read");
    assert.equal(status, 0, stderr);
  });
});

describe("MooncakeBundleTransfer(ShmStore())", { skip }, () => {
  for (const writer of Object.keys(WRITERS.python)) {
    it(`writes and reads ${writer}`, async () => {
      using folder = temporaryFolder();
      const random = new Random(newSeed(writer));
      await using python = PythonServer.start(executable, SERVER);
      await python.call("open", { directory: folder.path });
      for (let i = 0; i < scaled(60); i++) {
        const rows = 1 + random.int(9);
        const field = fieldOf("python", writer, random, rows);
        const handle = await python.call("put", {
          fields: [fieldForPython(field)],
          partition: "p",
          stage: "gen",
          meta: { $d: [] },
          // small chunks now and then: a column in several files
          chunk_bytes: random.pick([null, null, writer === "structured_recursive" ? 500 : 10]),
        });
        assert.deepEqual((await python.call<Batch>("get", { handle })).columns, {
          [field.name]: field.values,
        });
        const start = random.int(rows);
        const end = start + 1 + random.int(rows - start);
        const sliced = await python.call<Batch>("get", { handle, rows: { slice: [start, end, 1] } });
        const positions = Array.from({ length: end - start }, (_, i) => start + i);
        assert.deepEqual(sliced.columns, { [field.name]: select(field.values, positions) });
        if (!isWithoutWidth(field.values)) {
          const picked = Array.from({ length: 1 + random.int(6) }, () => random.int(rows));
          const gathered = await python.call<Batch>("get", { handle, rows: picked });
          assert.deepEqual(gathered.columns, { [field.name]: select(field.values, picked) });
        }
        await python.call("cleanup", { handle });
        assert.deepEqual(filesIn(folder.path), []);
      }
    });
  }

  it("appends stages and fields, and cleans up all of it", async () => {
    using folder = temporaryFolder();
    const random = new Random(newSeed("appends"));
    await using python = PythonServer.start(executable, SERVER);
    await python.call("open", { directory: folder.path, prefix: "roll" });
    for (let i = 0; i < scaled(100); i++) {
      const rows = 1 + random.int(6);
      const [first, second, third] = ["a", "b", "c"].map((prefix) =>
        randomFields(random, "python", rows, prefix)
      );
      const all = (...fields: (typeof first)[]) =>
        Object.fromEntries(fields.flatMap((some) => some!.map(({ name, values }) => [name, values])));
      const written = { partition: "p q", stage: "gen", meta: { $d: [["step", 7]] } };
      const put = await python.call("put", { ...written, fields: first!.map(fieldForPython) });
      const before = filesIn(folder.path);
      const same = { handle: put, stage: "gen", fields: second!.map(fieldForPython), meta: { $d: [] } };

      // an append that is given up leaves what was there before
      const dropped = await python.call("append", same);
      await python.call("cleanup_append", { previous: put, appended: dropped });
      assert.deepEqual(filesIn(folder.path), before);
      assert.deepEqual((await python.call<Batch>("get", { handle: put })).columns, all(first));

      const appended = await python.call("append", same);
      const staged = await python.call("append", {
        handle: appended,
        stage: "reward",
        fields: third!.map(fieldForPython),
        meta: { $d: [["more", true]] },
      });
      const read = await python.call<Batch>("get", { handle: staged });
      assert.deepEqual(read.columns, all(first, second, third));
      assert.deepEqual(read.meta, { $d: [["more", true], ["step", 7]] });
      await python.call("cleanup_append", { previous: appended, appended: staged });
      assert.deepEqual((await python.call<Batch>("get", { handle: appended })).columns, all(first, second));
      await python.call("cleanup", { handle: appended });
      assert.deepEqual(filesIn(folder.path), []);
      await python.call("cleanup", { handle: appended }); // once more is no error
    }
    await python.call("close");
    assert.equal(existsSync(join(folder.path, `batchferry-${process.getuid?.()}`)), false);
  });
});

/** Arrays without elements: Mooncake's class cannot gather rows of those. */
function isWithoutWidth(values: Values): boolean {
  return "array" in values && values.array.shape.includes(0);
}
