/**
 * Tensors: a dtype, a shape whose first dimension counts rows, and row-major little-endian bytes.
 *
 * @module
 */

import { ClosedError, SchemaError } from "../errors.ts";
import type { Guard } from "./column.ts";
import { arrayOver, type DType, dtypeText, isDType, itemSize, type TypedArray } from "./dtype.ts";
import { decodeBFloat16, decodeFloat8 } from "./narrow.ts";

/** The most dimensions a tensor may have. */
export const MAX_DIMENSIONS = 8;
/** The most bytes one payload may have; a Bun ArrayBuffer ends there. */
export const MAX_PAYLOAD_BYTES: number = 2 ** 32;

/** Numbers in nested arrays, one level for each dimension. */
export type NestedNumbers = number | bigint | boolean | NestedNumbers[];

/**
 * A dense array of numbers. `tensor()` makes one from numbers or a typed array; the constructor takes bytes.
 *
 * @example
 * ```ts
 * const scores = new Tensor("float32", [2, 3], new Uint8Array(24));
 * scores.data; // Float32Array of 6
 * ```
 */
export class Tensor {
  /** The kind of column a tensor is. */
  readonly kind = "tensor" as const;
  /** The first dimension. */
  readonly rows: number;
  /** A tensor has no null rows. */
  readonly nulls = null;
  /** Set on tensors over borrowed memory, which throw ClosedError once it is released. */
  readonly guard?: Guard | undefined;
  /** The element type. */
  readonly dtype: DType;
  /** One to eight dimensions, rows first. */
  readonly shape: readonly number[];
  readonly #bytes: Uint8Array;
  #data: TypedArray | null = null;

  /**
   * @param dtype the element type
   * @param shape one to eight dimensions, rows first; any may be 0
   * @param bytes the elements, row-major and little-endian; kept, not copied
   * @param guard says when the memory behind `bytes` is gone
   * @throws {SchemaError} where the shape is none or needs another number of bytes
   */
  constructor(dtype: DType, shape: readonly number[], bytes: Uint8Array, guard?: Guard) {
    const size = checkShape(dtype, shape) * itemSize(dtype);
    if (bytes.byteLength !== size) {
      throw new SchemaError(
        `a ${dtype} tensor of shape [${shape}] has ${size} bytes, not ${bytes.byteLength}`,
        {
          expected: size,
          actual: bytes.byteLength,
        },
      );
    }
    this.dtype = dtype;
    this.shape = Object.freeze([...shape]);
    this.rows = shape[0]!;
    this.guard = guard;
    this.#bytes = bytes;
  }

  /**
   * The elements as bytes: the tensor's own memory, no copy.
   *
   * @throws {ClosedError} once borrowed memory is released
   */
  get bytes(): Uint8Array {
    assertHeld(this.guard);
    return this.#bytes;
  }

  /**
   * The elements as the typed array of the dtype: raw bits for bfloat16 (Uint16Array) and float8 (Uint8Array), bytes
   * of 0 and 1 for bool. It is the tensor's own memory where that is aligned, else a copy made once.
   *
   * @throws {ClosedError} once borrowed memory is released
   */
  get data(): TypedArray {
    assertHeld(this.guard);
    return this.#data ??= arrayOver(this.dtype, this.#bytes);
  }

  /**
   * All elements in one array. Integers of 64 bits are numbers where that is exact, else bigints; bool is 0 and 1;
   * bfloat16 and float8 are decoded.
   *
   * @throws {ClosedError} once borrowed memory is released
   */
  toNumbers(): (number | bigint)[] {
    const values = this.#values();
    if (!(values instanceof BigInt64Array || values instanceof BigUint64Array)) return Array.from(values);
    return Array.from(values, safeNumber);
  }

  /**
   * The elements in nested arrays, one level for each dimension. As `toNumbers`, but bool is true and false.
   *
   * @throws {ClosedError} once borrowed memory is released
   */
  toNested(): NestedNumbers[] {
    const flat: NestedNumbers[] = this.toNumbers();
    return nest(this.dtype === "bool" ? flat.map(Boolean) : flat, this.shape) as NestedNumbers[];
  }

  /**
   * All elements as float32, a new array: exact for float16, bfloat16, float8 and integers up to 2^24.
   *
   * @throws {ClosedError} once borrowed memory is released
   */
  toFloat32(): Float32Array {
    const values = this.#values();
    if (values instanceof BigInt64Array || values instanceof BigUint64Array) {
      return Float32Array.from(values, Number);
    }
    return new Float32Array(values);
  }

  /** The elements with bfloat16 and float8 decoded. */
  #values(): TypedArray {
    const data = this.data;
    if (this.dtype === "bfloat16") return decodeBFloat16(data as Uint16Array);
    if (this.dtype === "float8_e4m3fn" || this.dtype === "float8_e5m2") {
      return decodeFloat8(this.dtype, data as Uint8Array);
    }
    return data;
  }
}

/**
 * Checks a dtype and a shape.
 *
 * @returns the number of elements
 * @throws {SchemaError} where there is no such tensor
 */
export function checkShape(dtype: DType, shape: readonly number[]): number {
  if (!isDType(dtype)) throw new SchemaError(`there is no dtype ${dtypeText(dtype)}`, { actual: dtype });
  if (!Array.isArray(shape) || shape.length < 1 || shape.length > MAX_DIMENSIONS) {
    throw new SchemaError(`a tensor has 1 to ${MAX_DIMENSIONS} dimensions`, {
      expected: `1 to ${MAX_DIMENSIONS} dimensions, rows first`,
      actual: shape,
    });
  }
  let elements = 1;
  for (const dimension of shape as readonly unknown[]) {
    if (typeof dimension !== "number" || !Number.isSafeInteger(dimension) || dimension < 0) {
      throw new SchemaError(`a dimension of [${shape}] is no whole number`, { actual: dimension });
    }
    elements *= dimension;
  }
  if (!(elements * itemSize(dtype) <= MAX_PAYLOAD_BYTES)) {
    throw new SchemaError(`a ${dtype} tensor of shape [${shape}] has more than 4 GiB`, {
      expected: `at most ${MAX_PAYLOAD_BYTES} bytes`,
      actual: elements * itemSize(dtype),
      hint: "put it in several columns or several batches",
    });
  }
  return elements;
}

/**
 * Throws once the memory behind a borrowed column is released.
 *
 * @throws {ClosedError}
 */
export function assertHeld(guard: Guard | undefined): void {
  if (guard !== undefined && guard.released) {
    throw new ClosedError("a borrowed column was used after its lease was released", {
      hint: "copy what outlives the lease, or read it with materialize",
    });
  }
}

/** A 64-bit integer as a number where that is exact, else as it is. */
export function safeNumber(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** Flat elements in nested arrays; for no dimensions the one element. */
export function nest(flat: readonly NestedNumbers[], shape: readonly number[]): NestedNumbers {
  if (shape.length === 0) return flat[0]!;
  if (shape.length === 1) return flat as NestedNumbers[];
  let position = 0;
  const build = (dimension: number): NestedNumbers => {
    const count = shape[dimension]!;
    if (dimension === shape.length - 1) return flat.slice(position, position += count);
    return Array.from({ length: count }, () => build(dimension + 1));
  };
  return build(0);
}
