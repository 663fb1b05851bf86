import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { crc32 } from "node:zlib";
import { CorruptionError } from "../../../../src/errors.ts";
import {
  alignPayload,
  decodeHeader,
  decodeTable,
  encodeHeader,
  HEADER_BYTES,
  lastKey,
  layOut,
  placeAll,
} from "../../../../src/store/shm/format.ts";

const OWNER = "123-456789-0123456789abcdef";

const objects = [
  { key: "p/tensor", parts: [new Uint8Array(304), new Uint8Array(1000)] },
  { key: "p/raw", parts: [new Uint8Array(17), new Uint8Array(0), new Uint8Array(4)] },
  { key: "p/empty", parts: [] },
  { key: 'p/ключ "\\\n', parts: [new Uint8Array(5)] },
];

/** A file as a writer leaves it, with its header and table. */
function fileOf(layout = layOut(objects)): Uint8Array {
  const file = new Uint8Array(layout.used + 100);
  file.set(layout.tableJson, layout.tableOffset);
  file.set(encodeHeader(layout, OWNER));
  return file;
}

function decode(file: Uint8Array, fileBytes = file.length) {
  const header = decodeHeader(file.subarray(0, HEADER_BYTES), fileBytes, "x");
  const table = decodeTable(
    file.subarray(header.tableOffset, header.tableOffset + header.tableBytes),
    header,
    "x",
  );
  return { header, table };
}

describe("layOut()", () => {
  it("places tensors at 16 modulo 64 and all else at 0, one behind the other", () => {
    const { table, used, tableOffset, tableJson } = layOut(objects);
    assert.deepEqual([...table], [
      ["p/tensor", { offset: 144, bytes: 1304 }],
      ["p/raw", { offset: 1472, bytes: 21 }],
      ["p/empty", { offset: 1536, bytes: 0 }],
      ['p/ключ "\\\n', { offset: 1536, bytes: 5 }],
    ]);
    assert.equal(tableOffset, 1541);
    assert.equal(used, tableOffset + tableJson.length);
    assert.equal(lastKey(table), 'p/ключ "\\\n');
  });

  it("knows a tensor's header in one piece with its data", () => {
    const whole = new Uint8Array(400);
    whole.set([0x4e, 0x4f, 0x4f, 0x4d, 1, 0, 0x30, 1]);
    assert.equal(layOut([{ key: "a", parts: [whole] }]).table.get("a")!.offset, 144);
    assert.equal(layOut([{ key: "a", parts: [new Uint8Array(400)] }]).table.get("a")!.offset, 128);
  });

  it("goes on behind what is placed already", () => {
    const { offsets, end } = placeAll([1000, 10, 0]);
    assert.deepEqual(offsets, [144, 1152, 1216]);
    assert.equal(end, 1216);
    const table = new Map([["p/x", { offset: 144, bytes: 500 }]]);
    const layout = layOut([{ key: "p/manifest", parts: [new Uint8Array(3)] }], { table, end: 644 });
    assert.deepEqual(layout.table.get("p/manifest"), { offset: 704, bytes: 3 });
    assert.equal(layout.tableOffset, 707);
  });

  it("writes tables of any length", () => {
    const many = Array.from({ length: 1000 }, (_, i) => ({ key: `p/${"ключ".repeat(5)}${i}`, parts: [] }));
    assert.deepEqual([...decode(fileOf(layOut(many))).table.keys()], many.map(({ key }) => key));
  });
});

describe("alignPayload()", () => {
  it("gives the first fitting place", () => {
    for (let offset = 128; offset < 300; offset++) {
      const [raw, tensor] = [alignPayload(offset, false), alignPayload(offset, true)];
      assert.ok(raw % 64 === 0 && raw >= offset && raw < offset + 64);
      assert.ok(tensor % 64 === 16 && tensor >= offset && tensor < offset + 64);
    }
  });
});

