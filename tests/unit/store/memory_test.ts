import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { SchemaError } from "../../../src/errors.ts";
import { openMemoryStore } from "../../../src/store/memory.ts";
import { newObjectId, pattern, sampleBundle, storeSuite } from "./suite.ts";

storeSuite("memory", async (use) => {
  await using store = await openMemoryStore();
  await use(store);
});

describe("openMemoryStore()", () => {
  it("gives a store of its own each time", async () => {
    await using a = await openMemoryStore();
    await using b = await openMemoryStore();
    await a.put("names/x", pattern(3));
    assert.equal(await b.size("names/x"), undefined);
  });

  it("refuses an object id that is in use", async () => {
    await using store = await openMemoryStore();
    const objectId = newObjectId();
    await store.writeBundle(objectId, sampleBundle(objectId));
    await assert.rejects(store.writeBundle(objectId, sampleBundle(objectId, pattern(5))), SchemaError);
    assert.equal(await store.size(`${objectId}/buffer/batch.x`), 1304);
  });

  it("counts what its leases copy", async () => {
    await using store = await openMemoryStore();
    const objectId = newObjectId();
    await store.writeBundle(objectId, sampleBundle(objectId));
    using lease = store.view!(objectId, [`${objectId}/meta`, `${objectId}/manifest`]);
    assert.equal(lease.copiedBytes, 77 + 99);
  });
});
