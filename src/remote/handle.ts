/**
 * Handles: what travels between processes instead of a batch.
 *
 * Whole bundles over the same rows travel as one Mooncake handle, which Python reads as it is. Anything else travels as
 * a `batchferry_ref`: bundles, fields and row ranges, never ids and never data.
 *
 * @module
 */

import { type Json, type JsonObject, parseJson } from "../batch/json.ts";
import { RowSet } from "../batch/rowset.ts";
import { type EncodedNonTensor, encodedTree, parseEncoded } from "../bundle/encoded.ts";
import { type HandleField, type MooncakeHandle, parseHandle, writeHandle } from "../bundle/handle.ts";
import { pythonJson } from "../bundle/json_text.ts";
import { segmentProblem, splitManifestKey } from "../bundle/names.ts";
import { ConfigError, CorruptionError } from "../errors.ts";
import { type FieldPiece, joinPieces, type Piece, type Source, type StoredPiece } from "./pieces.ts";
import { isStored } from "./resolve.ts";
import { RowSource } from "./row_source.ts";
import type { Session } from "./session.ts";
import type { BundleHint, FieldHint, StoredBundle } from "./stored_bundle.ts";

/** The parts of a batch that a handle carries. */
export interface BatchParts {
  readonly partition: string;
  readonly rows: number;
  readonly columns: ReadonlyMap<string, readonly FieldPiece[]>;
  readonly origin: readonly Piece[];
  readonly meta: JsonObject;
}

const REF_TYPE = "batchferry_ref";
/** The most rows of a handle that come several times in succession: each costs memory that its text does not. */
const MOST_REPEATED = 2 ** 22;

/** The bundles of a batch if each column is one whole field, under its own name, and every field is there. */
export function wholeBundles(batch: BatchParts): StoredBundle[] | undefined {
  const seen = new Map<StoredBundle, number>();
  for (const [name, pieces] of batch.columns) {
    const [piece] = pieces;
    if (pieces.length !== 1 || piece === undefined || !isStored(piece) || piece.field !== name) {
      return undefined;
    }
    if (piece.bundle.rows !== batch.rows || !piece.rows.equals(RowSet.all(batch.rows))) return undefined;
    if (piece.bundle.fieldHints?.has(name) !== true) return undefined;
    seen.set(piece.bundle, (seen.get(piece.bundle) ?? 0) + 1);
  }
  const [origin] = batch.origin;
  if (batch.origin.length !== 1 || origin === undefined || !isStored(origin)) return undefined;
  if (!origin.rows.equals(RowSet.all(origin.bundle.rows))) return undefined;
  // a bundle without fields is known by its rows only
  if (seen.size === 0) return origin.bundle.info?.fields.size === 0 ? [origin.bundle] : undefined;
  if (![...seen].every(([bundle, fields]) => bundle.fieldHints?.size === fields)) return undefined;
  // the first stage tells whose rows these are
  if (!seen.delete(origin.bundle)) return undefined;
  return [origin.bundle, ...seen.keys()];
}

/** A name for each bundle's stage; later ones of the same name get a number. */
export function stageNames(bundles: readonly StoredBundle[]): Map<StoredBundle, string> {
  const names = new Map<StoredBundle, string>();
  const taken = new Set<string>();
  for (const bundle of bundles) {
    let name = bundle.stage;
    for (let n = 2; taken.has(name); n++) name = `${bundle.stage}-${n}`;
    taken.add(name);
    names.set(bundle, name);
  }
  return names;
}

/** The handle of a batch, as JSON. */
export function batchToHandle(session: Session, batch: BatchParts): JsonObject {
  const bundles = wholeBundles(batch);
  if (bundles === undefined) return refOf(session, batch);
  const columns = new Map([...batch.columns].map(([name, pieces]) => [name, pieces[0] as StoredPiece]));
  return handleOfBundles(session, batch, columns, batch.rows, bundles);
}

