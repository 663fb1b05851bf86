/**
 * Finds and opens an optional native library, and says what to do where there is none.
 *
 * Both runtimes bind lazily: a library with an unresolved symbol opens well and kills the process at the first call.
 * So the dynamic loader is asked first, with RTLD_NOW, and every symbol is looked up before anything is bound.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { BackendUnavailableError } from "../src/errors.ts";
import { cstring, dl, readCString, RTLD_GLOBAL, RTLD_LAZY, RTLD_NOW } from "./libc.ts";
import { type Library, native, type SymbolTable } from "./native.ts";

/** Where to look for one shared object. */
export interface LibrarySearch {
  /** What people call it: `Mooncake Store`. */
  readonly name: string;
  /** File names for the dynamic loader's own search, the best one first. */
  readonly sonames: readonly string[];
  /** A path or file name that was configured; where given, nothing else is tried. */
  readonly explicitPath?: string | undefined;
  /** An environment name that may hold a path or file name; where set, nothing else is tried. */
  readonly environment?: string | undefined;
  /** Paths inside a `site-packages` folder, such as `mooncake/libmooncake_store.so`. */
  readonly pythonPackages?: readonly string[] | undefined;
}

/** A shared object that another one needs and may not find by itself. */
export interface DependencySearch extends LibrarySearch {
  /** Lends its symbols to all that is loaded later; for libraries that use them without naming their source. */
  readonly global?: boolean | undefined;
}

/** What `loadLibrary` is to load. */
export interface LibraryOptions<Name extends string = string> extends LibrarySearch {
  /** Opened by path before a second attempt, where the library is there and does not load. In this order. */
  readonly preload?: readonly DependencySearch[] | undefined;
  /**
   * Opens the library although something it is linked to refers to functions that nobody here has. It is for libraries
   * that do not call those unless they are asked to; such a call would end the process.
   */
  readonly lazy?: boolean | undefined;
  /** Functions that older versions lack. Where missing they throw at the call, and `missing` has them. */
  readonly optional?: readonly Name[] | undefined;
  /** What to install, one sentence. */
  readonly install: string;
}

/** A library that was found. `path` is the file that the dynamic loader took. */
export interface LoadedLibrary<T extends SymbolTable> extends Library<T> {
  /** The optional functions that it lacks. */
  readonly missing: ReadonlySet<string>;
}

/** One place that was tried, and why it did not do. */
interface Attempt {
  readonly place: string;
  readonly error: string;
}

/** Something to give to `dlopen`, and where it came from. */
interface Candidate {
  readonly file: string;
  readonly place: string;
}

/**
 * Loads a library: from the configured path, the path in the environment, the dynamic loader's own search, or an
 * installed Python package, whichever comes first.
 *
 * @throws {BackendUnavailableError} LIBRARY_MISSING with all that was tried; VERSION_MISMATCH with the functions that
 * the only library found does not have.
 */
export function loadLibrary<const T extends SymbolTable>(
  options: LibraryOptions<keyof T & string>,
  table: T,
): LoadedLibrary<T> {
  const attempts: Attempt[] = [];
  const preload = once(() => options.preload?.map((needed) => openDependency(needed, attempts)));
  const optional: readonly string[] = options.optional ?? [];
  let mismatch: { readonly path: string; readonly absent: readonly string[] } | undefined;

  for (const { file, place } of candidates(options, attempts)) {
    let opened = open(file, RTLD_NOW);
    if (typeof opened === "string" && !isAbsent(file, opened)) {
      // it is there, so something it needs is not
      preload();
      opened = open(file, RTLD_NOW);
    }
    if (typeof opened === "string" && options.lazy === true && opened.includes("undefined symbol")) {
      opened = open(file, RTLD_LAZY);
    }
    if (typeof opened === "string") {
      attempts.push({ place, error: opened });
      continue;
    }
    const path = fileOf(opened) ?? file;
    const missing = new Set<string>();
    const absent: string[] = [];
    const present: Record<string, T[string]> = {};
    for (const [name, declared] of Object.entries(table) as [string, T[string]][]) {
      const symbol = declared.symbol ?? name;
      if (dl.symbols.dlsym(opened, cstring(symbol)) !== 0n) present[name] = declared;
      else if (optional.includes(name)) missing.add(name);
      else absent.push(symbol);
    }
    if (absent.length === 0) return bind(path, table, present as unknown as T, missing, options);
    mismatch ??= { path, absent };
    attempts.push({ place, error: `${path} has no ${absent.join(", ")}` });
  }

  const tried = attempts.map(({ place, error }) => `\n  ${place}: ${error}`).join("");
  if (mismatch !== undefined) {
    throw new BackendUnavailableError(
      "VERSION_MISMATCH",
      `${options.name}: ${mismatch.path} lacks ${mismatch.absent.join(", ")}; tried:${tried}`,
      { expected: Object.keys(table), actual: attempts, hint: options.install },
    );
  }
  throw new BackendUnavailableError(
    "LIBRARY_MISSING",
    `${options.name}: no library that can be loaded; tried:${tried}`,
    { expected: options.sonames, actual: attempts, hint: options.install },
  );
}

