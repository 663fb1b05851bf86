import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Column } from "../../../src/batch/column.ts";
import { parseJson } from "../../../src/batch/json.ts";
import { RowSet } from "../../../src/batch/rowset.ts";
import { handleText, parseHandle, writeHandle } from "../../../src/bundle/handle.ts";
import { cutPayload } from "../../../src/bundle/chunking.ts";
import { parseManifest, type PayloadSpec, writeManifest } from "../../../src/bundle/manifest.ts";
import { type FieldSpec, writeMeta } from "../../../src/bundle/meta.ts";
import { decodeColumn } from "../../../src/bundle/read.ts";
import {
  assertColumn,
  build,
  column,
  type Decoded,
  fromHex,
  golden,
  goldenCase,
  joined,
  type Objects,
  objectsOf,
  open,
  openGolden,
  toBytes,
  toHex,
  toText,
} from "./helpers.ts";

const batches = golden.filter((item) => item.handle !== undefined && Object.keys(item.objects).length > 0);

function fieldsOf(decoded: Decoded): [string, unknown][] {
  return [...Object.entries(decoded.batch), ...Object.entries(decoded.non_tensor_batch)];
}

describe("stored objects of the Python class", () => {
  it("are all there", () => {
    assert.equal(golden.length, 24);
    assert.equal(batches.length, 20);
  });

  for (const item of batches) {
    it(`${item.name} decodes to the values that were put`, () => {
      const { bundle, objects } = openGolden(item);
      const expected = fieldsOf(item.decoded!);
      assert.deepEqual([...bundle.fields.keys()], expected.map(([field]) => field));
      for (const [field, value] of expected) assertColumn(column(objects, bundle, field), value);
    });

    it(`${item.name} decodes from whole payloads`, () => {
      const { bundle, objects } = openGolden(item);
      const payloads = new Map([...bundle.payloads].map(([name, payload]) => [
        name,
        Uint8Array.from(payload.chunks.flatMap(({ key }) => [...objects.get(key)!])),
      ]));
      for (const [field, value] of fieldsOf(item.decoded!)) {
        assertColumn(decodeColumn(bundle, field, payloads), value);
      }
    });

    for (const { start, end, decoded } of item.row_slices ?? []) {
      it(`${item.name} decodes rows ${start} to ${end}`, () => {
        const { bundle, objects } = openGolden(item);
        for (const [field, value] of fieldsOf(decoded)) {
          assertColumn(column(objects, bundle, field, RowSet.range(start, end - start)), value);
        }
      });
    }
  }

  for (const item of golden.filter(({ handle }) => handle !== undefined)) {
    it(`the handle of ${item.name} is written as it was`, () => {
      const handle = parseHandle(item.handle);
      assert.equal(JSON.stringify(writeHandle(handle)), JSON.stringify(item.handle));
      assert.deepEqual(JSON.parse(handleText(handle)), item.handle);
    });
  }

  it("carries meta_info", () => {
    const item = goldenCase("meta_only");
    assert.deepEqual(parseHandle(item.handle).metaInfo, item.meta_info);
  });
});

/** Which objects we write differently from Python, and why. All others are equal to the byte. */
const DIFFERENCES: Readonly<Record<string, { why: string; keys: readonly string[] }>> = {
  torch_f32_2x3_native: {
    why: 'no `kind: "tensor"`: with it Python reads a lost payload as None',
    keys: ["manifest"],
  },
  chunked_10: {
    why: "chunks end between rows",
    keys: ["manifest", "buffer/batch.a/chunk/0", "buffer/batch.a/chunk/1", "buffer/batch.a/chunk/2"],
  },
};

describe("objects written by us", () => {
  for (const item of batches) {
    const differing = DIFFERENCES[item.name];
    it(`${item.name} equals Python's${differing === undefined ? "" : `, except: ${differing.why}`}`, () => {
      const { bundle, objects } = openGolden(item);
      const columns: Record<string, Column> = {};
      for (const field of bundle.fields.keys()) columns[field] = column(objects, bundle, field);
      const built = build(columns, {
        rows: bundle.rows,
        hex: bundle.objectId.slice(-32),
        tensorEncoding:
          toText(objects.get(`${bundle.objectId}/meta`) ?? new Uint8Array()).includes("torch_tensor")
            ? "torch"
            : "numpy",
        chunkBytes: item.name === "chunked_10" ? 10 : null,
        annotations: false,
      });
      const ours = new Map(built.objects.map((object) => [object.key, toHex(joined(object))]));
      const changed = Object.keys(item.objects).filter((key) => ours.get(key) !== item.objects[key]);
      const expected = (differing?.keys ?? []).map((key) => `${bundle.objectId}/${key}`);
      assert.deepEqual(changed.toSorted(), expected.toSorted());
      if (differing === undefined) assert.deepEqual([...ours.keys()], Object.keys(item.objects));
      // whatever the form, the values are the same
      const again: Objects = new Map([...ours].map(([key, hex]) => [key, fromHex(hex)]));
      for (const [field, value] of fieldsOf(item.decoded!)) {
        assertColumn(column(again, built.bundle, field), value);
      }
    });
  }
});

