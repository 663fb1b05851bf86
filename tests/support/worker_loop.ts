/**
 * What a worker process of the tests does all its life: obeys each line of its input, and answers with a line.
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { BatchferryError } from "../../src/errors.ts";

/** Obeys until the input ends; a failure is an answer with a code. */
export async function obeyLines<Order>(obey: (order: Order) => Promise<unknown>): Promise<never> {
  for await (const line of createInterface({ input: process.stdin })) {
    let answer: Record<string, unknown>;
    try {
      answer = { result: await obey(JSON.parse(line) as Order) };
    } catch (error) {
      answer = { code: error instanceof BatchferryError ? error.code : "INTERNAL", message: String(error) };
    }
    console.log(JSON.stringify(answer));
  }
  return process.exit(0);
}
