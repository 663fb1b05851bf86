/**
 * The pool: files this store instance made, and the mappings it keeps of them.
 *
 * Fresh pages cost 8 to 40 times warm ones, so a file is filled again after its bundle was deleted. Only the instance
 * that made a file does that, through the mapping it kept since then. A file is
 * - **busy** while it is filled: under `pool/OWNER/`, in nobody's list;
 * - **live** from its publishing to its deletion: below `live/`;
 * - **free** after that: under `pool/OWNER/` again, to be taken for the next bundle of about its size.
 * Live and free mappings together are bounded; the oldest go first. A file whose mapping went is unlinked when its
 * bundle is deleted.
 *
 * @module
 */

import {
  ENOENT,
  LOCK_EX,
  LOCK_NB,
  LOCK_UN,
  O_CLOEXEC,
  O_CREAT,
  O_EXCL,
  O_RDWR,
  Stat,
  sys,
} from "../../../ffi/libc.ts";
import type { Deadline } from "../../deadline.ts";
import { ClosedError } from "../../errors.ts";
import { fullError, isFull, systemError } from "./failures.ts";
import type { Table } from "./format.ts";
import { Mapping } from "./mapping.ts";
import { type Owner, sweepDead } from "./owner.ts";
import { type Folder, join, MAX_TRIES, namesIn, pathBuffer, type Root } from "./root.ts";

/** The most mappings kept: the kernel allows a process 65,530 in all. */
export const MAX_KEPT = 1024;
/** From this size on, room is reserved off the event loop. */
const LARGE_BYTES = 2 ** 20;
const PAGE_BYTES = 4096;
/** A file may be twice as large as what goes into it, and small ones anyhow as large as this. */
const SMALL_FIT = 16 * 1024;
/** How many files are tried whose readers may still be there. */
const MAX_LOCK_TRIES = 32;
const MAX_SCAN_INTERVAL = 64;
/** How the files begin that were not published yet. A deleter names a pool file by its object id. */
const NEW = "w-";

const from = pathBuffer();
const to = pathBuffer();
const stat = new Stat();

/** A file of this store instance. */
export interface PoolFile {
  /** Its name under `pool/OWNER/`, where it is there. */
  name: string;
  state: "busy" | "live" | "free";
  readonly ino: bigint;
  readonly dev: number;
  readonly mapping: Mapping;
  /** Reserved and mapped. */
  readonly bytes: number;
  /** False where it is larger than its mapping, or of an odd size. */
  keepable: boolean;
  /** While it is live: where, and what is in it. */
  folder: Folder | undefined;
  id: string;
  table: Table | undefined;
}

/** The exclusive right to fill a file, until `publish` or `giveBack`. */
export interface Slot {
  readonly file: PoolFile;
  readonly fd: number;
}

/** The least file size for `bytes`: steps of an eighth of a power of two, so that bundles of about one size share files. */
export function fileSize(bytes: number): number {
  const step = Math.max(PAGE_BYTES, 2 ** (Math.floor(Math.log2(Math.max(1, bytes))) - 3));
  return Math.max(PAGE_BYTES, Math.ceil(bytes / step) * step);
}

/** Files of one store instance. */
export class Pool {
  readonly #root: Root;
  readonly #owner: Owner;
  readonly #maxBytes: number;
  /** Live and free files with a mapping, oldest use first. */
  readonly #kept = new Set<PoolFile>();
  #keptBytes = 0;
  /** Live files with a mapping, by object id. */
  readonly #live = new Map<string, PoolFile>();
  /** Free files, by their size. */
  readonly #free = new Map<number, PoolFile[]>();
  /** Names under `pool/OWNER/` of free files, and of taken ones until they are published. */
  readonly #pooled = new Set<string>();
  /** Published, and not known to be deleted. */
  #outstanding = 0;
  #named = 0;
  #scanInterval = 1;
  #sinceScan = 0;
  #closed = false;

  constructor(root: Root, owner: Owner, maxBytes: number) {
    this.#root = root;
    this.#owner = owner;
    this.#maxBytes = maxBytes;
  }

  /** A free file for `bytes` bytes, or undefined. */
  take(bytes: number): Slot | undefined {
    let slot = this.#takeFree(bytes);
    if (slot === undefined && this.#scanDue(bytes)) {
      this.#scan();
      slot = this.#takeFree(bytes);
    }
    return slot;
  }

  /**
   * A new file for `bytes` bytes, reserved and mapped.
   *
   * @throws {CapacityError} where the file system is full
   */
  make(bytes: number, deadline: Deadline): Slot | Promise<Slot> {
    const size = bytes > this.#maxBytes ? roundToPage(bytes) : fileSize(bytes);
    if (size >= LARGE_BYTES) return this.#makeLarge(size, bytes, deadline);
    const { name, fd } = this.createFile();
    let status = sys.fallocate(fd, 0, size);
    if (isFull(status)) {
      this.freeMemory();
      status = sys.fallocate(fd, 0, size);
    }
    return this.#made(name, fd, size, status);
  }

