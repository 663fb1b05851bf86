import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  encodeReads,
  loadTransferEngine,
  TRANSFER_ENGINE,
  TRANSFER_ENGINE_STRUCTS,
  transferStatusName,
} from "../../../ffi/transfer_engine.ts";
import type { BackendUnavailableError } from "../../../src/errors.ts";

describe("the Transfer Engine's C interface", () => {
  it("has prototypes that say what the declared types say", () => {
    const types: Readonly<Record<string, string>> = {
      i32: "int|segment_id_t",
      u64: "uint64_t|batch_id_t",
      usize: "size_t",
    };
    for (const [name, { args, result, c }] of Object.entries(TRANSFER_ENGINE)) {
      assert.match(c, new RegExp(`\\b${name}\\(`));
      const [, list = ""] = /\((.*)\)$/.exec(c)!;
      // a struct of two pointers that is passed by value is two pointers
      const given = list.split(", ").flatMap((each) =>
        /^notify_msg_t [^*]/.test(each) ? ["p *", "p *"] : [each]
      );
      assert.equal(given.length, args.length, name);
      given.forEach((each, i) => {
        const expected = types[args[i]!];
        if (expected === undefined) assert.match(each, /\*|transfer_engine_t/, `${name}: ${each}`);
        else assert.match(each, new RegExp(`^(?:${expected}) \\w+$`), `${name}: ${each}`);
      });
      assert.equal(result === "void", c.startsWith("void "), name);
    }
  });

  it("has structs without overlaps", () => {
    for (const [name, { size, ...fields }] of Object.entries(TRANSFER_ENGINE_STRUCTS)) {
      let end = 0;
      for (const [offset, bytes] of Object.values(fields) as (readonly [number, number])[]) {
        assert.ok(offset >= end && offset % Math.min(bytes, 8) === 0, name);
        end = offset + bytes;
      }
      assert.ok(end <= size && size % 8 === 0, name);
    }
  });

  it("writes READs as C has them", () => {
    const bytes = encodeReads([
      { source: 0x1122334455667788n, targetId: 3, targetOffset: 2n ** 63n, length: 2 ** 40 },
      { source: 1n, targetId: -1, targetOffset: 2n, length: 3 },
    ]);
    assert.equal(bytes.byteLength, 80);
    const view = new DataView(bytes.buffer);
    assert.deepEqual(
      [
        view.getInt32(0, true),
        view.getBigUint64(8, true),
        view.getInt32(16, true),
        view.getBigUint64(24, true),
      ],
      [0, 0x1122334455667788n, 3, 2n ** 63n],
    );
    assert.equal(view.getBigUint64(32, true), 2n ** 40n);
    assert.equal(view.getInt32(56, true), -1);
  });

  it("names its states, and those it does not know are invalid", () => {
    assert.deepEqual([0, 4, 6, 7, -1].map(transferStatusName), [
      "WAITING",
      "COMPLETED",
      "FAILED",
      "INVALID",
      "INVALID",
    ]);
  });

  it("that is missing says what was tried and what to install", () => {
    assert.throws(
      () => loadTransferEngine("/nowhere/libtransfer_engine.so"),
      (error: BackendUnavailableError) => {
        assert.equal(error.code, "LIBRARY_MISSING");
        assert.match(error.message, /the path given: .*nowhere[\s\S]*-DBUILD_SHARED_LIBS=ON/);
        return true;
      },
    );
  });
});
