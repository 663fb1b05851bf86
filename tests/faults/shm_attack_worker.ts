/**
 * One process of the shm attack: `owner`, `deleter` or `reader` over a folder, until it is told to stop or killed.
 *
 * Every bundle holds one value over and over, made from its own object id, so that a reader that got another bundle's
 * bytes, or a mixture, always notices.
 *
 *   shm_attack_worker.ts ROLE DIRECTORY SECONDS SEED [child]
 *
 * @module
 */

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import process from "node:process";
import { DroppedError } from "../../src/errors.ts";
import { openShmStore } from "../../src/store/shm.ts";
import type { ObjectStore } from "../../src/store/store.ts";
import { Random } from "../support/runtime.ts";

const [role, directory, seconds, seed, withChild] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string?,
];
const random = new Random(Number(seed));
const end = performance.now() + Number(seconds) * 1000;
const counts = { wrote: 0, deleted: 0, reads: 0, views: 0, dropped: 0, wrong: 0 };
const PARTITION = "bundle/attack";

/** The value a bundle is filled with. */
export function valueOf(hex: string): number {
  return Number.parseInt(hex.slice(0, 8), 16);
}

const yieldTurn = () => new Promise<void>((resolve) => setTimeout(resolve, 0));

async function own(store: ObjectStore): Promise<void> {
  const live: string[] = [];
  const words = new Uint32Array(new ArrayBuffer(4 << 19));
  while (performance.now() < end) {
    const hex = randomBytes(16).toString("hex");
    const size = random.pick([16, 300, 1000, 20_000, 50_000, 200_000, 1 << 19]);
    const count = 1 + random.int(size);
    const payload = words.subarray(0, count).fill(valueOf(hex));
    const id = `${PARTITION}/${hex}`;
    await store.writeBundle(id, [
      { key: `${id}/buffer/batch.x`, parts: [new Uint8Array(payload.buffer, 0, count * 4)] },
      { key: `${id}/manifest`, parts: [new TextEncoder().encode(JSON.stringify({ count }))] },
    ]);
    counts.wrote++;
    live.push(id);
    // most are left to the deleters; some go by the owner's own hand
    while (live.length > 60) {
      const [old] = live.splice(random.int(live.length), 1);
      if (random.chance(0.7)) await store.delete([`${old}/manifest`]);
    }
    if (random.chance(0.1)) await yieldTurn();
  }
}

async function someKey(store: ObjectStore): Promise<string | undefined> {
  const keys: string[] = [];
  for await (const key of store.list?.(`${PARTITION}/`) ?? []) keys.push(key);
  return keys.length === 0 ? undefined : random.pick(keys);
}

async function remove(store: ObjectStore): Promise<void> {
  while (performance.now() < end) {
    const key = await someKey(store);
    if (key !== undefined) {
      await store.delete([key]);
      counts.deleted++;
    }
    if (random.chance(0.5)) await yieldTurn();
  }
}

/** Checks that a payload is its bundle's value throughout. */
function check(words: Uint32Array, value: number): void {
  for (let i = 0; i < words.length; i++) {
    if (words[i] !== value) {
      counts.wrong++;
      return;
    }
  }
}

async function readOne(store: ObjectStore, key: string): Promise<void> {
  const id = key.slice(0, -"/manifest".length);
  const value = valueOf(id.slice(-32));
  const payload = `${id}/buffer/batch.x`;
  try {
    const size = await store.size(payload);
    if (size === undefined) {
      counts.dropped++;
      return;
    }
    if (random.chance(0.5)) {
      const words = new Uint32Array(new ArrayBuffer(size));
      await store.read([{ key: payload, offset: 0, into: new Uint8Array(words.buffer) }]);
      check(words, value);
      counts.reads++;
    } else {
      using lease = store.view?.(id, [payload]);
      const words = new Uint32Array(lease?.payloads.get(payload) as ArrayBuffer);
      check(words, value);
      // held for a while: the file must not be filled anew below the view
      if (random.chance(0.3)) {
        await new Promise((resolve) => setTimeout(resolve, random.int(20)));
        check(words, value);
      }
      counts.views++;
    }
  } catch (error) {
    if (!(error instanceof DroppedError)) throw error;
    counts.dropped++;
  }
}

async function readAll(store: ObjectStore): Promise<void> {
  while (performance.now() < end) {
    const keys: string[] = [];
    for await (const key of store.list?.(`${PARTITION}/`) ?? []) keys.push(key);
    // a listing is old at once: most of these are deleted, and their files used again, while they are read
    for (let i = 0; i < 20 && keys.length > 0; i++) await readOne(store, random.pick(keys));
    if (keys.length === 0) await yieldTurn();
  }
}

const ROLES: Readonly<Record<string, (store: ObjectStore) => Promise<void>>> = {
  owner: own,
  deleter: remove,
  reader: readAll,
};

if (import.meta.main) {
  const store = await openShmStore({ directory, poolBytes: 32 << 20 });
  if (withChild === "child") {
    // a child that outlives this process must not keep its locks
    const child = spawn("sleep", ["20"], { stdio: "ignore", detached: true });
    child.unref();
    process.stdout.write(`${JSON.stringify({ child: child.pid })}\n`);
  }
  process.stdout.write("ready\n");
  await (ROLES[role] as (store: ObjectStore) => Promise<void>)(store);
  await store.close();
  process.stdout.write(`${JSON.stringify(counts)}\n`);
  process.exit(0);
}
