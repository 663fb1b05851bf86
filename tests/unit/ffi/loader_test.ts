import { after, beforeEach, describe, it } from "node:test";
import assert from "node:assert/strict";
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, isAbsolute } from "node:path";
import process from "node:process";
import { BackendUnavailableError } from "../../../src/errors.ts";
import { loadLibrary } from "../../../ffi/loader.ts";
import { compile, noCompiler, TempFolder } from "./cc.ts";

const folder = new TempFolder();
const ENV = "BATCHFERRY_TEST_LIBRARY";
const NAMES = [ENV, "VIRTUAL_ENV", "CONDA_PREFIX", "PATH"];
const saved = NAMES.map((name) => [name, process.env[name]] as const);

function restore(): void {
  for (const [name, value] of saved) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
}

beforeEach(() => {
  restore();
  delete process.env[ENV];
  delete process.env["VIRTUAL_ENV"];
  delete process.env["CONDA_PREFIX"];
});
after(() => {
  restore();
  folder.remove();
});

const FLOOR = { floor: { args: ["f64"], result: "f64", c: "double floor(double)" } } as const;
const install = "install the test library";
const nothing = {
  name: "Nothing",
  sonames: ["libbatchferry-none.so.1", "libbatchferry-none.so"],
  install,
} as const;

/** The error that `load` throws. */
function refusal(code: string, load: () => unknown): BackendUnavailableError {
  try {
    load();
  } catch (error) {
    assert.ok(error instanceof BackendUnavailableError, String(error));
    assert.equal(error.code, code);
    assert.ok(error.message.endsWith(`; ${install}`), error.message);
    return error;
  }
  return assert.fail("nothing was thrown");
}

/** libm under another name: a library that every machine has. */
function copyOfLibm(to: string): void {
  const { path } = loadLibrary({ name: "libm", sonames: ["libm.so.6"], install }, FLOOR);
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(path, to);
}

