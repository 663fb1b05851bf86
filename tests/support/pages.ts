/**
 * The code of the pages.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./runtime.ts";

/** The text of a page. */
export function textOf(page: string): string {
  return readFileSync(join(ROOT, page), "utf8");
}

/** The blocks of a page in one language. */
export function blocks(page: string, language: string): string[] {
  return [...textOf(page).matchAll(new RegExp(`^ *\`\`\`${language}\\n([\\s\\S]*?)^ *\`\`\`$`, "gm"))]
    .map((match) => match[1] ?? "");
}

/** Code without its comments, which are in the page's language. */
export function bare(code: string): string {
  return code.replace(/^ *\/\/ .*\n/gm, "").replace(/ *\/\/ .*$/gm, "").replace(/\/\* .*? \*\//g, "/* */")
    .replace(/ +#.*$/gm, "").replace(/^\n/gm, "");
}
