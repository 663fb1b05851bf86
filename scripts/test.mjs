/**
 * The test command: formatting, lint, type checks, then every test under Deno and under Bun.
 *
 *   node scripts/test.mjs            all of it, with a twentieth of the long counts
 *   node scripts/test.mjs --quick    unit tests only
 *   node scripts/test.mjs --long     all of it, with full counts and soaks
 *   node scripts/test.mjs --rdma     those over RDMA only, on this host's device or in a lab that has some (scripts/lab.mjs)
 *   node scripts/test.mjs --check    formatting, lint and types only
 *
 * Further arguments name test files. The last line is `N passed, N failed`; with CI=true a skipped test has failed.
 */

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { delimiter, dirname, join, relative } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { runLab, setUpLab } from "./lab.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
process.chdir(root);

const flags = new Set(process.argv.slice(2).filter((argument) => argument.startsWith("--")));
const named = process.argv.slice(2).filter((argument) => !argument.startsWith("--"));
const level = flags.has("--long") ? "long" : flags.has("--quick") ? "quick" : "normal";
const tools = join(root, "scripts", "tools");
const bin = [tools, root].map((folder) => join(folder, "node_modules", ".bin")).join(delimiter);
const environment = {
  ...process.env,
  NO_COLOR: "1",
  // Deno needs nothing of package.json: deno.json has the one import. With it, a type check asks the registry for the
  // development tools of every platform.
  DENO_NO_PACKAGE_JSON: "1",
  BATCHFERRY_TEST_LEVEL: level,
  PATH: `${bin}${delimiter}${process.env.PATH ?? ""}`,
};
// a caller's own configuration must not reach the tests; those over RDMA are told their device by it
const own = flags.has("--rdma") ? /^BATCHFERRY_(?!TEST_)/ : /^(?:BATCHFERRY_(?!TEST_)|MOONCAKE_|MC_)/;
for (const name of Object.keys(environment)) if (own.test(name)) delete environment[name];

const RUNTIMES = ["deno", "bun"];
/** Tests over a real RDMA device. */
const RDMA = join("tests", "rdma");

let passed = 0;
let failed = 0;
let skipped = 0;

/** Runs a command; true if it succeeded. */
function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { stdio: "inherit", env: environment, ...options });
  if (error !== undefined) console.error(`${command}: ${error.message}`);
  return status === 0;
}

/** Runs a check and counts it as one test. */
function check(name, command, args) {
  console.log(`\n== ${name}`);
  if (run(command, args)) passed++;
  else {
    failed++;
    console.log(`FAILED: ${name}`);
  }
}

/** Installs the pinned packages of a folder, unless what pins them has not changed since. */
function install(folder, pins, args) {
  const marker = join(folder, "node_modules", ".package-lock.json");
  if (existsSync(marker) && statSync(marker).mtimeMs >= statSync(join(folder, pins)).mtimeMs) return;
  console.log(`== npm ${args[0]} in ${relative(root, folder) || "."}`);
  if (!run("npm", [...args, "--no-audit", "--no-fund", "--loglevel=error"], { cwd: folder })) process.exit(1);
}

/** Test files: those named, or all that the level asks for. */
function testFiles() {
  if (named.length > 0) return named;
  const all = filesOf(level === "quick" ? "tests/unit" : "tests");
  return all.filter((file) => !file.startsWith(RDMA));
}

function filesOf(folder) {
  return readdirSync(folder, { recursive: true })
    .filter((file) => file.endsWith("_test.ts"))
    .map((file) => join(folder, file))
    .sort();
}

/** The command that runs test files under a runtime. */
function testCommand(runtime, files, report) {
  return runtime === "deno"
    ? ["deno", "test", "-A", "--no-check", "--quiet", `--junit-path=${report}`, ...files]
    : [
      "bun",
      "test",
      "--timeout=1200000",
      "--reporter=junit",
      `--reporter-outfile=${report}`,
      ...files.map((file) => `./${file}`),
    ];
}

/** Runs the test files under one runtime and adds up its JUnit report. */
function test(runtime, files) {
  console.log(`\n== tests under ${runtime} (${files.length} files, level ${level})`);
  mkdirSync(".cache", { recursive: true });
  const report = join(root, ".cache", `junit-${runtime}.xml`);
  rmSync(report, { force: true });
  const [command, ...args] = testCommand(runtime, files, report);
  const ok = run(command, args);
  count(runtime, ok, existsSync(report) ? readFileSync(report, "utf8") : "");
}

/** Adds up a JUnit report. */
function count(runtime, ok, report) {
  const cases = readCases(report);
  const bad = cases.filter((entry) => entry.state === "failed");
  const left = cases.filter((entry) => entry.state === "skipped");
  passed += cases.length - bad.length - left.length;
  failed += bad.length;
  skipped += left.length;
  for (const { name } of bad) console.log(`FAILED: ${name} (${runtime})`);
  for (const { name } of left) console.log(`skipped: ${name} (${runtime})`);
  if (!ok && bad.length === 0) {
    failed++;
    console.log(`FAILED: ${runtime} test ended with an error`);
  }
}

