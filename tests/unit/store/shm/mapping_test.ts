import assert from "node:assert/strict";
import { closeSync, openSync, readFileSync, readSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { cstring, O_CLOEXEC, O_RDONLY, O_RDWR, sys } from "../../../../ffi/libc.ts";
import { Mapping } from "../../../../src/store/shm/mapping.ts";
import { temporaryFolder } from "../../../support/runtime.ts";
import { pattern } from "../suite.ts";

function map(path: string, bytes: number, how: "shared" | "private"): Mapping {
  const fd = sys.open(cstring(path), (how === "shared" ? O_RDWR : O_RDONLY) | O_CLOEXEC);
  try {
    return Mapping[how](fd, bytes, path);
  } finally {
    sys.close(fd);
  }
}

describe("Mapping", () => {
  it("writes to the file when shared, and to nothing but itself when private", () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "file");
    writeFileSync(path, pattern(10_000));
    using shared = map(path, 10_000, "shared");
    using own = map(path, 10_000, "private");
    own.write(100, pattern(50, 3));
    assert.deepEqual(new Uint8Array(readFileSync(path)), pattern(10_000));
    shared.write(200, pattern(50, 3));
    assert.deepEqual(new Uint8Array(readFileSync(path)).subarray(200, 250), pattern(50, 3));
    const into = new Uint8Array(50);
    own.read(100, into);
    assert.deepEqual(into, pattern(50, 3));
    shared.read(100, into);
    assert.deepEqual(into, pattern(10_000).subarray(100, 150));
  });

  it("detaches its views when it is closed, and refuses what is not within it", () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "file");
    writeFileSync(path, pattern(5000));
    const mapping = map(path, 5000, "private");
    const [a, b, empty] = [mapping.view(0, 10), mapping.view(4990, 10), mapping.view(5000, 0)];
    assert.deepEqual(new Uint8Array(b), pattern(5000).subarray(4990));
    assert.equal(empty.byteLength, 0);
    for (const [offset, bytes] of [[4991, 10], [-1, 1], [0, 5001], [2 ** 40, 1]] as const) {
      assert.throws(() => mapping.view(offset, bytes), RangeError);
      assert.throws(() => mapping.read(offset, new Uint8Array(bytes)), RangeError);
    }
    mapping.forget(a);
    assert.deepEqual([a.byteLength, b.byteLength], [0, 10]);
    mapping.close();
    mapping.close();
    assert.equal(b.byteLength, 0);
    assert.throws(() => mapping.view(0, 1), RangeError);
    assert.throws(() => mapping.write(0, new Uint8Array(1)), RangeError);
  });

  it("reaches beyond what one ArrayBuffer can", () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "sparse");
    const bytes = 5 * 2 ** 30;
    writeFileSync(path, "");
    truncateSync(path, bytes);
    using mapping = map(path, bytes, "shared");
    const at = bytes - 1000;
    mapping.write(at, pattern(1000));
    const into = new Uint8Array(1000);
    mapping.read(at, into);
    assert.deepEqual(into, pattern(1000));
    const fd = openSync(path, "r");
    readSync(fd, into.fill(0), 0, 1000, at);
    closeSync(fd);
    assert.deepEqual(into, pattern(1000));
    assert.deepEqual(new Uint8Array(mapping.view(at + 10, 5)), pattern(1000).subarray(10, 15));
  });
});
