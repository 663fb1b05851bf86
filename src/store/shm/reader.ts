/**
 * Reading files of any owner.
 *
 * A bundle's file may be filled anew at any time after the bundle was deleted. A small one is copied whole, and counts
 * as read if its path still names the inode afterwards. A large one is locked first; its mapping keeps the lock.
 *
 * @module
 */

import {
  ENOENT,
  ENOTDIR,
  LOCK_NB,
  LOCK_SH,
  MADV_HUGEPAGE,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  O_CLOEXEC,
  O_RDONLY,
  PROT_READ,
  PROT_WRITE,
  Stat,
  sys,
} from "../../../ffi/libc.ts";
import { native } from "../../../ffi/native.ts";
import { CorruptionError } from "../../errors.ts";
import { checkRange } from "../checks.ts";
import type { ReadRange } from "../store.ts";
import { systemError } from "./failures.ts";
import {
  decodeHeader,
  decodeTable,
  type Extent,
  type Header,
  HEADER_BYTES,
  lastKey,
  type Table,
} from "./format.ts";
import { Mapping } from "./mapping.ts";
import { isBundleFile } from "./names.ts";
import { type Folder, join, pathBuffer, type Root } from "./root.ts";

/** Files up to this size are copied whole. */
const SMALL_BYTES = 64 * 1024;
/** Ranges from this size on are copied by the kernel, shorter ones out of a mapping. */
const LONG_RANGE_BYTES = 32 * 1024;
/** Memory of this size is worth asking the kernel for huge pages. */
const HUGE_RANGE_BYTES = 4 * 2 ** 20;
/** Bounds of the table cache. */
const MAX_TABLES = 4096;
const MAX_CACHED_BYTES = 8 * 2 ** 20;

const path = pathBuffer();
const named = new Stat();

// Page-aligned: the kernel copies to other places several times slower. Copied from before anything else can run.
let scratch: Uint8Array | undefined;

