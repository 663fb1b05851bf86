/**
 * Where a key lives: the names of folders and files below the root.
 *
 * ```
 * DIRECTORY/batchferry-EUID/
 *   owners/OWNER                   locked for as long as a store instance is open
 *   pool/OWNER/…                   files of that instance that nobody reads any more, and half-written ones
 *   live/ESC(DIR)/OBJECT-ID        a bundle; its object id is DIR/OBJECT-ID
 *   live/ESC(DIR)/OBJECT-ID~ESC(REST)   a key put alone: DIR/OBJECT-ID/REST
 *   live/ESC(DIR)/names~ESC(REST)  a key put alone: DIR/names/REST
 *   live/ESC(DIR)/~ESC(LAST)       any other key put alone: DIR/LAST
 * ```
 *
 * OBJECT-ID is the last segment of 32 lowercase hex digits in a key; where there is none, a key is split at its last
 * segment `names` that something follows, else before its last segment. OWNER is `PID-START-RANDOM`.
 *
 * ESC writes every byte of the UTF-8 form but `[A-Za-z0-9_-]` as `%XX` (capital hex digits). Where that is longer than
 * 200 bytes, it is cut after 160 and followed by `~` and the first 32 hex digits of the SHA-256 of the unescaped UTF-8.
 * The empty text, which a key without a slash has as DIR, becomes a lone `%`.
 *
 * Bundle files never come back under a name they had; keys put alone may, and so their files are always new ones.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { objectIdOf } from "../store.ts";

const LONGEST = 200;
const CUT = 160;
const EMPTY = "%";
const ID_LENGTH = 32;

const PLAIN = /^[A-Za-z0-9_-]+$/;
const ESCAPED = /^(?:[A-Za-z0-9_-]|%[0-9A-F]{2})+$/;
const BUNDLE_FILE = /^[0-9a-f]{32}$/;
const OWNER = /^[0-9]{1,10}-[0-9]{1,20}-[0-9a-f]{16}$/;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The two places a key may be found in, as names below `live/`. */
export interface Location {
  /** DIR, not escaped. */
  readonly dir: string;
  /** The file of the bundle the key may be a part of, or undefined. */
  readonly bundle: string | undefined;
  /** The file of the key put alone. */
  readonly loose: string;
}

/** ESC: a file name for any text. */
export function escapeName(text: string): string {
  if (text.length <= LONGEST && PLAIN.test(text)) return text;
  if (text === "") return EMPTY;
  const bytes = encoder.encode(text);
  let escaped = "";
  for (const byte of bytes) {
    const char = String.fromCharCode(byte);
    escaped += PLAIN.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  if (escaped.length <= LONGEST) return escaped;
  return `${escaped.slice(0, CUT)}~${createHash("sha256").update(bytes).digest("hex").slice(0, 32)}`;
}

/** The text behind an escaped name, or undefined where it was hashed or is no such name. */
export function unescapeName(name: string): string | undefined {
  if (PLAIN.test(name)) return name;
  if (name === EMPTY) return "";
  if (!ESCAPED.test(name)) return undefined;
  const bytes: number[] = [];
  for (let i = 0; i < name.length; i++) {
    if (name[i] === "%") {
      bytes.push(parseInt(name.slice(i + 1, i + 3), 16));
      i += 2;
    } else bytes.push(name.charCodeAt(i));
  }
  try {
    return decoder.decode(Uint8Array.from(bytes));
  } catch {
    return undefined;
  }
}

/** DIR and OBJECT-ID of an object id. */
export function splitObjectId(objectId: string): { readonly dir: string; readonly id: string } {
  // the slash in between goes with neither
  return {
    dir: objectId.slice(0, Math.max(0, objectId.length - ID_LENGTH - 1)),
    id: objectId.slice(-ID_LENGTH),
  };
}

/** The folder and the files in which to look for `key`. */
export function locate(key: string): Location {
  const objectId = objectIdOf(key);
  if (objectId !== undefined) {
    const { dir, id } = splitObjectId(objectId);
    return { dir, bundle: id, loose: `${id}~${escapeName(key.slice(objectId.length + 1))}` };
  }
  const slash = key.lastIndexOf("/");
  // with a slash in front, a first segment `names` is found like any other
  const names = slash < 0 ? -1 : `/${key}`.lastIndexOf("/names/");
  if (names >= 0) {
    const rest = key.slice(names + "names/".length);
    return {
      dir: key.slice(0, Math.max(0, names - 1)),
      bundle: undefined,
      loose: `names~${escapeName(rest)}`,
    };
  }
  return {
    dir: key.slice(0, Math.max(0, slash)),
    bundle: undefined,
    loose: `~${escapeName(key.slice(slash + 1))}`,
  };
}

/** Whether a file of a live folder is a bundle's (else it holds a key put alone). */
export function isBundleFile(name: string): boolean {
  return BUNDLE_FILE.test(name);
}

/** The key put alone in file `name` of the live folder `folder`, or undefined where only its table can tell. */
export function looseKey(folder: string, name: string): string | undefined {
  const dir = unescapeName(folder);
  const tilde = name.indexOf("~");
  if (dir === undefined || tilde < 0) return undefined;
  const rest = unescapeName(name.slice(tilde + 1));
  if (rest === undefined) return undefined;
  return [dir, name.slice(0, tilde), rest].filter((segment) => segment !== "").join("/");
}

/** Whether `name` may name an owner. What stands in a file's owner tag becomes part of a path, so it is looked at. */
export function isOwner(name: string): boolean {
  return OWNER.test(name);
}
