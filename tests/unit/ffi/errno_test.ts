import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { constants } from "node:os";
import * as errno from "../../../ffi/errno.ts";

describe("errnoName", () => {
  it("agrees with the runtime's own table", () => {
    const own = Object.entries(constants.errno) as [string, number][];
    assert.ok(own.length > 50);
    for (const [name, number] of own) {
      // two names for one number
      if (name === "EWOULDBLOCK" || name === "ENOTSUP" || name === "EDEADLOCK") continue;
      assert.equal(errno.errnoName(number), name);
    }
  });

  it("takes either sign, and numbers without a name", () => {
    assert.equal(errno.errnoName(-2), "ENOENT");
    assert.equal(errno.errnoName(133), "EHWPOISON");
    assert.equal(errno.errnoName(41), "errno 41");
    assert.equal(errno.errnoName(-4095), "errno 4095");
  });

  it("gives each constant its own name", () => {
    const { errnoName, EWOULDBLOCK, ...numbers } = errno;
    assert.equal(EWOULDBLOCK, errno.EAGAIN);
    for (const [name, number] of Object.entries(numbers)) assert.equal(errnoName(number), name);
  });
});