describe("loadLibrary", () => {
  it("finds a library in the loader's search path, and says which file it is", () => {
    const sonames = ["libbatchferry-none.so", "libm.so.6"];
    const library = loadLibrary({ name: "libm", sonames, install, environment: ENV }, FLOOR);
    assert.equal(library.symbols.floor(-1.5), -2);
    assert.ok(isAbsolute(library.path) && /libm[.-]/.test(library.path), library.path);
    assert.equal(library.missing.size, 0);
    library.close();
    assert.throws(() => library.symbols.floor(1), { code: "CLOSED" });
  });

  it("tries nothing but the path given", () => {
    process.env[ENV] = "libm.so.6";
    const explicitPath = folder.file("none.so");
    const options = { name: "Thing", sonames: ["libm.so.6"], explicitPath, environment: ENV, install };
    const { message } = refusal("LIBRARY_MISSING", () => loadLibrary(options, FLOOR));
    assert.match(message, /^Thing: /);
    assert.ok(message.includes(`the path given: ${explicitPath}: cannot open shared object file`), message);
    assert.ok(!message.includes("search path"));
  });

  it("takes a path given, relative to the working folder too", () => {
    copyOfLibm(folder.file("given.so"));
    const cwd = process.cwd();
    process.chdir(folder.path);
    try {
      const library = loadLibrary({ ...nothing, explicitPath: "./given.so" }, FLOOR);
      assert.equal(library.symbols.floor(2.5), 2);
      assert.match(library.path, /given\.so$/);
    } finally {
      process.chdir(cwd);
    }
  });

  it("tries nothing but the environment where that is set, path or file name", () => {
    process.env[ENV] = folder.file("none.so");
    const options = { name: "Thing", sonames: ["libm.so.6"], environment: ENV, install };
    const { message } = refusal("LIBRARY_MISSING", () => loadLibrary(options, FLOOR));
    assert.ok(message.includes(`${ENV}=${folder.file("none.so")}`), message);
    assert.ok(!message.includes("search path"));
    process.env[ENV] = "libm.so.6";
    assert.equal(loadLibrary({ ...nothing, environment: ENV }, FLOOR).symbols.floor(0.5), 0);
  });

  it("takes an empty environment name for one that is not set", () => {
    process.env[ENV] = "";
    const options = { name: "libm", sonames: ["libm.so.6"], environment: ENV, install };
    assert.equal(loadLibrary(options, FLOOR).symbols.floor(7.5), 7);
  });

  it("says all that was tried, and why each would not do", () => {
    process.env["VIRTUAL_ENV"] = folder.file("empty");
    const site = folder.file("empty/lib/python3.11/site-packages");
    mkdirSync(site, { recursive: true });
    process.env["PATH"] = folder.path;
    const options = { ...nothing, environment: ENV, pythonPackages: ["thing/libthing.so"] };
    const { message, details } = refusal("LIBRARY_MISSING", () => loadLibrary(options, FLOOR));
    assert.ok(message.includes(`${ENV}: not set`), message);
    for (const soname of nothing.sonames) {
      assert.ok(message.includes(`${soname}: cannot open shared object file`), message);
    }
    assert.ok(message.includes(`thing/libthing.so`) && message.includes(site), message);
    assert.equal((details.actual as unknown[]).length, 4);
  });

  it("tells a file that is no library", () => {
    writeFileSync(folder.file("text.so"), "no ELF at all, but long enough to be looked at ".repeat(10));
    const options = { ...nothing, explicitPath: folder.file("text.so") };
    const { message } = refusal("LIBRARY_MISSING", () => loadLibrary(options, FLOOR));
    assert.match(message, /text\.so: invalid ELF header/);
  });

  it("names the functions that are missing", () => {
    const options = { name: "libm", sonames: ["libm.so.6"], install };
    const load = (): unknown =>
      loadLibrary(options, {
        ...FLOOR,
        first_missing: { args: [], result: "void" },
        alias: { symbol: "second_missing", args: [], result: "void", blocking: true },
      });
    const { message } = refusal("VERSION_MISMATCH", load);
    assert.match(message, /libm[.-].* lacks first_missing, second_missing;/);
  });

  it("lets optional functions be missing until they are called", async () => {
    const library = loadLibrary(
      { name: "libm", sonames: ["libm.so.6"], optional: ["newer", "later", "ceil"], install },
      {
        ...FLOOR,
        ceil: { args: ["f64"], result: "f64" },
        newer: { args: [], result: "void" },
        later: { args: [], result: "void", blocking: true },
      },
    );
    assert.deepEqual([...library.missing], ["newer", "later"]);
    assert.equal(library.symbols.ceil(0.5), 1);
    assert.match(refusal("VERSION_MISMATCH", () => library.symbols.newer()).message, /no newer/);
    await assert.rejects(library.symbols.later(), { code: "VERSION_MISMATCH", message: /no later/ });
  });
});

describe("loadLibrary in Python packages", () => {
  const search = { ...nothing, pythonPackages: ["absent/libm.so", "thing/libthing.so"] };

  it("looks into the active environment, of venv or Conda", () => {
    for (const name of ["VIRTUAL_ENV", "CONDA_PREFIX"]) {
      const root = folder.file(name);
      const file = `${root}/lib/python3.12/site-packages/thing/libthing.so`;
      copyOfLibm(file);
      process.env[name] = root;
      const library = loadLibrary(search, FLOOR);
      assert.equal(library.path, file);
      assert.equal(library.symbols.floor(3.5), 3);
      delete process.env[name];
    }
  });

  it("asks the python3 in PATH", () => {
    const site = folder.file("asked/dist-packages");
    copyOfLibm(`${site}/thing/libthing.so`);
    mkdirSync(folder.file("bin"));
    const python = folder.file("bin/python3");
    writeFileSync(python, `#!/bin/sh\necho '["/nowhere/site-packages", "${site}"]'\n`);
    chmodSync(python, 0o755);
    process.env["PATH"] = `${folder.file("bin")}:${process.env["PATH"]}`;
    assert.equal(loadLibrary(search, FLOOR).path, `${site}/thing/libthing.so`);
  });

  it("goes on where python3 is broken or not there", () => {
    mkdirSync(folder.file("broken"));
    writeFileSync(folder.file("broken/python3"), "#!/bin/sh\necho 'not JSON'\n", { mode: 0o755 });
    for (const path of [folder.file("broken"), folder.file("no-such-folder")]) {
      process.env["PATH"] = path;
      const { message } = refusal("LIBRARY_MISSING", () => loadLibrary(search, FLOOR));
      assert.match(message, /no site-packages folder found/);
    }
  });

  it("passes by a library that is too old, and takes a good one behind it", { skip: noCompiler }, () => {
    const old = folder.file("old");
    const file = `${old}/lib/python3.10/site-packages/thing/libthing.so`;
    mkdirSync(dirname(file), { recursive: true });
    compile(file, "int unrelated(void) { return 1; }");
    const good = `${old}/lib/python3.11/site-packages/thing/libthing.so`;
    copyOfLibm(good);
    process.env["VIRTUAL_ENV"] = old;
    assert.equal(loadLibrary(search, FLOOR).path, good);
  });
});

