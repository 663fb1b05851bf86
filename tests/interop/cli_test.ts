/** A file put by one runtime is got by the other, in another process; values and files come out bit for bit. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Batch } from "../../src/batch/batch.ts";
import { DTYPES } from "../../src/batch/dtype.ts";
import { Tensor } from "../../src/batch/tensor.ts";
import { writeOutput } from "../../src/cli/outputs.ts";
import { patternTensor, TemporaryFolder } from "../unit/cli/helpers.ts";
import { batchferry, type Place, programOf, type Runtime } from "../unit/cli/run.ts";

const ROWS = 8;
const LINES = Array.from({ length: ROWS }, (_, i) =>
  JSON.stringify({
    prompt: i === 3 ? null : `row ${i}: „zwölf“ 🦕 "q" \\ \n\t\u0001`,
    input_ids: Array.from({ length: i }, (_, k) => k * 1000 - 7),
    small: i - 3,
    flag: i % 3 === 0 ? null : i % 2 === 0,
    chat: [{ role: "user", content: `é${i}`, n: [i, null, { deep: true }] }, i],
    raw: i === 5
      ? null
      : { $bytes: btoa(String.fromCharCode(...Array.from({ length: i }, (_, k) => 255 - k))) },
    nothing: null,
  }).replace(
    /\}$/,
    `,"big":${i === 2 ? "null" : 9007199254740993n * BigInt(i - 4)},"unsigned":${
      2n ** 64n - 1n - BigInt(i)
    },` +
      `"float":${i === 1 ? "null" : i % 2 === 0 ? `${i}.0` : `-${i}.25e-10`},"floats":[0.1,${i}.0,1e+21],` +
      `"exact":{"n":${2n ** 70n + BigInt(i)},"f":1.0}}`,
  ));

/** What is written of them: the same lines, as they are in their one form. */
const JSONL = LINES.map((line) => `${line}\n`);

function run(place: Place, ...args: string[]): string {
  const { code, stdout, stderr } = batchferry(place, ...args);
  assert.equal(code, 0, `${args.join(" ")}: ${stderr}`);
  assert.equal(stderr, "");
  return stdout;
}

const missing = (["deno", "bun"] as const).filter((runtime) => programOf(runtime) === undefined);
const skip = missing.length > 0 ? `${missing.join(", ")} not installed; run npm ci in scripts/tools` : false;

