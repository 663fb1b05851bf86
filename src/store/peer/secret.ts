/**
 * Who may read: both ends of a connection prove that they have the same secret, without telling it.
 *
 * @module
 */

import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { linkSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ConfigError } from "../../errors.ts";
import { runtimeFolder } from "../runtime_folder.ts";

/** Fewer bytes can be guessed. */
const FEWEST_BYTES = 16;

/**
 * The secret of a file; without one that of this user's runtime folder, made where it is missing.
 *
 * @throws ConfigError where the file cannot be read, others can read it, or it is too short
 */
export function readSecret(file: string | undefined): Uint8Array {
  const path = file ?? ownSecret();
  let bytes: Uint8Array;
  try {
    const { mode } = statSync(path);
    if ((mode & 0o077) !== 0) {
      throw new ConfigError(`the secret file ${path} can be read by others`, {
        expected: "mode 0600",
        actual: `0${(mode & 0o777).toString(8)}`,
        hint: `chmod 600 ${path}`,
      });
    }
    bytes = trimmed(readFileSync(path));
  } catch (cause) {
    if (cause instanceof ConfigError) throw cause;
    throw new ConfigError(`the secret file ${path} cannot be read: ${(cause as Error).message}`, { cause });
  }
  if (bytes.byteLength >= FEWEST_BYTES) return bytes;
  throw new ConfigError(`the secret in ${path} is too short`, {
    expected: `${FEWEST_BYTES} bytes or more`,
    actual: bytes.byteLength,
    hint: `openssl rand -hex 32 > ${path}`,
  });
}

/** Without white space at its end, which editors and shells add; everything else counts, text or not. */
function trimmed(bytes: Uint8Array): Uint8Array {
  const isBlank = (byte: number | undefined): boolean =>
    byte === 10 || byte === 13 || byte === 32 || byte === 9;
  let end = bytes.byteLength;
  while (end > 0 && isBlank(bytes[end - 1])) end--;
  return bytes.slice(0, end);
}

function ownSecret(): string {
  const path = join(runtimeFolder(), "peer-secret");
  const made = `${path}-${randomBytes(8).toString("hex")}`;
  try {
    statSync(path);
    return path;
  } catch {
    // made below
  }
  writeFileSync(made, randomBytes(32).toString("hex"), { mode: 0o600, flag: "wx" });
  try {
    linkSync(made, path); // whole or not at all; another process may have been first
  } catch (error) {
    if ((error as { code?: string }).code !== "EEXIST") throw error;
  } finally {
    rmSync(made, { force: true });
  }
  return path;
}

/** A number used once. */
export function newNonce(): string {
  return randomBytes(16).toString("hex");
}

/** What `side` shows to prove that it has the secret. */
export function proof(secret: Uint8Array, side: "reader" | "writer", nonces: readonly string[]): string {
  return createHmac("sha256", secret).update(JSON.stringify(["batchferry-peer-1", side, ...nonces])).digest(
    "hex",
  );
}

/** Compares a proof in a time that tells nothing. */
export function isProof(expected: string, actual: unknown): boolean {
  if (typeof actual !== "string" || actual.length !== expected.length) return false;
  const [a, b] = [expected, actual].map((text) => new TextEncoder().encode(text));
  return a!.byteLength === b!.byteLength && timingSafeEqual(a!, b!);
}