  async #makeLarge(size: number, bytes: number, deadline: Deadline): Promise<Slot> {
    const { name, fd } = this.createFile();
    let reserved = size;
    let status: number;
    try {
      status = await sys.fallocateAsync(fd, 0, reserved);
      if (isFull(status) && !this.#closed) {
        deadline.check();
        this.freeMemory();
        reserved = roundToPage(bytes);
        status = await sys.fallocateAsync(fd, 0, reserved);
      }
      if (this.#closed) throw new ClosedError("the store was closed during a write");
      deadline.check();
    } catch (error) {
      this.#discardNew(name, fd);
      throw error;
    }
    return this.#made(name, fd, reserved, status);
  }

  #made(name: string, fd: number, size: number, status: number): Slot {
    try {
      if (isFull(status)) throw fullError(this.#root.directory, size, status);
      if (status < 0) {
        throw systemError(`reserve ${size} bytes for`, `${this.#owner.pool.path}/${name}`, status);
      }
      const found = sys.fstat(fd, stat);
      if (found < 0) throw systemError("look at", `${this.#owner.pool.path}/${name}`, found);
      const mapping = Mapping.shared(fd, size, `${this.#owner.pool.path}/${name}`);
      const { ino, dev } = stat;
      const file: PoolFile = {
        name,
        state: "busy",
        ino,
        dev,
        mapping,
        bytes: size,
        keepable: size <= this.#maxBytes && size === fileSize(size),
        folder: undefined,
        id: "",
        table: undefined,
      };
      return { file, fd };
    } catch (error) {
      this.#discardNew(name, fd);
      throw error;
    }
  }

