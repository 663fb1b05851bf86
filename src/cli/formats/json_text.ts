/**
 * JSON as text: what JSON.parse does not tell (duplicate keys, key order, the form of numbers), and how the commands
 * write values.
 *
 * @module
 */

import { stringEnd } from "../../batch/json.ts";

/** A key found twice in one object of a JSON text. */
export interface DuplicateKey {
  readonly key: string;
  /** The offset in the text of the second one. */
  readonly offset: number;
}

/**
 * The keys of the outermost object of `text`, in the order of the text (JSON.parse moves keys like `"7"` to the
 * front), and the first key that any object in it has twice (JSON.parse keeps the last one).
 *
 * @param text valid JSON
 */
export function objectKeys(text: string): { keys: string[]; duplicate: DuplicateKey | undefined } {
  const open: (Set<string> | null)[] = [];
  const keys: string[] = [];
  let duplicate: DuplicateKey | undefined;
  // no pattern goes over whole strings: with millions of escapes that ends in a RangeError, or in no match
  const marks = /["{}[\]]/g;
  for (let mark = marks.exec(text); mark !== null; mark = marks.exec(text)) {
    const { index } = mark;
    if (mark[0] === "{") open.push(new Set());
    else if (mark[0] === "[") open.push(null);
    else if (mark[0] !== '"') open.pop();
    else {
      const end = stringEnd(text, index);
      marks.lastIndex = end;
      if (text[skipSpace(text, end)] !== ":") continue;
      const key = JSON.parse(text.slice(index, end)) as string;
      const seen = open.at(-1);
      if (seen?.has(key)) duplicate ??= { key, offset: index };
      seen?.add(key);
      if (open.length === 1) keys.push(key);
    }
  }
  return { keys, duplicate };
}

/** The position of the first character at or behind `at` that is no space. */
function skipSpace(text: string, at: number): number {
  while (" \t\n\r".includes(text[at] ?? "-")) at++;
  return at;
}

/** A finite float as a token that reads back as a float: `1.0`, `-0.0`, `0.1`, `1e-7`. */
export function floatToken(value: number): string {
  if (Object.is(value, -0)) return "-0.0";
  const text = String(value);
  return Number.isInteger(value) && !text.includes("e") ? text + ".0" : text;
}

/** The outermost tokens of JSON that may be written in several ways: strings (their beginning), numbers, space. */
const LOOSE = /"|-?\d[\d.eE+-]*|[ \t\n\r]+/g;

/**
 * A JSON text in its one compact form: no space, shortest strings, floats as `floatToken` writes them; integers of any
 * length, key order and duplicate keys stay.
 *
 * @throws {SyntaxError} if `text` is no JSON (NaN and infinities are none)
 */
export function canonicalJson(text: string): string {
  const value: unknown = JSON.parse(text);
  // What JSON.stringify writes has no other form, apart from floats it wrote as integers, which stay integers.
  if (JSON.stringify(value) === text) return text;
  let out = "";
  let done = 0;
  LOOSE.lastIndex = 0;
  for (let match = LOOSE.exec(text); match !== null; match = LOOSE.exec(text)) {
    let [token] = match;
    const { index } = match;
    const first = token.charCodeAt(0);
    let canonical = "";
    if (first === 0x22) {
      LOOSE.lastIndex = stringEnd(text, index);
      token = text.slice(index, LOOSE.lastIndex);
      canonical = token.includes("\\") ? JSON.stringify(JSON.parse(token)) : token;
    } else if (first > 0x20) canonical = canonicalNumber(token);
    out += text.slice(done, index) + canonical;
    done = index + token.length;
  }
  return out + text.slice(done);
}

/** One number token in its one form; a float too large for JavaScript stays as it is. */
export function canonicalNumber(token: string): string {
  if (!isFloatToken(token)) return token === "-0" ? "0" : token;
  const value = Number(token);
  return Number.isFinite(value) ? floatToken(value) : token;
}

/** True if a number token has a fraction or an exponent. */
export function isFloatToken(token: string): boolean {
  return /[.eE]/.test(token);
}
