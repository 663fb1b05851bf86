/**
 * The first pass over a JSONL file: where every value lies, and what has been seen in every column.
 *
 * It reads bytes, once, and makes no values. What it lets pass is JSON: strings, numbers and flat lists of numbers are
 * checked here, other arrays and objects by JSON.parse.
 *
 * @module
 */

import { isUtf8 } from "node:buffer";
import { MAX_JSON_DEPTH } from "../../batch/json.ts";
import { SchemaError } from "../../errors.ts";
import { fromBase64 } from "./base64.ts";

/** What a column has seen: one bit each. The first row are kinds; a column of two kinds is json. */
export const SEEN = {
  string: 1,
  number: 2,
  boolean: 4,
  /** An array of nothing but numbers. */
  list: 8,
  /** `{"$bytes": base64}`. */
  bytes: 16,
  other: 32,
  /** A number with a fraction or an exponent, alone or in a list. */
  float: 64,
  /** An integer of more than 15 digits: perhaps no exact double. */
  long: 128,
  /** A string with a backslash. */
  escape: 256,
} as const;

/** The bits that are kinds. */
export const KINDS = 63;

/** More fields than any batch has; a file of ever new keys ends here. */
const MAX_FIELDS = 4096;
/**
 * The most cells (rows times fields) for each byte of a file, and those that any file may have. A cell takes 8 bytes
 * here and about as many in its column, and one that is absent has no byte in the file.
 */
const [CELLS_PER_BYTE, FREE_CELLS] = [4, 2 ** 17];
/** Rows that a new column has room for at least. */
const FIRST_ROWS = 16;
/** The longest integer that can be read back. */
const MAX_DIGITS = 4300;

/** One column of a file: where its values lie. */
export class ScannedColumn {
  readonly name: string;
  /** The key as it stands in the file, with its quotes. */
  readonly key: Uint8Array;
  /** By row, offsets in the file: equal and not 0 where the value is null, both 0 where it is absent. */
  starts: Uint32Array;
  ends: Uint32Array;
  /** Bits of SEEN. */
  seen = 0;
  /** Elements of all lists together. */
  elements = 0;

  constructor(name: string, key: Uint8Array, capacity: number) {
    this.name = name;
    this.key = key;
    this.starts = new Uint32Array(capacity);
    this.ends = new Uint32Array(capacity);
  }
}

/** A file with the places of its values. */
export interface ScannedFile {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly rows: number;
  /** In order of first appearance. */
  readonly columns: readonly ScannedColumn[];
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** The text of a part of a file. */
export function textOf(bytes: Uint8Array, start: number, end: number): string {
  return decoder.decode(bytes.subarray(start, end));
}

/**
 * Scans a whole file.
 *
 * @throws {SchemaError} with `path:line:column` for anything that is not one JSON object a line
 */
export function scanJsonl(path: string, bytes: Uint8Array): ScannedFile {
  if (!isUtf8(bytes)) failUtf8(path, bytes);
  return new Scanner(path, bytes).scan();
}

/** What one JSON value is: bits of SEEN, and the elements of a list. */
export interface ScannedValue {
  readonly seen: number;
  readonly elements: number;
}

/** What the JSON value that fills `bytes` is; 0 for null. */
export function scanValue(bytes: Uint8Array): ScannedValue {
  const scanner = new Scanner("", bytes);
  scanner.value();
  return { seen: scanner.seen, elements: scanner.elements };
}

const [NEWLINE, QUOTE, BACKSLASH, COMMA, COLON] = [0x0a, 0x22, 0x5c, 0x2c, 0x3a];
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];
const [MINUS, PLUS, POINT, ZERO, NINE] = [0x2d, 0x2b, 0x2e, 0x30, 0x39];
const NULL = new TextEncoder().encode("null");
const TRUE = new TextEncoder().encode("true");
const FALSE = new TextEncoder().encode("false");

