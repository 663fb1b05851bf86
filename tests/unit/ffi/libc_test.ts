import { after, beforeEach, describe, it } from "node:test";
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import process from "node:process";
import * as c from "../../../ffi/libc.ts";
import { cstring, Stat, sys } from "../../../ffi/libc.ts";
import { detach, native } from "../../../ffi/native.ts";
import { TempFolder } from "./cc.ts";

const folder = new TempFolder();
const work = folder.file("work");
const name = `${work}/file`;
const path = cstring(name);
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

beforeEach(() => {
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work);
});
after(() => folder.remove());

function create(): number {
  const fd = sys.open(path, c.O_RDWR | c.O_CREAT | c.O_EXCL | c.O_CLOEXEC, 0o600);
  assert.ok(fd >= 0);
  return fd;
}

describe("cstring", () => {
  it("writes UTF-8 and a NUL", () => {
    for (const given of ["", "abc", "zażółć", "漢字", "a😀b", "x".repeat(20_000), "é".repeat(5000)]) {
      const out = cstring(given);
      assert.equal(out.at(-1), 0);
      assert.equal(text(out.subarray(0, -1)), given);
    }
  });

  it("never hands out the same bytes twice", () => {
    const all = Array.from({ length: 3000 }, (_, i) => cstring(`text ${i}`));
    all.forEach((out, i) => assert.equal(text(out), `text ${i}\0`));
  });

  it("refuses a NUL inside, wherever it is", () => {
    for (const given of ["\0", "a\0b", "abc\0", "é\0", "漢a\0b"]) {
      assert.throws(() => cstring(given), TypeError);
    }
  });
});

describe("readCString, errnoText", () => {
  it("read C's text", () => {
    const held = new Uint8Array(new ArrayBuffer(32));
    held.set(bytes("zażółć\0more"));
    assert.equal(c.readCString(native.addressOf(held)), "zażółć");
    held[0] = 0;
    assert.equal(c.readCString(native.addressOf(held)), "");
    assert.equal(c.readCString(0n), null);
  });

  it("say what a number means, of either sign", () => {
    assert.equal(c.errnoText(-c.ENOSPC), "ENOSPC (No space left on device)");
    assert.equal(c.errnoText(c.ENOENT), "ENOENT (No such file or directory)");
  });
});

