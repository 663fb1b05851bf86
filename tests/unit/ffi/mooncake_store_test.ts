import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  encodeReplicateConfig,
  loadMooncakeStore,
  MOONCAKE_STORE,
  mooncakeCodeName,
} from "../../../ffi/mooncake_store.ts";

describe("Mooncake Store's C interface", () => {
  it("lays out mooncake_replicate_config as C does on 64 bits", () => {
    const bytes = encodeReplicateConfig({ replicas: 2, softPin: false, hardPin: true });
    assert.deepEqual([...bytes], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, ...Array(16).fill(0)]);
    assert.equal(encodeReplicateConfig({ replicas: 1, softPin: true, hardPin: false })[8], 1);
  });

  it("has names for codes", () => {
    assert.equal(mooncakeCodeName(-704), "OBJECT_NOT_FOUND");
    assert.equal(mooncakeCodeName(-200), "NO_AVAILABLE_HANDLE");
    assert.equal(mooncakeCodeName(-12345), "code -12345");
  });

  it("declares as many arguments as its prototypes have", () => {
    for (const [name, { args, c }] of Object.entries(MOONCAKE_STORE)) {
      const list = /\((.*)\)$/.exec(c)?.[1] ?? "?";
      assert.ok(c.includes(` ${name}(`) || c.includes(`*${name}(`), name);
      assert.equal(list === "" ? 0 : list.split(",").length, args.length, name);
    }
  });

  it("says what to install where there is no library", () => {
    assert.throws(
      () => loadMooncakeStore("/nowhere/libmooncake_store.so"),
      (error: Error & { code: string }) => {
        assert.equal(error.code, "LIBRARY_MISSING");
        assert.match(error.message, /nowhere\/libmooncake_store\.so/);
        assert.match(error.message, /tokenspeed-mooncake.*libcuda1.*MOONCAKE_STORE_LIBRARY/);
        return true;
      },
    );
  });
});