/** A Mooncake handle over whole bundles, each a stage; its columns may have other names than in their bundles. */
export function handleOfBundles(
  session: Session,
  { partition, meta }: Pick<BatchParts, "partition" | "meta">,
  columns: ReadonlyMap<string, StoredPiece>,
  rows: number,
  bundles: readonly StoredBundle[] = [...new Set([...columns.values()].map(({ bundle }) => bundle))],
): JsonObject {
  const names = stageNames(bundles);
  const nameOf = (bundle: StoredBundle) => names.get(bundle) as string;
  const fields = new Map<string, HandleField>();
  const encoded = new Map<string, EncodedNonTensor>();
  for (const [name, { bundle, field }] of columns) {
    fields.set(name, { stage: nameOf(bundle), ...bundle.fieldHints?.get(field) as FieldHint });
    const encoding = bundle.encodingOf(field);
    if (encoding !== undefined) encoded.set(name, encoding);
  }
  const groups = new Set(bundles.map((bundle) => bundle.storageGroupId));
  const [group] = groups.size === 1 ? groups : [];
  return writeHandle({
    batchSize: rows,
    namespace: bundles[0]?.namespace ?? "default",
    partition,
    globalIndexes: null,
    stages: new Map(bundles.map((bundle) => [nameOf(bundle), bundle.manifestKey])),
    fields,
    metaInfo: meta,
    encodedNonTensor: encoded,
    ...(group === undefined ? {} : { storageGroupId: group }),
    batchferry: {
      store: uriOf(session, bundles.map((bundle) => bundle.manifestKey)),
      manifestBytes: new Map(
        bundles.flatMap((bundle) =>
          bundle.manifestBytes === undefined ? [] : [[nameOf(bundle), bundle.manifestBytes] as const]
        ),
      ),
    },
  });
}

/** A batch whose rows named by id are of lists without ids it does not need. */
function withoutIdleIds(batch: BatchParts): BatchParts {
  const wanted = new Map<RowSource, Uint8Array>();
  for (const pieces of [...batch.columns.values(), batch.origin]) {
    for (const { bundle, rows } of pieces as readonly Piece[]) {
      if (!(bundle instanceof RowSource)) continue;
      let mask = wanted.get(bundle);
      if (mask === undefined) wanted.set(bundle, mask = new Uint8Array(bundle.rows));
      // without rows, one of the others still tells the form of the columns
      for (const row of rows.length === 0 && bundle.rows > 0 ? [0] : rows) mask[row] = 1;
    }
  }
  const shorter = new Map<RowSource, { readonly source: RowSource; readonly places: Uint32Array }>();
  for (const [source, mask] of wanted) {
    const ids = source.ids.filter((_, row) => mask[row] === 1);
    if (ids.length === source.rows) continue;
    const places = new Uint32Array(source.rows);
    let place = 0;
    mask.forEach((used, row) => places[row] = used === 1 ? place++ : 0);
    shorter.set(source, { source: new RowSource(source.partition, ids), places });
  }
  if (shorter.size === 0) return batch;
  const moved = <P extends Piece>(pieces: readonly P[]): readonly P[] =>
    pieces.map((piece) => {
      const found = piece.bundle instanceof RowSource ? shorter.get(piece.bundle) : undefined;
      if (found === undefined) return piece;
      const rows = RowSet.of(piece.rows.toIndices().map((row) => found.places[row] as number));
      return { ...piece, bundle: found.source, rows };
    });
  return {
    ...batch,
    columns: new Map([...batch.columns].map(([name, pieces]) => [name, moved(pieces)])),
    origin: moved(batch.origin),
  };
}

