/**
 * Scopes: a partition that lives as long as a block of code.
 *
 * @module
 */

import { type Fields, toColumns } from "../batch/batch.ts";
import type { DeadlineOptions } from "../deadline.ts";
import type { ColumnRemoteBatch, RemoteBatch } from "../remote/remote_batch.ts";
import type { PutOptions, TransferBackend } from "./backend.ts";

/** What {@linkcode TransferScope.put} takes besides columns. */
export interface ScopePutOptions extends PutOptions {
  /** One id a row; generated where left out. */
  readonly rowIds?: readonly string[] | undefined;
}

/** A partition owned by one process. Others just put into it. Closing drops all of it. */
export class TransferScope implements AsyncDisposable {
  readonly #transfer: TransferBackend;
  /** The partition's name. */
  readonly partition: string;
  #closing: Promise<number> | undefined;

  /** @ignore use TransferBackend.scope */
  constructor(transfer: TransferBackend, partition: string) {
    this.#transfer = transfer;
    this.partition = partition;
  }

  /** Puts a batch; the rows are counted from its columns. */
  async put(fields: Fields, options: ScopePutOptions = {}): Promise<ColumnRemoteBatch> {
    const { rowIds, ...rest } = options;
    const columns = toColumns(fields, rowIds?.length);
    const [first] = columns.values();
    const rows = first?.rows ?? rowIds?.length ?? 0;
    return await this.#transfer.put(this.partition, rowIds ?? null, fields, rows, rest);
  }

  /** Puts the handle of a batch under a name of the partition; {@linkcode TransferBackend.lookup} finds it. */
  async publish(name: string, batch: RemoteBatch, options: DeadlineOptions = {}): Promise<void> {
    await this.#transfer.publish(this.partition, name, batch, options);
  }

  /** Drops the partition. Calling it again is fine; after a failure it tries again. */
  async close(): Promise<void> {
    this.#closing ??= this.#transfer.dropPartition(this.partition);
    try {
      await this.#closing;
    } catch (error) {
      this.#closing = undefined;
      throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
