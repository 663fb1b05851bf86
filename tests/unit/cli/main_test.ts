import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { describe, it } from "node:test";
import { TemporaryFolder } from "./helpers.ts";
import { batchferry, type Outcome, type Place, shell } from "./run.ts";

/** A place with one JSONL file, t.jsonl. */
function placeIn(folder: TemporaryFolder): Place {
  folder.write(
    "t.jsonl",
    '{"a":1,"text":"x","list":[1]}\n{"a":2,"text":"é","list":[]}\n{"a":3,"text":null,"list":[4,5]}\n',
  );
  return { cwd: folder.path, store: folder.path };
}

function succeed(place: Place, ...args: string[]): string {
  const { code, stdout, stderr } = batchferry(place, ...args);
  assert.equal(`${code} ${stderr}`, "0 ", args.join(" "));
  return stdout;
}

/** The one line of an error. */
function failure({ code, stdout, stderr }: Outcome, wantedCode: 1 | 2): string {
  assert.equal(code, wantedCode, stderr);
  assert.equal(stdout, "");
  assert.match(stderr, /^batchferry: [A-Z_]+: [^\n]+\n$/);
  return stderr.slice("batchferry: ".length, -1);
}

describe("the command line", () => {
  it("prints help and version", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    const help = succeed(place, "help");
    for (const name of ["put", "get", "stat", "ls", "drop", "gc", "demo"]) {
      assert.match(help, new RegExp(`^  ${name} `, "m"));
    }
    assert.doesNotMatch(help, /demo-/);
    assert.equal(succeed(place, "--help"), help);
    assert.match(succeed(place, "get", "--help"), /--rows/);
    assert.equal(succeed(place, "help", "get"), succeed(place, "get", "-h"));
    assert.match(succeed(place, "version"), /^\d+\.\d+\.\d+\n$/);
  });

  it("ends with 2 for wrong usage", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    for (
      const [args, message] of [
        [[], /command is missing/],
        [["puts"], /unknown command "puts"/],
        [["put"], /argument is missing/],
        [["put", "t.jsonl", "--nope"], /--nope/],
        [["put", "t.jsonl", "--handle"], /--handle/],
        [["put", "t.txt"], /t\.txt.*\.jsonl/],
        [["put", "t.parquet"], /not supported yet/],
        [["put", "t.jsonl", "--backend", "memory"], /memory/],
        [["put", "t.jsonl", "--config", "none.json"], /none\.json/],
        [["get"], /argument is missing/],
        [["get", "h.json"], /--output/],
        [["get", "h.json", "--output", "x.csv"], /x\.csv/],
        [["get", "h.json", "--output", "x.jsonl", "--rows", "a:b"], /--rows a:b/],
        [["get", "h.json", "i.json", "--output", "x.jsonl"], /unexpected argument "i\.json"/],
        [["demo", "--consumer", "node"], /deno or bun/],
      ] as const
    ) {
      const line = failure(batchferry(place, ...args), 2);
      assert.match(line, /^USAGE: /);
      assert.match(line, message);
    }
    assert.deepEqual(readdirSync(folder.path), ["t.jsonl"]);
  });

  it("ends with 1 for what failed, and leaves no output", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    folder.write("bad.jsonl", '{"a":1}\n{"a":oops}\n');
    folder.write("short.safetensors", new Uint8Array(20).fill(255));
    folder.write("nan.npy", "x");
    folder.write(
      "schema.json",
      '{"a":{"kind":"scalars","dtype":"int8"},"text":{"kind":"strings","nullable":false}}',
    );
    folder.write("no.json", "{");
    succeed(place, "put", "t.jsonl", "--handle", "h.json");
    for (
      const [args, message] of [
        [["put", "none.jsonl"], /^NOT_FOUND: .*none\.jsonl/],
        [["put", "bad.jsonl"], /^SCHEMA: bad\.jsonl:2:6: /],
        [["put", "short.safetensors"], /^CORRUPT: short\.safetensors: .*offset 0/],
        [["put", "nan.npy"], /^CORRUPT: nan\.npy: .*offset 0/],
        [["put", "t.jsonl", "--schema", "schema.json"], /^SCHEMA: t\.jsonl:3: field "text", row 2 /],
        [["put", "t.jsonl", "--schema", "no.json"], /^CONFIG: no\.json/],
        [["put", "t.jsonl", "--handle", "no/h.json"], /^NOT_FOUND: .*no\/h\.json/],
        [["put", "t.jsonl", "--backend", "nope"], /^CONFIG: .*nope/],
        [["get", "none.json", "-o", "o.jsonl"], /^NOT_FOUND: .*none\.json/],
        [["get", "no.json", "-o", "o.jsonl"], /^CORRUPT: no\.json/],
        [["get", "schema.json", "-o", "o.jsonl"], /^CORRUPT: /],
        [["get", "h.json", "-o", "o.jsonl", "--fields", "a,b"], /^SCHEMA: .*"b"/],
        [["get", "h.json", "-o", "o.jsonl", "--rows", "3"], /^SCHEMA: .*3/],
        [["get", "h.json", "-o", "o.npy"], /^SCHEMA: o\.npy.*--fields/],
        [["get", "h.json", "-o", "o.npy", "--fields", "list"], /^SCHEMA: .*"list".*ragged/],
        [["get", "h.json", "-o", "o.safetensors"], /^SCHEMA: .*"text".*strings/],
        [["get", "h.json", "-o", "no/o.jsonl"], /^NOT_FOUND: .*no\/o\.jsonl/],
      ] as const
    ) {
      assert.match(failure(batchferry(place, ...args), 1), message);
    }
    const left = readdirSync(folder.path).filter((name) => /^o\.|tmp/.test(name) || name === "no");
    assert.deepEqual(left, []);
    // Neither did a failed put: the one batch is the first.
    assert.equal(JSON.parse(succeed(place, "ls", "--json")).bundles.length, 1);
  });

  it("keeps an older output where get fails", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    succeed(place, "put", "t.jsonl", "--handle", "h.json");
    folder.write("o.safetensors", "old");
    failure(batchferry(place, "get", "h.json", "-o", "o.safetensors"), 1);
    assert.equal(folder.text("o.safetensors"), "old");
    succeed(place, "get", "h.json", "-o", "o.safetensors", "--fields", "a");
    assert.notEqual(folder.text("o.safetensors"), "old");
  });

  it("prints JSON with --json, errors included", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    const put = JSON.parse(
      succeed(place, "put", "t.jsonl", "--handle", "h.json", "--partition", "p", "--json"),
    );
    assert.deepEqual([put.rows, put.fields, put.partition, put.handle], [
      3,
      ["a", "text", "list"],
      "p",
      "h.json",
    ]);
    const inline = JSON.parse(succeed(place, "put", "t.jsonl", "--stage", "s", "--json"));
    assert.equal(inline.handle.type, "mooncake_dataproto_ref");
    const got = JSON.parse(succeed(place, "get", "h.json", "-o", "o.jsonl", "--rows", "-2:", "--json"));
    assert.deepEqual([got.rows, got.output, got.fields.length], [2, "o.jsonl", 3]);
    const { code, stdout, stderr } = batchferry(
      place,
      "get",
      "h.json",
      "-o",
      "o.jsonl",
      "--rows",
      "9",
      "--json",
    );
    assert.deepEqual([code, stdout], [1, ""]);
    assert.equal(JSON.parse(stderr).error.code, "SCHEMA");
    assert.equal(JSON.parse(batchferry(place, "nope", "--json").stderr).error.code, "USAGE");
  });

  it("lists, describes and drops", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    succeed(place, "put", "t.jsonl", "--handle", "h.json", "--partition", "step-7", "--stage", "rollout");
    const bundles = JSON.parse(succeed(place, "ls", "--json")).bundles;
    assert.deepEqual(
      [bundles.length, bundles[0].partition, bundles[0].stage, bundles[0].rows, bundles[0].fields],
      [1, "step-7", "rollout", 3, ["a", "text", "list"]],
    );
    const [head, line, ...others] = succeed(place, "ls", "step-7").trimEnd().split("\n");
    assert.match(head!, /^PARTITION +ID +STAGE +ROWS +FIELDS +BYTES +AGE$/);
    assert.match(line!, /^step-7 +[0-9a-f]{32} +rollout +3 +3 +[\d.]+ KiB +\d+ s$/);
    assert.deepEqual(others, []);
    assert.equal(succeed(place, "ls", "other").trimEnd().split("\n").length, 1);

    const facts = JSON.parse(succeed(place, "stat", "h.json", "--json"));
    assert.deepEqual(facts.fields, [
      { name: "a", kind: "scalars", dtype: "int64", shape: null },
      { name: "text", kind: "strings", dtype: null, shape: null },
      { name: "list", kind: "ragged", dtype: "int64", shape: null },
    ]);
    assert.deepEqual([facts.rows, facts.partition, facts.bytes], [3, "step-7", bundles[0].bytes]);
    assert.ok(Math.abs(facts.createdMs - Date.now()) < 60_000);
    const text = succeed(place, "stat", "h.json");
    for (
      const part of [/^rows +3$/m, /^partition +step-7$/m, /^ {2}list +ragged +int64$/m, /^created +20/m]
    ) {
      assert.match(text, part);
    }

    assert.equal(succeed(place, "drop", "h.json"), "");
    assert.equal(succeed(place, "drop", "h.json"), "");
    assert.match(failure(batchferry(place, "get", "h.json", "-o", "o.jsonl"), 1), /^DROPPED: /);
    assert.match(failure(batchferry(place, "stat", "h.json"), 1), /^DROPPED: /);
    assert.equal(JSON.parse(succeed(place, "ls", "--json")).bundles.length, 0);
  });

  it("drops what has outlived its time, and nothing else", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    folder.write("a.jsonl", '{"a":1}\n');
    folder.write("short.json", '{"ttlMs":1}');
    succeed(place, "put", "a.jsonl", "--handle", "kept.json");
    succeed(place, "put", "a.jsonl", "--handle", "old.json", "--config", "short.json");
    assert.deepEqual(JSON.parse(succeed(place, "gc", "--json")), { dropped: 1 });
    assert.match(failure(batchferry(place, "stat", "old.json"), 1), /^DROPPED: /);
    succeed(place, "drop", "kept.json");
  });

  it("shows the shape of tensors", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    folder.write("m.jsonl", '{"m":[[1,2],[3,4]]}\n');
    folder.write("schema.json", '{"m":{"kind":"tensor","dtype":"bfloat16"}}');
    const handle = succeed(place, "put", "m.jsonl", "--schema", "schema.json");
    assert.match(
      succeed({ ...place, stdin: handle }, "stat", "-"),
      /^ {2}m +tensor +bfloat16 +\[1, 2, 2\]$/m,
    );
  });

  it("takes settings from options, the environment and batchferry.json, in this order", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    const prefixOf = (...args: string[]): string =>
      JSON.parse(succeed(place, "put", "t.jsonl", ...args)).stage_refs.default.manifest_key.split("/")[0];
    assert.equal(prefixOf(), "bundle");
    folder.write("batchferry.json", '{"keyPrefix":"file","directory":"/nowhere"}');
    folder.write("other.json", '{"keyPrefix":"other"}');
    // The directory of the environment counts, not that of the file.
    assert.equal(prefixOf(), "file");
    assert.equal(prefixOf("--config", "other.json"), "other");
    assert.equal(prefixOf("--config", "other.json", "--key-prefix", "option"), "option");
    folder.write("batchferry.json", '{"fieldSchemas":{"a":{"kind":"scalars","dtype":"float32"}}}');
    const handle = succeed(place, "put", "t.jsonl");
    assert.match(succeed({ ...place, stdin: handle }, "stat", "-"), /^ {2}a +scalars +float32$/m);
  });

  it("takes the backend from the handle, and refuses one of another store", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    const handle = succeed(place, "put", "t.jsonl", "--handle", "h.json") + folder.text("h.json");
    // What the configuration says is for other commands.
    const elsewhere = { ...place, environment: { BATCHFERRY_BACKEND: "mooncake" } };
    succeed(elsewhere, "get", "h.json", "-o", "o.jsonl");
    assert.equal(folder.text("o.jsonl"), folder.text("t.jsonl"));
    mkdirSync(folder.join("other"));
    const other = { ...place, store: folder.join("other") };
    const line = failure(batchferry(other, "get", "h.json", "-o", "x.jsonl"), 1);
    assert.match(line, /^CONFIG: /);
    assert.ok(line.includes(`shm:${folder.path}`) && line.includes(`shm:${folder.join("other")}`), line);
    assert.equal(existsSync(folder.join("x.jsonl")), false);
    const memory = { ...place, stdin: handle.replace(/"shm:[^"]*"/, '"memory:1"') };
    assert.match(failure(batchferry(memory, "get", "-", "-o", "x.jsonl"), 2), /memory/);
  });

  it("joins --rows and a value with a minus", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    succeed(place, "put", "t.jsonl", "--handle", "h.json");
    const numbers = (...rows: string[]): string => {
      succeed(place, "get", "h.json", "-o", "o.jsonl", "--fields", "a", ...rows);
      return folder.text("o.jsonl").replace(/\D+/g, "");
    };
    assert.equal(numbers("--rows", "-2:"), "23");
    assert.equal(numbers("--rows=-2:"), "23");
    assert.equal(numbers("--rows", "-1,-3"), "31");
    assert.equal(numbers("--rows", "::-1"), "321");
    assert.equal(numbers("--rows", ":1"), "1");
    assert.equal(numbers(), "123");
  });

  it("says nothing where its reader went away", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    const { stderr } = shell(place, "$BATCHFERRY help | true; $BATCHFERRY put t.jsonl | head -c 1 > one");
    assert.equal(stderr, "");
    assert.equal(folder.text("one"), "{");
  });

  it("works in a pipe", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    const { stderr } = shell(
      place,
      "$BATCHFERRY put t.jsonl | tee h.json | $BATCHFERRY get - --output o.jsonl",
    );
    assert.equal(stderr, "");
    assert.equal(folder.text("o.jsonl"), folder.text("t.jsonl"));
  });

  it("moves batches without rows and without fields", () => {
    using folder = new TemporaryFolder();
    const place = placeIn(folder);
    for (const text of ["", "{}\n{}\n"]) {
      folder.write("e.jsonl", text);
      const handle = succeed(place, "put", "e.jsonl");
      succeed({ ...place, stdin: handle }, "get", "-", "-o", "o.jsonl");
      assert.equal(folder.text("o.jsonl"), text);
    }
  });
});
