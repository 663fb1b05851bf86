/**
 * JSON as the stored form has it: written as Python writes it, read with suspicion.
 *
 * @module
 */

import { type JsonObject, parseJson, stringifyJson } from "../batch/json.ts";
import { CorruptionError } from "../errors.ts";

/** What can be written: JSON, with Maps for objects whose keys must keep their order. */
export type JsonTree = unknown | readonly JsonTree[] | ReadonlyMap<string, JsonTree>;

const BEYOND_ASCII = /[^\x20-\x7e]/g;
/** Text that JSON writes as it is. */
const PLAIN = /^[ !#-[\]-~]*$/;

function escaped(text: string): string {
  return text.replace(BEYOND_ASCII, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** A string as JSON text, everything beyond ASCII escaped. */
export function quoted(text: string): string {
  return PLAIN.test(text) ? `"${text}"` : pythonJson(text);
}

/**
 * JSON text without white space and with everything beyond ASCII escaped, as Python's `json.dumps` gives it.
 *
 * A Map is written as an object in its own order: a plain object would move keys like `"0"` to the front. Maps may
 * stand in Maps and in arrays of Maps, not inside plain objects.
 *
 * @throws SchemaError for values that JSON has not (NaN and the infinities are written as Python writes them).
 */
export function pythonJson(tree: JsonTree): string {
  // nearly everything is one of these two
  if (typeof tree === "string" && PLAIN.test(tree)) return `"${tree}"`;
  if (typeof tree === "number" && Number.isSafeInteger(tree)) return String(tree);
  if (tree instanceof Map) {
    let text = "{";
    for (const [key, value] of tree) {
      text += `${text.length > 1 ? "," : ""}${quoted(key)}:${pythonJson(value)}`;
    }
    return `${text}}`;
  }
  if (Array.isArray(tree) && tree.some((item) => item instanceof Map)) {
    return `[${tree.map(pythonJson).join(",")}]`;
  }
  return escaped(stringifyJson(tree, { allowNonFinite: true }));
}

const encoder = new TextEncoder();

/** The bytes of JSON text. */
export function jsonBytes(text: string): Uint8Array {
  return encoder.encode(text);
}

/** The bytes of `pythonJson`. */
export function pythonJsonBytes(tree: JsonTree): Uint8Array {
  return jsonBytes(pythonJson(tree));
}

/** Where a value that is being checked came from: the key of the object, and the path inside its JSON. */
export interface Origin {
  readonly key: string;
  readonly path: string;
}

/** A step below another origin; its path is put together only when something is wrong. */
class Step implements Origin {
  readonly #above: Origin;
  readonly #name: string | number;

  constructor(above: Origin, name: string | number) {
    this.#above = above;
    this.#name = name;
  }

  get key(): string {
    return this.#above.key;
  }

  get path(): string {
    const { path } = this.#above;
    if (typeof this.#name === "number") return `${path}[${this.#name}]`;
    return path === "" ? this.#name : `${path}.${this.#name}`;
  }
}

/** One step further into the JSON. */
export function below(origin: Origin, name: string | number): Origin {
  return new Step(origin, name);
}

/** Throws: what stands at `origin` is wrong. */
export function corrupt(origin: Origin, problem: string, actual?: unknown): never {
  const where = origin.path === "" ? origin.key : `${origin.path} of ${origin.key}`;
  throw new CorruptionError(`${where} ${problem}`, { key: origin.key, actual });
}

/** Parses the JSON that `bytes` have to be. */
export function parseJsonBytes(bytes: Uint8Array, origin: Origin): unknown {
  try {
    return parseJson(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new CorruptionError(`${origin.key} is not JSON: ${reason}`, { key: origin.key, cause });
  }
}

/** The value, which has to be an object. */
export function asObject(value: unknown, origin: Origin): JsonObject {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
  return corrupt(origin, "is not an object", value);
}

/** The value, which has to be an array. */
export function asArray(value: unknown, origin: Origin): readonly unknown[] {
  return Array.isArray(value) ? value : corrupt(origin, "is not an array", value);
}

/** The value, which has to be a string. */
export function asString(value: unknown, origin: Origin): string {
  return typeof value === "string" ? value : corrupt(origin, "is not a string", value);
}

/** The value, which has to be a non-empty string. */
export function asName(value: unknown, origin: Origin): string {
  return asString(value, origin) === "" ? corrupt(origin, "is empty") : value as string;
}

/** The value, which has to be a whole number of 0 to `limit`. */
export function asCount(value: unknown, origin: Origin, limit: number = Number.MAX_SAFE_INTEGER): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value <= limit) return value;
  return corrupt(origin, `is not a whole number of 0 to ${limit}`, value);
}

/** The value, which has to be an array of whole numbers of 0 and more. */
export function asCounts(value: unknown, origin: Origin): readonly number[] {
  return asArray(value, origin).map((item, index) => asCount(item, below(origin, index)));
}

/** The value of an object's own key, undefined where it is absent. */
export function member(object: JsonObject, name: string): unknown {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}
