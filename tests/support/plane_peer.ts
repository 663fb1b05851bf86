/**
 * The writing side of a plane in a process of its own: registers memory with a pattern in it, and accepts readers.
 *
 *   plane_peer.ts KIND BYTES
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { Deadline } from "../../src/deadline.ts";
import type { Wire } from "../../src/store/peer/plane.ts";
import { newMemory } from "../../src/store/registered/memory.ts";
import { fillPattern, openPlane, type PlaneKind } from "./planes.ts";

const [kind, bytes] = process.argv.slice(-2) as [PlaneKind, string];
const plane = await openPlane(kind, "writer");
const memory = newMemory(Number(bytes));
fillPattern(memory.bytes);
const registration = await plane.register(memory.address, Number(bytes));

for await (const line of createInterface({ input: process.stdin })) {
  const { op, hello } = JSON.parse(line) as { op: string; hello?: Wire };
  const result = op === "remote"
    ? registration.remote
    : (await plane.accept(hello ?? null, new Deadline("accept", {}, 60_000))).answer;
  console.log(JSON.stringify({ result }));
}
await plane.close();
memory.close();
