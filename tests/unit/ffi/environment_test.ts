import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setDefaults, withDefaults } from "../../../ffi/environment.ts";
import { cstring, libc, readCString } from "../../../ffi/libc.ts";

function get(name: string): string | null {
  return readCString(libc.symbols.getenv(cstring(name)));
}

describe("the C environment", () => {
  it("keeps what is set, and gives back what was set for a while", async () => {
    const [set, unset] = ["BATCHFERRY_TEST_SET", "BATCHFERRY_TEST_UNSET"] as const;
    assert.deepEqual(setDefaults({ [set]: "1" }), [set]);
    assert.deepEqual(setDefaults({ [set]: "2" }), []);
    const seen = await withDefaults(
      { [set]: "3", [unset]: "4" },
      () => Promise.resolve([get(set), get(unset)]),
    );
    assert.deepEqual(seen, ["1", "4"]);
    assert.deepEqual([get(set), get(unset)], ["1", null]);
    await assert.rejects(withDefaults({ [unset]: "5" }, () => Promise.reject(new Error("no"))), /no/);
    assert.equal(get(unset), null);
  });
});
