/** A pipe whose reader blocks inside C until the test writes: blocking calls without waiting for time to pass. */

import { type Library, native } from "../../../ffi/native.ts";

const TABLE = {
  pipe: { args: ["buffer"], result: "i32", c: "int pipe(int fds[2])" },
  close: { args: ["i32"], result: "i32", c: "int close(int fd)" },
  write: {
    args: ["i32", "buffer", "usize"],
    result: "isize",
    c: "ssize_t write(int fd, const void *p, size_t n)",
  },
  read: {
    args: ["i32", "pointer", "usize"],
    result: "isize",
    blocking: true,
    c: "ssize_t read(int fd, void *p, size_t n)",
  },
  labs: { args: ["i64"], result: "i64", blocking: true, c: "long labs(long)" },
} as const;

const plain = native.open("libc.so.6", TABLE).symbols;

export class BlockingPipe {
  readonly library: Library<typeof TABLE> = native.open("libc.so.6", TABLE);
  readonly #ends = new Int32Array(2);
  readonly #kept: Uint8Array[] = [];

  constructor() {
    if (plain.pipe(this.#ends) !== 0) throw new Error("no pipe");
  }

  /** Reads one byte; pending until `write`. */
  read(): Promise<bigint> {
    return this.readInto(new Uint8Array(new ArrayBuffer(1)));
  }

  /** Reads one byte to the front of `into`. */
  readInto(into: Uint8Array): Promise<bigint> {
    this.#kept.push(into);
    return this.library.symbols.read(this.#ends[0]!, native.addressOf(into), 1n);
  }

  /** Lets `count` readers go on. */
  write(count: number): void {
    plain.write(this.#ends[1]!, new Uint8Array(count).fill(1), BigInt(count));
  }

  readonly labs = (value: bigint): Promise<bigint> => this.library.symbols.labs(value);

  close(): void {
    for (const end of this.#ends) plain.close(end);
    this.#kept.length = 0;
  }
}
