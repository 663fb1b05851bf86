/**
 * Random chains of operations on remote batches give what the same chain gives on plain arrays.
 *
 * @module
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type Column,
  concat,
  json,
  openTransfer,
  ragged,
  type RemoteBatch,
  scalars,
  strings,
  tensor,
  type TransferBackend,
} from "../../mod.ts";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import {
  command,
  newSeed,
  Random,
  RUNTIME,
  type RuntimeName,
  RUNTIMES,
  scaled,
  temporaryFolder,
} from "../support/runtime.ts";
import { plain as plainOf } from "./suite.ts";

const READER = fileURLToPath(new URL("./algebra_reader.ts", import.meta.url));

type Row = Record<string, unknown>;

/** A column maker: from row numbers, the column and its plain values. */
type Maker = (numbers: readonly number[]) => { column: Column; values: unknown[] };

const MAKERS: Record<string, Maker> = {
  ids: (n) => ({
    column: tensor("int64", [n.length, 2], n.flatMap((i) => [i, 0 - i])),
    values: n.map((i) => [i, 0 - i]),
  }),
  wide: (n) => ({
    column: tensor("float32", [n.length, 200], Float32Array.from(n.flatMap((i) => Array(200).fill(i)))),
    values: n.map((i) => Array(200).fill(i)),
  }),
  score: (n) => {
    const values = n.map((i) => i % 3 === 0 ? null : i / 2);
    return { column: scalars("float64", values), values };
  },
  text: (n) => {
    const values = n.map((i) => i % 4 === 1 ? null : `row ${i} ${"é".repeat(i % 5)}`);
    return { column: strings(values), values };
  },
  tokens: (n) => {
    const values = n.map((i) => i % 5 === 2 ? null : Array.from({ length: i % 7 }, (_, k) => i + k));
    return { column: ragged("int32", values), values };
  },
  info: (n) => {
    const values = n.map((i) => i % 6 === 0 ? null : { i, list: [i] });
    return { column: json(values), values };
  },
};

const NAMES = Object.keys(MAKERS);

/** A remote batch beside the plain rows it must equal. */
interface Pair {
  readonly remote: RemoteBatch;
  readonly plain: readonly Row[];
  readonly fields: readonly string[];
}

/** A process of the other runtime that reads what handles stand for; undefined where nothing is shared. */
function startReader(directory: string): { ask(handle: string): Promise<string>; stop(): Promise<void> } {
  const other = RUNTIMES.find((runtime) => runtime !== RUNTIME) as RuntimeName;
  const [file, ...args] = command(other, READER, [directory]) as [string, ...string[]];
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()));
  return {
    ask: async (handle) => {
      child.stdin.write(`${handle}\n`);
      return (await lines.next()).value as string;
    },
    stop: async () => {
      child.stdin.end();
      await ended;
    },
  };
}

let counter = 0;

/** Puts some rows in one bundle or several and gives them as one batch of the wanted kind. */
async function source(
  transfer: TransferBackend,
  random: Random,
  partition: string,
  bound: boolean,
): Promise<Pair> {
  const fields = NAMES.filter(() => random.chance(0.6));
  if (fields.length === 0) fields.push("ids");
  const parts: RemoteBatch[] = [];
  const plain: Row[] = [];
  const ids: string[] = [];
  for (let n = 1 + random.int(3); n > 0; n--) {
    const numbers = Array.from({ length: random.int(9) + (n === 1 ? 1 : 0) }, () => counter++);
    const made = Object.fromEntries(fields.map((field) => [field, (MAKERS[field] as Maker)(numbers)]));
    const rowIds = numbers.map((i) => `id-${i}`);
    const columns = Object.fromEntries(
      fields.map((field) => [field, (made[field] as ReturnType<Maker>).column]),
    );
    parts.push(await transfer.put(partition, rowIds, columns, numbers.length));
    ids.push(...rowIds);
    numbers.forEach((_, row) =>
      plain.push(Object.fromEntries(fields.map((field) => [field, made[field]?.values[row]])))
    );
  }
  const remote = bound ? transfer.rows(partition, ids, fields) : concat(parts);
  return { remote, plain, fields };
}