for (
  const [writer, reader] of [["deno", "bun"], ["bun", "deno"], ["deno", "deno"], ["bun", "bun"]] as const
) {
  describe(`files put by ${writer}, got by ${reader}`, { skip }, () => {
    /** Two places that share a store. */
    const places = (folder: TemporaryFolder): { put: Place; get: Place } => {
      const at = (runtime: Runtime): Place => ({ cwd: folder.path, store: folder.path, runtime });
      return { put: at(writer), get: at(reader) };
    };

    it("jsonl: whole, by rows, by fields, and once more", () => {
      using folder = new TemporaryFolder();
      const { put, get } = places(folder);
      folder.write("in.jsonl", LINES.join("\n"));
      assert.equal(run(put, "put", "in.jsonl", "--handle", "h.json", "--partition", "p-1"), "");
      run(get, "get", "h.json", "--output", "all.jsonl");
      assert.deepEqual(folder.text("all.jsonl").split("\n"), [...JSONL.map((line) => line.trimEnd()), ""]);

      run(get, "get", "h.json", "-o", "some.jsonl", "--rows", "6,1,1");
      assert.equal(folder.text("some.jsonl"), [6, 1, 1].map((i) => JSONL[i]).join(""));
      run(get, "get", "h.json", "-o", "some.jsonl", "--rows", "-2:");
      assert.equal(folder.text("some.jsonl"), JSONL.slice(-2).join(""));
      run(get, "get", "h.json", "-o", "some.jsonl", "--rows=::-3");
      assert.equal(folder.text("some.jsonl"), [7, 4, 1].map((i) => JSONL[i]).join(""));
      run(get, "get", "h.json", "-o", "some.jsonl", "--fields", "small,prompt", "--rows", "2:4");
      assert.equal(
        folder.text("some.jsonl"),
        `{"small":-1,"prompt":${JSON.stringify(JSON.parse(LINES[2]!).prompt)}}\n{"small":0,"prompt":null}\n`,
      );

      // What get wrote is put by the reader and got by the writer.
      run(get, "put", "all.jsonl", "--handle", "h2.json");
      run(put, "get", "h2.json", "-o", "again.jsonl");
      assert.equal(folder.text("again.jsonl"), folder.text("all.jsonl"));
      for (const handle of ["h.json", "h2.json"]) run(get, "drop", handle);
      assert.equal(JSON.parse(run(put, "ls", "--json")).bundles.length, 0);
    });

    it("safetensors and npy: every dtype, bit for bit", async () => {
      using folder = new TemporaryFolder();
      const { put, get } = places(folder);
      const tensors = DTYPES.map((dtype, i) =>
        [`t.${dtype}`, patternTensor(dtype, [ROWS, 3, 2], i)] as const
      );
      await writeOutput(folder.join("in.safetensors"), new Batch(ROWS, tensors));
      await writeOutput(
        folder.join("mask.npy"),
        new Batch(ROWS, [["mask", patternTensor("bool", [ROWS, 5], 99)]]),
      );
      // Without --handle the handle is printed, and is read from stdin.
      const handle = run(put, "put", "in.safetensors", "mask.npy");
      const piped = { ...get, stdin: handle };
      run(piped, "get", "-", "-o", "out.safetensors", "--fields", tensors.map(([name]) => name).join());
      assert.deepEqual(folder.read("out.safetensors"), folder.read("in.safetensors"));
      run(piped, "get", "-", "-o", "out.npy", "--fields", "mask");
      assert.deepEqual(folder.read("out.npy"), folder.read("mask.npy"));

      for (const [rows, indices] of [["6,1,1", [6, 1, 1]], ["-2:", [6, 7]], ["5:5", []]] as const) {
        const wanted = tensors.map(([name, tensor]) => [name, pick(tensor, indices)] as const);
        await writeOutput(folder.join("wanted.safetensors"), new Batch(indices.length, wanted));
        run(
          piped,
          "get",
          "-",
          "-o",
          "some.safetensors",
          "--rows",
          rows,
          "--fields",
          tensors.map(([name]) => name).join(),
        );
        assert.deepEqual(folder.read("some.safetensors"), folder.read("wanted.safetensors"), rows);
      }

      const second = run(get, "put", "out.safetensors");
      run({ ...put, stdin: second }, "get", "-", "-o", "again.safetensors");
      assert.deepEqual(folder.read("again.safetensors"), folder.read("in.safetensors"));

      // NumPy has the first twelve dtypes only.
      await writeOutput(folder.join("numpy.safetensors"), new Batch(ROWS, tensors.slice(0, 12)));
      const third = run(get, "put", "numpy.safetensors", "--tensor-encoding", "numpy");
      run({ ...put, stdin: third }, "get", "-", "-o", "again.safetensors");
      assert.deepEqual(folder.read("again.safetensors"), folder.read("numpy.safetensors"));
    });
  });
}

/** Some rows of a tensor. */
function pick(tensor: Tensor, rows: readonly number[]): Tensor {
  const rowBytes = tensor.bytes.length / tensor.rows;
  const bytes = new Uint8Array(rows.length * rowBytes);
  rows.forEach((row, i) =>
    bytes.set(tensor.bytes.subarray(row * rowBytes, (row + 1) * rowBytes), i * rowBytes)
  );
  return new Tensor(tensor.dtype, [rows.length, ...tensor.shape.slice(1)], bytes);
}
