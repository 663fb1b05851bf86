/**
 * Base64 as JSONL files carry bytes.
 *
 * @module
 */

/** The runtimes have these; the type libraries of TypeScript come later. */
interface Base64Bytes {
  fromBase64(text: string, options: { lastChunkHandling: "strict" }): Uint8Array<ArrayBuffer>;
}

/** The bytes of padded base64 without space in it, or undefined where `text` is none. */
export function fromBase64(text: string): Uint8Array | undefined {
  // The one form that writing gives again; fromBase64 alone would let space pass.
  if (text.length % 4 !== 0 || /\s/.test(text)) return undefined;
  try {
    return (Uint8Array as unknown as Base64Bytes).fromBase64(text, { lastChunkHandling: "strict" });
  } catch {
    return undefined;
  }
}

/** Bytes as padded base64. */
export function toBase64(bytes: Uint8Array): string {
  return (bytes as unknown as { toBase64(): string }).toBase64();
}