function refOf(session: Session, parts: BatchParts): JsonObject {
  const batch = withoutIdleIds(parts);
  const bundles = new Map<Source, number>();
  const used = new Map<Source, Set<string>>();
  const indexOf = (bundle: Source): number => {
    let index = bundles.get(bundle);
    if (index === undefined) bundles.set(bundle, index = bundles.size);
    return index;
  };
  // columns of one put share their rows: each selection is written once
  const selections: Json[] = [];
  const selectionIds = new Map<string, number>();
  const selection = (pieces: readonly Piece[]): number => {
    const json = pieces.map((piece) => [indexOf(piece.bundle), piece.rows.toJSON() as Json]);
    const text = JSON.stringify(json);
    let id = selectionIds.get(text);
    if (id === undefined) {
      selectionIds.set(text, id = selections.length);
      selections.push(json);
    }
    return id;
  };
  const columns: Json[] = [];
  for (const [name, pieces] of batch.columns) {
    const fields = pieces.map((piece) => piece.field);
    for (const piece of pieces) {
      let names = used.get(piece.bundle);
      if (names === undefined) used.set(piece.bundle, names = new Set());
      names.add(piece.field);
    }
    const same = fields.every((field) => field === fields[0]);
    columns.push([name, selection(pieces), same ? fields[0] ?? name : fields]);
  }
  const origin = selection(batch.origin);
  return {
    type: REF_TYPE,
    version: 1,
    rows: batch.rows,
    partition: batch.partition,
    bundles: [...bundles.keys()].map((source) =>
      source instanceof RowSource
        ? { partition: source.partition, ids: source.ids }
        : bundleJson(source, used.get(source) ?? new Set())
    ),
    selections,
    columns,
    origin,
    meta: batch.meta,
    batchferry: { store: uriOf(session, manifestKeys(batch)) },
  };
}

/** The store that a handle of these bundles names. */
function uriOf({ store }: Session, keys: readonly string[]): string {
  return store.uriOf?.(keys) ?? store.uri;
}

function bundleJson(bundle: StoredBundle, used: ReadonlySet<string>): JsonObject {
  // bundles with facts of ours say themselves how their fields are encoded
  const encoded = new Map<string, EncodedNonTensor>();
  if (bundle.info === undefined || bundle.info.facts === null) {
    for (const field of used) {
      const entry = bundle.encoded?.get(field);
      if (entry !== undefined) encoded.set(field, entry);
    }
  }
  return {
    manifest_key: bundle.manifestKey,
    rows: bundle.rows,
    ...(bundle.stage === "default" ? {} : { stage: bundle.stage }),
    ...(bundle.namespace === "default" ? {} : { namespace: bundle.namespace }),
    ...(bundle.storageGroupId === undefined ? {} : { storage_group_id: bundle.storageGroupId }),
    ...(encoded.size > 0 ? { encoded: parseJson(pythonJson(encodedTree(encoded))) as Json } : {}),
  };
}

/** Where a handle says its bundles live, such as `shm:…`; undefined for handles that Python made. */
export function storeOfHandle(handle: unknown): string | undefined {
  const hint = (handle as { batchferry?: { store?: unknown } } | null)?.batchferry?.store;
  return typeof hint === "string" ? hint : undefined;
}

/** The manifests of all bundles that a batch reads. */
export function manifestKeys(batch: BatchParts): string[] {
  const keys = new Set<string>();
  for (const pieces of [...batch.columns.values(), batch.origin]) {
    for (const { bundle } of pieces as readonly Piece[]) {
      if (!(bundle instanceof RowSource)) keys.add(bundle.manifestKey);
    }
  }
  return [...keys];
}

/**
 * The batch that a handle stands for; nothing is read.
 *
 * @throws CorruptionError where the handle is damaged; ConfigError where its keys have another prefix
 */
export function handleToBatch(session: Session, handle: unknown): BatchParts {
  const type = (handle as { type?: unknown } | null)?.type;
  return type === REF_TYPE
    ? refToBatch(session, handle as JsonObject)
    : mooncakeToBatch(session, parseHandle(handle));
}

/** What a handle says of the fields of one stage. */
interface StageHint {
  readonly fields: Map<string, FieldHint>;
  readonly encoded: Map<string, EncodedNonTensor>;
}