function smallBuffer(): Uint8Array {
  if (scratch === undefined) {
    const address = sys.mmap(SMALL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    scratch = address < 0n
      ? new Uint8Array(new ArrayBuffer(SMALL_BYTES))
      : new Uint8Array(native.view(address, SMALL_BYTES));
  }
  return scratch;
}

/** What is known of a file without reading it again. */
export interface FileInfo {
  readonly ino: bigint;
  readonly dev: number;
  readonly fileBytes: number;
  readonly header: Header;
  readonly table: Table;
  /** In a bundle, its manifest's. */
  readonly lastKey: string;
}

/** A file that was opened; `close` it. */
interface OpenFile {
  readonly fd: number;
  readonly ino: bigint;
  readonly dev: number;
  readonly bytes: number;
  readonly folder: Folder;
  readonly name: string;
  /** May be filled anew. */
  readonly bundle: boolean;
}

/** Reads the files of one root. */
export class Reader {
  readonly #root: Root;
  /** Of bundles only, by path; the names of other files come back. Least recently used first. */
  readonly #cache = new Map<string, FileInfo>();
  #cachedBytes = 0;

  constructor(root: Root) {
    this.#root = root;
  }

  /**
   * Reads the ranges whose keys are in the file.
   *
   * @returns the ranges whose keys are not; all of them where there is no such file
   * @throws {CorruptionError} for a damaged file, or a range beyond its object
   */
  read(folder: Folder, name: string, ranges: readonly ReadRange[]): readonly ReadRange[] {
    const file = this.#open(folder, name);
    if (file === undefined) return ranges;
    try {
      return file.bytes <= SMALL_BYTES ? this.#readSmall(file, ranges) : this.#readLarge(file, ranges);
    } finally {
      sys.close(file.fd);
    }
  }

  /** Header and table of a file, or undefined where there is none. */
  inspect(folder: Folder, name: string): FileInfo | undefined {
    const file = this.#open(folder, name);
    if (file === undefined) return undefined;
    try {
      // a known inode at its path, and nothing of it is read: no need to look again
      const known = this.#cached(file);
      if (known !== undefined) return known;
      if (file.bytes <= SMALL_BYTES) {
        const bytes = this.#copySmall(file);
        return bytes === undefined ? undefined : this.#parse(file, bytes);
      }
      return this.#pin(file) ? this.#readTable(file) : undefined;
    } finally {
      sys.close(file.fd);
    }
  }

  /** The owner tag and the size of a bundle, or undefined where there is none. */
  ownerOf(folder: Folder, name: string): { readonly owner: string; readonly bytes: number } | undefined {
    const file = this.#open(folder, name);
    if (file === undefined) return undefined;
    try {
      const known = this.#cached(file);
      if (known !== undefined) return { owner: known.header.owner, bytes: file.bytes };
      const bytes = smallBuffer().subarray(0, HEADER_BYTES);
      const count = sys.pread(file.fd, bytes, 0);
      if (!this.#stillThere(file)) return undefined;
      let owner = "";
      try {
        owner = decodeHeader(bytes.subarray(0, Math.max(0, count)), file.bytes, where(file)).owner;
      } catch {
        // damaged: nobody's
      }
      return { owner, bytes: file.bytes };
    } finally {
      sys.close(file.fd);
    }
  }

  /**
   * Maps a file in place: its mapping lasts until it is closed, whatever happens to the file.
   *
   * @returns undefined where there is no such file
   */
  map(folder: Folder, name: string): { readonly mapping: Mapping; readonly table: Table } | undefined {
    const file = this.#open(folder, name);
    if (file === undefined) return undefined;
    try {
      return this.#map(file);
    } finally {
      sys.close(file.fd);
    }
  }

  /** The last key of a bundle that was looked at before. Of use where a listing has just shown that it is still there. */
  knownLastKey(folder: Folder, name: string): string | undefined {
    return this.#cache.get(`${folder.name}/${name}`)?.lastKey;
  }

  /** Forgets a bundle. */
  forget(folder: Folder, name: string): void {
    this.#uncache(`${folder.name}/${name}`);
  }

  #open(folder: Folder, name: string): OpenFile | undefined {
    const fd = sys.open(join(path, folder, name), O_RDONLY | O_CLOEXEC);
    if (fd === -ENOENT || fd === -ENOTDIR) return undefined;
    if (fd < 0) throw systemError("open", `${folder.path}/${name}`, fd);
    const status = sys.fstat(fd, named);
    if (status < 0) {
      sys.close(fd);
      throw systemError("look at", `${folder.path}/${name}`, status);
    }
    return {
      fd,
      ino: named.ino,
      dev: named.dev,
      bytes: named.size,
      folder,
      name,
      bundle: isBundleFile(name),
    };
  }

  #stillThere({ folder, name, ino, dev, bundle }: OpenFile): boolean {
    if (!bundle) return true; // never filled anew
    return sys.stat(join(path, folder, name), named) === 0 && named.ino === ino && named.dev === dev;
  }

  /** Keeps a bundle from being filled anew for as long as the descriptor or a mapping of it is open; false if too late. */
  #pin(file: OpenFile): boolean {
    // the lock fails only while the owner fills the file anew
    return (!file.bundle || sys.flock(file.fd, LOCK_SH | LOCK_NB) === 0) && this.#stillThere(file);
  }

  #readSmall(file: OpenFile, ranges: readonly ReadRange[]): readonly ReadRange[] {
    const bytes = this.#copySmall(file);
    if (bytes === undefined) return ranges;
    const { table } = this.#cached(file) ?? this.#parse(file, bytes);
    return split(
      table,
      ranges,
      ({ into }, offset) => into.set(bytes.subarray(offset, offset + into.byteLength)),
    );
  }

  #readLarge(file: OpenFile, ranges: readonly ReadRange[]): readonly ReadRange[] {
    if (!this.#pin(file)) return ranges;
    const { header, table } = this.#cached(file) ?? this.#readTable(file);
    let mapping: Mapping | undefined;
    try {
      return split(table, ranges, ({ into }, offset) => {
        if (into.byteLength >= LONG_RANGE_BYTES) return this.#readLong(file, offset, into);
        mapping ??= Mapping.reading(file.fd, header.used, 4 * shortBytes(ranges) > header.used, where(file));
        mapping.read(offset, into);
      });
    } finally {
      mapping?.close();
    }
  }

  /** Of a pinned file. The kernel copies long ranges two to four times faster than a mapping faults its pages in. */
  #readLong(file: OpenFile, offset: number, into: Uint8Array): void {
    if (into.byteLength >= HUGE_RANGE_BYTES) {
      // new memory then comes in pages of 2 MiB instead of 4 KiB, where it has not been touched yet (in Bun)
      const start = (native.addressOf(into) + 4095n) & ~4095n;
      sys.madvise(start, into.byteLength - 8192, MADV_HUGEPAGE);
    }
    for (let done = 0; done < into.byteLength;) {
      const count = sys.pread(file.fd, done === 0 ? into : into.subarray(done), offset + done);
      if (count < 0) throw systemError("read", where(file), count);
      if (count === 0) {
        throw new CorruptionError(`${where(file)}: cut short`, { expected: into.byteLength, actual: done });
      }
      done += count;
    }
  }

  #map(file: OpenFile): { readonly mapping: Mapping; readonly table: Table } | undefined {
    if (!this.#pin(file)) return undefined;
    const info = this.#cached(file) ?? this.#readTable(file);
    return { mapping: Mapping.private(file.fd, info.header.used, where(file)), table: info.table };
  }

  /** The whole file, or undefined where its bundle was deleted meanwhile. */
  #copySmall(file: OpenFile): Uint8Array | undefined {
    const bytes = smallBuffer().subarray(0, file.bytes);
    const count = file.bytes === 0 ? 0 : sys.pread(file.fd, bytes, 0);
    if (!this.#stillThere(file)) return undefined;
    if (count < 0) throw systemError("read", where(file), count);
    if (count < bytes.length) {
      throw new CorruptionError(`${where(file)}: cut short`, { expected: bytes.length, actual: count });
    }
    return bytes;
  }

  #parse(file: OpenFile, bytes: Uint8Array): FileInfo {
    const header = decodeHeader(bytes, file.bytes, where(file));
    const end = header.tableOffset + header.tableBytes;
    return this.#remember(file, header, bytes.subarray(header.tableOffset, end));
  }

  /** Of a pinned file. */
  #readTable(file: OpenFile): FileInfo {
    const header = decodeHeader(this.#copy(file, 0, HEADER_BYTES), file.bytes, where(file));
    return this.#remember(file, header, this.#copy(file, header.tableOffset, header.tableBytes));
  }

  #copy(file: OpenFile, offset: number, bytes: number): Uint8Array {
    const into = new Uint8Array(new ArrayBuffer(bytes));
    const count = sys.pread(file.fd, into, offset);
    if (count < 0) throw systemError("read", where(file), count);
    return into.subarray(0, count);
  }

  #remember(file: OpenFile, header: Header, json: Uint8Array): FileInfo {
    const table = decodeTable(json, header, where(file));
    const { ino, dev, bytes: fileBytes } = file;
    const info: FileInfo = { ino, dev, fileBytes, header, table, lastKey: lastKey(table) };
    if (file.bundle && header.tableBytes <= MAX_CACHED_BYTES / 8) {
      this.#uncache(`${file.folder.name}/${file.name}`);
      this.#cache.set(`${file.folder.name}/${file.name}`, info);
      this.#cachedBytes += header.tableBytes;
      for (const oldest of this.#cache.keys()) {
        if (this.#cache.size <= MAX_TABLES && this.#cachedBytes <= MAX_CACHED_BYTES) break;
        this.#uncache(oldest);
      }
    }
    return info;
  }

  #cached(file: OpenFile): FileInfo | undefined {
    if (!file.bundle) return undefined;
    const key = `${file.folder.name}/${file.name}`;
    const info = this.#cache.get(key);
    if (info === undefined) return undefined;
    this.#cache.delete(key);
    if (info.ino !== file.ino || info.dev !== file.dev || info.fileBytes !== file.bytes) {
      this.#cachedBytes -= info.header.tableBytes;
      return undefined;
    }
    this.#cache.set(key, info);
    return info;
  }

  #uncache(key: string): void {
    const info = this.#cache.get(key);
    if (info === undefined) return;
    this.#cache.delete(key);
    this.#cachedBytes -= info.header.tableBytes;
  }
}

/** The bytes of the ranges that come out of a mapping. */
function shortBytes(ranges: readonly ReadRange[]): number {
  let bytes = 0;
  for (const { into } of ranges) if (into.byteLength < LONG_RANGE_BYTES) bytes += into.byteLength;
  return bytes;
}

function where({ folder, name }: OpenFile): string {
  return `${folder.path}/${name}`;
}

/** Copies the ranges whose keys are in the table; gives the others. */
function split(
  table: Table,
  ranges: readonly ReadRange[],
  copy: (range: ReadRange, offset: number) => void,
): readonly ReadRange[] {
  const others: ReadRange[] = [];
  let key: string | undefined;
  let extent: Extent | undefined;
  for (const range of ranges) {
    if (range.key !== key) extent = table.get(key = range.key);
    if (extent === undefined) others.push(range);
    else {
      checkRange(range, extent.bytes);
      copy(range, extent.offset + range.offset);
    }
  }
  return others;
}
