/**
 * libc: files, locks and mappings.
 *
 * `sys` speaks like the kernel: a result of 0 or more, or −errno; no exceptions, because "is there already" and "is
 * locked" are everyday answers to the callers. Paths are `cstring`s. A descriptor made here stays here: Deno's `node:fs`
 * refuses those it did not open itself.
 *
 * Linux with glibc, x86_64 and aarch64.
 *
 * @module
 */

import process from "node:process";
import { BackendUnavailableError } from "../src/errors.ts";
import { EINTR, errnoName } from "./errno.ts";
import { type Library, native } from "./native.ts";

export * from "./errno.ts";

const TABLE = {
  open: {
    args: ["buffer", "i32", "u32"],
    result: "i32",
    c: "int open(const char *path, int flags, mode_t mode)",
  },
  close: { args: ["i32"], result: "i32", c: "int close(int fd)" },
  read: { args: ["i32", "buffer", "usize"], result: "isize", c: "ssize_t read(int fd, void *buf, size_t n)" },
  write: {
    args: ["i32", "buffer", "usize"],
    result: "isize",
    c: "ssize_t write(int fd, const void *buf, size_t n)",
  },
  pread: {
    args: ["i32", "buffer", "usize", "i64"],
    result: "isize",
    c: "ssize_t pread(int fd, void *buf, size_t n, off_t offset)",
  },
  pwrite: {
    args: ["i32", "buffer", "usize", "i64"],
    result: "isize",
    c: "ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)",
  },
  ftruncate: { args: ["i32", "i64"], result: "i32", c: "int ftruncate(int fd, off_t length)" },
  posix_fallocate: {
    args: ["i32", "i64", "i64"],
    result: "i32",
    c: "int posix_fallocate(int fd, off_t offset, off_t length)",
  },
  posix_fallocate_blocking: {
    symbol: "posix_fallocate",
    args: ["i32", "i64", "i64"],
    result: "i32",
    blocking: true,
    c: "int posix_fallocate(int fd, off_t offset, off_t length)",
  },
  mmap: {
    args: ["pointer", "usize", "i32", "i32", "i32", "i64"],
    result: "pointer",
    c: "void *mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset)",
  },
  munmap: { args: ["pointer", "usize"], result: "i32", c: "int munmap(void *address, size_t length)" },
  memfd_create: {
    args: ["buffer", "u32"],
    result: "i32",
    c: "int memfd_create(const char *name, unsigned int flags)",
  },
  setenv: {
    args: ["buffer", "buffer", "i32"],
    result: "i32",
    c: "int setenv(const char *name, const char *value, int overwrite)",
  },
  getenv: { args: ["buffer"], result: "pointer", c: "char *getenv(const char *name)" },
  unsetenv: { args: ["buffer"], result: "i32", c: "int unsetenv(const char *name)" },
  fcntl: { args: ["i32", "i32", "i64"], result: "i32", c: "int fcntl(int fd, int command, ...)" },
  poll_blocking: {
    symbol: "poll",
    args: ["pointer", "u64", "i32"],
    result: "i32",
    blocking: true,
    c: "int poll(struct pollfd *fds, nfds_t nfds, int timeout)",
  },
  madvise: {
    args: ["pointer", "usize", "i32"],
    result: "i32",
    c: "int madvise(void *address, size_t length, int advice)",
  },
  flock: { args: ["i32", "i32"], result: "i32", c: "int flock(int fd, int operation)" },
  statx: {
    args: ["i32", "buffer", "i32", "u32", "buffer"],
    result: "i32",
    c: "int statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *out)",
  },
  mkdir: { args: ["buffer", "u32"], result: "i32", c: "int mkdir(const char *path, mode_t mode)" },
  rmdir: { args: ["buffer"], result: "i32", c: "int rmdir(const char *path)" },
  rename: { args: ["buffer", "buffer"], result: "i32", c: "int rename(const char *from, const char *to)" },
  unlink: { args: ["buffer"], result: "i32", c: "int unlink(const char *path)" },
  access: { args: ["buffer", "i32"], result: "i32", c: "int access(const char *path, int mode)" },
  geteuid: { args: [], result: "u32", c: "uid_t geteuid(void)" },
  getpid: { args: [], result: "i32", c: "pid_t getpid(void)" },
  kill: { args: ["i32", "i32"], result: "i32", c: "int kill(pid_t pid, int signal)" },
  sysconf: { args: ["i32"], result: "i64", c: "long sysconf(int name)" },
  strlen: { args: ["pointer"], result: "usize", c: "size_t strlen(const char *s)" },
  strerror: { args: ["i32"], result: "pointer", c: "char *strerror(int errnum)" },
  __errno_location: { args: [], result: "pointer", c: "int *__errno_location(void)" },
} as const;

