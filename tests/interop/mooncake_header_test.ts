/**
 * The declared functions against the header that comes with the library.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { loadMooncakeStore, MOONCAKE_STORE } from "../../ffi/mooncake_store.ts";
import { setUpMooncake } from "../support/mooncake.ts";

const found = await setUpMooncake();

describe("store_c.h", { skip: found.skip }, () => {
  const library = found.skip === false ? found.library : "";

  it("has exactly the functions that are declared, with the same prototypes", () => {
    const header = readFileSync(join(dirname(library), "include", "store_c.h"), "utf8").replace(
      /\/\*[\s\S]*?\*\/|\/\/.*$/gm,
      "",
    );
    const normal = (text: string) => text.replace(/\s+/g, " ").replace(/ ?([*(),]) ?/g, "$1").trim();
    const prototypes = new Map(
      [...header.matchAll(/^\w[\w *]*?\b(mooncake_store_\w+)\([^;]*\);/gm)].map((
        [text, name],
      ) => [name as string, normal(text.slice(0, -1))]),
    );
    assert.equal(prototypes.size, 20);
    const declared = new Map(Object.entries(MOONCAKE_STORE).map(([name, { c }]) => [name, normal(c)]));
    assert.deepEqual(declared, new Map([...declared.keys()].map((name) => [name, prototypes.get(name)!])));
    assert.deepEqual([...declared.keys()].sort(), [...prototypes.keys()].sort());
  });

  it("loads without LD_LIBRARY_PATH, and makes a client", async () => {
    assert.equal(globalThis.process?.env?.LD_LIBRARY_PATH ?? "", "");
    const { symbols, missing } = loadMooncakeStore(library);
    assert.deepEqual([...missing], []);
    const store = symbols.mooncake_store_create();
    assert.notEqual(store, 0n);
    await symbols.mooncake_store_destroy(store);
  });
});
