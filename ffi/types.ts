/**
 * The neutral notation in which native symbols are declared, and what a runtime's binding must offer.
 *
 * A library is described once, as data: name → argument types, result type, its C prototype. `native.ts` binds that
 * table with whatever FFI the runtime has. Addresses are `bigint` on our side of the line, in both runtimes.
 *
 * @module
 */

/**
 * A C type as this house writes it.
 *
 * `pointer` is an address (bigint, `0n` is NULL) both as argument and as result. `buffer` is an argument only: a view
 * whose memory C uses for the duration of the call and not longer (`null` is NULL); for memory that C keeps, allocate
 * with `new ArrayBuffer(n)` first and pass its address.
 */
export type CType =
  | "void"
  | "bool"
  | "i8"
  | "u8"
  | "i16"
  | "u16"
  | "i32"
  | "u32"
  | "i64"
  | "u64"
  | "isize"
  | "usize"
  | "f32"
  | "f64"
  | "pointer"
  | "buffer";

/** One C function. `blocking` ones are called off the event loop, return a promise, and take no `buffer`. */
export interface CFunction {
  readonly args: readonly CType[];
  readonly result: Exclude<CType, "buffer">;
  readonly blocking?: boolean;
  /** The C prototype, for the reader. */
  readonly c?: string;
  /** The exported name, where it is not the table's key. */
  readonly symbol?: string;
}

/** A library's functions by name. */
export type SymbolTable = Readonly<Record<string, CFunction>>;

/** Anything that may be passed as a `buffer`. */
export type BufferArgument = ArrayBufferView<ArrayBufferLike> | null;

type ArgumentOf<T extends CType> = T extends "buffer" ? BufferArgument
  : T extends "bool" ? boolean
  : T extends "i64" | "u64" | "isize" | "usize" | "pointer" ? bigint
  : number;

type ResultOf<T extends CType> = T extends "void" ? undefined
  : T extends "bool" ? boolean
  : T extends "i64" | "u64" | "isize" | "usize" | "pointer" ? bigint
  : number;

type ArgumentsOf<T extends readonly CType[]> = { -readonly [K in keyof T]: ArgumentOf<T[K]> };

/** A function as it is called. */
export type BoundFunction<F extends CFunction> = F extends { readonly blocking: true }
  ? (...args: ArgumentsOf<F["args"]>) => Promise<ResultOf<F["result"]>>
  : (...args: ArgumentsOf<F["args"]>) => ResultOf<F["result"]>;

/** The callable form of a table. */
export type Bound<T extends SymbolTable> = { readonly [K in keyof T]: BoundFunction<T[K]> };

/** An open library. Calling a symbol after `close()` throws. */
export interface Library<T extends SymbolTable> extends Disposable {
  readonly path: string;
  readonly symbols: Bound<T>;
  close(): void;
}

/** What `deno.ts` and `bun.ts` each implement. */
export interface NativeRuntime {
  readonly name: "deno" | "bun";
  open<const T extends SymbolTable>(path: string, table: T): Library<T>;
  /** The function at an address, called on the event loop; it is up to the caller that it is there and stays. */
  bind<const F extends CFunction>(address: bigint, declared: F): BoundFunction<F>;
  /** An ArrayBuffer over `bytes` bytes at `address`, without a copy; `detach` it before that memory goes away. */
  view(address: bigint, bytes: number): ArrayBuffer;
  /** The address of a view's first byte. The view must have been made over an `ArrayBuffer` that already existed. */
  addressOf(view: ArrayBufferView<ArrayBufferLike>): bigint;
}