const OPERATIONS: readonly ((pair: Pair, random: Random, context: Context) => Promise<Pair> | Pair)[] = [
  ({ remote, plain, fields }, random) => {
    const start = random.int(plain.length * 2 + 1) - plain.length;
    const end = random.int(plain.length * 2 + 1) - plain.length;
    return { remote: remote.slice(start, end), plain: plain.slice(start, end), fields };
  },
  ({ remote, plain, fields }, random) => {
    const step = random.pick([2, 3, -1, -2]);
    const rows = step > 0
      ? plain.filter((_, i) => i % step === 0)
      : [...plain].reverse().filter((_, i) => i % -step === 0);
    return { remote: remote.slice(undefined, undefined, step), plain: rows, fields };
  },
  ({ remote, plain, fields }, random) => {
    const rows = plain.length === 0
      ? []
      : Array.from({ length: random.int(12) }, () => random.int(plain.length));
    const given = rows.map((row) => random.chance(0.3) ? row - plain.length : row);
    return { remote: remote.selectRows(given), plain: rows.map((row) => plain[row] as Row), fields };
  },
  ({ remote, plain, fields }, random) => {
    const mask = plain.map(() => random.chance(0.7));
    return { remote: remote.selectRows(mask), plain: plain.filter((_, i) => mask[i]), fields };
  },
  ({ remote, plain, fields }, random) => {
    const times = random.int(3);
    const interleave = random.chance(0.5);
    const rows = interleave
      ? plain.flatMap((row) => Array(times).fill(row) as Row[])
      : Array.from({ length: times }, () => plain).flat();
    return { remote: remote.repeat(times, { interleave }), plain: rows, fields };
  },
  ({ remote, plain, fields }, random) => {
    const count = 1 + random.int(4);
    const chunks = remote.chunk(count);
    assert.deepEqual(chunks.reduce((sum, chunk) => sum + chunk.rows, 0), plain.length);
    const order = chunks.map((_, i) => i);
    if (random.chance(0.5)) order.reverse();
    const starts = chunks.map((_, i) => chunks.slice(0, i).reduce((sum, chunk) => sum + chunk.rows, 0));
    const rows = order.flatMap((i) =>
      plain.slice(starts[i], (starts[i] as number) + (chunks[i] as RemoteBatch).rows)
    );
    return { remote: concat(order.map((i) => chunks[i] as RemoteBatch)), plain: rows, fields };
  },
  ({ remote, plain, fields }, random) => {
    const kept = fields.filter(() => random.chance(0.7));
    if (kept.length === 0) kept.push(fields[0] as string);
    return {
      remote: random.chance(0.5)
        ? remote.select(kept)
        : remote.without(fields.filter((field) => !kept.includes(field))),
      plain: plain.map((row) => Object.fromEntries(kept.map((field) => [field, row[field]]))),
      fields: kept,
    };
  },
  ({ remote, plain, fields }, random) => {
    const field = random.pick(fields);
    const name = `${field}-r`;
    const renamed = fields.map((other) => other === field ? name : other);
    return {
      remote: remote.rename({ [field]: name }),
      plain: plain.map((row) => Object.fromEntries(fields.map((other, i) => [renamed[i], row[other]]))),
      fields: renamed,
    };
  },
  async ({ remote, plain, fields }, random, { bound }) => {
    const numbers = plain.map(() => counter++);
    const maker = random.pick(NAMES);
    const name = `derived-${++counter}`;
    const { column, values } = (MAKERS[maker] as Maker)(numbers);
    const ids = await remote.rowIds();
    // rows named by id are one row however often they come
    if (bound && new Set(ids).size < ids.length) return { remote, plain, fields };
    const derived = await remote.put({ [name]: column });
    return {
      remote: remote.union(derived),
      plain: plain.map((row, i) => ({ ...row, [name]: values[i] })),
      fields: [...fields, name],
    };
  },
  async ({ remote, plain, fields }, random) => {
    // concat needs at least one batch
    if (plain.length === 0) return { remote, plain, fields };
    const field = random.pick(fields);
    const groups = await remote.groupBy([field]);
    const seen = new Map<string, Row[]>();
    for (const row of plain) {
      const key = JSON.stringify(row[field]);
      const group = seen.get(key);
      if (group === undefined) seen.set(key, [row]);
      else group.push(row);
    }
    assert.equal(groups.length, seen.size);
    return { remote: concat(groups.map(({ batch }) => batch)), plain: [...seen.values()].flat(), fields };
  },
  ({ remote, plain, fields }, _random, { reader }) => {
    const handle = JSON.stringify(remote.toHandle());
    return { remote: reader(handle, remote), plain, fields };
  },
  async ({ remote, plain, fields }, _random, { bound }) => {
    if (bound) return { remote, plain, fields };
    return { remote: await remote.compact(), plain, fields };
  },
];