describe("sys: files", () => {
  it("creates, writes, reads, cuts and removes", () => {
    const fd = create();
    assert.equal(sys.pwrite(fd, bytes("hello world"), 4), 11);
    const into = new Uint8Array(32);
    assert.equal(sys.pread(fd, into, 0), 15);
    assert.equal(text(into.subarray(0, 15)), "\0\0\0\0hello world");
    assert.equal(sys.pread(fd, into.subarray(20, 25), 10), 5);
    assert.equal(text(into.subarray(20, 25)), "world");
    assert.equal(sys.pread(fd, into, 15), 0);
    assert.equal(sys.ftruncate(fd, 9), 0);
    assert.equal(readFileSync(name, "latin1"), "\0\0\0\0hello");
    assert.equal(sys.close(fd), 0);
    assert.equal(sys.exists(path), true);
    assert.equal(sys.unlink(path), 0);
    assert.equal(sys.exists(path), false);
  });

  it("reads and writes beyond 4 GiB", () => {
    const fd = create();
    const far = 5 * 2 ** 30 + 3;
    assert.equal(sys.pwrite(fd, bytes("far"), far), 3);
    const stat = new Stat();
    assert.equal(sys.fstat(fd, stat), 0);
    assert.equal(stat.size, far + 3);
    const into = new Uint8Array(3);
    assert.equal(sys.pread(fd, into, far), 3);
    assert.equal(text(into), "far");
    sys.close(fd);
  });

  it("answers with −errno", () => {
    assert.equal(sys.open(path, c.O_RDONLY), -c.ENOENT);
    const fd = create();
    assert.equal(sys.open(path, c.O_RDWR | c.O_CREAT | c.O_EXCL, 0o600), -c.EEXIST);
    assert.equal(sys.open(path, c.O_RDONLY | c.O_DIRECTORY), -c.ENOTDIR);
    assert.equal(sys.open(cstring(`${name}/under`), c.O_RDONLY), -c.ENOTDIR);
    assert.equal(sys.open(cstring(work + "/" + "n".repeat(256)), c.O_RDONLY), -c.ENAMETOOLONG);
    symlinkSync(name, `${name}-link`);
    assert.equal(sys.open(cstring(`${name}-link`), c.O_RDONLY | c.O_NOFOLLOW), -c.ELOOP);
    assert.equal(sys.close(fd), 0);
    assert.equal(sys.close(fd), -c.EBADF);
    assert.equal(sys.pread(fd, new Uint8Array(1), 0), -c.EBADF);
    assert.equal(sys.pwrite(fd, new Uint8Array(1), 0), -c.EBADF);
    assert.equal(sys.ftruncate(fd, 1), -c.EBADF);
    assert.equal(sys.unlink(cstring(`${name}-none`)), -c.ENOENT);
    assert.equal(sys.unlink(cstring(work)), -c.EISDIR);
  });

  it("opens with O_CLOEXEC as the kernel knows it", () => {
    const fd = create();
    const flags = /flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))![1]!;
    assert.equal(parseInt(flags, 8) & c.O_CLOEXEC, c.O_CLOEXEC);
    sys.close(fd);
  });

  it("makes, moves and removes folders and files", () => {
    const made = cstring(`${work}/made`);
    assert.equal(sys.mkdir(made, 0o700), 0);
    assert.equal(statSync(`${work}/made`).mode & 0o777, 0o700);
    assert.equal(sys.mkdir(made, 0o700), -c.EEXIST);
    assert.equal(sys.mkdir(cstring(`${work}/a/b`), 0o700), -c.ENOENT);
    sys.close(create());
    assert.equal(sys.rename(path, cstring(`${work}/made/moved`)), 0);
    assert.ok(existsSync(`${work}/made/moved`));
    assert.equal(sys.rename(path, made), -c.ENOENT);
    assert.equal(sys.rmdir(made), -c.ENOTEMPTY);
    assert.equal(sys.unlink(cstring(`${work}/made/moved`)), 0);
    assert.equal(sys.rmdir(made), 0);
    assert.equal(sys.rmdir(made), -c.ENOENT);
  });

  it("reserves space, on the event loop and off it, and tells the error that errno does not have", async () => {
    const fd = create();
    assert.equal(sys.fallocate(fd, 0, 10_000), 0);
    assert.equal(statSync(name).size, 10_000);
    assert.ok(statSync(name).blocks * 512 >= 10_000);
    assert.equal(await sys.fallocateAsync(fd, 10_000, 10_000), 0);
    assert.equal(statSync(name).size, 20_000);
    assert.ok(Object.is(sys.fallocate(fd, 0, 1), 0));
    for (const answer of [sys.fallocate(fd, 0, 0), await sys.fallocateAsync(fd, 0, 0)]) {
      assert.equal(answer, -c.EINVAL);
    }
    sys.close(fd);
    assert.equal(sys.fallocate(fd, 0, 1), -c.EBADF);
    assert.equal(await sys.fallocateAsync(fd, 0, 1), -c.EBADF);
  });
});

describe("sys: stat", () => {
  function assertSame(stat: Stat, file: string, of: typeof lstatSync): void {
    const own = of(file, { bigint: true })!;
    assert.equal(stat.ino, own.ino);
    assert.equal(BigInt(stat.dev), own.dev);
    assert.equal(BigInt(stat.size), own.size);
    assert.equal(BigInt(stat.mode), own.mode);
    assert.equal(BigInt(stat.uid), own.uid);
    assert.equal(BigInt(stat.gid), own.gid);
    assert.equal(BigInt(stat.nlink), own.nlink);
    assert.equal(BigInt(stat.blocks), own.blocks);
    assert.ok(Math.abs(stat.mtimeMs - Number(own.mtimeMs)) <= 1, `${stat.mtimeMs} and ${own.mtimeMs}`);
  }

  it("agrees with node:fs, by path, by descriptor and on the link itself", () => {
    writeFileSync(name, "x".repeat(12_345), { mode: 0o640 });
    symlinkSync(name, `${name}-link`);
    const stat = new Stat();
    for (const file of [name, work, "/proc/self/status", "/dev/shm", "/dev/null"]) {
      assert.equal(sys.stat(cstring(file), stat), 0);
      assertSame(stat, file, statSync as typeof lstatSync);
    }
    const fd = sys.open(path, c.O_RDONLY | c.O_CLOEXEC);
    assert.equal(sys.fstat(fd, stat), 0);
    assertSame(stat, name, statSync as typeof lstatSync);
    assert.deepEqual([stat.isFile(), stat.isDirectory(), stat.isSymlink()], [true, false, false]);
    sys.close(fd);
    assert.equal(sys.lstat(cstring(`${name}-link`), stat), 0);
    assertSame(stat, `${name}-link`, lstatSync);
    assert.deepEqual([stat.isFile(), stat.isDirectory(), stat.isSymlink()], [false, false, true]);
    assert.equal(sys.stat(cstring(`${name}-link`), stat), 0);
    assert.equal(stat.isFile(), true);
    assert.equal(sys.stat(cstring(work), stat), 0);
    assert.equal(stat.isDirectory(), true);
  });

  it("leaves the object alone when it fails", () => {
    const stat = new Stat();
    sys.stat(cstring(work), stat);
    const before = { ...stat };
    assert.equal(sys.stat(cstring(`${work}/none`), stat), -c.ENOENT);
    assert.equal(sys.fstat(-1, stat), -c.EBADF);
    assert.deepEqual({ ...stat }, before);
  });

  it("reads times before 1970", () => {
    writeFileSync(name, "");
    spawnSync("touch", ["-d", "1960-01-02T03:04:05Z", name]);
    const stat = new Stat();
    sys.stat(path, stat);
    assert.equal(stat.mtimeMs, Date.UTC(1960, 0, 2, 3, 4, 5));
  });
});

