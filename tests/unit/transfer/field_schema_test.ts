import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { bytes, json, openTransfer, ragged, records } from "../../../mod.ts";

describe("a declared codec", () => {
  it("decides how fields are stored", async () => {
    const codecs = {
      a: "msgpack_ragged",
      b: "ragged_tensor",
      c: "jagged",
      d: "media_bytes",
      e: "msgpack_ragged",
    };
    await using transfer = await openTransfer({
      backend: "memory",
      fieldSchemas: Object.fromEntries(Object.entries(codecs).map(([field, codec]) => [field, { codec }])),
    });
    const batch = await transfer.put("p", null, {
      a: json([{ x: 1 }, null]),
      b: ragged("float32", [[1], [2, 3]]),
      c: ragged("int64", [[1], [2, 3]]),
      d: bytes([new Uint8Array(2), null]),
      e: records([{ x: 1 }, [new Uint8Array(1)]]),
    }, 2);
    const handle = batch.toHandle() as { encoded_non_tensor: Record<string, { codec: string }> };
    const stored = Object.entries(handle.encoded_non_tensor).map(([field, { codec }]) => [field, codec]);
    assert.deepEqual(Object.fromEntries(stored), { a: codecs.a, b: codecs.b, d: codecs.d, e: codecs.e });
    const data = await batch.materialize();
    assert.deepEqual(data.records("a").toArray(), [{ x: 1 }, null]);
    assert.deepEqual(data.ragged("c").toArray(), [new BigInt64Array([1n]), new BigInt64Array([2n, 3n])]);
    await assert.rejects(transfer.put("p", null, { b: bytes([]) }, 0), { code: "SCHEMA" });
    await assert.rejects(transfer.put("q", null, { c: ragged("int64", [null]) }, 1), { code: "SCHEMA" });
  });
});
