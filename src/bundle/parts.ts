/**
 * Reading the parts of an encoded field for some of its rows.
 *
 * A codec says how its parts depend on rows; this module works out which bytes are needed, in as many rounds
 * as parts depend on one another: nulls and offsets first, then the data that the offsets point to.
 *
 * @module
 */

import { bytesOf } from "../batch/dtype.ts";
import { ByteGather } from "./byte_gather.ts";
import { readIntegers } from "./integers.ts";
import type { PartSource, StoredMember } from "./part_source.ts";
import { allocate, type PayloadRange, type Reading } from "./ranges.ts";
import { Spans } from "./spans.ts";

/** How a part depends on rows. */
export interface PartLayout {
  readonly part: string;
  /** Bytes of one element. */
  readonly width: number;
  /**
   * The offsets that say which elements belong to a row (or to an element of a further part); absent: one
   * element a row.
   */
  readonly of?: string | undefined;
  /** The part is offsets: one entry more than there are rows (or elements of `of`). */
  readonly offsets?: boolean | undefined;
}

/** The parts of some rows: elements back to back, offsets counted from 0. */
export interface Parts {
  bytes(part: string): Uint8Array;
  offsets(part: string): Uint32Array;
  /** Which elements of the whole field the offsets point to. */
  elements(part: string): Spans;
}

/** Bytes of a member that are there after `ranges` were read. */
interface Taken {
  readonly ranges: readonly PayloadRange[];
  bytes(): Uint8Array;
}

/** Takes elements of `width` bytes, and `extra` elements after each span. */
type Take = (member: StoredMember, width: number, spans: Spans, extra: 0 | 1) => Taken;

/** Reads the parts of the rows in `rows` from the store; the bytes are the reader's own. */
export function readParts(source: PartSource, layouts: readonly PartLayout[], rows: Spans): Reading<Parts> {
  return resolveParts(source, layouts, rows, gatherSpans);
}

/**
 * The parts of all rows, as views of whole payloads.
 *
 * @param payload Gives the payload of a member.
 */
export function wholeParts(
  source: PartSource,
  layouts: readonly PartLayout[],
  payload: (member: StoredMember) => Uint8Array,
): Parts {
  const take: Take = (member, width, spans, extra) => ({
    ranges: [],
    bytes: () => {
      const start = spans.starts[0] ?? 0;
      const length = spans.total === 0 ? 0 : spans.total + extra;
      return payload(member).subarray(start * width, (start + length) * width);
    },
  });
  // nothing has to be read, so there is no round
  return resolveParts(source, layouts, Spans.all(source.rows), take).next().value as Parts;
}

const gatherSpans: Take = (member, width, spans, extra) => {
  const { starts, ends } = spans;
  const bytes = allocate((spans.total + extra * starts.length) * width, member.name);
  const gather = new ByteGather(member.name, bytes);
  for (let i = 0, target = 0; i < starts.length; i++) {
    const length = (ends[i]! - starts[i]! + extra) * width;
    gather.add(starts[i]! * width, length, target);
    target += length;
  }
  return {
    ranges: gather.ranges(),
    bytes: () => {
      gather.scatter();
      return bytes;
    },
  };
};

function* resolveParts(
  source: PartSource,
  layouts: readonly PartLayout[],
  rows: Spans,
  take: Take,
): Reading<Parts> {
  const bytes = new Map<string, Uint8Array>();
  const offsets = new Map<string, Uint32Array>();
  const spansOf = new Map<string | undefined, Spans>([[undefined, rows]]);
  for (let waiting = layouts; waiting.length > 0;) {
    const ready = waiting.filter((layout) => spansOf.has(layout.of));
    waiting = waiting.filter((layout) => !spansOf.has(layout.of));
    const round = ready.map((layout) => {
      const spans = spansOf.get(layout.of)!;
      const member = source.member(layout.part);
      checkSize(source, layout, member, spans);
      return { layout, member, spans, taken: take(member, layout.width, spans, layout.offsets ? 1 : 0) };
    });
    const ranges = round.flatMap(({ taken }) => taken.ranges);
    if (ranges.length > 0) yield ranges;
    for (const { layout, member, spans, taken } of round) {
      if (layout.offsets) {
        const rebased = rebase(source, layout, member, spans, taken.bytes());
        offsets.set(layout.part, rebased.offsets);
        spansOf.set(layout.part, rebased.elements);
      } else {
        bytes.set(layout.part, taken.bytes());
      }
    }
  }
  return {
    bytes: (part) => bytes.get(part)!,
    offsets: (part) => offsets.get(part)!,
    elements: (part) => spansOf.get(part)!,
  };
}

/** Compares the length of a payload with what rows and offsets say, before anything is allocated by them. */
function checkSize(source: PartSource, layout: PartLayout, member: StoredMember, spans: Spans): void {
  const { bytes } = member.payload;
  const extra = layout.offsets ? 1 : 0;
  const needed = (spans.end + extra) * layout.width;
  const name = JSON.stringify(layout.part);
  if (layout.of === undefined) {
    const expected = (source.rows + extra) * layout.width;
    // an empty column may lack even the one offset
    if (bytes === expected || (source.rows === 0 && bytes === 0)) return;
    throw source.corruption(`has ${bytes} bytes of ${name}, not ${expected}`, { expected, actual: bytes });
  }
  if (spans.total > 0 && needed > bytes) {
    throw source.corruption(`has offsets that reach beyond its ${bytes} bytes of ${name}`, {
      expected: `at most ${bytes}`,
      actual: needed,
    });
  }
}

/** Offsets of the selected rows counted from 0, and the elements they point to. */
function rebase(
  source: PartSource,
  layout: PartLayout,
  member: StoredMember,
  spans: Spans,
  bytes: Uint8Array,
): { offsets: Uint32Array; elements: Spans } {
  const entries = readIntegers(source, member, bytes);
  const offsets = new Uint32Array(new ArrayBuffer((spans.total + 1) * 4));
  const elements = new Spans();
  const wrong = (row: number): Error =>
    source.corruption(`has ${JSON.stringify(layout.part)} that do not ascend at ${row}`, { actual: row });
  let total = 0;
  let reached = 0;
  for (let i = 0, at = 0, out = 1; i < spans.starts.length; i++) {
    const start = spans.starts[i]!;
    const count = spans.ends[i]! - start;
    const first = entries[at]!;
    if (!(first >= reached)) throw wrong(start);
    let previous = first;
    const base = total - first;
    for (let k = 1; k <= count; k++) {
      const next = entries[at + k]!;
      if (!(next >= previous)) throw wrong(start + k);
      offsets[out++] = base + next;
      previous = next;
    }
    if (!Number.isSafeInteger(previous)) throw wrong(start + count);
    total += previous - first;
    reached = previous;
    at += count + 1;
    elements.add(first, previous);
  }
  if (total > 0xffffffff) {
    throw source.unsupported(`has ${total} elements in the rows asked for`, {
      expected: "at most 4294967295",
      actual: total,
      hint: "read fewer rows at a time",
    });
  }
  return { offsets, elements };
}

/** One byte a row, 1 where it is null; null where no row is. Always the caller's own memory. */
export function nullMask(bytes: Uint8Array): Uint8Array | null {
  let any = false;
  for (let i = 0; i < bytes.length && !any; i++) any = bytes[i] !== 0;
  return any ? bytesOf(bytes.map((byte) => byte === 0 ? 0 : 1)) : null;
}
