/**
 * Owners: a store instance is an owner, and says that it lives by holding a lock.
 *
 * The kernel drops the lock with the process, however it ends; so whoever gets the lock on another's file knows that the
 * owner is dead, and removes what it left half-done. Bundles it published stay.
 *
 * @module
 */

import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import {
  ENOENT,
  LOCK_EX,
  LOCK_NB,
  O_CLOEXEC,
  O_CREAT,
  O_EXCL,
  O_RDWR,
  Stat,
  sys,
} from "../../../ffi/libc.ts";
import { NativeError } from "../../errors.ts";
import { systemError } from "./failures.ts";
import { isOwner } from "./names.ts";
import { type Folder, join, MAX_TRIES, namesIn, pathBuffer, type Root } from "./root.ts";

const path = pathBuffer();
const opened = new Stat();
const named = new Stat();

/** This store instance's name, lock and pool folder. */
export class Owner {
  readonly name: string;
  readonly pool: Folder;
  readonly #root: Root;
  #fd: number;

  private constructor(root: Root, name: string, fd: number) {
    this.#root = root;
    this.name = name;
    this.pool = root.folderIn(root.pool, name);
    this.#fd = fd;
  }

  /** Takes a new name and locks it. */
  static claim(root: Root): Owner {
    const start = processStart();
    for (let i = 0; i < MAX_TRIES; i++) {
      const name = `${sys.pid}-${start}-${randomBytes(8).toString("hex")}`;
      const fd = lockNew(root, name);
      if (fd !== undefined) return new Owner(root, name, fd);
    }
    throw new NativeError(`could not lock a file of its own in ${root.owners.path} in ${MAX_TRIES} tries`);
  }

  /** Makes the pool folder, and the lock anew where somebody removed the whole root under a running store. */
  ensure(): void {
    this.#root.make(this.#root.owners);
    if (!sys.exists(join(path, this.#root.owners, this.name))) {
      const fd = lockNew(this.#root, this.name);
      if (fd !== undefined) {
        sys.close(this.#fd);
        this.#fd = fd;
      }
    }
    this.#root.make(this.pool, this.#root.pool);
  }

  /** Gives up name and lock. The pool folder goes first: without a lock it would count as an orphan. */
  release(): void {
    emptyFolder(this.pool);
    sys.unlink(join(path, this.#root.owners, this.name));
    sys.close(this.#fd);
  }
}

/** The locked descriptor of a new owners file, or undefined where a sweeper was faster. */
function lockNew(root: Root, name: string): number | undefined {
  const fd = sys.open(join(path, root.owners, name), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600);
  if (fd === -ENOENT) {
    root.make(root.owners);
    return undefined;
  }
  if (fd < 0) throw systemError("make", `${root.owners.path}/${name}`, fd);
  // between open and flock a sweeper may have taken the file for a dead owner's
  if (sys.flock(fd, LOCK_EX | LOCK_NB) === 0 && namesInode(root.owners, name, fd)) return fd;
  sys.close(fd);
  return undefined;
}

function namesInode(folder: Folder, name: string, fd: number): boolean {
  return sys.fstat(fd, opened) === 0 && sys.stat(join(path, folder, name), named) === 0 &&
    opened.ino === named.ino && opened.dev === named.dev;
}

/** Removes what dead owners left: pool files, half-written ones, locks, and pool folders without an owner. */
export function sweepDead(root: Root, self: string): void {
  for (const name of namesIn(root.owners)) {
    if (name !== self && isOwner(name)) sweepIfDead(root, name);
  }
  // an owner has its lock before it has a pool folder, so one seen without a lock is an orphan
  for (const name of namesIn(root.pool)) {
    if (isOwner(name) && !sys.exists(join(path, root.owners, name))) {
      emptyFolder(root.folderIn(root.pool, name));
    }
  }
}

/** Removes what the owner left, if it is dead; whether it was. */
export function sweepIfDead(root: Root, name: string): boolean {
  const fd = sys.open(join(path, root.owners, name), O_RDWR | O_CLOEXEC);
  if (fd < 0) return fd === -ENOENT;
  try {
    if (sys.flock(fd, LOCK_EX | LOCK_NB) < 0) return false;
    if (!namesInode(root.owners, name, fd)) return true; // another sweeper was here
    emptyFolder(root.folderIn(root.pool, name));
    sys.unlink(join(path, root.owners, name));
    return true;
  } finally {
    sys.close(fd);
  }
}

function emptyFolder(folder: Folder): void {
  for (const name of namesIn(folder)) sys.unlink(join(path, folder, name));
  sys.rmdir(folder.cpath);
}

/** When this process started, in clock ticks since boot: process ids come back, the two together do not. */
function processStart(): string {
  try {
    const stat = readFileSync("/proc/self/stat", "latin1");
    // field 22; the second one, the program's name, may itself hold spaces and parentheses
    const start = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    if (start !== undefined && /^[0-9]{1,20}$/.test(start)) return start;
  } catch {
    // no /proc in this container
  }
  return String(Date.now());
}
