/**
 * Handles of views: what is written is read back, and what somebody has tampered with is a CorruptionError.
 *
 * @module
 */

import assert from "node:assert/strict";
import process from "node:process";
import { describe, it } from "node:test";
import {
  BatchferryError,
  concat,
  ConfigError,
  CorruptionError,
  json,
  openTransfer,
  ragged,
  type RemoteBatch,
  strings,
  type TransferBackend,
} from "../../../mod.ts";
import { stringifyJson } from "../../../src/batch/json.ts";
import { newSeed, Random, scaled, temporaryFolder } from "../../support/runtime.ts";
import { plain } from "../../conformance/suite.ts";
import { manifestKey } from "./helpers.ts";

type Tree = null | boolean | number | string | Tree[] | { [key: string]: Tree };
type Path = readonly (string | number)[];

async function withTransfer(test: (transfer: TransferBackend) => Promise<void>): Promise<void> {
  await using transfer = await openTransfer({ backend: "memory" });
  await test(transfer);
}

const ids = (rows: number, name: string) => Array.from({ length: rows }, (_, i) => `${name}-${i}`);

/** Views whose handles have everything a handle can have: two bundles, two selections, renamed and derived columns. */
async function views(transfer: TransferBackend): Promise<{ column: RemoteBatch; row: RemoteBatch }> {
  const fields = (rows: number, from: number) => ({
    x: Int32Array.from({ length: rows }, (_, i) => from + i),
    s: strings(Array.from({ length: rows }, (_, i) => `row ${from + i}`)),
    r: ragged("int64", Array.from({ length: rows }, (_, i) => [from, i])),
  });
  const a = await transfer.put("p", ids(6, "a"), fields(6, 0), 6, {
    meta: { step: 1, deep: { list: [1, null, "é"] } },
  });
  const b = await transfer.put("p", ids(4, "b"), fields(4, 6), 4, { stage: "second" });
  const view = concat([a.slice(1), b]).selectRows([8, 8, 8, 8, 8, 0, 1, 3, 5, 7]).rename({ s: "text" });
  const derived = await view.put({ j: json(view.fields.concat(view.fields, view.fields, "a").slice(0, 10)) });
  const row = transfer.rows("p", [...ids(4, "b"), ...ids(6, "a")], ["x", "s"]).selectRows([9, 0, 1, 2, 2]);
  return { column: view.union(derived), row };
}

/** The paths of all values of a tree, objects and lists included. */
function paths(tree: Tree, at: Path = []): Path[] {
  if (typeof tree !== "object" || tree === null) return [at];
  const inner = Array.isArray(tree)
    ? tree.flatMap((item, i) => paths(item, [...at, i]))
    : Object.entries(tree).flatMap(([key, item]) => paths(item, [...at, key]));
  return [at, ...inner];
}

/** A copy of a tree with one value replaced; undefined takes it away. */
function replaced(tree: Tree, path: Path, value: Tree | undefined): Tree {
  if (path.length === 0) return value as Tree;
  const [head, ...rest] = path as [string | number, ...Path];
  const copy = (Array.isArray(tree) ? [...tree] : { ...tree as object }) as { [key: string]: Tree };
  const inner = rest.length === 0 ? value : replaced(copy[head] as Tree, rest, value);
  if (inner === undefined && Array.isArray(copy)) copy.splice(head as number, 1);
  else if (inner === undefined) delete copy[head];
  else copy[head] = inner;
  return copy;
}

const HOSTILE: readonly (Tree | undefined)[] = [
  undefined,
  null,
  true,
  -1,
  0.5,
  4,
  2 ** 32,
  2 ** 53,
  1e308,
  "",
  "length",
  "constructor",
  "__proto__",
  "a/b",
  "a\0",
  "\ud800",
  [],
  [[]],
  [[0, []]],
  [[0, 0, 0, 0, 0]],
  [[0, 2 ** 32]],
  [[0, -1]],
  [["0", [0]]],
  [["length", []]],
  {},
  { length: 3 },
  { __proto__: null, toString: 1 } as unknown as Tree,
];

