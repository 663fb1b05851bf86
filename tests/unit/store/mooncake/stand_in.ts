/**
 * A Mooncake client in memory that answers with the codes it is told to, for tests of the store above it.
 *
 * @module
 */

import type { MooncakeClient, StagedObject, Staging } from "../../../../src/store/mooncake/client.ts";

/** See the module. */
export class StandIn implements MooncakeClient {
  readonly hostname = "stand-in:1";
  readonly transport = { asked: "tcp", effective: "tcp" } as const;
  readonly poolBytes: number = 1 << 20;
  readonly objects: Map<string, Uint8Array> = new Map();
  /** Codes to answer next with, by call and key. */
  readonly answers: Map<string, number[]> = new Map();
  /** Every call: its name and its keys. */
  readonly calls: string[] = [];
  held = 0;
  closed = false;

  /** Answers the next calls of `name` for `key` with these codes. */
  next(name: "put" | "get" | "size" | "remove" | "regex", key: string, ...codes: number[]): void {
    this.answers.set(`${name} ${key}`, codes);
  }

  #code(name: string, key: string): number | undefined {
    return this.answers.get(`${name} ${key}`)?.shift();
  }

  reserve(bytes: number): Promise<Staging> {
    this.held++;
    let released = false;
    return Promise.resolve({
      bytes: new Uint8Array(new ArrayBuffer(bytes)),
      release: () => {
        if (!released) this.held--;
        released = true;
      },
    });
  }

  put(staging: Staging, objects: readonly StagedObject[]): Promise<number[]> {
    this.calls.push(`put ${objects.map(({ key }) => key)}`);
    return Promise.resolve(objects.map(({ key, offset, bytes }) => {
      const code = this.#code("put", key);
      if (code !== undefined) return code;
      if (!this.objects.has(key)) this.objects.set(key, staging.bytes.slice(offset, offset + bytes));
      return 0;
    }));
  }

  get(staging: Staging, objects: readonly StagedObject[]): Promise<number[]> {
    this.calls.push(`get ${objects.map(({ key }) => key)}`);
    return Promise.resolve(objects.map(({ key, offset, bytes }) => {
      const code = this.#code("get", key);
      if (code !== undefined) return code;
      const value = this.objects.get(key);
      if (value === undefined) return -704;
      if (value.byteLength > bytes) return -600;
      staging.bytes.set(value, offset);
      return value.byteLength;
    }));
  }

  size(key: string): Promise<number> {
    this.calls.push(`size ${key}`);
    return Promise.resolve(this.#code("size", key) ?? this.objects.get(key)?.byteLength ?? -704);
  }

  remove(keys: readonly string[]): Promise<number[]> {
    this.calls.push(`remove ${keys}`);
    return Promise.resolve(
      keys.map((key) => this.#code("remove", key) ?? (this.objects.delete(key) ? 0 : -704)),
    );
  }

  removeByRegex(pattern: string): Promise<number> {
    this.calls.push(`regex ${pattern}`);
    const code = this.#code("regex", pattern);
    if (code !== undefined) return Promise.resolve(code);
    const matching = [...this.objects.keys()].filter((key) => new RegExp(pattern).test(key));
    for (const key of matching) this.objects.delete(key);
    return Promise.resolve(matching.length);
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}
