/**
 * A bundle somewhere in a store, known by its manifest key; what it holds is read when it is first needed.
 *
 * @module
 */

import type { BundleInfo } from "../bundle/bundle.ts";
import type { EncodedFields, EncodedNonTensor } from "../bundle/encoded.ts";
import type { Section } from "../bundle/fields.ts";

/** What a handle says about a field before anything was read. */
export interface FieldHint {
  readonly member: string;
  readonly section: Section;
}

/** What a handle says about a bundle before anything was read. */
export interface BundleHint {
  readonly partition: string;
  readonly namespace: string;
  readonly stage: string;
  readonly rows: number;
  /** The fields the handle names; a bundle may hold more. */
  readonly fields?: ReadonlyMap<string, FieldHint> | undefined;
  /** How the handle says that non-tensor fields are encoded; needed for bundles that Python made. */
  readonly encoded?: EncodedFields | undefined;
  readonly storageGroupId?: string | undefined;
  readonly manifestBytes?: number | undefined;
}

/** One bundle; every view, piece and handle in a process shares the same object for the same manifest key. */
export class StoredBundle {
  readonly manifestKey: string;
  readonly partition: string;
  readonly namespace: string;
  readonly stage: string;
  readonly rows: number;
  readonly storageGroupId: string | undefined;
  /** The encodings a handle gave; merged when a second handle names further fields. */
  encoded: EncodedFields | undefined;
  fields: ReadonlyMap<string, FieldHint> | undefined;
  manifestBytes: number | undefined;
  /** What it holds, once read. */
  info: BundleInfo | undefined;
  /** A read under way, so that many callers cause one. */
  loading: Promise<BundleInfo> | undefined;
  #fieldNames: readonly string[] | undefined;
  /** Deleted through this process; reading it fails without asking the store. */
  dropped = false;

  constructor(manifestKey: string, hint: BundleHint) {
    this.manifestKey = manifestKey;
    this.partition = hint.partition;
    this.namespace = hint.namespace;
    this.stage = hint.stage;
    this.rows = hint.rows;
    this.encoded = hint.encoded;
    this.fields = hint.fields;
    this.storageGroupId = hint.storageGroupId;
    this.manifestBytes = hint.manifestBytes;
  }

  /** Takes over what another handle knows about the same bundle. */
  learn(hint: BundleHint): void {
    this.manifestBytes ??= hint.manifestBytes;
    if (hint.fields !== undefined) this.fields = new Map([...(this.fields ?? []), ...hint.fields]);
    if (hint.encoded !== undefined) {
      const more = [...hint.encoded.keys()].some((field) => this.encoded?.has(field) !== true);
      this.encoded = new Map([...(this.encoded ?? []), ...hint.encoded]);
      // what was parsed without these encodings knows less than the handle does
      if (more) this.info = this.#fieldNames = undefined;
    }
  }

  /** How a field is encoded, where anything said it. */
  encodingOf(field: string): EncodedNonTensor | undefined {
    return this.encoded?.get(field) ?? this.info?.encoded.get(field);
  }

  /** The names of its fields, once it was read or written. */
  get fieldNames(): readonly string[] {
    return this.#fieldNames ??= [...(this.info?.fields.keys() ?? [])];
  }

  set fieldNames(names: readonly string[]) {
    this.#fieldNames = names;
  }

  /** Where its fields are, where anything said it. */
  get fieldHints(): ReadonlyMap<string, FieldHint> | undefined {
    return this.info === undefined ? this.fields : fieldHints(this.info);
  }
}

function fieldHints(info: BundleInfo): ReadonlyMap<string, FieldHint> {
  return new Map(
    [...info.fields].map(([name, { section }]) => [name, { member: `${section}.${name}`, section }]),
  );
}

/** What an opened bundle says, in the form of a hint. */
export function hintOf({ partition, namespace, stage, rows }: BundleInfo): BundleHint {
  return { partition, namespace, stage, rows };
}
