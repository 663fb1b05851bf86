/**
 * Files as the commands read and write them: inputs by position, outputs whole or not at all.
 *
 * @module
 */

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { type FileHandle, open, rename, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { MAX_PAYLOAD_BYTES } from "../batch/tensor.ts";
import { CapacityError, ConfigError, CorruptionError, NotFoundError, SchemaError } from "../errors.ts";

/** One read or write call moves at most this much; the kernel ends a call at 2 GiB. */
const PIECE_BYTES = 64 * 2 ** 20;

/** A typed error for a file that cannot be opened, read or written. */
export function fileError(cause: unknown, action: string, path: string): Error {
  const code = (cause as { code?: unknown } | null)?.code;
  switch (code) {
    case "ENOENT":
      return new NotFoundError(`cannot ${action} ${path}: there is no such file or folder`, { cause });
    case "ENOSPC":
    case "EDQUOT":
    case "EFBIG":
      return new CapacityError(`cannot ${action} ${path}: no room (${code})`, { cause });
    default:
      return typeof code === "string"
        ? new ConfigError(`cannot ${action} ${path}: ${code}`, { cause })
        : cause instanceof Error
        ? cause
        : new Error(String(cause));
  }
}

/** An open regular file, read by position. */
export class InputFile implements Disposable {
  readonly path: string;
  readonly size: number;
  readonly #descriptor: number;

  /**
   * Opens `path`.
   *
   * @throws {NotFoundError} if there is no such file; {ConfigError} if it is no regular file or cannot be read
   */
  constructor(path: string) {
    this.path = path;
    try {
      this.#descriptor = openSync(path, "r");
    } catch (error) {
      throw fileError(error, "read", path);
    }
    const status = fstatSync(this.#descriptor);
    this.size = status.size;
    if (!status.isFile()) {
      closeSync(this.#descriptor);
      throw new ConfigError(`cannot read ${path}: it is not a regular file`);
    }
  }

  /**
   * The `length` bytes at `offset`, in a buffer of their own (so aligned for any element type).
   *
   * @throws {CorruptionError} if the file ends before that
   */
  read(offset: number, length: number): Uint8Array<ArrayBuffer> {
    // Checked before anything is allocated: lengths come out of the file itself.
    if (offset + length > this.size) this.#short(offset, length);
    if (length > MAX_PAYLOAD_BYTES) {
      throw new SchemaError(
        `${this.path}: ${length} bytes at offset ${offset} are more than one payload may have`,
        {
          expected: `at most ${MAX_PAYLOAD_BYTES} bytes`,
          actual: length,
          hint: "split the rows over several files",
        },
      );
    }
    const into = new Uint8Array(new ArrayBuffer(length));
    let done = 0;
    while (done < length) {
      let count: number;
      try {
        count = readSync(this.#descriptor, into, done, Math.min(PIECE_BYTES, length - done), offset + done);
      } catch (error) {
        throw fileError(error, "read", this.path);
      }
      if (count === 0) this.#short(offset + done, length - done);
      done += count;
    }
    return into;
  }

  #short(offset: number, length: number): never {
    throw new CorruptionError(
      `${this.path}: the file ends where ${length} bytes should be at offset ${offset}`,
      {
        expected: offset + length,
        actual: this.size,
      },
    );
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }
}

/** A file being written: under a temporary name beside it until `commit`. */
export class OutputFile {
  readonly path: string;
  readonly #temporary: string;
  readonly #handle: FileHandle;
  #bytes = 0;

  private constructor(path: string, temporary: string, handle: FileHandle) {
    this.path = path;
    this.#temporary = temporary;
    this.#handle = handle;
  }

  /** Creates the temporary file. */
  static async create(path: string): Promise<OutputFile> {
    const random = Math.trunc(Math.random() * 2 ** 48).toString(36);
    const temporary = join(dirname(path), `.${basename(path)}.${process.pid}-${random}.tmp`);
    try {
      return new OutputFile(path, temporary, await open(temporary, "wx", 0o666));
    } catch (error) {
      throw fileError(error, "write", path);
    }
  }

  /** Bytes written so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Appends `bytes`. */
  async write(bytes: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < bytes.byteLength;) {
        const length = Math.min(PIECE_BYTES, bytes.byteLength - done);
        const { bytesWritten } = await this.#handle.write(bytes, done, length);
        done += bytesWritten;
      }
    } catch (error) {
      throw fileError(error, "write", this.path);
    }
    this.#bytes += bytes.byteLength;
  }

  /** Gives the file its name, in place of what had it before. */
  async commit(): Promise<void> {
    try {
      await this.#handle.close();
      await rename(this.#temporary, this.path);
    } catch (error) {
      throw fileError(error, "write", this.path);
    }
  }

  /** Removes the temporary file; never throws. */
  async abort(): Promise<void> {
    await this.#handle.close().catch(() => {});
    await unlink(this.#temporary).catch(() => {});
  }
}

/**
 * Writes a file by `fill`: all of it under its name, or nothing.
 *
 * @returns the bytes written
 */
export async function writeWhole(path: string, fill: (file: OutputFile) => Promise<void>): Promise<number> {
  const file = await OutputFile.create(path);
  // A signal would leave the temporary file behind.
  const stop = (signal: NodeJS.Signals): void => {
    file.abort().finally(() => process.exit(signal === "SIGINT" ? 130 : 143));
  };
  process.once("SIGINT", stop);
  process.once("SIGTERM", stop);
  try {
    await fill(file);
    await file.commit();
    return file.bytes;
  } catch (error) {
    await file.abort();
    throw error;
  } finally {
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
  }
}