/** Imports; true where the handle was taken. Anything but an error of ours that says what is wrong fails the test. */
function takes(transfer: TransferBackend, handle: string): RemoteBatch | undefined {
  try {
    return transfer.importHandle(handle);
  } catch (error) {
    assert.ok(
      error instanceof CorruptionError || error instanceof ConfigError,
      `${handle}\n${(error as Error).stack}`,
    );
    assert.ok(error.message.length > 10);
    return undefined;
  }
}

describe("handles of views", () => {
  it("stand for the same rows, columns and meta", () =>
    withTransfer(async (transfer) => {
      for (const batch of Object.values(await views(transfer))) {
        const handle = batch.toHandle();
        assert.equal(handle.type, "batchferry_ref");
        const imported = transfer.importHandle(JSON.stringify(handle));
        assert.deepEqual(imported.toHandle(), handle);
        assert.deepEqual([imported.rows, imported.fields, imported.meta], [
          batch.rows,
          batch.fields,
          batch.meta,
        ]);
        assert.equal(imported.constructor, batch.constructor);
        assert.deepEqual(plain(await imported.materialize()), plain(await batch.materialize()));
        assert.deepEqual(await imported.rowIds(), await batch.rowIds());
      }
    }));

  it("carry no ids but of the rows they are for", () =>
    withTransfer(async (transfer) => {
      await views(transfer);
      const rows = transfer.rows("p", [...ids(4, "b"), ...ids(6, "a")], ["x"]);
      const idsOf = (batch: RemoteBatch) =>
        (batch.toHandle() as { bundles: { ids: string[] }[] }).bundles[0]?.ids;
      assert.deepEqual(idsOf(rows.selectRows([9, 4, 9])), ["a-0", "a-5"]);
      // one is left to tell the form
      const none = rows.slice(0, 0);
      assert.equal(idsOf(none)?.length, 1);
      assert.deepEqual((await transfer.importHandle(none.toHandle()).materialize()).tensor("x").shape, [0]);
    }));

  it("are refused where a part is missing, of another type or out of range", () =>
    withTransfer(async (transfer) => {
      const { column, row } = await views(transfer);
      const wrong: [Path, Tree | undefined][] = [
        [["version"], 2],
        [["version"], undefined],
        [["rows"], 9],
        [["rows"], 11],
        [["rows"], "10"],
        [["rows"], -1],
        [["rows"], 2 ** 32],
        [["partition"], undefined],
        [["partition"], ""],
        [["partition"], "a/b"],
        [["bundles"], undefined],
        [["bundles"], {}],
        [["bundles", 0], null],
        [["bundles"], []],
        [["selections"], undefined],
        [["selections"], []],
        [["selections", 0], {}],
        [["selections", 0], []],
        [["selections", 0, 0], 3],
        [["selections", 0, 0, 0], "0"],
        [["selections", 0, 0, 0], "length"],
        [["selections", 0, 0, 0], 99],
        [["selections", 0, 0, 0], -1],
        [["selections", 0, 0, 1], "all"],
        [["selections", 0, 0, 1], [[0, 7]]],
        [["selections", 0, 0, 1], [[0, 2 ** 31, 0]]],
        [["columns"], undefined],
        [["columns", 0], "x"],
        [["columns", 0, 0], ""],
        [["columns", 0, 0], "text"],
        [["columns", 0, 0], "a/b"],
        [["columns", 0, 1], "length"],
        [["columns", 0, 1], 9],
        [["columns", 0, 1], null],
        [["columns", 0, 2], null],
        [["columns", 0, 2], []],
        [["columns", 0, 2], ""],
        [["origin"], undefined],
        [["origin"], "map"],
        [["origin"], "length"],
        [["meta"], []],
        [["meta", "step"], "\ud800"],
      ];
      const ofColumns: [Path, Tree | undefined][] = [
        [["bundles", 0, "manifest_key"], undefined],
        [["bundles", 0, "manifest_key"], 5],
        [["bundles", 0, "manifest_key"], "bundle/p/manifest"],
        [["bundles", 0, "manifest_key"], `bundle/p/${"A".repeat(32)}/manifest`],
        [["bundles", 0, "rows"], undefined],
        [["bundles", 0, "rows"], 2],
        [["bundles", 0, "rows"], 7],
        [["bundles", 0, "stage"], 1],
        [["bundles", 0, "namespace"], null],
        [["bundles", 0, "storage_group_id"], {}],
        [["bundles", 0, "encoded"], []],
      ];
      const ofRows: [Path, Tree | undefined][] = [
        [["bundles", 0, "ids"], "all"],
        [["bundles", 0, "ids", 0], 7],
        [["bundles", 0, "ids"], []],
        [["bundles", 0, "ids"], undefined],
        [["bundles", 0, "partition"], undefined],
        [["bundles", 0, "partition"], "a/b"],
        [["bundles", 0, "partition"], ""],
      ];
      for (
        const [batch, list] of [[column, [...wrong, ...ofColumns]], [row, [...wrong, ...ofRows]]] as const
      ) {
        const tree = batch.toHandle() as Tree;
        for (const [path, value] of list) {
          const text = JSON.stringify(replaced(tree, path, value));
          const what = `${path.join(".")} = ${JSON.stringify(value)}`;
          if (path[0] === "columns" && value === "text" && batch === row) continue;
          assert.throws(() => transfer.importHandle(text), CorruptionError, what);
        }
        assert.deepEqual(plain(await batch.materialize()).length, batch.rows);
      }
      // another prefix is another store's
      const foreign = JSON.stringify(column.toHandle()).replaceAll("bundle/p/", "roll/p/");
      assert.throws(() => transfer.importHandle(foreign), ConfigError);
      assert.throws(() => transfer.importHandle(foreign.replaceAll("roll/p/", "bundle/x/p/")), ConfigError);
    }));

  it("are refused cut off at any place, and never do harm with any value anywhere", () =>
    withTransfer(async (transfer) => {
      const { column, row } = await views(transfer);
      const before = [plain(await column.materialize()), plain(await row.materialize())];
      for (const batch of [column, row]) {
        const text = JSON.stringify(batch.toHandle());
        for (let end = 0; end < text.length; end++) {
          assert.throws(() => transfer.importHandle(text.slice(0, end)), CorruptionError);
        }
        const tree = JSON.parse(text) as Tree;
        let taken = 0;
        let refused = 0;
        for (const path of paths(tree).filter((path) => path.length > 0)) {
          for (const value of HOSTILE) {
            const imported = takes(transfer, JSON.stringify(replaced(tree, path, value)));
            if (imported === undefined) {
              refused++;
              continue;
            }
            taken++;
            assert.ok(imported.rows <= 0xffffffff);
            if (imported.rows > 1000) continue;
            try {
              assert.equal((await imported.materialize()).rows, imported.rows);
              stringifyJson(imported.slice(1).toHandle());
            } catch (error) {
              assert.ok(error instanceof BatchferryError, `${path.join(".")}\n${(error as Error).stack}`);
            }
          }
        }
        // hints and meta may hold anything
        assert.ok(taken > 20 && refused > 10 * 20, `${taken} taken, ${refused} refused`);
      }
      // none of it has left a trace
      assert.deepEqual([plain(await column.materialize()), plain(await row.materialize())], before);
      assert.equal((await transfer.list("p")).length, 3);
    }));

  it("are refused or harmless with random bytes changed", () =>
    withTransfer(async (transfer) => {
      const random = new Random(newSeed("changed handles"));
      const { column, row } = await views(transfer);
      const texts = [column, row].map((batch) => JSON.stringify(batch.toHandle()));
      for (let round = 0; round < scaled(20_000); round++) {
        const characters = [...random.pick(texts)];
        for (let n = 1 + random.int(3); n > 0; n--) {
          characters.splice(
            random.int(characters.length),
            random.int(2),
            random.pick([...'0123456789-.e"[]{},:\\nult']),
          );
        }
        const imported = takes(transfer, characters.join(""));
        if (imported === undefined || imported.rows > 1000) continue;
        try {
          assert.equal((await imported.materialize()).rows, imported.rows);
        } catch (error) {
          assert.ok(error instanceof BatchferryError, `${characters.join("")}\n${(error as Error).stack}`);
        }
      }
    }));

  it("cannot ask for much memory with little text", () =>
    withTransfer((transfer) => {
      const most = 0xffffffff;
      const handle = (rows: number, bundleRows: number, selections: Tree[]) =>
        JSON.stringify({
          type: "batchferry_ref",
          version: 1,
          rows,
          partition: "p",
          bundles: [{ manifest_key: manifestKey(1), rows: bundleRows }],
          selections,
          columns: [["x", 0, "x"]],
          origin: 0,
          meta: {},
        });
      const before = process.memoryUsage().rss;
      // each row of a run twice: that many runs of their own
      assert.throws(
        () => transfer.importHandle(handle(most - 1, most, [[[0, [[0, (most - 1) / 2, 1, 2]]]]])),
        CorruptionError,
      );
      const few = [[0, [[0, 1 << 20, 1, 3]]]];
      assert.throws(
        () => transfer.importHandle(handle(3 << 20, 1 << 20, Array(100).fill(few))),
        CorruptionError,
      );
      // one run is one run
      const huge = transfer.importHandle(handle(most, most, [[[0, [[0, most]]]], [[0, [[7, most, 0]]]]]));
      assert.equal(huge.rows, most);
      assert.equal(huge.slice(5, undefined, 1000).chunk(3)[2]?.rows, Math.floor((most - 5 + 999) / 1000 / 3));
      const grown = process.memoryUsage().rss - before;
      assert.ok(grown < 512 * 2 ** 20, `${grown} bytes`);
      const deep = "[".repeat(100_000) + "]".repeat(100_000);
      assert.throws(
        () => transfer.importHandle(handle(1, 1, [[[0, [0]]]]).replace('"meta":{}', `"meta":{"a":${deep}}`)),
        CorruptionError,
      );
      return Promise.resolve();
    }));

  it("that are wrong about a bundle spoil nothing for those that are right", async () => {
    using folder = temporaryFolder();
    await using transfer = await openTransfer({ backend: "shm", directory: folder.path });
    const batch = await transfer.put("p", ["a", "b", "c"], { x: new Int32Array([1, 2, 3]) }, 3);
    const text = JSON.stringify(batch.slice(1).toHandle());
    const wrong = text.replace('"rows":3', '"rows":4');
    // known here, so it is known to be wrong
    assert.throws(() => transfer.importHandle(wrong), CorruptionError);
    // elsewhere whichever comes first, and whether it is read or not
    for (const read of [true, false]) {
      await using other = await openTransfer({ backend: "shm", directory: folder.path });
      const imported = other.importHandle(wrong);
      if (read) await assert.rejects(imported.materialize(), CorruptionError);
      assert.deepEqual((await other.importHandle(text).materialize()).tensor("x").toNumbers(), [2, 3]);
      await assert.rejects(imported.materialize(), CorruptionError);
      assert.throws(() => other.importHandle(wrong), CorruptionError);
      assert.deepEqual((await other.get("p", ["c"], ["x"])).tensor("x").toNumbers(), [3]);
      assert.deepEqual((await other.list()).map(({ rows }) => rows), [3]);
    }
    await transfer.dropPartition("p");
  });
});