class Scanner {
  readonly #path: string;
  readonly #bytes: Uint8Array;
  #at = 0;
  #lineStart = 0;
  #row = 0;
  #capacity = FIRST_ROWS;
  readonly #columns: ScannedColumn[] = [];
  readonly #byName = new Map<string, ScannedColumn>();
  /** About the last value. */
  seen = 0;
  elements = 0;

  constructor(path: string, bytes: Uint8Array) {
    this.#path = path;
    this.#bytes = bytes;
  }

  scan(): ScannedFile {
    const bytes = this.#bytes;
    // A byte order mark, which some editors write.
    if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) this.#at = 3;
    while (this.#at < bytes.length) {
      this.#lineStart = this.#at;
      this.#space();
      if (this.#at === bytes.length || bytes[this.#at] === NEWLINE) {
        if (this.#onlySpaceLeft()) break;
        this.#fail("the line is blank", "a JSON object");
      }
      if (this.#row === this.#capacity) this.#grow();
      this.#object();
      this.#space();
      if (this.#at < bytes.length && bytes[this.#at] !== NEWLINE) {
        this.#fail("there is more after the object", "the end of the line");
      }
      this.#at++;
      this.#row++;
    }
    return { path: this.#path, bytes, rows: this.#row, columns: this.#columns };
  }

  /** Refuses to make room for many more cells than there are bytes. */
  #checkCells(columns: number, rows: number): void {
    const most = this.#bytes.length * CELLS_PER_BYTE + FREE_CELLS;
    if (columns * rows <= most) return;
    this.#fail(
      `there are ${columns} fields, and nearly all of them are absent from nearly all lines`,
      `at most ${CELLS_PER_BYTE} values, absent ones counted, a byte`,
      this.#lineStart,
    );
  }

  #fail(what: string, expected?: unknown, at: number = this.#at, field?: string): never {
    const column = textOf(this.#bytes, this.#lineStart, at).length + 1;
    throw new SchemaError(`${this.#path}:${this.#row + 1}:${column}: ${what}`, { field, expected });
  }