  /** A new, empty file under `pool/OWNER/`. */
  createFile(): { readonly name: string; readonly fd: number } {
    const name = `${NEW}${this.#named++}`;
    for (let i = 0;; i++) {
      const path = join(from, this.#owner.pool, name);
      const fd = sys.open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600);
      if (fd >= 0) return { name, fd };
      if (isFull(fd)) throw fullError(this.#root.directory, PAGE_BYTES, fd);
      if (fd !== -ENOENT || i === MAX_TRIES) {
        throw systemError("make", `${this.#owner.pool.path}/${name}`, fd);
      }
      this.#owner.ensure();
    }
  }

  #discardNew(name: string, fd: number): void {
    sys.close(fd);
    sys.unlink(join(from, this.#owner.pool, name));
  }

  /** Removes an unpublished file made by `createFile`. */
  unlinkFile(name: string): void {
    sys.unlink(join(from, this.#owner.pool, name));
  }

  /** Renames a complete file from the pool to `folder`, and makes the folder where it is missing. */
  renameToLive(name: string, folder: Folder, fileName: string): void {
    for (let i = 0;; i++) {
      const status = sys.rename(join(from, this.#owner.pool, name), join(to, folder, fileName));
      if (status === 0) return;
      if (isFull(status)) throw fullError(this.#root.directory, PAGE_BYTES, status);
      if (status !== -ENOENT || i === MAX_TRIES) {
        throw systemError("publish", `${folder.path}/${fileName}`, status);
      }
      this.#root.make(folder, this.#root.live);
    }
  }

  /** Makes a filled file visible as bundle `id` in `folder`. Where it throws, the slot is still the caller's. */
  publish({ file, fd }: Slot, folder: Folder, id: string, table: Table): void {
    // unlocked by name and not by closing alone: a child that was just forked may still share the descriptor
    sys.flock(fd, LOCK_UN);
    this.renameToLive(file.name, folder, id);
    sys.close(fd);
    this.#pooled.delete(file.name);
    this.#outstanding++;
    file.state = "live";
    file.folder = folder;
    file.id = id;
    file.table = table;
    if (this.#live.has(id)) return file.mapping.close(); // the same id below another prefix: not worth a longer name
    this.#live.set(id, file);
    this.#keep(file);
  }

  /** Ends a slot without publishing it. */
  giveBack({ file, fd }: Slot): void {
    sys.flock(fd, LOCK_UN);
    sys.close(fd);
    if (this.#closed) return file.mapping.close();
    this.#setFree(file);
    this.#keep(file);
  }

  /** The file of a bundle this instance published and keeps a mapping of. */
  liveFile(folder: Folder, id: string): PoolFile | undefined {
    const file = this.#live.get(id);
    return file?.folder?.path === folder.path ? file : undefined;
  }

  /** Deletes a bundle of `liveFile`; false where somebody else had done so before. */
  drop(file: PoolFile): boolean {
    const { folder, id } = file;
    if (folder === undefined || file.state !== "live") return false;
    this.#live.delete(id);
    this.#outstanding--;
    const live = join(from, folder, id);
    const status = sys.rename(live, join(to, this.#owner.pool, id));
    if (status < 0 && sys.exists(live)) {
      // the pool folder went, or the like
      this.#unkeep(file);
      file.mapping.close();
      return sys.unlink(live) === 0;
    }
    // A deleter in another process puts the file in the same place, unless it unlinked it: then the next attempt to
    // take it finds out.
    file.name = id;
    this.#setFree(file);
    return status === 0;
  }

  /** This instance's own bundle, of which it keeps no mapping, was unlinked. */
  unlinkedOwn(): void {
    this.#outstanding--;
  }

  /** Unlinks what is free, and what dead owners left, to make room. */
  freeMemory(): void {
    this.#scan();
    for (const file of [...this.#kept]) if (file.state === "free") this.#forget(file);
    sweepDead(this.#root, this.#owner.name);
  }

  /** Unmaps everything. The pool folder itself is the owner's to remove. */
  close(): void {
    this.#closed = true;
    for (const file of this.#kept) file.mapping.close();
    this.#kept.clear();
    this.#live.clear();
    this.#free.clear();
    this.#pooled.clear();
    this.#keptBytes = 0;
  }

  #setFree(file: PoolFile): void {
    file.state = "free";
    file.folder = undefined;
    file.table = undefined;
    this.#pooled.add(file.name);
    const files = this.#free.get(file.bytes);
    if (files === undefined) this.#free.set(file.bytes, [file]);
    else files.push(file);
  }

  #removeFree(file: PoolFile): void {
    const files = this.#free.get(file.bytes);
    const index = files?.lastIndexOf(file) ?? -1;
    if (index >= 0) files!.splice(index, 1);
    if (files?.length === 0) this.#free.delete(file.bytes);
  }

  #takeFree(bytes: number): Slot | undefined {
    let tries = 0;
    const limit = Math.max(2 * bytes, SMALL_FIT);
    for (let size = fileSize(bytes); size <= limit; size = fileSize(size + 1)) {
      const files = this.#free.get(size);
      if (files === undefined) continue;
      // the one freed last is the warmest
      for (let i = files.length - 1; i >= 0; i--) {
        if (tries++ === MAX_LOCK_TRIES) return undefined;
        const file = files[i]!;
        const fd = this.#lock(file);
        if (fd === "in use") continue;
        this.#removeFree(file);
        this.#unkeep(file);
        if (fd === "gone") {
          this.#pooled.delete(file.name);
          file.mapping.close();
          continue;
        }
        file.state = "busy";
        return { file, fd };
      }
    }
    return undefined;
  }

  /** A descriptor of a free file that no reader maps any more. */
  #lock(file: PoolFile): number | "gone" | "in use" {
    const fd = sys.open(join(from, this.#owner.pool, file.name), O_RDWR | O_CLOEXEC);
    if (fd < 0) return fd === -ENOENT ? "gone" : "in use";
    if (sys.fstat(fd, stat) < 0 || stat.ino !== file.ino || stat.dev !== file.dev || stat.size < file.bytes) {
      sys.close(fd);
      return "gone";
    }
    if (sys.flock(fd, LOCK_EX | LOCK_NB) === 0) return fd;
    sys.close(fd);
    return "in use";
  }

  #keep(file: PoolFile): void {
    if (!file.keepable) return this.#forget(file);
    this.#kept.add(file);
    this.#keptBytes += file.bytes;
    for (const oldest of this.#kept) {
      if (this.#keptBytes <= this.#maxBytes && this.#kept.size <= MAX_KEPT) break;
      this.#forget(oldest);
    }
  }

  #unkeep(file: PoolFile): void {
    if (this.#kept.delete(file)) this.#keptBytes -= file.bytes;
  }

  /** Gives up a mapping; a free file is of no use without one. */
  #forget(file: PoolFile): void {
    this.#unkeep(file);
    if (file.state === "live") this.#live.delete(file.id);
    if (file.state === "free") {
      this.#removeFree(file);
      this.#pooled.delete(file.name);
      sys.unlink(join(from, this.#owner.pool, file.name));
    }
    file.mapping.close();
  }

  /**
   * Whether to look for files that others deleted. Always for large bundles, where a look costs nothing beside fresh
   * pages; for small ones ever more rarely while it finds nothing.
   */
  #scanDue(bytes: number): boolean {
    if (this.#outstanding <= 0) return false;
    if (bytes >= LARGE_BYTES) return true;
    if (++this.#sinceScan < this.#scanInterval) return false;
    this.#sinceScan = 0;
    return true;
  }

  /** Finds the files that others deleted: takes back those with a mapping, unlinks the rest. */
  #scan(): void {
    let found = false;
    for (const name of namesIn(this.#owner.pool)) {
      // the names of new files are known, or they are being written
      if (name.startsWith(NEW) || this.#pooled.has(name)) continue;
      const file = this.#live.get(name);
      this.#outstanding--;
      found = true;
      if (file === undefined) sys.unlink(join(from, this.#owner.pool, name));
      else {
        this.#live.delete(name);
        file.name = name;
        this.#setFree(file);
      }
    }
    this.#scanInterval = found ? 1 : Math.min(2 * this.#scanInterval, MAX_SCAN_INTERVAL);
  }
}

function roundToPage(bytes: number): number {
  return Math.max(PAGE_BYTES, Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES);
}
