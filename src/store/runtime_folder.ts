/**
 * Where processes of one user on one host find each other: a folder for sockets and addresses, and locks in it.
 *
 * @module
 */

import { lstatSync, mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { cstring, EWOULDBLOCK, LOCK_EX, LOCK_NB, O_CLOEXEC, O_CREAT, O_RDWR, sys } from "../../ffi/libc.ts";
import { ConfigError } from "../errors.ts";

/**
 * The folder for sockets: `BATCHFERRY_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/batchferry`, else `batchferry-EUID` in the
 * temporary folder. Made where it is missing.
 *
 * @throws ConfigError where it is not this user's alone
 */
export function runtimeFolder(): string {
  const { BATCHFERRY_RUNTIME_DIR, XDG_RUNTIME_DIR } = process.env;
  const folder = resolve(
    BATCHFERRY_RUNTIME_DIR ||
      (XDG_RUNTIME_DIR ? join(XDG_RUNTIME_DIR, "batchferry") : join(tmpdir(), `batchferry-${sys.geteuid()}`)),
  );
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const stat = lstatSync(folder);
    if (stat.isDirectory() && stat.uid === sys.geteuid() && (stat.mode & 0o077) === 0) return folder;
  } catch (cause) {
    throw new ConfigError(`the runtime folder ${folder} cannot be made: ${(cause as Error).message}`, {
      cause,
      hint: "set BATCHFERRY_RUNTIME_DIR to a folder of yours",
    });
  }
  throw new ConfigError(`the runtime folder ${folder} is not yours alone`, {
    expected: "a folder of this user, mode 0700",
    hint: "remove it, or set BATCHFERRY_RUNTIME_DIR to a folder of yours",
  });
}

/** A lock that goes with its process. */
export interface FileLock {
  release(): void;
}

/** Takes the lock of a file, or gives undefined where another process has it. */
export function tryLock(file: string): FileLock | undefined {
  const fd = sys.open(cstring(file), O_RDWR | O_CREAT | O_CLOEXEC, 0o600);
  if (fd < 0) throw new ConfigError(`${file} cannot be opened`, { actual: fd });
  const error = sys.flock(fd, LOCK_EX | LOCK_NB);
  if (error < 0) {
    sys.close(fd);
    if (error === -EWOULDBLOCK) return undefined;
    throw new ConfigError(`${file} cannot be locked`, { actual: error });
  }
  return { release: () => void sys.close(fd) };
}