  #onlySpaceLeft(): boolean {
    const bytes = this.#bytes;
    for (let i = this.#at; i < bytes.length; i++) {
      const byte = bytes[i]!;
      if (byte !== 0x20 && byte !== NEWLINE && byte !== 0x0d && byte !== 0x09) return false;
    }
    return true;
  }

  #grow(): void {
    this.#capacity *= 2;
    this.#checkCells(this.#columns.length, this.#row);
    for (const column of this.#columns) {
      const { starts, ends } = column;
      column.starts = new Uint32Array(this.#capacity);
      column.starts.set(starts);
      column.ends = new Uint32Array(this.#capacity);
      column.ends.set(ends);
    }
  }

  /** Steps over space; a newline ends the line and is none. */
  #space(): void {
    const bytes = this.#bytes;
    let byte = bytes[this.#at];
    while (byte === 0x20 || byte === 0x09 || byte === 0x0d) byte = bytes[++this.#at];
  }

  #object(): void {
    const bytes = this.#bytes;
    if (bytes[this.#at] !== OPEN_OBJECT) this.#fail("the line is no JSON object", "{");
    this.#at++;
    this.#space();
    if (bytes[this.#at] === CLOSE_OBJECT) return void this.#at++;
    for (let position = 0;; position++) {
      if (bytes[this.#at] !== QUOTE) this.#fail("a key is missing", '"');
      const keyStart = this.#at;
      this.#string();
      const column = this.#column(position, keyStart);
      if (column.ends[this.#row] !== 0) {
        this.#fail(`the key ${JSON.stringify(column.name)} comes twice`, undefined, keyStart, column.name);
      }
      this.#space();
      if (bytes[this.#at] !== COLON) this.#fail("a colon is missing", ":", this.#at, column.name);
      this.#at++;
      this.#space();
      const start = this.#at;
      this.value(column.name);
      const isNull = this.seen === 0;
      column.starts[this.#row] = isNull ? this.#at : start;
      column.ends[this.#row] = this.#at;
      column.seen |= this.seen;
      column.elements += this.elements;
      this.#space();
      const next = bytes[this.#at++];
      if (next === CLOSE_OBJECT) return;
      if (next !== COMMA) {
        this.#at--;
        this.#fail("the object goes on without a comma", ", or }");
      }
      this.#space();
    }
  }

  /** The column of the key that ends here; the keys of most lines come in one order. */
  #column(position: number, keyStart: number): ScannedColumn {
    const guess = this.#columns[position];
    if (guess !== undefined && this.#isKey(guess.key, keyStart)) return guess;
    const key = this.#bytes.subarray(keyStart, this.#at);
    let name: string;
    try {
      name = JSON.parse(decoder.decode(key)) as string;
    } catch (cause) {
      return this.#fail(`the key is no JSON: ${(cause as Error).message}`, undefined, keyStart);
    }
    if (!name.isWellFormed()) this.#fail("the key has a lone surrogate", undefined, keyStart);
    let column = this.#byName.get(name);
    if (column === undefined) {
      if (this.#columns.length === MAX_FIELDS) this.#fail(`there are more than ${MAX_FIELDS} fields`);
      this.#checkCells(this.#columns.length + 1, this.#row);
      column = new ScannedColumn(name, key, this.#capacity);
      this.#columns.push(column);
      this.#byName.set(name, column);
    }
    return column;
  }

  #isKey(key: Uint8Array, start: number): boolean {
    if (this.#at - start !== key.length) return false;
    const bytes = this.#bytes;
    for (let i = 0; i < key.length; i++) {
      if (bytes[start + i] !== key[i]) return false;
    }
    return true;
  }

  /** Steps over one value and says in `seen` and `elements` what it was. */
  value(field?: string): void {
    this.elements = 0;
    const start = this.#at;
    const byte = this.#bytes[start];
    if (byte === QUOTE) {
      this.seen = SEEN.string;
      this.#string(field);
      if (this.seen & SEEN.escape) this.#checkEscapes(start, field);
    } else if (byte === MINUS || (byte! >= ZERO && byte! <= NINE)) {
      this.seen = SEEN.number;
      if (!this.#number()) this.#fail("a number is malformed", "a JSON number", start, field);
    } else if (byte === OPEN_LIST) {
      this.seen = SEEN.list;
      if (!this.#flatList()) {
        this.#at = start;
        this.elements = 0;
        this.#container(field);
        this.seen = SEEN.other;
      }
    } else if (byte === OPEN_OBJECT) {
      const value = this.#container(field);
      this.seen = isBytes(value) ? SEEN.bytes : SEEN.other;
      if (this.seen === SEEN.bytes && fromBase64((value as { $bytes: string }).$bytes) === undefined) {
        this.#fail("$bytes is no base64", "base64", start, field);
      }
    } else if (this.#word(NULL)) {
      this.seen = 0;
    } else if (this.#word(TRUE) || this.#word(FALSE)) {
      this.seen = SEEN.boolean;
    } else {
      this.#fail("a value is missing or malformed", "a JSON value", start, field);
    }
  }

  #word(word: Uint8Array): boolean {
    if (!this.#isWord(word)) return false;
    this.#at += word.length;
    return true;
  }

  #isWord(word: Uint8Array): boolean {
    const [bytes, at] = [this.#bytes, this.#at];
    for (let i = 0; i < word.length; i++) {
      if (bytes[at + i] !== word[i]) return false;
    }
    return true;
  }

  /** Steps over a string; what its escapes are is not looked at. */
  #string(field?: string): void {
    const bytes = this.#bytes;
    const start = this.#at;
    let at = start + 1;
    for (;;) {
      const byte = bytes[at];
      if (byte === QUOTE) break;
      if (byte === BACKSLASH) {
        this.seen |= SEEN.escape;
        at += 2;
      } else if (byte === undefined || byte < 0x20) {
        if (byte === undefined || byte === NEWLINE) this.#fail("a string has no end", '"', start, field);
        this.#fail("a string has a control character", "an escape", at, field);
      } else at++;
    }
    this.#at = at + 1;
  }

  /** A string with escapes: malformed ones are errors, lone surrogates fit into json only. */
  #checkEscapes(start: number, field?: string): void {
    let value: string;
    try {
      value = JSON.parse(textOf(this.#bytes, start, this.#at)) as string;
    } catch (cause) {
      return this.#fail(`a string is no JSON: ${(cause as Error).message}`, undefined, start, field);
    }
    if (!value.isWellFormed()) this.seen = SEEN.other;
  }

  /** Steps over a number; false where it is none. */
  #number(): boolean {
    const bytes = this.#bytes;
    let at = this.#at;
    if (bytes[at] === MINUS) at++;
    const first = at;
    let byte = bytes[at]!;
    while (byte >= ZERO && byte <= NINE) byte = bytes[++at]!;
    const digits = at - first;
    if (digits === 0 || digits > MAX_DIGITS || (digits > 1 && bytes[first] === ZERO)) return false;
    let float = false;
    if (byte === POINT) {
      const fraction = ++at;
      float = true;
      byte = bytes[at]!;
      while (byte >= ZERO && byte <= NINE) byte = bytes[++at]!;
      if (at === fraction) return false;
    }
    if (byte === 0x65 || byte === 0x45) {
      float = true;
      byte = bytes[++at]!;
      if (byte === PLUS || byte === MINUS) byte = bytes[++at]!;
      const exponent = at;
      while (byte >= ZERO && byte <= NINE) byte = bytes[++at]!;
      if (at === exponent) return false;
    }
    if (float) this.seen |= SEEN.float;
    else if (digits > 15) this.seen |= SEEN.long;
    this.#at = at;
    return true;
  }

  /** Steps over a list of nothing but numbers; false where it is none, or malformed. */
  #flatList(): boolean {
    const bytes = this.#bytes;
    this.#at++;
    this.#space();
    if (bytes[this.#at] === CLOSE_LIST) {
      this.#at++;
      return true;
    }
    for (;;) {
      if (!this.#number()) return false;
      this.elements++;
      this.#space();
      const next = bytes[this.#at++];
      if (next === CLOSE_LIST) return true;
      if (next !== COMMA) return false;
      this.#space();
    }
  }

  /** Steps over an array or object and gives its value. */
  #container(field?: string): unknown {
    const bytes = this.#bytes;
    const start = this.#at;
    let depth = 0;
    do {
      const byte = bytes[this.#at];
      if (byte === QUOTE) {
        this.#string(field);
        continue;
      }
      if (byte === undefined || byte === NEWLINE) {
        this.#fail("an array or object has no end", "] or }", start, field);
      }
      if (byte === OPEN_LIST || byte === OPEN_OBJECT) {
        if (++depth > MAX_JSON_DEPTH) {
          this.#fail(`a value nests deeper than ${MAX_JSON_DEPTH} levels`, undefined, start, field);
        }
      } else if (byte === CLOSE_LIST || byte === CLOSE_OBJECT) depth--;
      this.#at++;
    } while (depth > 0);
    const text = textOf(bytes, start, this.#at);
    if (text.length > MAX_DIGITS && /\d{4301}/.test(text)) {
      this.#fail(`a number has more than ${MAX_DIGITS} digits`, undefined, start, field);
    }
    try {
      return JSON.parse(text);
    } catch (cause) {
      return this.#fail(`a value is no JSON: ${(cause as Error).message}`, undefined, start, field);
    }
  }
}

/** True for `{"$bytes": text}`. */
export function isBytes(value: unknown): value is { $bytes: string } {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, "$bytes")) return false;
  return typeof (value as { $bytes: unknown }).$bytes === "string" && Object.keys(value).length === 1;
}

function failUtf8(path: string, bytes: Uint8Array): never {
  let line = 1;
  for (let start = 0; start < bytes.length; line++) {
    const newline = bytes.indexOf(NEWLINE, start);
    const end = newline < 0 ? bytes.length : newline;
    if (!isUtf8(bytes.subarray(start, end))) break;
    start = end + 1;
  }
  throw new SchemaError(`${path}:${line}: the line is no UTF-8`, { expected: "UTF-8" });
}
