/**
 * Reads columns given as pieces: groups them by bundle, takes every row once, all columns of a round in one read.
 *
 * @module
 */

import type { Column } from "../batch/column.ts";
import { concatColumns, gather } from "../batch/gather.ts";
import { json } from "../batch/build.ts";
import { itemSize } from "../batch/dtype.ts";
import { RowSet } from "../batch/rowset.ts";
import { Tensor } from "../batch/tensor.ts";
import type { BundleInfo } from "../bundle/bundle.ts";
import type { StoredField } from "../bundle/fields.ts";
import { allocate, type Reading } from "../bundle/ranges.ts";
import { readColumn, readTensorInto, toChunks } from "../bundle/read.ts";
import type { Deadline } from "../deadline.ts";
import { CorruptionError, SchemaError } from "../errors.ts";
import type { ReadRange } from "../store/store.ts";
import type { StoredPiece } from "./pieces.ts";
import type { Session } from "./session.ts";
import type { StoredBundle } from "./stored_bundle.ts";

/** Columns by name, each as its pieces. */
export type ColumnPieces = ReadonlyMap<string, readonly StoredPiece[]>;

/** All rows of one field of one bundle that a column needs, and where in the column they go. */
interface Source {
  readonly bundle: StoredBundle;
  readonly info: BundleInfo;
  readonly field: StoredField;
  /** Rows of the bundle, in the order of `positions`. */
  readonly rows: RowSet;
  /** Rows of the column. */
  readonly positions: RowSet;
}

/** One running reader: yields the ranges it needs next. */
interface Reader {
  readonly bundle: StoredBundle;
  readonly info: BundleInfo;
  readonly steps: Reading<Column | void>;
  readonly done: (result: Column | void) => void;
}

/** Loads what every touched bundle holds. */
export async function loadBundles(
  session: Session,
  columns: Iterable<readonly StoredPiece[]>,
  deadline: Deadline,
): Promise<Map<StoredBundle, BundleInfo>> {
  // also where nothing is left to be read
  deadline.check();
  const wanted = new Set<StoredBundle>();
  for (const pieces of columns) for (const piece of pieces) wanted.add(piece.bundle);
  const infos = new Map<StoredBundle, BundleInfo>();
  const waiting: Promise<void>[] = [];
  for (const bundle of wanted) {
    const info = session.load(bundle, deadline);
    if (info instanceof Promise) waiting.push(info.then((loaded) => void infos.set(bundle, loaded)));
    else infos.set(bundle, info);
  }
  await Promise.all(waiting);
  return infos;
}

/** A field of a bundle. @throws CorruptionError where the handle names a field the bundle does not have */
export function fieldOf(info: BundleInfo, field: string): StoredField {
  const found = info.fields.get(field);
  if (found === undefined) {
    throw new CorruptionError(`${info.manifestKey} has no field ${JSON.stringify(field)}`, {
      field,
      key: info.manifestKey,
      actual: [...info.fields.keys()],
      hint: "a handle made by Python is needed to read its non-tensor fields",
    });
  }
  return found;
}

/** A column's pieces grouped by bundle and field. */
function sourcesOf(
  name: string,
  pieces: readonly StoredPiece[],
  infos: ReadonlyMap<StoredBundle, BundleInfo>,
): Source[] {
  const groups = new Map<StoredBundle, Map<string, { rows: RowSet[]; positions: RowSet[] }>>();
  let at = 0;
  for (const piece of pieces) {
    let fields = groups.get(piece.bundle);
    if (fields === undefined) groups.set(piece.bundle, fields = new Map());
    let group = fields.get(piece.field);
    if (group === undefined) fields.set(piece.field, group = { rows: [], positions: [] });
    group.rows.push(piece.rows);
    group.positions.push(RowSet.range(at, piece.rows.length));
    at += piece.rows.length;
  }
  const sources: Source[] = [];
  for (const [bundle, fields] of groups) {
    const info = infos.get(bundle) as BundleInfo;
    for (const [field, group] of fields) {
      sources.push({
        bundle,
        info,
        field: fieldOf(info, field),
        rows: RowSet.concat(group.rows),
        positions: RowSet.concat(group.positions),
      });
    }
  }
  const [first] = sources;
  for (const source of sources) {
    if (first !== undefined) checkSame(name, first.field, source.field);
  }
  return sources;
}

/** The form that pieces of one column must share, in words. */
function describe(field: StoredField): string {
  return [
    field.kind,
    field.dtype,
    field.kind === "tensor" ? `[${field.rowShape?.join(", ") ?? "?"}]` : undefined,
  ]
    .filter((part) => part !== undefined).join(" ");
}

