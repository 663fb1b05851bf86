/**
 * The manifest of a bundle: which payloads it has, and under which keys their chunks lie.
 *
 * @module
 */

import type { JsonObject } from "../batch/json.ts";
import {
  asArray,
  asCount,
  asObject,
  asString,
  below,
  corrupt,
  jsonBytes,
  member,
  type Origin,
  parseJsonBytes,
  pythonJson,
  quoted,
} from "./json_text.ts";
import { segmentProblem, splitManifestKey } from "./names.ts";

/** One stored object of a payload. */
export interface ChunkSpec {
  readonly key: string;
  readonly bytes: number;
  /** CRC-32 of the chunk, where the writer gave one. */
  readonly crc32?: number;
}

/** A named byte string: the concatenation of its chunks. */
export interface PayloadSpec {
  readonly key: string;
  readonly bytes: number;
  readonly chunks: readonly ChunkSpec[];
  /** Bytes of the header in front of tensor data. */
  readonly metadataBytes?: number;
  /** `tensor` where Python used the store's own tensor call. Bytes are the same; never written by us. */
  readonly kind?: string;
  /** `torch_save` where the payload is a pickle archive. */
  readonly format?: string;
}

/** What a manifest says. */
export interface Manifest {
  /** `PARTITION/HEX`: without the prefix, as it is stored. */
  readonly objectId: string;
  readonly meta: PayloadSpec;
  readonly buffers: ReadonlyMap<string, PayloadSpec>;
  /** The object ids that the payloads lie under, where an append made them more than the bundle's own. */
  readonly bufferObjectIds?: readonly string[];
  /** Further keys that go when the bundle goes. */
  readonly cleanupKeys?: readonly string[];
}

/** The bytes of a manifest, with Python's order of keys. */
export function writeManifest(manifest: Manifest): Uint8Array {
  // put together as text: trees of Maps cost a small put a tenth of its time
  let buffers = "";
  for (const [name, payload] of manifest.buffers) {
    buffers += `${buffers === "" ? "" : ","}${quoted(name)}:${payloadText(payload)}`;
  }
  let text = `{"version":1,"layout":"bundle","object_id":${quoted(manifest.objectId)},` +
    `"meta":${payloadText(manifest.meta)},"buffers":{${buffers}}`;
  if (manifest.bufferObjectIds !== undefined) {
    text += `,"buffer_object_ids":${pythonJson(manifest.bufferObjectIds)}`;
  }
  if (manifest.cleanupKeys !== undefined) text += `,"cleanup_keys":${pythonJson(manifest.cleanupKeys)}`;
  return jsonBytes(`${text}}`);
}

function payloadText({ key, bytes, chunks, metadataBytes, format }: PayloadSpec): string {
  const keyText = quoted(key);
  let list = "";
  for (const chunk of chunks) {
    const crc = chunk.crc32 === undefined ? "" : `,"crc32":${chunk.crc32}`;
    const chunkKey = chunk.key === key ? keyText : quoted(chunk.key);
    list += `${list === "" ? "" : ","}{"key":${chunkKey},"bytes":${chunk.bytes}${crc}}`;
  }
  const rest = metadataBytes !== undefined
    ? `,"metadata_bytes":${metadataBytes}`
    : format !== undefined
    ? `,"format":${quoted(format)}`
    : "";
  return `{"key":${keyText},"bytes":${bytes},"chunks":[${list}]${rest}}`;
}

/**
 * Reads and checks a manifest.
 *
 * Extra keys, unequal chunks and zero-byte chunks are accepted.
 *
 * @param manifestKey The key it was read from; it has to be the manifest's own.
 * @throws CorruptionError naming the key and what is wrong.
 */