function mooncakeToBatch(session: Session, handle: MooncakeHandle): BatchParts {
  const bundles = new Map<string, StoredBundle>();
  const stages = new Map<string, StageHint>();
  for (const stage of handle.stages.keys()) stages.set(stage, { fields: new Map(), encoded: new Map() });
  for (const [name, { stage, member, section }] of handle.fields) {
    const { fields, encoded } = stages.get(stage) as StageHint;
    const field = fieldOfMember(name, { member, section });
    fields.set(field, { member, section });
    const encoding = handle.encodedNonTensor.get(name);
    if (encoding !== undefined) encoded.set(field, encoding);
  }
  for (const [stage, manifestKey] of handle.stages) {
    const { fields, encoded } = stages.get(stage) as StageHint;
    bundles.set(
      stage,
      session.bundle(manifestKey, {
        partition: partitionOf(session, manifestKey),
        namespace: handle.namespace,
        stage,
        rows: handle.batchSize,
        fields,
        encoded,
        storageGroupId: handle.storageGroupId,
        manifestBytes: handle.batchferry?.manifestBytes.get(stage),
      }),
    );
  }
  const rows = RowSet.all(handle.batchSize);
  const columns = new Map(
    [...handle.fields].map(([name, entry]) => {
      const bundle = bundles.get(entry.stage) as StoredBundle;
      return [name, [{ bundle, field: fieldOfMember(name, entry), rows }]] as const;
    }),
  );
  const [origin] = bundles.values();
  return {
    partition: handle.partition,
    rows: handle.batchSize,
    columns,
    origin: origin === undefined ? [] : [{ bundle: origin, rows }],
    meta: handle.metaInfo,
  };
}

/** The name a field has in its bundle; a handle may call it otherwise. */
function fieldOfMember(name: string, { member, section }: FieldHint): string {
  return member.startsWith(`${section}.`) ? member.slice(section.length + 1) : name;
}

/** A bundle, or ids, that a handle names; the session hears of it once the whole handle was checked. */
interface NamedSource {
  readonly rows: number;
  readonly open: () => Source;
}

