/**
 * The declared layouts and constants against the C compiler and the header, where both are.
 *
 * @module
 */

import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  ACCESS,
  CONTEXT_OPS,
  GID_TYPE,
  IBVERBS,
  LINK_LAYER,
  PORT_STATE,
  QP_ATTR,
  QP_STATE,
  QP_TYPE,
  SEND_FLAGS,
  STRUCTS,
  WC_STATUS,
  WR_OPCODE,
} from "../../ffi/ibverbs.ts";
import { runCommand, temporaryFolder } from "../support/runtime.ts";

const skip = !existsSync("/usr/include/infiniband/verbs.h")
  ? "libibverbs-dev is not installed"
  : (await runCommand(["cc", "--version"]).catch(() => ({ status: 1 }))).status !== 0
  ? "there is no C compiler"
  : false;

/** Compiles and runs a program; gives its lines. */
async function run(body: string, functions = ""): Promise<string[]> {
  using folder = temporaryFolder();
  const source = join(folder.path, "facts.c");
  const includes = ["stddef.h", "stdio.h", "infiniband/verbs.h"].map((name) => `#include <${name}>\n`).join(
    "",
  );
  writeFileSync(source, `${includes}${functions}int main(void) {\n${body}return 0;\n}\n`);
  const built = await runCommand(["cc", "-Werror", "-o", join(folder.path, "facts"), source]);
  assert.equal(built.status, 0, built.stderr);
  return (await runCommand([join(folder.path, "facts")])).stdout.trim().split("\n");
}

describe("infiniband/verbs.h", () => {
  it("has structs as they are declared", { skip }, async () => {
    const facts: [string, string, readonly number[]][] = [];
    for (const [struct, { size, ...fields }] of Object.entries(STRUCTS)) {
      facts.push([struct, `sizeof(struct ${struct})`, [size]]);
      for (
        const [field, [offset, bytes]] of Object.entries(fields) as [string, readonly [number, number]][]
      ) {
        const expression = `offsetof(struct ${struct}, ${field})`;
        facts.push([`${struct}.${field}`, `${expression}, sizeof(((struct ${struct} *)0)->${field})`, [
          offset,
          bytes,
        ]]);
      }
    }
    for (const [name, offset] of Object.entries(CONTEXT_OPS)) {
      facts.push([name, `offsetof(struct ibv_context, ops.${name})`, [offset]]);
    }
    const lines = await run(
      facts.map(([, expression, { length }]) =>
        `printf("${Array(length).fill("%zu").join(" ")}\\n", ${expression});\n`
      ).join(""),
    );
    assert.deepEqual(
      Object.fromEntries(facts.map(([name], i) => [name, lines[i]])),
      Object.fromEntries(facts.map(([name, , values]) => [name, values.join(" ")])),
    );
  });

  it("has constants as they are declared", { skip }, async () => {
    const groups: [string, Readonly<Record<string, number>>][] = [
      ["IBV_QPT_", QP_TYPE],
      ["IBV_QPS_", QP_STATE],
      ["IBV_QP_", QP_ATTR],
      ["IBV_ACCESS_", ACCESS],
      ["IBV_WR_", WR_OPCODE],
      ["IBV_SEND_", SEND_FLAGS],
      ["IBV_PORT_", PORT_STATE],
      ["IBV_LINK_LAYER_", LINK_LAYER],
      ["IBV_GID_TYPE_", GID_TYPE],
      ["IBV_WC_", WC_STATUS],
    ];
    const all = groups.flatMap(([prefix, values]) =>
      Object.entries(values).map(([name, value]) => [prefix + name, value] as const)
    );
    const lines = await run(all.map(([name]) => `printf("%d\\n", (int)${name});\n`).join(""));
    assert.deepEqual(
      Object.fromEntries(all.map(([name], i) => [name, Number(lines[i])])),
      Object.fromEntries(all),
    );
  });

  it("has functions as they are declared", { skip }, async () => {
    // a second declaration that differs from the header's does not compile; those with an underscore are internal, and
    // those that the header replaces by macros are undefined first
    const declared = Object.entries(IBVERBS).filter(([name]) => !name.startsWith("_"));
    const code = declared.map(([name, { c }]) => `#undef ${name}\n${c};\n`).join("");
    assert.deepEqual(await run(`printf("%d\\n", ${declared.length});\n`, code), [String(declared.length)]);
  });
});