function bind<T extends SymbolTable>(
  path: string,
  table: T,
  present: T,
  missing: ReadonlySet<string>,
  options: LibraryOptions,
): LoadedLibrary<T> {
  const library = native.open(path, present);
  const symbols = library.symbols as Record<string, unknown>;
  for (const name of missing) {
    const refuse = (): never => {
      throw new BackendUnavailableError("VERSION_MISMATCH", `${options.name}: ${path} has no ${name}`, {
        hint: options.install,
      });
    };
    symbols[name] = table[name]?.blocking === true ? () => Promise.try(refuse) : refuse;
  }
  return { ...library, missing };
}

function* candidates(search: LibrarySearch, attempts: Attempt[]): Generator<Candidate> {
  const { explicitPath, environment, sonames, pythonPackages = [] } = search;
  if (explicitPath !== undefined) {
    yield { file: asFile(explicitPath), place: "the path given" };
    return;
  }
  const set = environment === undefined ? undefined : process.env[environment];
  if (environment !== undefined && set !== undefined && set !== "") {
    yield { file: asFile(set), place: `${environment}=${set}` };
    return;
  }
  if (environment !== undefined) attempts.push({ place: environment, error: "not set" });
  for (const soname of sonames) yield { file: soname, place: "the loader's search path" };
  if (pythonPackages.length === 0) return;
  const looked: string[] = [];
  let found = false;
  for (const folder of pythonFolders()) {
    looked.push(folder);
    for (const inside of pythonPackages) {
      const file = join(folder, inside);
      if (!existsSync(file)) continue;
      found = true;
      yield { file, place: "a Python package" };
    }
  }
  if (!found) {
    const where = looked.length === 0 ? "no site-packages folder found" : `not in ${looked.join(", ")}`;
    attempts.push({ place: `Python packages (${pythonPackages.join(", ")})`, error: where });
  }
}

// A bare file name stays one: the dynamic loader searches for it.
function asFile(given: string): string {
  return given.includes("/") ? resolve(given) : given;
}

/** Opens a dependency for what comes after it. Not finding it is told, not thrown: it may turn out not to be needed. */
function openDependency(search: DependencySearch, attempts: Attempt[]): void {
  const tried: Attempt[] = [];
  for (const { file, place } of candidates(search, tried)) {
    const opened = open(file, search.global === true ? RTLD_NOW | RTLD_GLOBAL : RTLD_NOW);
    if (typeof opened !== "string") return;
    tried.push({ place, error: opened });
  }
  for (const { place, error } of tried) {
    attempts.push({ place: `${search.name}, needed by it, ${place}`, error });
  }
}

/** The handle, or the loader's own words. */
function open(file: string, mode: number): bigint | string {
  const handle = dl.symbols.dlopen(cstring(file), mode);
  if (handle !== 0n) return handle;
  return readCString(dl.symbols.dlerror()) ?? "the loader gave no reason";
}

/** Whether the loader misses the file itself, and not something the file needs. */
function isAbsent(file: string, error: string): boolean {
  return error.startsWith(`${file}: cannot open shared object file`);
}

const RTLD_DI_LINKMAP = 2;

/** The file behind a handle. */
function fileOf(handle: bigint): string | undefined {
  const pointer = new BigUint64Array(new ArrayBuffer(8));
  if (dl.symbols.dlinfo(handle, RTLD_DI_LINKMAP, pointer) !== 0) return undefined;
  // struct link_map { ElfW(Addr) l_addr; char *l_name; … }
  const map = new BigUint64Array(native.view(pointer[0]!, 16));
  return readCString(map[1]!) || undefined;
}

const PYTHON = `import sys, json
print(json.dumps([p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]))`;

/** The folders of installed Python packages: those of the active environment, then those of the `python3` in PATH. */
function* pythonFolders(): Generator<string> {
  const given = new Set<string>();
  for (const root of [process.env["VIRTUAL_ENV"], process.env["CONDA_PREFIX"]]) {
    if (root === undefined || root === "") continue;
    for (const folder of environmentFolders(root)) given.add(folder);
  }
  yield* given;
  // only when those did not do: this starts a process
  for (const folder of interpreterFolders()) {
    if (!given.has(folder)) yield folder;
  }
}

function environmentFolders(root: string): string[] {
  try {
    const versions = readdirSync(join(root, "lib")).filter((name) => /^python3/.test(name)).sort();
    return versions.map((version) => join(root, "lib", version, "site-packages")).filter((path) =>
      existsSync(path)
    );
  } catch {
    return [];
  }
}

const foldersByPath = new Map<string, string[]>();

function interpreterFolders(): string[] {
  const key = process.env["PATH"] ?? "";
  let folders = foldersByPath.get(key);
  if (folders === undefined) foldersByPath.set(key, folders = askInterpreter());
  return folders;
}

function askInterpreter(): string[] {
  try {
    const { status, stdout } = spawnSync("python3", ["-c", PYTHON], { encoding: "utf8", timeout: 5000 });
    if (status !== 0) return [];
    const folders: unknown = JSON.parse(stdout);
    return Array.isArray(folders) ? folders.filter((folder) => typeof folder === "string") : [];
  } catch {
    return []; // no python3, or no permission to start it
  }
}

function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    action();
  };
}