/** Runs the test files over RDMA: on this host's device where MOONCAKE_PROTOCOL asks for it, else in the lab. */
async function testRdma(files) {
  const own = process.env.MOONCAKE_PROTOCOL === "rdma" && existsSync("/sys/class/infiniband") &&
    readdirSync("/sys/class/infiniband").length > 0;
  if (own) {
    for (const runtime of RUNTIMES) test(runtime, files);
    return;
  }
  console.log(`\n== tests over RDMA (${files.length} files, in the lab)`);
  try {
    setUpLab();
  } catch (error) {
    console.log(`skipped: tests over RDMA: there is no RDMA device, and no lab: ${error.message}`);
    skipped += files.length;
    return;
  }
  // in the guest nothing can be downloaded or installed
  const set = spawnSync("deno", ["run", "-A", "--no-check", "--quiet", "tests/support/set_up_mooncake.ts"], {
    encoding: "utf8",
    env: environment,
    stdio: ["ignore", "pipe", "inherit"],
  });
  run("deno", ["cache", "--quiet", "--no-check", ...files, "src/transfer/agent/main.ts"], {
    env: { ...environment, DENO_DIR: join(root, ".cache", "lab-deno") },
  });
  // a guest for each runtime, at the same time: each has devices of its own, and leaves half of the machine idle
  await Promise.all(RUNTIMES.map((runtime) => testInLab(runtime, files, set.stdout.trim())));
}

/** Runs test files under one runtime in a guest of their own. `mooncake` says what has been set up for them. */
async function testInLab(runtime, files, mooncake) {
  const report = { status: undefined, lines: [] };
  const script = [
    "export DENO_NO_PACKAGE_JSON=1",
    `export CI=${environment.CI ?? ""} BATCHFERRY_TEST_LEVEL=${level} BATCHFERRY_TEST_MOONCAKE='${mooncake}'`,
    "ibv_devinfo | grep -E 'hca_id|state|active_mtu'",
    runtime === "deno" ? "cp -r .cache/lab-deno /run/deno" : "",
    testCommand(runtime, files, "/run/report.xml").join(" "),
    'echo "LAB-STATUS $?"',
    "sed 's/^/LAB-REPORT /' /run/report.xml",
  ].join("\n");
  const status = await runLab(script, environment.PATH, (line) => {
    const [, what, rest] = /^LAB-(STATUS|REPORT) (.*)$/.exec(line) ?? [];
    if (what === "STATUS") report.status = Number(rest);
    else if (what === "REPORT") report.lines.push(rest);
    else console.log(`${runtime.padEnd(4)} | ${line}`);
  });
  if (status === undefined) console.log(`${runtime} | the lab did not come to its end`);
  count(`${runtime}, RDMA`, report.status === 0, report.lines.join("\n"));
}

/** The cases of a JUnit report. */
function readCases(xml) {
  return [...xml.matchAll(/<testcase\b([^>]*?)(\/>|>([\s\S]*?)<\/testcase>)/g)].map((
    [, attributes, , body = ""],
  ) => ({
    name: /\bname="([^"]*)"/.exec(attributes)?.[1] ?? "?",
    state: /<(failure|error)\b/.test(body) ? "failed" : /<skipped\b/.test(body) ? "skipped" : "passed",
  }));
}

install(root, "package-lock.json", ["ci"]);
// exact versions without dependencies: a lock file would add nothing but the names of other platforms' packages
install(tools, "package.json", ["install", "--no-package-lock"]);
const started = Date.now();
if (level !== "quick" && named.length === 0 && !flags.has("--rdma")) {
  check("deno fmt", "deno", ["fmt", "--check", "--quiet"]);
  check("deno lint", "deno", ["lint", "--quiet"]);
  check("deno check", "deno", ["check", "--quiet", "mod.ts", "src", "ffi", "scripts", "tests"]);
  check("tsc", "tsc", ["--noEmit"]);
}
if (!flags.has("--check")) {
  if (level !== "quick") {
    console.log("\n== native libraries");
    // what cannot be had is told again by the tests that miss it
    run("node", [join(root, "scripts", "native.mjs")]);
  }
  if (!flags.has("--rdma")) {
    const files = testFiles();
    for (const runtime of RUNTIMES) test(runtime, files);
  }
  if (flags.has("--rdma") || (level !== "quick" && named.length === 0)) {
    await testRdma(named.length > 0 ? named : filesOf(RDMA));
  }
}
if (process.env.CI === "true" && skipped > 0) {
  console.log(`${skipped} skipped: counted as failed`);
  failed += skipped;
  skipped = 0;
}
console.log(`\n${((Date.now() - started) / 1000).toFixed(0)} s${skipped > 0 ? `, ${skipped} skipped` : ""}`);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
