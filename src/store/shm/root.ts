/**
 * The folder `DIRECTORY/batchferry-EUID` and what stands in it.
 *
 * @module
 */

import { readdirSync } from "node:fs";
import { resolve } from "node:path";
import { cstring, EEXIST, ENOENT, errnoText, Stat, sys } from "../../../ffi/libc.ts";
import { ConfigError } from "../../errors.ts";
import { systemError } from "./failures.ts";
import { escapeName } from "./names.ts";

/** How often a call is made again because others remove empty folders at the same time. */
export const MAX_TRIES = 10;

const FOLDER_MODE = 0o700;
const FOLDERS_CACHED = 1024;

/** A folder whose path is ready for system calls. */
export interface Folder {
  /** Its name in its parent. */
  readonly name: string;
  readonly path: string;
  /** The path as C reads it. */
  readonly cpath: Uint8Array;
  /** The path with a slash behind, without NUL: the front part of its files' paths. */
  readonly front: Uint8Array;
}

/** Where the path of a file is put together; what is in it lasts until the next `join` into it. */
export type PathBuffer = Uint8Array;

/** Room for a path. */
export function pathBuffer(): PathBuffer {
  return new Uint8Array(new ArrayBuffer(4096));
}

/** The path of file `name` in `folder`, as C reads it: without an allocation, on the way of every put and read. */
export function join(into: PathBuffer, folder: Folder, name: string): Uint8Array {
  const { front } = folder;
  let at = front.length;
  if (at + name.length >= into.length) return cstring(`${folder.path}/${name}`);
  into.set(front);
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i);
    // a name of ours has none such; what others left in the folder may
    if (code === 0 || code > 0x7f) return cstring(`${folder.path}/${name}`);
    into[at++] = code;
  }
  into[at] = 0;
  return into;
}

function folderAt(parent: string, name: string): Folder {
  const path = `${parent}/${name}`;
  const cpath = cstring(path);
  const front = cstring(`${path}/`).subarray(0, -1);
  return { name, path, cpath, front };
}

/** The names in a folder; none where it is not there. */
export function namesIn(folder: Folder): string[] {
  try {
    return readdirSync(folder.path);
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return [];
    throw error;
  }
}

/** The root of one store: paths, and making and removing folders. */
export class Root {
  /** The folder the user named, absolute. */
  readonly directory: string;
  readonly folder: Folder;
  readonly owners: Folder;
  readonly pool: Folder;
  readonly live: Folder;
  readonly #liveFolders = new Map<string, Folder>();

  constructor(directory: string) {
    this.directory = resolve(directory);
    const parent = this.directory === "/" ? "" : this.directory;
    this.folder = folderAt(parent, `batchferry-${sys.geteuid()}`);
    this.owners = folderAt(this.folder.path, "owners");
    this.pool = folderAt(this.folder.path, "pool");
    this.live = folderAt(this.folder.path, "live");
  }

  /** The live folder for the keys below `dir`. */
  liveFolder(dir: string): Folder {
    let folder = this.#liveFolders.get(dir);
    if (folder === undefined) {
      folder = folderAt(this.live.path, escapeName(dir));
      // one per partition ever touched, in a process that may run for weeks
      if (this.#liveFolders.size >= FOLDERS_CACHED) this.#liveFolders.clear();
      this.#liveFolders.set(dir, folder);
    }
    return folder;
  }

  /** A folder below `live/` or `pool/` by its name there. */
  folderIn(parent: Folder, name: string): Folder {
    return folderAt(parent.path, name);
  }

  /** Makes `folder`, its parent where that is given, and the root. */
  make(folder?: Folder, parent?: Folder): void {
    this.#makeRoot();
    if (parent !== undefined) mkdir(parent);
    if (folder !== undefined) mkdir(folder);
  }

  /** Removes what is empty. */
  tidy(): void {
    for (const name of namesIn(this.live)) sys.rmdir(this.folderIn(this.live, name).cpath);
    for (const folder of [this.live, this.pool, this.owners, this.folder]) sys.rmdir(folder.cpath);
  }

  #makeRoot(): void {
    const { cpath, path } = this.folder;
    const made = sys.mkdir(cpath, FOLDER_MODE);
    if (made < 0 && made !== -EEXIST) {
      throw new ConfigError(`cannot make ${path}: ${errnoText(made)}`, {
        hint: `set "directory" to a folder that is there and may be written to`,
      });
    }
    const stat = new Stat();
    const found = sys.lstat(cpath, stat);
    if (found === -ENOENT) return; // removed again by another's close: the caller's next step fails, and it comes back
    if (found < 0) throw systemError("look at", path, found);
    const uid = sys.geteuid();
    // a set-gid bit, which the folder inherits from the one above, lets nobody in
    const mode = stat.mode & 0o777;
    // anybody may have made this name in a shared folder; what is read from it is trusted
    if (stat.isDirectory() && stat.uid === uid && mode === FOLDER_MODE) return;
    const actual = stat.isDirectory()
      ? `a folder of user ${stat.uid} with mode 0${mode.toString(8)}`
      : "no folder";
    throw new ConfigError(`${path} cannot be trusted: it is ${actual}`, {
      expected: `a folder of user ${uid} with mode 0700`,
      actual,
      hint: `remove it, or set "directory" to another folder`,
    });
  }
}

function mkdir(folder: Folder): void {
  const status = sys.mkdir(folder.cpath, FOLDER_MODE);
  if (status < 0 && status !== -EEXIST && status !== -ENOENT) throw systemError("make", folder.path, status);
}
