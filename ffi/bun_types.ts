/**
 * The part of `bun:ffi` in use, and the translation of a declaration into its notation.
 *
 * @module
 */

import type { CFunction, CType } from "./types.ts";

/** How `bun:ffi` wants a function described. */
export interface BunFunction {
  readonly args: readonly string[];
  readonly returns: string;
}

/** The part of the module that is used here. */
export interface BunFfi {
  dlopen(path: string, functions: Record<string, BunFunction>): {
    readonly symbols: Record<string, (...args: unknown[]) => unknown>;
  };
  CFunction(declared: BunFunction & { readonly ptr: number }): unknown;
  ptr(view: ArrayBufferView<ArrayBufferLike>): number;
  toArrayBuffer(address: number, offset: number, bytes: number): ArrayBuffer;
}

function bunType(type: CType): string {
  switch (type) {
    case "pointer":
    case "usize":
      return "u64";
    case "isize":
      return "i64";
    case "buffer":
      return "ptr";
    default:
      return type;
  }
}

/** The declaration of one function as `bun:ffi` wants it. */
export function bunFunction(declared: CFunction): BunFunction {
  return { args: declared.args.map(bunType), returns: bunType(declared.result) };
}
