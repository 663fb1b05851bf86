/**
 * A store for one test, its batches bound to bundles or to row ids.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import {
  BatchferryError,
  type ErrorCode,
  type Fields,
  type RemoteBatch,
  TransferBackend,
} from "../../mod.ts";
import { openMemoryStore } from "../../src/store/memory.ts";
import { openShmStore } from "../../src/store/shm.ts";
import type { ObjectStore } from "../../src/store/store.ts";
import { resolveConfig } from "../../src/transfer/config.ts";
import { temporaryFolder } from "../support/runtime.ts";

/** One store of a test, and how the test's batches are bound. */
export interface Subject {
  readonly transfer: TransferBackend;
  /** Another transfer over the same store, as another process has it; the same one for memory. */
  readonly other: TransferBackend;
  /** Puts a batch and gives it bound as the test wants it. */
  put(fields: Fields, rows: number, ids?: readonly string[]): Promise<RemoteBatch>;
  readonly bound: boolean;
}

/** Partial replacements of a store's methods. */
export type Changes = (store: ObjectStore) => Partial<ObjectStore>;

/** Row ids. */
export function ids(rows: number, name = "row"): string[] {
  return Array.from({ length: rows }, (_, i) => `${name}-${i}`);
}

/** 0, 1, 2 and so on. */
export function numbers(rows: number): Int32Array<ArrayBuffer> {
  return Int32Array.from({ length: rows }, (_, i) => i);
}

function changed(store: ObjectStore, changes: Changes): ObjectStore {
  const replaced = changes(store);
  return new Proxy(store, {
    get(target, name) {
      const value: unknown = Reflect.get(name in replaced ? replaced : target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** Runs a test over a new store, and sees to it that nothing is left when it has ended well. */
export async function withSubject(
  backend: "memory" | "shm",
  bound: boolean,
  test: (subject: Subject) => Promise<void>,
  changes?: Changes,
): Promise<void> {
  using folder = temporaryFolder();
  const config = resolveConfig({ backend, directory: folder.path });
  const open = async () =>
    backend === "shm" ? await openShmStore({ directory: folder.path }) : await openMemoryStore();
  const store = await open();
  const transfer = new TransferBackend(config, changes === undefined ? store : changed(store, changes));
  const other = backend === "shm" ? new TransferBackend(config, await open()) : transfer;
  try {
    await test({
      transfer,
      other,
      bound,
      async put(fields, rows, names = ids(rows)) {
        const batch = await transfer.put("p", names, fields, rows);
        return bound ? transfer.rows("p", names, batch.fields) : batch;
      },
    });
    for (const partition of new Set((await transfer.list()).map((bundle) => bundle.partition))) {
      await transfer.dropPartition(partition);
    }
  } finally {
    await other.close();
    await transfer.close();
  }
  assert.deepEqual(readdirSync(folder.path), [], "the store left something behind");
}

/** Checks an error's code. */
export function fails(code: ErrorCode): (error: unknown) => boolean {
  return (error) => error instanceof BatchferryError && error.code === code;
}

/** The numbers of a tensor column. */
export async function xs(batch: RemoteBatch, field = "x"): Promise<(number | bigint)[]> {
  return (await batch.materialize([field])).tensor(field).toNumbers();
}
