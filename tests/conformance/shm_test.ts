import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { temporaryFolder } from "../support/runtime.ts";
import { conformance } from "./suite.ts";

const folders = new Map<string, ReturnType<typeof temporaryFolder>>();

conformance({
  name: "shm",
  shared: true,
  config: () => {
    const folder = temporaryFolder();
    folders.set(folder.path, folder);
    return { backend: "shm", directory: folder.path };
  },
  after: ({ directory }) => {
    const left = readdirSync(directory as string);
    folders.get(directory as string)?.[Symbol.dispose]();
    assert.deepEqual(left, [], "the store left something behind");
  },
});