describe("loadLibrary with dependencies", { skip: noCompiler }, () => {
  const ANSWER = { answer: { args: [], result: "i32", c: "int answer(void)" } } as const;

  /** A library `lib{name}.so` that needs `libdep-{name}.so.1`, which lies where the loader does not look. */
  function pair(name: string, needed: boolean): { library: string; dependency: string; soname: string } {
    const hidden = folder.file(`hidden-${name}`);
    mkdirSync(hidden);
    const soname = `libdep-${name}.so.1`;
    const dependency = compile(`${hidden}/${soname}`, "int part(void) { return 41; }", [
      `-Wl,-soname,${soname}`,
    ]);
    const library = compile(
      folder.file(`lib${name}.so`),
      "int part(void); int answer(void) { return part() + 1; }",
      needed ? [`-L${hidden}`, `-l:${soname}`] : [],
    );
    return { library, dependency, soname };
  }

  it("opens them first by path, where the library names them", () => {
    const { library, dependency, soname } = pair("named", true);
    const options = { ...nothing, explicitPath: library };
    const without = refusal("LIBRARY_MISSING", () => loadLibrary(options, ANSWER));
    assert.ok(without.message.includes(`${soname}: cannot open shared object file`), without.message);
    const preload = [{ name: "Part", sonames: [soname], explicitPath: dependency }];
    assert.equal(loadLibrary({ ...options, preload }, ANSWER).symbols.answer(), 42);
  });

  it("says which of them was not found", () => {
    const { library, soname } = pair("lost", true);
    const preload = [{ name: "Part", sonames: [soname], pythonPackages: ["part/lib/libpart.so"] }];
    const options = { ...nothing, explicitPath: library, preload };
    const { message } = refusal("LIBRARY_MISSING", () => loadLibrary(options, ANSWER));
    assert.match(message, /Part, needed by it, the loader's search path: libdep-lost\.so\.1: cannot open/);
    assert.match(message, /Part, needed by it, Python packages \(part\/lib\/libpart\.so\)/);
    assert.match(message, /the path given: libdep-lost\.so\.1: cannot open/);
  });

  it("finds them in Python packages", () => {
    const { library, dependency, soname } = pair("packaged", true);
    const root = folder.file("venv");
    const file = `${root}/lib/python3.11/site-packages/part/lib/${soname}`;
    mkdirSync(dirname(file), { recursive: true });
    copyFileSync(dependency, file);
    process.env["VIRTUAL_ENV"] = root;
    const preload = [{ name: "Part", sonames: [soname], pythonPackages: [`part/lib/${soname}`] }];
    assert.equal(loadLibrary({ ...nothing, explicitPath: library, preload }, ANSWER).symbols.answer(), 42);
  });

  it("lends their symbols to a library that does not name them; without, it is refused and kills nobody", () => {
    const { library, dependency, soname } = pair("unnamed", false);
    const options = { ...nothing, explicitPath: library };
    const part = { name: "Part", sonames: [soname], explicitPath: dependency };
    assert.match(
      refusal("LIBRARY_MISSING", () => loadLibrary(options, ANSWER)).message,
      /undefined symbol: part/,
    );
    refusal("LIBRARY_MISSING", () => loadLibrary({ ...options, preload: [part] }, ANSWER));
    const preload = [{ ...part, global: true }];
    assert.equal(loadLibrary({ ...options, preload }, ANSWER).symbols.answer(), 42);
  });
});
