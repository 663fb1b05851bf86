/**
 * Counts the memory that is asked for: by buffers, typed arrays and arrays made by length.
 *
 * Only what JavaScript's own constructors are asked for is seen, which is what a length in a damaged input can make
 * large.
 *
 * @module
 */

let asked = 0;
let limit = Infinity;

/** Thrown instead of an allocation beyond the limit. */
export class TooMuch extends Error {
  constructor(bytes: number) {
    super(`${bytes} bytes were asked for, which makes ${asked} against a limit of ${limit}`);
  }
}

function count(bytes: number): void {
  if (!(bytes > 0)) return;
  asked += bytes;
  if (asked > limit) throw new TooMuch(bytes);
}

function wrap<T extends object>(original: T, size: (args: readonly unknown[]) => number): T {
  const proxy: T = new Proxy(original, {
    construct(target, args, newTarget) {
      count(size(args));
      return Reflect.construct(
        target as unknown as new (...args: unknown[]) => object,
        args,
        newTarget === proxy ? target as unknown as new (...args: unknown[]) => object : newTarget,
      );
    },
  });
  return proxy;
}

const scope = globalThis as unknown as Record<string, { readonly BYTES_PER_ELEMENT: number }>;
const CLASSES = [
  "Int8Array",
  "Uint8Array",
  "Int16Array",
  "Uint16Array",
  "Int32Array",
  "Uint32Array",
  "BigInt64Array",
  "BigUint64Array",
  "Float16Array",
  "Float32Array",
  "Float64Array",
];

/** The length of what a typed array is made from; 0 where it is a view. */
function lengthOf(source: unknown): number {
  if (typeof source === "number") return source;
  if (source instanceof ArrayBuffer || typeof source !== "object" || source === null) return 0;
  const { length } = source as { length?: unknown };
  return typeof length === "number" ? length : 0;
}

interface TypedArrayPrototype {
  slice(this: Uint8Array, start?: number, end?: number): Uint8Array;
}

const prototype = Object.getPrototypeOf(Uint8Array.prototype) as TypedArrayPrototype;
const { slice } = prototype;
const from = Array.from;

/** Changes the constructors of this process; gives what undoes it. */
export function installMeter(): Disposable {
  const originals = new Map(["ArrayBuffer", ...CLASSES].map((name) => [name, scope[name]!]));
  for (const [name, original] of originals) {
    scope[name] = name === "ArrayBuffer"
      ? wrap(original, ([bytes]) => typeof bytes === "number" ? bytes : 0)
      : wrap(original, ([source]) => lengthOf(source) * original.BYTES_PER_ELEMENT);
  }
  prototype.slice = function (start, end) {
    const part = slice.call(this, start, end);
    count(part.byteLength);
    return part;
  };
  Array.from = function (this: unknown, source: ArrayLike<unknown>, ...rest: readonly unknown[]) {
    count(8 * lengthOf(source));
    return Reflect.apply(from, Array, [source, ...rest]);
  } as typeof Array.from;
  return {
    [Symbol.dispose]: () => {
      for (const [name, original] of originals) scope[name] = original;
      prototype.slice = slice;
      Array.from = from;
    },
  };
}

/** Starts counting anew; asking for more than `bytes` throws `TooMuch` from now on. */
export function startMeter(bytes: number): void {
  asked = 0;
  limit = bytes;
}

/** Stops counting; gives what was asked for. */
export function stopMeter(): number {
  limit = Infinity;
  return asked;
}