describe("encodeHeader()", () => {
  it("writes the documented bytes", () => {
    const layout = layOut([{ key: "a/b", parts: [new Uint8Array(3)] }]);
    const header = encodeHeader(layout, OWNER);
    const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
    assert.equal(header.length, 128);
    assert.deepEqual([...header.subarray(0, 8)], [0x42, 0x46, 0x53, 0x48, 0x4d, 0, 0, 1]);
    const table = new TextEncoder().encode('[["a/b",128,3]]');
    assert.equal(view.getBigUint64(8, true), BigInt(131 + table.length));
    assert.equal(view.getBigUint64(16, true), 131n);
    assert.equal(view.getBigUint64(24, true), BigInt(table.length));
    assert.equal(view.getUint32(32, true), crc32(table));
    assert.equal(new TextDecoder().decode(header.subarray(64)), OWNER.padEnd(64, "\0"));
    assert.ok(header.subarray(36, 64).every((byte) => byte === 0));
  });
});

describe("decodeHeader() and decodeTable()", () => {
  it("read what was written", () => {
    const layout = layOut(objects);
    const { header, table } = decode(fileOf(layout));
    assert.equal(header.used, layout.used);
    assert.equal(header.owner, OWNER);
    assert.deepEqual([...table], [...layout.table]);
  });

  it("refuse a file that is too short", () => {
    const file = fileOf();
    for (const bytes of [0, 1, 127]) {
      assert.throws(() => decodeHeader(file.subarray(0, bytes), bytes, "x"), CorruptionError, `${bytes}`);
    }
    const { used } = layOut(objects);
    assert.throws(() => decodeHeader(file, used - 1, "x"), CorruptionError);
    decodeHeader(file, used, "x");
  });

  it("refuse headers that contradict themselves", () => {
    const set = (offset: number, value: bigint) => (file: Uint8Array) =>
      new DataView(file.buffer).setBigUint64(offset, value, true);
    const cases: Record<string, (file: Uint8Array) => void> = {
      "another magic": (file) => file[0]! ^= 1,
      "another version": (file) => file[7] = 2,
      "used beyond the file": set(8, 10_000n),
      "used of 2^64-1": set(8, 2n ** 64n - 1n),
      "used before the table": set(8, 130n),
      "a table in the header": set(16, 127n),
      "a table at 2^63": set(16, 2n ** 63n),
      "a table of 2^64-1 bytes": set(24, 2n ** 64n - 1n),
      "a table of 2^40 bytes": (file) => {
        set(8, 2n ** 41n)(file);
        set(24, 2n ** 40n)(file);
      },
    };
    for (const [name, damage] of Object.entries(cases)) {
      const file = fileOf();
      damage(file);
      const fileBytes = name.includes("2^40") ? 2 ** 42 : file.length; // a sparse file
      assert.throws(
        () => decodeHeader(file.subarray(0, HEADER_BYTES), fileBytes, "x"),
        CorruptionError,
        name,
      );
    }
  });

  it("refuse tables that are wrong", () => {
    const file = fileOf();
    file[layOut(objects).tableOffset + 5]! ^= 1;
    assert.throws(() => decode(file), /checksum/);

    const tables = [
      "",
      "{}",
      "[]",
      "null",
      "[[",
      '[["a"]]',
      '[["a",128]]',
      '[["a",128,1,1]]',
      "[[1,128,1]]",
      '[["a",127,1]]',
      '[["a",128,-1]]',
      '[["a",-128,1]]',
      '[["a",128.5,1]]',
      '[["a",128,"1"]]',
      '[["a",128,73]]',
      '[["a",201,0]]',
      '[["a",128,1e300]]',
      '[["a",9007199254740991,9007199254740991]]',
      '[["a",128,1],["a",129,1]]',
      '[["a",128,1],null]',
      "\xff",
    ];
    for (const json of tables) {
      const bytes = Uint8Array.from(json, (char) => char.charCodeAt(0));
      const header = {
        used: 200 + bytes.length,
        tableOffset: 200,
        tableBytes: bytes.length,
        tableCrc: crc32(bytes),
        owner: OWNER,
      };
      assert.throws(() => decodeTable(bytes, header, "x"), CorruptionError, json);
    }
    const json = new TextEncoder().encode('[["a",128,72],["b",200,0]]');
    const header = {
      used: 300,
      tableOffset: 200,
      tableBytes: json.length,
      tableCrc: crc32(json),
      owner: OWNER,
    };
    assert.equal(decodeTable(json, header, "x").size, 2);
    assert.throws(() => decodeTable(json.subarray(1), header, "x"), CorruptionError);
  });
});