describe("sys: locks", () => {
  it("conflict between two descriptors of one process", () => {
    const one = create();
    const two = sys.open(path, c.O_RDWR | c.O_CLOEXEC);
    assert.equal(sys.flock(one, c.LOCK_EX | c.LOCK_NB), 0);
    assert.equal(sys.flock(two, c.LOCK_EX | c.LOCK_NB), -c.EWOULDBLOCK);
    assert.equal(sys.flock(two, c.LOCK_SH | c.LOCK_NB), -c.EWOULDBLOCK);
    assert.equal(sys.flock(one, c.LOCK_SH | c.LOCK_NB), 0);
    assert.equal(sys.flock(two, c.LOCK_SH | c.LOCK_NB), 0);
    assert.equal(sys.flock(two, c.LOCK_EX | c.LOCK_NB), -c.EWOULDBLOCK);
    assert.equal(sys.close(one), 0);
    assert.equal(sys.flock(two, c.LOCK_EX | c.LOCK_NB), 0);
    assert.equal(sys.flock(two, c.LOCK_UN), 0);
    sys.close(two);
  });
});

describe("sys: mappings", () => {
  const rw = c.PROT_READ | c.PROT_WRITE;

  it("a shared one writes to the file, a private one keeps its writes", () => {
    const fd = create();
    sys.ftruncate(fd, 8192);
    const shared = sys.mmap(8192, rw, c.MAP_SHARED | c.MAP_POPULATE, fd, 0);
    const single = sys.mmap(4096, rw, c.MAP_PRIVATE | c.MAP_NORESERVE, fd, 4096);
    assert.ok(shared > 0n && single > 0n);
    const sharedBytes = new Uint8Array(native.view(shared, 8192));
    const singleBytes = new Uint8Array(native.view(single, 4096));
    sharedBytes[4100] = 1;
    assert.equal(singleBytes[4], 1);
    singleBytes[5] = 2;
    assert.equal(sharedBytes[4101], 0);
    const into = new Uint8Array(2);
    sys.pread(fd, into, 4100);
    assert.deepEqual([...into], [1, 0]);
    assert.equal(sys.madvise(shared, 8192, c.MADV_DONTNEED), 0);
    detach(sharedBytes.buffer);
    detach(singleBytes.buffer);
    assert.equal(sys.munmap(shared, 8192), 0);
    assert.equal(sys.munmap(single, 4096), 0);
    assert.equal(sharedBytes.length, 0);
    sys.close(fd);
  });

  it("fail with −errno", () => {
    assert.equal(sys.mmap(4096, rw, c.MAP_SHARED, -1, 0), BigInt(-c.EBADF));
    assert.equal(sys.mmap(0, rw, c.MAP_PRIVATE | c.MAP_ANONYMOUS, -1, 0), BigInt(-c.EINVAL));
    assert.equal(sys.munmap(1n, 4096), -c.EINVAL);
    assert.equal(sys.madvise(1n, 4096, c.MADV_DONTNEED), -c.EINVAL);
  });
});

describe("sys: processes", () => {
  it("knows this one and its user", () => {
    assert.equal(sys.pid, process.pid);
    assert.equal(sys.geteuid(), process.geteuid!());
    assert.equal(c.libc.symbols.sysconf(c.SC_PAGESIZE) % 4096n, 0n);
  });

  it("kill with signal 0 tells the living from the dead", () => {
    assert.equal(sys.kill(process.pid, 0), 0);
    const { pid } = spawnSync(process.execPath, ["--version"]);
    assert.equal(sys.kill(pid, 0), -c.ESRCH);
    assert.equal(sys.kill(process.pid, 999), -c.EINVAL);
  });
});
