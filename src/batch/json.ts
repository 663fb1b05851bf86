/**
 * JSON that keeps integers exact: beyond ±(2^53−1) they are bigint. Reading also takes the tokens NaN, Infinity and
 * -Infinity, which Python writes.
 *
 * @module
 */

import { SchemaError } from "../errors.ts";

/** A JSON value; integers may be bigint. */
export type Json = null | boolean | number | bigint | string | readonly Json[] | JsonObject;

/** A JSON object. */
export interface JsonObject {
  readonly [key: string]: Json;
}

/** How deep arrays and objects may nest, both ways: more would overflow the stack of whoever walks them. */
export const MAX_JSON_DEPTH = 512;
/** The longest integer, in digits; Python's own limit is 4,300. */
const MAX_DIGITS = 4300;
/** What JSON.parse would read inexactly or not at all, if it stands outside a string. Two are faster than one. */
const LONG_INTEGER = /(?:^|[^.\d])\d{16}/g;
const NON_FINITE = /NaN|Infinity/g;
const SPACE = /[ \t\n\r]*/y;

/**
 * Parses JSON exactly.
 *
 * @param text one JSON value
 * @returns numbers where they are exact, bigint for integers beyond ±(2^53−1)
 * @throws {SyntaxError} for anything that is not JSON (but NaN, Infinity and -Infinity are read), that nests deeper
 * than 512 levels, or that has an integer of more than 4,300 digits
 *
 * @example
 * ```ts
 * parseJson('{"id": 9007199254740993, "loss": NaN}'); // { id: 9007199254740993n, loss: NaN }
 * ```
 */
export function parseJson(text: string): unknown {
  if (text.length > 2 * MAX_JSON_DEPTH && tooDeep(text)) {
    throw new SyntaxError(`JSON nests deeper than ${MAX_JSON_DEPTH} levels`);
  }
  const isOwn = hasOutside(text, NON_FINITE) || hasOutside(text, LONG_INTEGER) || hasEscapedKey(text);
  return isOwn ? new Parser(text).parse() : JSON.parse(text);
}

/**
 * True if an object has a key with an escape. V8 (15.0 among others) may read such a key as another one that it has
 * seen: after `{"x":1,"\\":2}` it gives `{"x":1,"\n":2}` the key of the first (nodejs/node issue 63785).
 */
function hasEscapedKey(text: string): boolean {
  for (let at = text.indexOf("\\"); at !== -1; at = text.indexOf("\\", at)) {
    // the first backslash after the end of a string is inside the next one
    at = stringEnd(text, at - 1);
    if (at === -1) return false;
    SPACE.lastIndex = at;
    SPACE.test(text);
    if (text.charCodeAt(SPACE.lastIndex) === 0x3a) return true;
  }
  return false;
}

/** True if `pattern` matches outside all strings (or where strings are malformed). */
function hasOutside(text: string, pattern: RegExp): boolean {
  pattern.lastIndex = 0;
  let position = 0;
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
    while (position <= match.index) {
      const quote = text.indexOf('"', position);
      if (quote === -1 || quote > match.index) return true;
      position = stringEnd(text, quote);
      if (position === -1) return true;
    }
    pattern.lastIndex = position;
  }
  return false;
}

/** The position after the string that opens at `quote`; −1 where it never ends. */
export function stringEnd(text: string, quote: number): number {
  for (let end = text.indexOf('"', quote + 1); end !== -1; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (text.charCodeAt(end - 1 - backslashes) === 0x5c) backslashes++;
    if (backslashes % 2 === 0) return end + 1;
  }
  return -1;
}

/** Whether brackets outside strings open more levels than there may be. */
function tooDeep(text: string): boolean {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x22: {
        i = stringEnd(text, i) - 1;
        // malformed: the parser says so
        if (i < 0) return false;
        break;
      }
      case 0x5b:
      case 0x7b:
        if (++depth > MAX_JSON_DEPTH) return true;
        break;
      case 0x5d:
      case 0x7d:
        depth--;
    }
  }
  return false;
}

const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const WORDS: readonly (readonly [word: string, value: Json])[] = [
  ["null", null],
  ["true", true],
  ["false", false],
  ["NaN", NaN],
  ["Infinity", Infinity],
  ["-Infinity", -Infinity],
];

