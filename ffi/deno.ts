/**
 * The Deno side of `native.ts`: `Deno.dlopen` behind the neutral notation.
 *
 * @module
 */

import { checkTable, closable, openError } from "./closable.ts";
import type { BoundFunction, CFunction, CType, Library, NativeRuntime, SymbolTable } from "./types.ts";

// Addresses travel as u64: a bigint costs 6 ns there, Deno's own pointer object some hundreds.
function denoType(type: CType): Deno.NativeType | "void" {
  return type === "pointer" ? "u64" : type;
}

type AnyFunction = (...args: unknown[]) => unknown;

function open<const T extends SymbolTable>(path: string, table: T): Library<T> {
  checkTable(path, table);
  const foreign: Record<string, Deno.ForeignFunction> = {};
  for (const [name, declared] of Object.entries(table)) {
    foreign[name] = {
      name: declared.symbol ?? name,
      parameters: declared.args.map(denoType) as Deno.NativeType[],
      result: denoType(declared.result),
      nonblocking: declared.blocking === true,
    };
  }
  let bound: Record<string, unknown>;
  try {
    bound = { ...Deno.dlopen(path, foreign).symbols };
  } catch (cause) {
    throw openError(path, cause, /^Failed to register symbol/);
  }
  for (const [name, declared] of Object.entries(table)) {
    if (declared.blocking !== true) continue;
    const call = bound[name] as AnyFunction;
    // Deno throws a wrong argument instead of rejecting, and answers void with null
    bound[name] = async (...args: unknown[]) => (await call(...args)) ?? undefined;
  }
  return closable(path, table, bound);
}

function bind<const F extends CFunction>(address: bigint, declared: F): BoundFunction<F> {
  const pointer = Deno.UnsafePointer.create(address);
  if (pointer === null) throw new TypeError("there is no function at NULL");
  const definition: Deno.ForeignFunction = {
    parameters: declared.args.map(denoType) as Deno.NativeType[],
    result: denoType(declared.result),
  };
  const bound = new Deno.UnsafeFnPointer(pointer as Deno.PointerObject<typeof definition>, definition) as {
    call: AnyFunction;
  };
  return ((...args: unknown[]) => bound.call(...args)) as unknown as BoundFunction<F>;
}

function view(address: bigint, bytes: number): ArrayBuffer {
  if (bytes === 0) return new ArrayBuffer(0);
  const pointer = Deno.UnsafePointer.create(address);
  if (pointer === null) throw new TypeError(`cannot view ${bytes} bytes at NULL`);
  return Deno.UnsafePointerView.getArrayBuffer(pointer, bytes);
}

type AddressOf = (view: ArrayBufferView<ArrayBufferLike>) => bigint;

// memmove(view, _, 0) hands back its first argument: 28 ns, against 350 and more for UnsafePointer.value(of(view)).
function chooseAddressOf(): AddressOf {
  try {
    const { memmove } = Deno.dlopen("libc.so.6", {
      memmove: { parameters: ["buffer", "u64", "usize"], result: "u64" },
    }).symbols;
    return (view) => memmove(view as ArrayBufferView<ArrayBuffer>, 0n, 0n);
  } catch {
    return (view) =>
      view.byteLength === 0
        ? 0n
        : Deno.UnsafePointer.value(Deno.UnsafePointer.of(view as ArrayBufferView<ArrayBuffer>));
  }
}

/** Deno's binding. */
export const runtime: NativeRuntime = { name: "deno", open, bind, view, addressOf: chooseAddressOf() };

/** Nothing to do: Deno's thread stays with the call until C returns, and the other 31 go on. */
export function abandon(_call: Promise<unknown>): void {}
