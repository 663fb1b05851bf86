/**
 * Keys of stored objects, and new ids.
 *
 * `PREFIX/PARTITION/HEX` is an object id; below it lie `/manifest`, `/meta`, `/buffer/MEMBER` and our own
 * `/rowids`. A payload in several chunks has its chunks at `KEY/chunk/0`, `KEY/chunk/1`, ….
 *
 * @module
 */

import { monotonicFactory } from "ulid";
import { CorruptionError, SchemaError } from "../errors.ts";

/** The key prefix of Mooncake's Python class where none is given. */
export const DEFAULT_PREFIX = "bundle";

/** What is wrong with a name that has to stand between two slashes of a key, or undefined. */
export function segmentProblem(value: unknown): string | undefined {
  if (typeof value !== "string") return "is not a string";
  if (value === "") return "is empty";
  if (value.includes("/")) return 'contains "/"';
  return characterProblem(value);
}

function characterProblem(value: string): string | undefined {
  for (let i = 0; i < value.length; i++) {
    if (value.charCodeAt(i) < 0x20) return "contains a control character";
  }
  return value.isWellFormed() ? undefined : "contains half of a surrogate pair";
}

/**
 * Checks a partition, field or member name.
 *
 * @param what How an error names it, such as `partition`.
 * @returns The value itself.
 * @throws SchemaError for anything but a non-empty string without `/` and control characters.
 */
export function checkSegment(what: string, value: unknown): string {
  const problem = segmentProblem(value);
  if (problem === undefined) return value as string;
  throw new SchemaError(`the ${what} ${JSON.stringify(value) ?? String(value)} ${problem}`, {
    expected: "a non-empty string without / and control characters",
    actual: value,
  });
}

/**
 * A key prefix as it stands in keys: without slashes at either end.
 *
 * @throws SchemaError if nothing is left, or for control characters.
 */
export function normalizePrefix(prefix: string): string {
  const stripped = prefix.replace(/^\/+/, "").replace(/\/+$/, "");
  const problem = stripped === "" ? "is empty" : characterProblem(stripped);
  if (problem === undefined) return stripped;
  throw new SchemaError(`the key prefix ${JSON.stringify(prefix)} ${problem}`, { actual: prefix });
}

/** `PREFIX/PARTITION/HEX`, from checked parts. */
export function objectIdFor(prefix: string, partition: string, hex: string): string {
  return `${prefix}/${partition}/${hex}`;
}

/** The key of a bundle's manifest. */
export function manifestKeyOf(objectId: string): string {
  return `${objectId}/manifest`;
}

/** The key of a bundle's meta payload. */
export function metaKeyOf(objectId: string): string {
  return `${objectId}/meta`;
}

/** The key of a member's payload. */
export function memberKeyOf(objectId: string, member: string): string {
  return `${objectId}/buffer/${member}`;
}

/** The key of the side object that lists row ids. */
export function rowIdsKeyOf(objectId: string): string {
  return `${objectId}/rowids`;
}

/**
 * The key of chunk `index` of a payload that has `count` chunks: one chunk alone is stored under the
 * payload's key.
 */
export function chunkKeyOf(payloadKey: string, index: number, count: number): string {
  return count === 1 ? payloadKey : `${payloadKey}/chunk/${index}`;
}

/** The parts of a manifest key. */
export interface ManifestKeyParts {
  /** `PREFIX/PARTITION/HEX`. */
  readonly objectId: string;
  /** `PREFIX/PARTITION`. */
  readonly partitionPath: string;
  readonly prefix: string;
  readonly partition: string;
  /** 32 lowercase hex digits. */
  readonly hex: string;
}

const MANIFEST_KEY = /^(([^]+)\/([^/]+))\/([0-9a-f]{32})\/manifest$/;

/**
 * Takes a manifest key apart.
 *
 * @throws CorruptionError if the key is not `PREFIX/PARTITION/HEX/manifest`.
 */
export function splitManifestKey(manifestKey: string): ManifestKeyParts {
  const match = MANIFEST_KEY.exec(manifestKey);
  if (match === null) {
    throw new CorruptionError(`${JSON.stringify(manifestKey)} is not a manifest key`, {
      key: manifestKey,
      expected: "PREFIX/PARTITION/HEX/manifest",
    });
  }
  const [, partitionPath, prefix, partition, hex] = match as unknown as [
    string,
    string,
    string,
    string,
    string,
  ];
  return { objectId: `${partitionPath}/${hex}`, partitionPath, prefix, partition, hex };
}

const BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const nextUlid = monotonicFactory();

function base32Value(text: string, from: number, to: number): number {
  let value = 0;
  for (let i = from; i < to; i++) value = value * 32 + BASE32.indexOf(text[i]!);
  return value;
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

/**
 * A new object id's hex part: a UUID of version 7 without dashes.
 *
 * Ids made by one process sort in the order they were made, also within a millisecond and when the clock
 * steps back: a monotonic ULID gives the time and 80 random bits, of which the low 74 (those it counts up)
 * are kept.
 */
export function newObjectId(): string {
  const ulid = nextUlid();
  const time = hex(base32Value(ulid, 0, 10), 12);
  const high = base32Value(ulid, 10, 14);
  const version = `7${hex((high >> 2) & 0xfff, 3)}`;
  const variant = hex(0b1000 | (high & 0b11), 1);
  const low = [14, 18, 22].map((at) => hex(base32Value(ulid, at, at + 4), 5)).join("");
  return `${time}${version}${variant}${low}`;
}

/**
 * When an object id made by `newObjectId` was made, in milliseconds; undefined for other versions (Python's
 * are 4).
 */
export function createdMsOf(hex: string): number | undefined {
  return hex[12] === "7" ? Number.parseInt(hex.slice(0, 12), 16) : undefined;
}

/** The id of row `index` of a bundle whose ids were generated from `base`. */
export function generatedRowId(base: string, index: number): string {
  return `${base}-${index}`;
}
