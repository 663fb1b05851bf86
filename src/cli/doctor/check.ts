/**
 * What a check says, and where it looks.
 *
 * @module
 */

import { readdirSync, readFileSync, statfsSync } from "node:fs";

/** `absent` is not there and not needed. */
export type State = "ok" | "warning" | "problem" | "absent";

/** One line of the report. */
export interface Check {
  readonly name: string;
  readonly state: State;
  /** What is there, or what is wrong. */
  readonly says: string;
  /** The command or setting that mends it. */
  readonly fix?: string | undefined;
  /** Lines below, for people. */
  readonly more?: readonly string[];
  /** The same as data. */
  readonly facts: Readonly<Record<string, unknown>>;
}

/** Room in a file system. */
export interface Space {
  readonly bytes: number;
  readonly free: number;
  /** Its kind, as `statfs` has it. */
  readonly type: number;
}

/** Where a host tells about itself; tests give made-up trees. */
export interface Host {
  /** `/sys` */
  readonly sys: string;
  /** `/proc` */
  readonly proc: string;
  /** `/dev` */
  readonly dev: string;
  readonly environment: (name: string) => string | undefined;
  /** Undefined where the folder is not there. */
  readonly space: (folder: string) => Space | undefined;
}

/** The room of the file system that a folder is in, or undefined where there is none. */
export function spaceOf(folder: string): Space | undefined {
  try {
    const { bsize, blocks, bavail, type } = statfsSync(folder);
    return { bytes: bsize * blocks, free: bsize * bavail, type };
  } catch {
    return undefined;
  }
}

/** The names in a folder, sorted; numbers by their value. None where it cannot be read. */
export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort((a, b) => Number(a) - Number(b) || (a < b ? -1 : 1));
  } catch {
    return [];
  }
}

/** The text of a file without blanks at its ends; empty where it cannot be read. */
export function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return "";
  }
}

/** A number for JSON, which has no infinity: null means no limit. */
export function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}