function refToBatch(session: Session, ref: JsonObject): BatchParts {
  const bad = (path: string, expected: string, actual: unknown): CorruptionError =>
    new CorruptionError(`the handle's ${path} is not ${expected}`, { expected, actual });
  if (ref.version !== 1) throw bad("version", "1", ref.version);
  const { rows } = ref;
  if (!isCount(rows)) throw bad("rows", "a count", rows);
  const partition = name(ref.partition, "partition");
  const sources = list(ref.bundles, "bundles").map((entry, i) =>
    source(record(entry, `bundles[${i}]`), `bundles[${i}]`)
  );
  // rows are checked against their bundle, and the total against the batch, before anything is expanded
  let repeated = 0;
  const selections = list(ref.selections, "selections").map((entry, i) => {
    const path = `selections[${i}]`;
    const parts: { readonly source: NamedSource; readonly rows: RowSet }[] = [];
    let left = rows;
    for (const [j, item] of list(entry, path).entries()) {
      const [index, runs] = list(item, `${path}[${j}]`);
      const of = numbered(sources, index, `${path}[${j}][0]`, "bundle");
      repeated += repeatedRows(runs);
      if (repeated > MOST_REPEATED) {
        throw bad(path, `at most ${MOST_REPEATED} rows with copies beside them`, repeated);
      }
      const selected = RowSet.fromJSON(runs, of.rows);
      left -= selected.length;
      if (left < 0) throw bad(path, `${rows} rows`, rows - left);
      parts.push({ source: of, rows: selected });
    }
    if (left !== 0) throw bad(path, `${rows} rows`, rows - left);
    return parts;
  });
  type Selection = (typeof selections)[number];
  const columns = new Map<string, { readonly selection: Selection; readonly fields: readonly string[] }>();
  for (const [i, entry] of list(ref.columns, "columns").entries()) {
    const path = `columns[${i}]`;
    const [first, id, of] = list(entry, path);
    const column = name(first, `${path}[0]`);
    if (columns.has(column)) throw bad(`${path}[0]`, "a new name", column);
    const selection = numbered(selections, id, `${path}[1]`, "selection");
    const fields = Array.isArray(of) ? of : selection.map(() => of);
    if (fields.length !== selection.length) throw bad(`${path}[2]`, "a field's name for each part", of);
    columns.set(column, { selection, fields: fields.map((field) => name(field, `${path}[2]`)) });
  }
  const origin = numbered(selections, ref.origin, "origin", "selection");
  const meta = record(ref.meta ?? {}, "meta");

  const opened = new Map(sources.map((of) => [of, of.open()]));
  const pieces = new Map(
    selections.map((selection) => [
      selection,
      selection.map((part): Piece => ({ bundle: opened.get(part.source) as Source, rows: part.rows })),
    ]),
  );
  const piecesOf = (selection: Selection) => pieces.get(selection) as readonly Piece[];
  return {
    partition,
    rows,
    columns: new Map([...columns].map(([column, { selection, fields }]) => [
      column,
      joinPieces([piecesOf(selection).map((piece, i) => ({ ...piece, field: fields[i] as string }))]),
    ])),
    origin: piecesOf(origin),
    meta,
  };

  function source(object: JsonObject, path: string): NamedSource {
    if (object.ids !== undefined) {
      const ids = list(object.ids, `${path}.ids`);
      if (!ids.every((id) => typeof id === "string")) throw bad(`${path}.ids`, "a list of row ids", ids);
      const of = name(object.partition, `${path}.partition`);
      return { rows: ids.length, open: () => new RowSource(of, ids as readonly string[]) };
    }
    const { manifest_key: key, rows, stage = "default", namespace = "default" } = object;
    const { storage_group_id: group, encoded } = object;
    if (typeof key !== "string") throw bad(`${path}.manifest_key`, "a string", key);
    if (!isCount(rows)) throw bad(`${path}.rows`, "a count", rows);
    if (typeof namespace !== "string") throw bad(`${path}.namespace`, "a string", namespace);
    if (group !== undefined && typeof group !== "string") {
      throw bad(`${path}.storage_group_id`, "a string", group);
    }
    const hint: BundleHint = {
      partition: partitionOf(session, key),
      namespace,
      stage: name(stage, `${path}.stage`),
      rows,
      encoded: encoded === undefined
        ? undefined
        : parseEncoded(encoded, { key: "the handle", path: `${path}.encoded` }),
      storageGroupId: group,
    };
    return { rows, open: () => session.bundle(key, hint) };
  }
  function numbered<T>(items: readonly T[], index: Json | undefined, path: string, what: string): T {
    const item = typeof index === "number" ? items[index] : undefined;
    if (item === undefined) throw bad(path, `the number of a ${what}`, index);
    return item;
  }
  function name(value: Json | undefined, path: string): string {
    const problem = segmentProblem(value);
    if (problem !== undefined) throw bad(path, `a name: it ${problem}`, value);
    return value as string;
  }
  function list(value: Json | undefined, path: string): readonly Json[] {
    if (!Array.isArray(value)) throw bad(path, "a list", value);
    return value as readonly Json[];
  }
  function record(value: Json | undefined, path: string): JsonObject {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw bad(path, "an object", value);
    }
    return value as JsonObject;
  }
}

/** How many rows the text of a selection asks to be held one by one, as they have copies beside them. */
function repeatedRows(runs: Json | undefined): number {
  let rows = 0;
  for (const run of Array.isArray(runs) ? runs as readonly Json[] : []) {
    const [, count, , times] = Array.isArray(run) ? run as readonly Json[] : [];
    if (typeof count === "number" && typeof times === "number" && times > 1) rows += count;
  }
  return rows;
}

/** The partition a bundle is in. @throws ConfigError where it is of another prefix than this transfer's */
function partitionOf(session: Session, manifestKey: string): string {
  const { prefix, partition } = splitManifestKey(manifestKey);
  const expected = session.settings.prefix;
  if (prefix === expected) return partition;
  throw new ConfigError(`the handle's bundles have the key prefix ${JSON.stringify(prefix)}`, {
    key: manifestKey,
    expected,
    actual: prefix,
    hint: `this transfer was opened with ${JSON.stringify(expected)}; set keyPrefix`,
  });
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 0xffffffff;
}