interface Context {
  readonly bound: boolean;
  /** Imports a handle; into the transfer that made it, as chains go on with unions. */
  readonly reader: (handle: string, remote: RemoteBatch) => RemoteBatch;
}

async function chains(count: number, backend: "memory" | "shm", bound: boolean): Promise<void> {
  const seed = newSeed(`${count} chains, ${backend}, bound to ${bound ? "rows" : "bundles"}`);
  using folder = temporaryFolder();
  const config = { backend, directory: folder.path };
  const transfer = await openTransfer(config);
  const other = backend === "shm" ? await openTransfer(config) : transfer;
  const reader = backend === "shm" ? startReader(folder.path) : undefined;
  try {
    for (let chain = 0; chain < count; chain++) {
      const random = new Random(seed + chain);
      const partition = `chain-${chain}`;
      const context: Context = { bound, reader: (handle) => transfer.importHandle(handle) };
      let pair = await source(transfer, random, partition, bound);
      const steps: number[] = [];
      try {
        for (let n = 1 + random.int(12); n > 0; n--) {
          const step = random.int(OPERATIONS.length);
          steps.push(step);
          pair = await (OPERATIONS[step] as (typeof OPERATIONS)[number])(pair, random, context);
          assert.equal(pair.remote.rows, pair.plain.length);
          assert.deepEqual(pair.remote.fields, pair.fields);
          if (pair.plain.length > 300) {
            pair = await (OPERATIONS[0] as (typeof OPERATIONS)[number])(pair, random, context);
          }
        }
        assert.deepEqual(plainOf(await pair.remote.materialize()), pair.plain);
        // a process that knows nothing but the handle reads the same
        const imported = other.importHandle(JSON.stringify(pair.remote.toHandle()));
        assert.deepEqual(plainOf(await imported.materialize()), pair.plain);
        const text = await reader?.ask(JSON.stringify(pair.remote.toHandle()));
        if (text !== undefined) assert.deepEqual(JSON.parse(text), pair.plain);
        using lease = await imported.borrow();
        assert.deepEqual(plainOf(lease.batch), pair.plain);
      } catch (error) {
        console.log(`chain ${chain}, steps ${steps}`);
        throw error;
      }
      await transfer.dropPartition(partition);
    }
    assert.deepEqual(await transfer.list(), []);
  } finally {
    await reader?.stop();
    await other.close();
    await transfer.close();
  }
}

describe("random chains of operations equal plain arrays", () => {
  for (const backend of ["memory", "shm"] as const) {
    for (const bound of [false, true]) {
      it(`${backend}, bound to ${bound ? "row ids" : "bundles"}`, () => chains(scaled(2000), backend, bound));
    }
  }
});