function checkSame(name: string, a: StoredField, b: StoredField): void {
  if (describe(a) === describe(b)) return;
  throw new SchemaError(`field ${JSON.stringify(name)} has two forms in this batch`, {
    field: name,
    expected: describe(a),
    actual: describe(b),
  });
}

/**
 * Reads columns.
 *
 * @param into tensors to fill instead of new memory, by column name; dtype and shape must fit
 * @returns the columns, in the order asked
 */
export async function readColumns(
  session: Session,
  columns: ColumnPieces,
  rows: number,
  deadline: Deadline,
  into?: ReadonlyMap<string, Tensor>,
): Promise<Map<string, Column>> {
  const infos = await loadBundles(session, columns.values(), deadline);
  const out = new Map<string, Column>();
  const readers: Reader[] = [];
  const finish: (() => void)[] = [];
  for (const [name, pieces] of columns) {
    // keeps the order of the columns whatever finishes first
    out.set(name, undefined as unknown as Column);
    const sources = sourcesOf(name, pieces, infos);
    const [first] = sources;
    if (first === undefined) {
      // a batch bound to no row ids at all: nothing can tell what the column would be
      out.set(name, json([]));
      continue;
    }
    if (
      first.field.kind === "tensor" && first.field.dtype !== undefined && first.field.rowShape !== undefined
    ) {
      out.set(name, tensorColumn(name, first.field, sources, rows, readers, into?.get(name)));
    } else {
      const parts: Column[] = [];
      sources.forEach((source, i) => {
        readers.push({
          bundle: source.bundle,
          info: source.info,
          steps: readColumn(source.info, source.field.name, source.rows),
          done: (column) => parts[i] = column as Column,
        });
      });
      finish.push(() => out.set(name, assemble(parts, sources, rows)));
    }
  }
  await runReaders(session, readers, deadline);
  for (const step of finish) step();
  return out;
}

/** Prepares a tensor column: its readers scatter straight into its memory. */
function tensorColumn(
  name: string,
  field: StoredField,
  sources: readonly Source[],
  rows: number,
  readers: Reader[],
  target: Tensor | undefined,
): Tensor {
  const dtype = field.dtype as Tensor["dtype"];
  const rowShape = field.rowShape as readonly number[];
  const shape = [rows, ...rowShape];
  const bytes = shape.reduce((product, n) => product * n, itemSize(dtype));
  if (target !== undefined && (target.dtype !== dtype || target.shape.join() !== shape.join())) {
    throw new SchemaError(`the tensor given to fill field ${JSON.stringify(name)} has another form`, {
      field: name,
      expected: `${dtype} [${shape.join(", ")}]`,
      actual: `${target.dtype} [${target.shape.join(", ")}]`,
    });
  }
  const tensor = target ?? new Tensor(dtype, shape, allocate(bytes, `field ${JSON.stringify(name)}`));
  for (const source of sources) {
    readers.push({
      bundle: source.bundle,
      info: source.info,
      steps: readTensorInto(source.info, source.field.name, source.rows, tensor.bytes, source.positions),
      done: () => {},
    });
  }
  return tensor;
}

/** Puts the parts of a column, one per source, into the column's order. */
function assemble(parts: readonly Column[], sources: readonly Source[], rows: number): Column {
  const joined = parts.length === 1 ? parts[0] as Column : concatColumns(parts);
  const positions = RowSet.concat(sources.map((source) => source.positions));
  if (positions.equals(RowSet.all(rows))) return joined;
  const order = new Uint32Array(rows);
  let i = 0;
  for (const position of positions) order[position] = i++;
  return gather(joined, RowSet.of(order));
}

/** Runs all readers in step: the ranges that all of them want next are one read. */
async function runReaders(session: Session, readers: readonly Reader[], deadline: Deadline): Promise<void> {
  let live = readers;
  while (live.length > 0) {
    const ranges: ReadRange[] = [];
    const bundles = new Set<StoredBundle>();
    const next: Reader[] = [];
    for (const reader of live) {
      const step = reader.steps.next();
      if (step.done) {
        reader.done(step.value);
        continue;
      }
      next.push(reader);
      bundles.add(reader.bundle);
      for (const range of toChunks(reader.info, step.value)) ranges.push(range);
    }
    if (ranges.length > 0) await session.readPayloads(ranges, bundles, deadline);
    live = next;
  }
}