const DL_TABLE = {
  dlopen: { args: ["buffer", "i32"], result: "pointer", c: "void *dlopen(const char *file, int mode)" },
  dlsym: { args: ["pointer", "buffer"], result: "pointer", c: "void *dlsym(void *handle, const char *name)" },
  dlerror: { args: [], result: "pointer", c: "char *dlerror(void)" },
  dlinfo: {
    args: ["pointer", "i32", "buffer"],
    result: "i32",
    c: "int dlinfo(void *handle, int request, void *info)",
  },
  dlclose: { args: ["pointer"], result: "i32", c: "int dlclose(void *handle)" },
} as const;

function openLibc(): Library<typeof TABLE> {
  try {
    return native.open("libc.so.6", TABLE);
  } catch (cause) {
    throw new BackendUnavailableError("LIBRARY_MISSING", "libc.so.6 could not be opened", {
      hint: "native code needs Linux with glibc (x86_64 or aarch64)",
      cause,
    });
  }
}

function openDl(): Library<typeof DL_TABLE> {
  try {
    return native.open("libc.so.6", DL_TABLE);
  } catch {
    return native.open("libdl.so.2", DL_TABLE); // glibc before 2.34
  }
}

/** libc's functions as C has them. Never closed. */
export const libc: Library<typeof TABLE> = openLibc();
/** The dynamic loader's functions as C has them. Never closed. */
export const dl: Library<typeof DL_TABLE> = openDl();

const arm = process.arch === "arm64";

export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
export const O_CLOEXEC = 0o2000000;
export const O_DIRECTORY: number = arm ? 0o40000 : 0o200000;
export const O_NOFOLLOW: number = arm ? 0o100000 : 0o400000;

export const LOCK_SH = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;
export const LOCK_UN = 8;

export const PROT_NONE = 0;
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
export const MAP_POPULATE = 0x8000;
const MFD_CLOEXEC = 1;
export const MADV_DONTNEED = 4;
export const MADV_HUGEPAGE = 14;
export const MADV_POPULATE_WRITE = 23;

export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;

export const RTLD_LAZY = 0x1;
export const RTLD_NOW = 0x2;
export const RTLD_GLOBAL = 0x100;
export const RTLD_LOCAL = 0;

export const SC_PAGESIZE = 30;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

// Room for short texts, handed out once and never again: an ArrayBuffer each costs Deno ten times as much.
const SLAB = 8192;
let slab = new ArrayBuffer(SLAB);
let slabUsed = 0;

function room(bytes: number): Uint8Array<ArrayBuffer> {
  if (bytes > SLAB / 8) return new Uint8Array(new ArrayBuffer(bytes));
  if (slabUsed + bytes > SLAB) {
    slab = new ArrayBuffer(SLAB);
    slabUsed = 0;
  }
  const out = new Uint8Array(slab, slabUsed, bytes);
  slabUsed += bytes;
  return out;
}

/**
 * Text as C reads it: UTF-8 with a NUL behind. The buffer under it is shared with other texts.
 *
 * @throws {TypeError} where it has a NUL inside.
 */
export function cstring(text: string): Uint8Array<ArrayBuffer> {
  const { length } = text;
  const out = room(length + 1);
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0) throw new TypeError(`a NUL in ${JSON.stringify(text)}: C would stop reading there`);
    // paths are short and nearly always ASCII; the encoder alone costs more than this loop
    if (code > 0x7f) return encoded(text);
    out[i] = code;
  }
  return out;
}

function encoded(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) {
    throw new TypeError(`a NUL in ${JSON.stringify(text)}: C would stop reading there`);
  }
  const bytes = encoder.encode(text);
  const out = room(bytes.length + 1);
  out.set(bytes);
  return out;
}

const { strlen, strerror } = libc.symbols;

/** The text at an address, or `null` at NULL. */
export function readCString(address: bigint): string | null {
  if (address === 0n) return null;
  const length = Number(strlen(address));
  // a copy: the text is often overwritten by the next call
  return decoder.decode(new Uint8Array(native.view(address, length)).slice());
}