export function parseManifest(manifestKey: string, bytes: Uint8Array): Manifest {
  const { prefix, partition, hex } = splitManifestKey(manifestKey);
  const root: Origin = { key: manifestKey, path: "" };
  const json = asObject(parseJsonBytes(bytes, root), root);
  const version = member(json, "version");
  if (version !== 1) corrupt(below(root, "version"), "is not 1", version);
  const layout = member(json, "layout");
  if (layout !== "bundle") corrupt(below(root, "layout"), 'is not "bundle"', layout);
  const objectId = asString(member(json, "object_id"), below(root, "object_id"));
  if (objectId !== `${partition}/${hex}`) {
    corrupt(below(root, "object_id"), `is ${JSON.stringify(objectId)}, not that of its key`, objectId);
  }

  const given = member(json, "buffer_object_ids");
  const bufferObjectIds = given === undefined
    ? undefined
    : asStrings(given, below(root, "buffer_object_ids"));
  const own = new KeySpace(prefix, [objectId]);
  const all = bufferObjectIds === undefined ? own : new KeySpace(prefix, bufferObjectIds);

  const buffers = new Map<string, PayloadSpec>();
  const buffersAt = below(root, "buffers");
  for (const [name, value] of Object.entries(asObject(member(json, "buffers"), buffersAt))) {
    const at = below(buffersAt, name);
    const problem = segmentProblem(name);
    if (problem !== undefined) corrupt(at, `has a name that ${problem}`);
    buffers.set(name, parsePayload(value, at, all));
  }
  const cleanup = member(json, "cleanup_keys");
  const cleanupKeys = cleanup === undefined ? undefined : asStrings(cleanup, below(root, "cleanup_keys"));
  cleanupKeys?.forEach((key, index) => all.check(key, below(below(root, "cleanup_keys"), index)));
  return {
    objectId,
    meta: parsePayload(member(json, "meta"), below(root, "meta"), own),
    buffers,
    ...(bufferObjectIds === undefined ? {} : { bufferObjectIds }),
    ...(cleanupKeys === undefined ? {} : { cleanupKeys }),
  };
}

function asStrings(value: unknown, origin: Origin): readonly string[] {
  return asArray(value, origin).map((item, index) => asString(item, below(origin, index)));
}

/** The keys that may belong to a bundle: those below its object ids. */
class KeySpace {
  readonly #prefix: string;
  readonly #ids: ReadonlySet<string>;

  constructor(prefix: string, ids: readonly string[]) {
    this.#prefix = `${prefix}/`;
    this.#ids = new Set(ids);
  }

  /**
   * Object ids are PARTITION/HEX, so the first two segments of a key tell whose it is, however many ids there
   * are.
   */
  check(key: string, origin: Origin): void {
    const rest = key.startsWith(this.#prefix) ? key.slice(this.#prefix.length) : "";
    const end = rest.indexOf("/", rest.indexOf("/") + 1);
    if (end <= 0 || !this.#ids.has(rest.slice(0, end))) {
      corrupt(origin, `has the key ${JSON.stringify(key)}, which is none of this bundle`, key);
    }
  }
}

function parsePayload(value: unknown, origin: Origin, keys: KeySpace): PayloadSpec {
  const json = asObject(value, origin);
  const key = asString(member(json, "key"), below(origin, "key"));
  keys.check(key, origin);
  const bytes = asCount(member(json, "bytes"), below(origin, "bytes"));
  const chunks: ChunkSpec[] = [];
  const seen = new Set<string>();
  let sum = 0;
  asArray(member(json, "chunks"), below(origin, "chunks")).forEach((item, index) => {
    const at = below(below(origin, "chunks"), index);
    const chunk = parseChunk(asObject(item, at), at);
    if (chunk.key !== key && !chunk.key.startsWith(`${key}/`)) {
      corrupt(
        at,
        `has the key ${JSON.stringify(chunk.key)}, which is not below ${JSON.stringify(key)}`,
        chunk.key,
      );
    }
    if (seen.has(chunk.key)) corrupt(at, `repeats the key ${JSON.stringify(chunk.key)}`, chunk.key);
    seen.add(chunk.key);
    sum += chunk.bytes;
    chunks.push(chunk);
  });
  if (sum !== bytes) corrupt(origin, `has ${bytes} bytes, but its chunks have ${sum}`, sum);
  const metadataBytes = member(json, "metadata_bytes");
  const kind = member(json, "kind");
  const format = member(json, "format");
  return {
    key,
    bytes,
    chunks,
    ...(metadataBytes === undefined
      ? {}
      : { metadataBytes: asCount(metadataBytes, below(origin, "metadata_bytes"), bytes) }),
    ...(kind === undefined ? {} : { kind: asString(kind, below(origin, "kind")) }),
    ...(format === undefined ? {} : { format: asString(format, below(origin, "format")) }),
  };
}

function parseChunk(json: JsonObject, origin: Origin): ChunkSpec {
  const key = asString(member(json, "key"), below(origin, "key"));
  const bytes = asCount(member(json, "bytes"), below(origin, "bytes"));
  const crc32 = member(json, "crc32");
  if (crc32 === undefined) return { key, bytes };
  return { key, bytes, crc32: asCount(crc32, below(origin, "crc32"), 0xffffffff) };
}
