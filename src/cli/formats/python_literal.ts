/**
 * The Python literals that stand in NumPy headers: strings, integers, True and False, tuples, lists, dictionaries.
 *
 * @module
 */

/** A literal's value: tuples and lists are arrays, dictionaries with string keys are maps, None is null. */
export type PythonValue = string | number | boolean | null | PythonValue[] | Map<string, PythonValue>;

/** More nesting than any header has; an input of nothing but brackets ends here. */
const MAX_DEPTH = 32;

/**
 * Reads one literal.
 *
 * @throws {SyntaxError} with the position of what is wrong
 */
export function readLiteral(text: string): PythonValue {
  const reader = new Reader(text);
  const value = reader.value(0);
  reader.space();
  if (reader.position !== text.length) reader.fail();
  return value;
}

class Reader {
  readonly #text: string;
  position = 0;

  constructor(text: string) {
    this.#text = text;
  }

  fail(): never {
    throw new SyntaxError(`unexpected text at position ${this.position}`);
  }

  space(): void {
    while (" \t\r\n".includes(this.#text[this.position] ?? "-")) this.position++;
  }

  /** The match of a sticky pattern at the position, which moves behind it. */
  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.position;
    const match = pattern.exec(this.#text)?.[0];
    this.position += match?.length ?? 0;
    return match;
  }

  value(depth: number): PythonValue {
    if (depth > MAX_DEPTH) this.fail();
    this.space();
    switch (this.#text[this.position]) {
      case "'":
      case '"':
        return this.#string();
      case "(":
        return this.#sequence(")", depth);
      case "[":
        return this.#sequence("]", depth);
      case "{":
        return this.#dictionary(depth);
    }
    const word = this.#take(/True|False|None|-?\d+L?/y);
    switch (word) {
      case undefined:
        return this.fail();
      case "True":
        return true;
      case "False":
        return false;
      case "None":
        return null;
      default:
        // Python 2 wrote 3L.
        return Number(word.replace("L", ""));
    }
  }

  #string(): string {
    const token = this.#take(/'[^'\\\n]*(?:\\.[^'\\\n]*)*'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"/y);
    if (token === undefined) return this.fail();
    return token.slice(1, -1).replace(/\\(.)/g, "$1");
  }

  #sequence(end: string, depth: number): PythonValue[] {
    const values: PythonValue[] = [];
    this.position++;
    while (!this.#ends(end)) {
      values.push(this.value(depth + 1));
      this.#comma(end);
    }
    return values;
  }

  #dictionary(depth: number): Map<string, PythonValue> {
    const entries = new Map<string, PythonValue>();
    this.position++;
    while (!this.#ends("}")) {
      const key = this.value(depth + 1);
      if (typeof key !== "string" || entries.has(key)) return this.fail();
      this.space();
      if (this.#text[this.position++] !== ":") this.fail();
      entries.set(key, this.value(depth + 1));
      this.#comma("}");
    }
    return entries;
  }

  #ends(end: string): boolean {
    this.space();
    if (this.#text[this.position] !== end) return false;
    this.position++;
    return true;
  }

  #comma(end: string): void {
    this.space();
    if (this.#text[this.position] === ",") this.position++;
    else if (this.#text[this.position] !== end) this.fail();
  }
}