/** Reads what JSON.parse cannot; only texts with a suspect token come here. */
class Parser {
  readonly #text: string;
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
  }

  parse(): unknown {
    this.#skipSpace();
    const value = this.#value();
    this.#skipSpace();
    if (this.#at < this.#text.length) throw this.#unexpected();
    return value;
  }

  #value(): unknown {
    switch (this.#text.charCodeAt(this.#at)) {
      case 0x22:
        return this.#string();
      case 0x5b:
        return this.#array();
      case 0x7b:
        return this.#object();
      default:
        return this.#numberOrWord();
    }
  }

  #array(): unknown[] {
    const out: unknown[] = [];
    this.#enter();
    if (this.#takes(0x5d)) return out;
    do {
      this.#skipSpace();
      out.push(this.#value());
      this.#skipSpace();
    } while (this.#comma(0x5d));
    return out;
  }

  #object(): Record<string, unknown> {
    const out: Record<string, unknown> = {};
    this.#enter();
    if (this.#takes(0x7d)) return out;
    do {
      this.#skipSpace();
      if (this.#text.charCodeAt(this.#at) !== 0x22) throw this.#unexpected();
      const key = this.#string();
      this.#skipSpace();
      if (this.#text.charCodeAt(this.#at) !== 0x3a) throw this.#unexpected();
      this.#at++;
      this.#skipSpace();
      const value = this.#value();
      // an assignment would set the prototype
      if (key === "__proto__") {
        Object.defineProperty(out, key, { value, writable: true, enumerable: true, configurable: true });
      } else out[key] = value;
      this.#skipSpace();
    } while (this.#comma(0x7d));
    return out;
  }

  #string(): string {
    const end = stringEnd(this.#text, this.#at);
    if (end === -1) throw new SyntaxError("JSON ends inside a string");
    const token = this.#text.slice(this.#at, end);
    this.#at = end;
    return JSON.parse(token) as string;
  }

  #numberOrWord(): unknown {
    NUMBER.lastIndex = this.#at;
    const match = NUMBER.exec(this.#text);
    if (match !== null) {
      this.#at = NUMBER.lastIndex;
      const token = match[0];
      const number = Number(token);
      if (match[1] !== undefined || match[2] !== undefined || Number.isSafeInteger(number)) return number;
      if (token.length > MAX_DIGITS) throw new SyntaxError(`JSON has an integer of ${token.length} digits`);
      return BigInt(token);
    }
    for (const [word, value] of WORDS) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    throw this.#unexpected();
  }

  /** Steps over an opening bracket. */
  #enter(): void {
    if (++this.#depth > MAX_JSON_DEPTH) {
      throw new SyntaxError(`JSON nests deeper than ${MAX_JSON_DEPTH} levels`);
    }
    this.#at++;
    this.#skipSpace();
  }

  /** Steps over `close` if it is next. */
  #takes(close: number): boolean {
    if (this.#text.charCodeAt(this.#at) !== close) return false;
    this.#at++;
    this.#depth--;
    return true;
  }

  /** True after a comma, false after `close`. */
  #comma(close: number): boolean {
    if (this.#takes(close)) return false;
    if (this.#text.charCodeAt(this.#at) !== 0x2c) throw this.#unexpected();
    this.#at++;
    return true;
  }

  #skipSpace(): void {
    SPACE.lastIndex = this.#at;
    SPACE.test(this.#text);
    this.#at = SPACE.lastIndex;
  }

  #unexpected(): SyntaxError {
    if (this.#at >= this.#text.length) return new SyntaxError("JSON ends too early");
    const found = JSON.stringify(this.#text.slice(this.#at, this.#at + 10));
    return new SyntaxError(`JSON has an unexpected ${found} at position ${this.#at}`);
  }
}

/** How {@linkcode stringifyJson} writes. */
export interface StringifyOptions {
  /** Write NaN, Infinity and -Infinity as these bare tokens, as Python does, instead of refusing them. */
  readonly allowNonFinite?: boolean;
}

/**
 * Writes compact JSON that `parseJson` reads back as the same value: bigints as digits, −0 as `-0.0`,
 * numbers of 2^53 and more with an exponent.
 *
 * @param value null, booleans, numbers, bigints, strings, arrays and plain objects of these
 * @throws {SchemaError} with the path of the first thing JSON has no form for: undefined, functions, symbols, NaN and
 * infinities, strings with lone surrogates, instances of classes, cycles, more than 512 levels
 */
export function stringifyJson(value: unknown, options: StringifyOptions = {}): string {
  const check = new Check(options.allowNonFinite === true);
  const problem = check.find(value);
  if (problem !== undefined) {
    throw new SchemaError(`JSON cannot hold ${problem.what} at ${problem.path()}`, {
      expected: "null, booleans, finite numbers, bigints, well-formed strings, arrays and plain objects",
      actual: problem.what,
    });
  }
  return check.isPlain ? JSON.stringify(value) : write(value);
}

class Problem {
  readonly what: string;
  readonly #keys: (string | number)[] = [];

  constructor(what: string) {
    this.what = what;
  }

  under(key: string | number): this {
    this.#keys.push(key);
    return this;
  }

  path(): string {
    const keys = this.#keys.reverse();
    const shown = keys.slice(0, 16).map((key) =>
      typeof key === "number"
        ? `[${key}]`
        : /^[A-Za-z_$][\w$]*$/.test(key)
        ? `.${key}`
        : `[${JSON.stringify(key)}]`
    );
    return `$${shown.join("")}${keys.length > 16 ? "…" : ""}`;
  }
}

/** Walks a value before anything is written. */
class Check {
  /** False once something was seen that JSON.stringify would write otherwise. */
  isPlain = true;
  readonly #nonFinite: boolean;
  readonly #ancestors: object[] = [];

  constructor(nonFinite: boolean) {
    this.#nonFinite = nonFinite;
  }

  find(value: unknown): Problem | undefined {
    switch (typeof value) {
      case "string":
        return value.isWellFormed() ? undefined : new Problem("a string with a lone surrogate");
      case "number":
        if (Number.isFinite(value)) {
          if (isBare(value)) this.isPlain = false;
          return undefined;
        }
        this.isPlain = false;
        return this.#nonFinite ? undefined : new Problem(String(value));
      case "boolean":
        return undefined;
      case "bigint":
        this.isPlain = false;
        return undefined;
      case "object":
        return value === null ? undefined : this.#findIn(value);
      default:
        return new Problem(value === undefined ? "undefined" : `a ${typeof value}`);
    }
  }

  #findIn(value: object): Problem | undefined {
    if (this.#ancestors.length >= MAX_JSON_DEPTH) {
      const cyclic = new Set(this.#ancestors).size < this.#ancestors.length;
      return new Problem(cyclic ? "a cycle" : `more than ${MAX_JSON_DEPTH} levels`);
    }
    this.#ancestors.push(value);
    if (Array.isArray(value)) {
      for (let i = 0; i < value.length; i++) {
        const problem = this.find(value[i]);
        if (problem !== undefined) return problem.under(i);
      }
    } else {
      if (!isPlainObject(value)) return new Problem(`an instance of ${value.constructor?.name ?? "a class"}`);
      for (const key of Object.keys(value)) {
        if (!key.isWellFormed()) return new Problem("a key with a lone surrogate").under(key);
        const problem = this.find((value as Record<string, unknown>)[key]);
        if (problem !== undefined) return problem.under(key);
      }
    }
    this.#ancestors.pop();
    return undefined;
  }
}

/** True for floats that JSON.stringify writes as another value's integer: −0 as 0, 2^60 as an exact integer. */
function isBare(value: number): boolean {
  return Number.isInteger(value) && (value === 0 ? Object.is(value, -0) : !Number.isSafeInteger(value));
}

/** The slower writer, for what JSON.stringify cannot write; the value is checked. */
function write(value: unknown): string {
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number") {
    return !isBare(value) ? String(value) : value === 0 ? "-0.0" : value.toExponential();
  }
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(write).join(",")}]`;
  const parts = Object.keys(value).map((key) =>
    `${JSON.stringify(key)}:${write((value as Record<string, unknown>)[key])}`
  );
  return `{${parts.join(",")}}`;
}

/** True for objects made by `{}`, `Object.create(null)` or JSON.parse, of whatever realm. */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype ||
    (Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype as object, "isPrototypeOf"));
}

/**
 * A deep, frozen copy of a JSON object.
 *
 * @throws {SchemaError} for what JSON cannot hold (NaN and infinities are taken)
 */
export function freezeJson(value: JsonObject): JsonObject {
  const problem = isPlainObject(value) ? new Check(true).find(value) : new Problem("anything but an object");
  if (problem !== undefined) {
    throw new SchemaError(`meta cannot hold ${problem.what} at ${problem.path()}`, { actual: problem.what });
  }
  return copyFrozen(value) as JsonObject;
}

function copyFrozen(value: Json): Json {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return Object.freeze(value.map(copyFrozen));
  return Object.freeze(
    Object.fromEntries(Object.entries(value).map(([key, item]) => [key, copyFrozen(item)])),
  );
}