describe("other objects of the Python class", () => {
  for (const name of ["put_bundle", "put_object_map", "put_object_wrapped"]) {
    it(`${name}: the manifest, the meta and every payload are written as Python wrote them`, () => {
      const item = goldenCase(name);
      const objects = objectsOf(item);
      const manifest = parseManifest(item.manifest_key!, objects.get(item.manifest_key!)!);
      assert.equal(toText(writeManifest(manifest)), toText(objects.get(item.manifest_key!)!));
      const whole = (payload: PayloadSpec) =>
        Uint8Array.from(payload.chunks.flatMap(({ key }) => [...objects.get(key)!]));
      const payloads = Object.fromEntries(
        [...manifest.buffers].map(([name, payload]) => [name, whole(payload)]),
      );
      const int16 = Uint8Array.from([0, 0, 1, 0, 2, 0]);
      assert.deepEqual(
        payloads as unknown,
        {
          put_bundle: { p: toBytes("abcdef"), e: new Uint8Array(0) },
          put_object_map: { a: int16, b: toBytes("xyz") },
          put_object_wrapped: { value: int16 },
        }[name],
      );
      const again = new Map<string, string>([[item.manifest_key!, toText(writeManifest(manifest))]]);
      for (const [name, payload] of [...manifest.buffers, ["meta", manifest.meta] as const]) {
        const chunkBytes = payload.chunks[0]?.bytes ?? null;
        const parts = [name === "meta" ? whole(payload) : payloads[name]!];
        const cut = cutPayload({ key: payload.key, parts, rowBytes: null }, { chunkBytes, checksums: false });
        assert.deepEqual(cut.payload, payload);
        for (const object of cut.objects) again.set(object.key, toText(joined(object)));
      }
      assert.deepEqual(again, new Map([...objects].map(([key, bytes]) => [key, toText(bytes)])));
      if (name === "put_bundle") return;
      // the members' specs, as our own meta writes them
      const specs = JSON.parse(toText(whole(manifest.meta))).__mooncake_structured_fields__;
      const fields = new Map(Object.entries(specs)) as ReadonlyMap<string, FieldSpec>;
      const stage = { namespace: "n", partition: "p", stage: "s", batchSize: 3 };
      const ours = writeMeta({ layout: "dataproto_stage", dataproto: stage, fields, facts: null });
      assert.deepEqual(JSON.parse(toText(ours)).__mooncake_structured_fields__, specs);
    });
  }

  it("meta_only: a batch without fields is its handle and nothing else", () => {
    const item = goldenCase("meta_only");
    assert.deepEqual(item.objects, {});
    assert.equal(parseHandle(item.handle).fields.size, 0);
    assert.equal(JSON.stringify(writeHandle(parseHandle(item.handle))), JSON.stringify(item.handle));
  });

  it("put_bundle: payloads in chunks and empty ones", () => {
    const item = goldenCase("put_bundle");
    const manifest = parseManifest(item.manifest_key!, objectsOf(item).get(item.manifest_key!)!);
    assert.deepEqual([...manifest.buffers.keys()], ["p", "e"]);
    assert.deepEqual(manifest.buffers.get("p")!.chunks.map(({ bytes }) => bytes), [4, 2]);
    assert.deepEqual(manifest.buffers.get("e")!.chunks, []);
    assert.throws(() => open(objectsOf(item), item.manifest_key!), { code: "CORRUPT" });
  });

  for (const name of ["put_object_map", "put_object_wrapped"]) {
    it(`${name} is not a batch`, () => {
      const item = goldenCase(name);
      assert.throws(() => open(objectsOf(item), item.manifest_key!), {
        code: "SCHEMA",
        message: /is not a batch: its layout is "structured"/,
      });
    });
  }

  it("a stage that was appended to is read and deleted as one", () => {
    const base = "rl/p0/0000000000000000000000000000000";
    const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
    const payload = (key: string, bytes: number) => ({ key, bytes, chunks: [{ key, bytes }] });
    const meta = text({
      layout: "dataproto_stage",
      dataproto: { version: 1, namespace: "ns", partition: "p0", stage: "gen", batch_size: 2 },
      __mooncake_structured_fields__: {
        "batch.a": { encoding: "ndarray", dtype: "<i8", shape: [2] },
        "batch.b": { encoding: "ndarray", dtype: "<f4", shape: [2] },
      },
    });
    assert.equal(meta.byteLength, 270);
    const manifest = text({
      version: 1,
      layout: "bundle",
      object_id: "p0/00000000000000000000000000000004",
      meta: payload(`${base}4/meta`, 270),
      buffers: {
        "batch.a": payload(`${base}2/buffer/batch.a`, 16),
        "batch.b": payload(`${base}3/buffer/batch.b`, 8),
      },
      buffer_object_ids: ["p0/00000000000000000000000000000002", "p0/00000000000000000000000000000003"],
      cleanup_keys: [`${base}2/manifest`, `${base}2/meta`, `${base}3/manifest`, `${base}3/meta`],
    });
    assert.equal(manifest.byteLength, 890);
    const objects: Objects = new Map([
      [`${base}4/meta`, meta],
      [`${base}4/manifest`, manifest],
      [`${base}2/buffer/batch.a`, fromHex("00000000000000000100000000000000")],
      [`${base}3/buffer/batch.b`, fromHex("000000000000803f")],
    ]);
    const bundle = open(objects, `${base}4/manifest`);
    assertColumn(column(objects, bundle, "a"), {
      $ndarray: "<i8",
      shape: [2],
      hex: "00000000000000000100000000000000",
    });
    assertColumn(column(objects, bundle, "b"), { $ndarray: "<f4", shape: [2], hex: "000000000000803f" });
    assert.deepEqual(bundle.deleteKeys, [
      `${base}4/meta`,
      `${base}2/buffer/batch.a`,
      `${base}3/buffer/batch.b`,
      `${base}2/manifest`,
      `${base}2/meta`,
      `${base}3/manifest`,
      `${base}3/meta`,
      `${base}4/manifest`,
    ]);
  });

  it("NaN tokens and big integers in a handle survive", () => {
    const text = JSON.stringify(goldenCase("meta_only").handle)
      .replace('"meta_info":{', '"meta_info":{"n":NaN,"i":-Infinity,"big":9007199254740993,');
    assert.equal(handleText(parseHandle(parseJson(text))), text);
  });
});
