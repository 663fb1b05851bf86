import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { describe, it } from "node:test";
import {
  deviceNames,
  IBVERBS,
  loadIbverbs,
  mtuBytes,
  openDevice,
  STRUCTS,
  wcStatusName,
} from "../../../ffi/ibverbs.ts";
import { BackendUnavailableError } from "../../../src/errors.ts";

describe("libibverbs", () => {
  it("is declared with prototypes that say what the types say", () => {
    const types: Readonly<Record<string, RegExp>> = {
      i32: /^(?:int|enum ibv_\w+) \w+$/,
      u32: /^(?:unsigned int|uint32_t) \w+$/,
      u8: /^uint8_t \w+$/,
      u64: /^(?:uint64_t|__be64) \w+$/,
      usize: /^size_t \w+$/,
    };
    for (
      const [name, { args, c }] of Object.entries(IBVERBS) as [
        string,
        { args: readonly string[]; c: string },
      ][]
    ) {
      const [, list = ""] = /\((.*)\)$/.exec(c)!;
      const given = list === "void" ? [] : list.split(", ");
      assert.equal(given.length, args.length, name);
      given.forEach((each, i) => assert.match(each, types[args[i]!] ?? /\*/, `${name}: ${each}`));
    }
  });

  it("has structs without overlaps", () => {
    for (const [name, { size, ...fields }] of Object.entries(STRUCTS)) {
      let end = 0;
      for (const [offset, bytes] of Object.values(fields) as (readonly [number, number])[]) {
        assert.ok(offset >= end, name);
        end = offset + bytes;
      }
      assert.ok(end <= size, name);
    }
  });

  it("names MTUs and states of completions", () => {
    assert.deepEqual([1, 3, 5].map(mtuBytes), [256, 1024, 4096]);
    assert.deepEqual([0, 12, 99].map(wcStatusName), ["SUCCESS", "RETRY_EXC_ERR", "status 99"]);
  });

  it("that is missing says what was tried and what to install", () => {
    assert.throws(() => loadIbverbs("/nowhere/libibverbs.so.1"), (error: BackendUnavailableError) => {
      assert.equal(error.code, "LIBRARY_MISSING");
      assert.match(error.message, /the path given: .*nowhere[\s\S]*libibverbs1/);
      return true;
    });
  });

  it("sees no devices where there are none", () => {
    let library;
    try {
      library = loadIbverbs();
    } catch (error) {
      // quick tests install nothing
      assert.ok(error instanceof BackendUnavailableError);
      return;
    }
    if (!existsSync("/sys/class/infiniband")) assert.deepEqual(deviceNames(library), []);
    assert.equal(openDevice(library, "nosuch_0"), 0n);
  });
});
