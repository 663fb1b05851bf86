import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { describe, it } from "node:test";
import {
  bytesOf,
  dtypeOfArray,
  DTYPES,
  isBig,
  isDType,
  isFloat,
  isNumericDType,
  itemSize,
  newArray,
} from "../../../src/batch/dtype.ts";

describe("dtypes", () => {
  it("have the sizes their names say", () => {
    for (const dtype of DTYPES) {
      const bits = dtype === "bool" ? 8 : Number(/\d+/.exec(dtype)![0]);
      assert.equal(itemSize(dtype), bits / 8, dtype);
      assert.equal(isFloat(dtype), dtype.includes("float"), dtype);
      assert.equal(isBig(dtype), bits === 64 && dtype.includes("int"), dtype);
      assert.equal(newArray(dtype, 3).byteLength, 3 * itemSize(dtype), dtype);
    }
    assert.equal(DTYPES.filter(isNumericDType).length, DTYPES.length - 3);
  });

  it("are the ones there are", () => {
    for (const name of ["int5", "", "toString", "__proto__", "Int8", null, undefined, 8]) {
      assert.equal(isDType(name), false, String(name));
      assert.equal(isNumericDType(name), false, String(name));
    }
  });

  it("are told from typed arrays", () => {
    for (const dtype of DTYPES) {
      const told = dtypeOfArray(newArray(dtype, 1));
      const raw = dtype === "bool" || dtype.startsWith("float8")
        ? "uint8"
        : dtype === "bfloat16"
        ? "uint16"
        : dtype;
      assert.equal(told, raw);
    }
    assert.equal(dtypeOfArray(Buffer.from("a")), "uint8");
    assert.equal(dtypeOfArray(new Uint8ClampedArray(1)), undefined);
    assert.equal(dtypeOfArray(new DataView(new ArrayBuffer(1))), undefined);
  });
});

describe("bytesOf", () => {
  it("views the same memory", () => {
    const array = Uint16Array.of(1, 2, 3).subarray(1);
    const bytes = bytesOf(array);
    bytes[0] = 9;
    assert.deepEqual([array[0], bytes.length], [9, 4]);
  });
});