/** What an error number of either sign means, for messages: `ENOSPC (No space left on device)`. */
export function errnoText(errno: number): string {
  return `${errnoName(errno)} (${readCString(strerror(Math.abs(errno))) ?? "unknown"})`;
}

// One int per thread, at one place for the thread's life; a worker that loads this module gets its own.
const errnoCell = new Int32Array(native.view(libc.symbols.__errno_location(), 4));

/** What a file is, as far as it is asked here; filled anew by each `sys.stat`. */
export class Stat {
  ino = 0n;
  /** As `node:fs` gives it: major and minor in one number. */
  dev = 0;
  size = 0;
  mode = 0;
  uid = 0;
  gid = 0;
  nlink = 0;
  /** Of 512 bytes. */
  blocks = 0;
  mtimeMs = 0;

  isDirectory(): boolean {
    return (this.mode & S_IFMT) === S_IFDIR;
  }

  isFile(): boolean {
    return (this.mode & S_IFMT) === S_IFREG;
  }

  isSymlink(): boolean {
    return (this.mode & S_IFMT) === S_IFLNK;
  }
}

// struct statx: 256 bytes, the same on every architecture
const statxBytes = new Uint8Array(new ArrayBuffer(256));
const statx16 = new Uint16Array(statxBytes.buffer);
const statx32 = new Uint32Array(statxBytes.buffer);
const statx64 = new BigUint64Array(statxBytes.buffer);
const STATX_BASIC_STATS = 0x7ff;
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const HIGH = 2 ** 32;

function fillStat(out: Stat): void {
  out.nlink = statx32[4]!;
  out.uid = statx32[5]!;
  out.gid = statx32[6]!;
  out.mode = statx16[14]!;
  out.ino = statx64[4]!;
  out.size = statx32[10]! + statx32[11]! * HIGH;
  out.blocks = statx32[12]! + statx32[13]! * HIGH;
  // stx_mtime at 112: i64 seconds, u32 nanoseconds
  out.mtimeMs = (statx32[28]! + (statx32[29]! | 0) * HIGH) * 1000 + statx32[30]! / 1e6;
  const major = statx32[34]!;
  const minor = statx32[35]!;
  // glibc's makedev
  out.dev = (major >>> 12) * 2 ** 44 + (minor >>> 8) * 2 ** 20 + (major & 0xfff) * 2 ** 8 + (minor & 0xff);
}

const EMPTY = cstring("");

const {
  open,
  close,
  pread,
  pwrite,
  ftruncate,
  posix_fallocate: fallocate,
  posix_fallocate_blocking: fallocateBlocking,
  mmap,
  memfd_create,
  munmap,
  madvise,
  flock,
  statx,
  mkdir,
  rmdir,
  rename,
  unlink,
  access,
  geteuid,
  kill,
} = libc.symbols;

function failed(): number {
  return -errnoCell[0]!;
}

// A signal with a handler interrupts what waits, and the call is simply made again.
function interrupted(): boolean {
  return errnoCell[0] === EINTR;
}

function statAt(fd: number, path: Uint8Array, flags: number, out: Stat): number {
  if (statx(fd, path, flags, STATX_BASIC_STATS, statxBytes) < 0) return failed();
  fillStat(out);
  return 0;
}

const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** The error of the last call on the event loop that failed; for libraries that report by errno. */
export function lastErrno(): number {
  return errnoCell[0]!;
}

const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0x800;
const POLLIN = 1;

