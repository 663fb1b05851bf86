/**
 * A process for tests: opens the store in the folder given, publishes a bundle, leaves one file in its pool and one
 * half-written, says so, and then stays until it is killed, or leaves in the way it was told.
 */

import process from "node:process";
import { openShmStore } from "../../../../src/store/shm.ts";
import { newObjectId, sampleBundle } from "../suite.ts";

const [directory, end] = process.argv.slice(2);
const store = await openShmStore({ directory: directory! });
const [kept, deleted] = [newObjectId("bundle/child"), newObjectId("bundle/child")];
for (const objectId of [kept, deleted]) await store.writeBundle(objectId, sampleBundle(objectId));
const lease = await store.allocate!([5000]);
lease.payloads[0]!.fill(1);
await store.delete([`${deleted}/manifest`]);
process.stdout.write(`${kept}\n`);

if (end === "Deno.exit") (globalThis as { Deno?: { exit(code: number): never } }).Deno?.exit(0);
else if (end === "exit") process.exit(0);
else if (end === "stay") setInterval(() => {}, 1000);
// else the program just ends: an open store does not keep it