/** System calls: 0 or more, or −errno. Paths are made with `cstring`. */
export const sys = {
  /** This process. */
  pid: process.pid as number,

  open(path: Uint8Array, flags: number, mode = 0): number {
    for (;;) {
      const fd = open(path, flags, mode);
      if (fd >= 0) return fd;
      if (!interrupted()) return failed();
    }
  },

  /** Not made again after EINTR: on Linux the descriptor is gone by then. */
  close(fd: number): number {
    return close(fd) < 0 ? failed() : 0;
  },

  /** Reads up to `into.byteLength` bytes at `offset`; fewer at the end of the file, and above 2 GiB − 4 KiB. */
  pread(fd: number, into: Uint8Array, offset: number): number {
    for (;;) {
      const count = Number(pread(fd, into, BigInt(into.byteLength), BigInt(offset)));
      if (count >= 0) return count;
      if (!interrupted()) return failed();
    }
  },

  /** Writes up to `from.byteLength` bytes at `offset`; fewer when space runs out, and above 2 GiB − 4 KiB. */
  pwrite(fd: number, from: Uint8Array, offset: number): number {
    for (;;) {
      const count = Number(pwrite(fd, from, BigInt(from.byteLength), BigInt(offset)));
      if (count >= 0) return count;
      if (!interrupted()) return failed();
    }
  },

  ftruncate(fd: number, bytes: number): number {
    for (;;) {
      if (ftruncate(fd, BigInt(bytes)) >= 0) return 0;
      if (!interrupted()) return failed();
    }
  },

  /** Reserves the bytes on the event loop: for small files; 84 MiB take 24–40 ms. */
  fallocate(fd: number, offset: number, bytes: number): number {
    for (;;) {
      // its result is the error; errno is left alone
      const error = fallocate(fd, BigInt(offset), BigInt(bytes));
      if (error !== EINTR) return 0 - error; // and not −0
    }
  },

  /** Reserves the bytes off the event loop. Closing `fd` has to wait for the promise. */
  async fallocateAsync(fd: number, offset: number, bytes: number): Promise<number> {
    for (;;) {
      const error = await fallocateBlocking(fd, BigInt(offset), BigInt(bytes));
      if (error !== EINTR) return 0 - error; // and not −0
    }
  },

  /** The address, or −errno as a bigint below 0. */
  mmap(bytes: number, prot: number, flags: number, fd: number, offset: number): bigint {
    const address = mmap(0n, BigInt(bytes), prot, flags, fd, BigInt(offset));
    return address === MAP_FAILED ? BigInt(failed()) : address;
  },

  /** A file that is nowhere, closed on exec: the descriptor, or −errno. */
  memfd(name: Uint8Array): number {
    const fd = memfd_create(name, MFD_CLOEXEC);
    return fd < 0 ? failed() : fd;
  },

  /** Reads of the descriptor do not wait from here on. */
  setNonBlocking(fd: number): number {
    const flags = libc.symbols.fcntl(fd, F_GETFL, 0n);
    if (flags < 0) return failed();
    return libc.symbols.fcntl(fd, F_SETFL, BigInt(flags | O_NONBLOCK)) < 0 ? failed() : 0;
  },

  /** Waits off the event loop until something can be read, at most `timeoutMs`. The descriptor stays open meanwhile. */
  async waitReadable(fd: number, timeoutMs: number): Promise<void> {
    const poll = new Int32Array(new ArrayBuffer(8)); // struct pollfd { int fd; short events, revents; }
    poll[0] = fd;
    poll[1] = POLLIN;
    await libc.symbols.poll_blocking(native.addressOf(poll), 1n, timeoutMs);
    poll[0] = -1; // kept alive until here
  },

  /** Every view of the memory must have been detached before. */
  munmap(address: bigint, bytes: number): number {
    return munmap(address, BigInt(bytes)) < 0 ? failed() : 0;
  },

  madvise(address: bigint, bytes: number, advice: number): number {
    return madvise(address, BigInt(bytes), advice) < 0 ? failed() : 0;
  },

  /** Without LOCK_NB this waits on the event loop. */
  flock(fd: number, operation: number): number {
    for (;;) {
      if (flock(fd, operation) >= 0) return 0;
      if (!interrupted()) return failed();
    }
  },

  mkdir(path: Uint8Array, mode: number): number {
    return mkdir(path, mode) < 0 ? failed() : 0;
  },

  rmdir(path: Uint8Array): number {
    return rmdir(path) < 0 ? failed() : 0;
  },

  rename(from: Uint8Array, to: Uint8Array): number {
    return rename(from, to) < 0 ? failed() : 0;
  },

  unlink(path: Uint8Array): number {
    return unlink(path) < 0 ? failed() : 0;
  },

  /** Whether there is anything at the path, and it may be looked at. */
  exists(path: Uint8Array): boolean {
    return access(path, 0) === 0;
  },

  fstat(fd: number, out: Stat): number {
    return statAt(fd, EMPTY, AT_EMPTY_PATH, out);
  },

  stat(path: Uint8Array, out: Stat): number {
    return statAt(AT_FDCWD, path, 0, out);
  },

  /** Like `stat`, but a symbolic link is looked at itself. */
  lstat(path: Uint8Array, out: Stat): number {
    return statAt(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, out);
  },

  geteuid(): number {
    return geteuid();
  },

  /** Signal 0 only asks whether the process is there. */
  kill(pid: number, signal: number): number {
    return kill(pid, signal) < 0 ? failed() : 0;
  },
};
