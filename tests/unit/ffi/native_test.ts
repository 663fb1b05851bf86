import { after, before, describe, it } from "node:test";
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import process from "node:process";
import { setImmediate as turn } from "node:timers/promises";
import { cstring, libc, MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE, sys } from "../../../ffi/libc.ts";
import { type Bound, detach, type Library, native, withDeadline } from "../../../ffi/native.ts";
import { compile, noCompiler, TempFolder } from "./cc.ts";
import { BlockingPipe } from "./pipe.ts";

const LIBC = "libc.so.6";

describe("native.open with libc", () => {
  const lib = native.open(LIBC, {
    abs: { args: ["i32"], result: "i32" },
    htons: { args: ["u16"], result: "u16" },
    htonl: { args: ["u32"], result: "u32" },
    labs: { args: ["i64"], result: "i64" },
    strtoull: { args: ["buffer", "pointer", "i32"], result: "u64" },
    strnlen: { args: ["buffer", "usize"], result: "usize" },
    atof: { args: ["buffer"], result: "f64" },
    memchr: { args: ["pointer", "i32", "usize"], result: "pointer" },
    srand: { args: ["u32"], result: "void" },
  });
  const { symbols } = lib;

  it("passes and returns integers up to 32 bits as numbers", () => {
    assert.equal(symbols.abs(-2147483647), 2147483647);
    assert.equal(symbols.htons(0x12ff), 0xff12);
    assert.equal(symbols.htonl(0xff), 0xff000000);
  });

  it("passes and returns integers of 64 bits as bigints, small ones too", () => {
    assert.equal(symbols.labs(-9223372036854775807n), 9223372036854775807n);
    assert.equal(symbols.labs(-1n), 1n);
    assert.equal(symbols.strtoull(cstring("18446744073709551615"), 0n, 10), 0xffff_ffff_ffff_ffffn);
    assert.equal(symbols.strtoull(cstring("0"), 0n, 10), 0n);
    assert.equal(symbols.strnlen(cstring("four"), 100n), 4n);
  });

  it("passes doubles, nothing, and pointers", () => {
    assert.equal(symbols.atof(cstring("-1.5e3")), -1500);
    assert.equal(symbols.srand(1), undefined);
    const bytes = new Uint8Array(new ArrayBuffer(16));
    bytes[9] = 7;
    const address = native.addressOf(bytes);
    assert.equal(symbols.memchr(address, 7, 16n), address + 9n);
    assert.equal(symbols.memchr(address, 8, 16n), 0n);
  });

  it("passes a view from its own first byte", () => {
    assert.equal(symbols.strnlen(cstring("abcdef").subarray(2), 100n), 4n);
    const text = cstring("x42");
    assert.equal(symbols.atof(new DataView(text.buffer, text.byteOffset + 1, 3)), 42);
  });

  it("binds one symbol under two names with two signatures", () => {
    const two = native.open(LIBC, {
      signed: { symbol: "labs", args: ["i64"], result: "i64" },
      plain: { symbol: "labs", args: ["i64"], result: "u64" },
      later: { symbol: "labs", args: ["i64"], result: "i64", blocking: true },
    });
    assert.equal(two.symbols.signed(-5n), 5n);
    assert.equal(two.symbols.plain(-6n), 6n);
    return two.symbols.later(-7n).then((value) => assert.equal(value, 7n));
  });
});

describe("native.open with a library of every C type", { skip: noCompiler }, () => {
  const folder = new TempFolder();
  const table = {
    echo_i8: { args: ["i8"], result: "i8" },
    echo_u8: { args: ["u8"], result: "u8" },
    echo_i16: { args: ["i16"], result: "i16" },
    echo_u16: { args: ["u16"], result: "u16" },
    echo_i32: { args: ["i32"], result: "i32" },
    echo_u32: { args: ["u32"], result: "u32" },
    echo_i64: { args: ["i64"], result: "i64" },
    echo_u64: { args: ["u64"], result: "u64" },
    echo_isize: { args: ["isize"], result: "isize" },
    echo_usize: { args: ["usize"], result: "usize" },
    echo_f32: { args: ["f32"], result: "f32" },
    echo_f64: { args: ["f64"], result: "f64" },
    echo_bool: { args: ["bool"], result: "bool" },
    echo_pointer: { args: ["pointer"], result: "pointer" },
    where: { args: ["buffer"], result: "pointer" },
    mixed: {
      args: ["i8", "f64", "u64", "f32", "i32", "pointer", "u16", "i64", "f64", "u8"],
      result: "f64",
    },
    fill: { args: ["buffer", "usize", "u8"], result: "void" },
    blocking_mixed: {
      symbol: "mixed",
      args: ["i8", "f64", "u64", "f32", "i32", "pointer", "u16", "i64", "f64", "u8"],
      result: "f64",
      blocking: true,
    },
    blocking_bool: { symbol: "echo_bool", args: ["bool"], result: "bool", blocking: true },
    blocking_u64: { symbol: "echo_u64", args: ["u64"], result: "u64", blocking: true },
    blocking_usize: { symbol: "echo_usize", args: ["usize"], result: "usize", blocking: true },
    blocking_void: { symbol: "nothing", args: [], result: "void", blocking: true },
  } as const;
  let symbols: Bound<typeof table>;

  before(() => {
    symbols = native.open(
      compile(
        folder.file("libtypes.so"),
        `#include <stdint.h>
         #include <stdbool.h>
         #include <stddef.h>
         #include <string.h>
         #define ECHO(name, type) type echo_##name(type v) { return v; }
         ECHO(i8, int8_t) ECHO(u8, uint8_t) ECHO(i16, int16_t) ECHO(u16, uint16_t) ECHO(i32, int32_t)
         ECHO(u32, uint32_t) ECHO(i64, int64_t) ECHO(u64, uint64_t) ECHO(isize, ptrdiff_t) ECHO(usize, size_t)
         ECHO(f32, float) ECHO(f64, double) ECHO(bool, bool) ECHO(pointer, void *)
         void *where(void *p) { return p; }
         double mixed(int8_t a, double b, uint64_t c, float d, int32_t e, void *f, uint16_t g, int64_t h, double i,
                      uint8_t j) { return a + b + c + d + e + (uintptr_t)f + g + h + i + j; }
         void fill(void *p, size_t n, uint8_t v) { memset(p, v, n); }
         void nothing(void) {}`,
      ),
      table,
    ).symbols;
  });
  after(() => folder.remove());

  it("brings every number back", () => {
    for (const value of [-128, -1, 0, 127]) assert.equal(symbols.echo_i8(value), value);
    for (const value of [0, 128, 255]) assert.equal(symbols.echo_u8(value), value);
    for (const value of [-32768, 32767]) assert.equal(symbols.echo_i16(value), value);
    for (const value of [0, 65535]) assert.equal(symbols.echo_u16(value), value);
    for (const value of [-2147483648, -1, 2147483647]) assert.equal(symbols.echo_i32(value), value);
    for (const value of [0, 2147483648, 4294967295]) assert.equal(symbols.echo_u32(value), value);
    for (const value of [-1.5, 3.25, Infinity]) assert.equal(symbols.echo_f32(value), value);
    for (const value of [Math.PI, -0, Number.MIN_VALUE, NaN]) {
      assert.ok(Object.is(symbols.echo_f64(value), value));
    }
  });

  it("brings every bigint back", () => {
    for (const value of [-(2n ** 63n), -1n, 0n, 1n, 2n ** 63n - 1n]) {
      assert.equal(symbols.echo_i64(value), value);
      assert.equal(symbols.echo_isize(value), value);
    }
    for (const value of [0n, 1n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n]) {
      assert.equal(symbols.echo_u64(value), value);
      assert.equal(symbols.echo_usize(value), value);
      assert.equal(symbols.echo_pointer(value), value);
    }
  });

  it("brings booleans back as booleans", () => {
    assert.equal(symbols.echo_bool(true), true);
    assert.equal(symbols.echo_bool(false), false);
  });

  it("keeps ten mixed arguments in order", () => {
    const sum = -1 + 0.5 + 100 + 0.25 - 1000 + 4096 + 60000 - 7 + 2.125 + 200;
    assert.equal(symbols.mixed(-1, 0.5, 100n, 0.25, -1000, 4096n, 60000, -7n, 2.125, 200), sum);
  });

  it("hands C the address that addressOf gives, NULL for null", () => {
    const bytes = new Uint8Array(new ArrayBuffer(64));
    assert.equal(symbols.where(bytes), native.addressOf(bytes));
    assert.equal(symbols.where(bytes.subarray(5)), native.addressOf(bytes) + 5n);
    assert.equal(symbols.where(null), 0n);
  });

  it("lets C write into a view and not beside it", () => {
    const bytes = new Uint8Array(12);
    symbols.fill(bytes.subarray(3, 7), 4n, 9);
    assert.deepEqual([...bytes], [0, 0, 0, 9, 9, 9, 9, 0, 0, 0, 0, 0]);
  });

  it("does the same in blocking calls", async () => {
    const sum = -1 + 0.5 + 100 + 0.25 - 1000 + 4096 + 60000 - 7 + 2.125 + 200;
    assert.equal(
      await symbols.blocking_mixed(-1, 0.5, 100n, 0.25, -1000, 4096n, 60000, -7n, 2.125, 200),
      sum,
    );
    assert.equal(await symbols.blocking_bool(true), true);
    assert.equal(await symbols.blocking_u64(2n ** 64n - 1n), 2n ** 64n - 1n);
    assert.equal(await symbols.blocking_usize(1n), 1n);
    assert.equal(await symbols.blocking_void(), undefined);
  });
});

describe("native.open refuses", () => {
  it("a library that is not there, naming it", () => {
    assert.throws(
      () => native.open("/nowhere/libnothing.so", { f: { args: [], result: "void" } }),
      (error: Error & { code?: string }) =>
        error.code === "LIBRARY_MISSING" && /libnothing\.so/.test(error.message),
    );
  });

  it("a symbol that is not there, naming it and the library; a blocking one too", () => {
    for (const blocking of [false, true]) {
      assert.throws(
        () => native.open(LIBC, { no_such_function: { args: [], result: "void", blocking } }),
        (error: Error & { code?: string }) =>
          error.code === "VERSION_MISMATCH" && /no_such_function/.test(error.message) &&
          error.message.includes(LIBC),
      );
    }
  });

  it("an empty table, and a blocking function with a buffer", () => {
    assert.throws(() => native.open(LIBC, {}), TypeError);
    assert.throws(
      () => native.open(LIBC, { strlen: { args: ["buffer"], result: "usize", blocking: true } }),
      TypeError,
    );
  });
});

describe("a closed library", () => {
  const table = {
    labs: { args: ["i64"], result: "i64" },
    later: { symbol: "labs", args: ["i64"], result: "i64", blocking: true },
  } as const;
  const closed = { code: "CLOSED", message: /labs|later/ };

  it("throws at the call, rejects where it blocks, and may be closed again", async () => {
    const lib = native.open(LIBC, table);
    assert.equal(lib.symbols.labs(-1n), 1n);
    lib.close();
    lib.close();
    assert.throws(() => lib.symbols.labs(-1n), closed);
    await assert.rejects(lib.symbols.later(-1n), closed);
  });

  it("closes at the end of `using`, and leaves other openings of the same library alone", () => {
    const other = native.open(LIBC, table);
    let kept: Library<typeof table>;
    {
      using lib = native.open(LIBC, table);
      kept = lib;
    }
    assert.throws(() => kept.symbols.labs(-1n), closed);
    assert.equal(other.symbols.labs(-2n), 2n);
  });

  it("lets calls under way finish, and functions taken out before run on", async () => {
    const pipe = new BlockingPipe();
    const lib = native.open(LIBC, table);
    const { labs } = lib.symbols;
    const call = pipe.read();
    pipe.library.close();
    lib.close();
    pipe.write(1);
    assert.equal(await call, 1n);
    assert.equal(labs(-3n), 3n);
    pipe.close();
  });
});

describe("native.view, native.addressOf and detach", () => {
  const rw = PROT_READ | PROT_WRITE;

  it("view shares the memory, and detach ends every view of it", () => {
    const address = sys.mmap(8192, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert.ok(address > 0n);
    const one = native.view(address, 8192);
    const bytes = new Uint8Array(one);
    const two = new Uint8Array(native.view(address + 4096n, 16));
    two[3] = 77;
    assert.equal(bytes[4099], 77);
    assert.equal(native.addressOf(bytes.subarray(100)), address + 100n);
    detach(one);
    assert.equal(one.detached, true);
    assert.equal(bytes.length, 0);
    assert.equal(bytes[4099], undefined);
    assert.equal(two[3], 77, "a view made apart is not detached with it");
    detach(one);
    detach(two.buffer as ArrayBuffer);
    assert.equal(sys.munmap(address, 8192), 0);
  });

  it("view of nothing is empty, of NULL a TypeError", () => {
    assert.equal(native.view(0n, 0).byteLength, 0);
    assert.throws(() => native.view(0n, 8), TypeError);
  });

  it("memory that began as an ArrayBuffer stays where it is, whatever its size", () => {
    for (const size of [1, 8, 64, 100, 1000, 1024, 65536]) {
      const bytes = new Uint8Array(new ArrayBuffer(size));
      const address = native.addressOf(bytes);
      assert.ok(address > 0n);
      new DataView(bytes.buffer).setUint8(0, 5);
      bytes.subarray(0, 1)[0] = 6;
      for (let i = 0; i < 50; i++) new Uint8Array(new ArrayBuffer(65536)).fill(i);
      assert.equal(native.addressOf(bytes), address);
      assert.equal(new Uint8Array(native.view(address, 1))[0], 6);
    }
  });

  it("an empty view has no address", () => {
    assert.equal(native.addressOf(new Uint8Array(new ArrayBuffer(0))), 0n);
  });
});

describe("blocking calls", () => {
  it("leave the event loop free", async () => {
    const pipe = new BlockingPipe();
    let returned = false;
    const call = pipe.read().finally(() => returned = true);
    // were the call made on this thread, none of these turns would ever come
    for (let i = 0; i < 200; i++) await turn();
    assert.equal(returned, false);
    pipe.write(1);
    assert.equal(await call, 1n);
    pipe.close();
  });

  it("run eight at a time and forty in a row", async () => {
    const pipe = new BlockingPipe();
    const calls = Array.from({ length: 8 }, () => pipe.read());
    await turn();
    pipe.write(8);
    assert.deepEqual(await Promise.all(calls), Array(8).fill(1n));
    const row = Array.from({ length: 40 }, (_, i) => pipe.labs(BigInt(-i)));
    assert.deepEqual(await Promise.all(row), Array.from({ length: 40 }, (_, i) => BigInt(i)));
    pipe.close();
  });

  it("write through an address that the caller keeps alive", async () => {
    const pipe = new BlockingPipe();
    const into = new Uint8Array(new ArrayBuffer(4));
    const call = pipe.readInto(into);
    pipe.write(3);
    await call;
    assert.equal(into[0], 1);
    pipe.close();
  });

  it("reject where an argument cannot be passed, and go on after it", async () => {
    const pipe = new BlockingPipe();
    await assert.rejects(async () => await pipe.labs("x" as unknown as bigint));
    await assert.rejects(async () => await (pipe.labs as unknown as () => Promise<bigint>)());
    assert.equal(await pipe.labs(-4n), 4n);
    pipe.close();
  });
});

describe("withDeadline", () => {
  it("hands on what comes in time", async () => {
    const pipe = new BlockingPipe();
    const onAbandon = (): void => assert.fail("was not given up");
    const options = { what: "labs", timeoutMs: 60_000, onAbandon };
    assert.equal(await withDeadline(pipe.labs(-1n), options), 1n);
    assert.equal(await withDeadline(pipe.labs(-2n), { what: "labs" }), 2n);
    await assert.rejects(
      withDeadline(Promise.reject(new RangeError("its own")), options),
      { name: "RangeError", message: "its own" },
    );
    pipe.close();
  });

  it("gives up at the deadline; the call itself settles when C returns, and has used its memory till then", async () => {
    const pipe = new BlockingPipe();
    const into = new Uint8Array(new ArrayBuffer(4));
    const call = pipe.readInto(into);
    let abandoned = 0;
    await assert.rejects(
      withDeadline(call, { what: "reading the pipe", timeoutMs: 20, onAbandon: () => abandoned++ }),
      { code: "TIMEOUT", message: /reading the pipe.*20 ms/ },
    );
    assert.equal(abandoned, 1);
    assert.equal(into[0], 0);
    pipe.write(1);
    assert.equal(await call, 1n);
    assert.equal(into[0], 1);
    pipe.close();
  });

  it("gives up when the signal fires, before or meanwhile", async () => {
    const pipe = new BlockingPipe();
    const controller = new AbortController();
    const first = pipe.read();
    const waiting = withDeadline(first, { what: "reading", signal: controller.signal });
    controller.abort(new Error("enough"));
    await assert.rejects(waiting, { code: "ABORTED", message: /reading was aborted/ });
    const second = pipe.labs(-1n);
    await assert.rejects(withDeadline(second, { what: "labs", signal: controller.signal }), {
      code: "ABORTED",
    });
    pipe.write(1);
    await Promise.allSettled([first, second]);
    pipe.close();
  });

  it("leaves room for other calls, however many are stuck", async () => {
    const pipe = new BlockingPipe();
    const stuck: Promise<bigint>[] = [];
    for (let i = 0; i < 6; i++) {
      const call = pipe.read();
      stuck.push(call);
      await assert.rejects(withDeadline(call, { what: "reading", timeoutMs: 10 }), { code: "TIMEOUT" });
    }
    assert.equal(await pipe.labs(-9n), 9n);
    pipe.write(stuck.length);
    assert.deepEqual(await Promise.all(stuck), stuck.map(() => 1n));
    pipe.close();
  });
});

describe("a process with blocking calls", () => {
  const folder = new TempFolder();
  after(() => folder.remove());
  const source = new URL("../../../ffi/native.ts", import.meta.url).href;

  function run(name: string, body: string): { status: number | null; stdout: string } {
    const script = folder.file(name);
    writeFileSync(
      script,
      `import { native, withDeadline } from ${JSON.stringify(source)};
       const { symbols } = native.open("libc.so.6", {
         usleep: { args: ["u32"], result: "i32", blocking: true },
         sleep: { args: ["u32"], result: "u32", blocking: true },
       });
       ${body}`,
    );
    const args = native.name === "deno" ? ["run", "-A", "--no-config", script] : [script];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, {
      encoding: "utf8",
      timeout: 30_000,
    });
    if (status !== 0) console.error(stderr);
    return { status, stdout };
  }

  it("lives until a pending call is answered, and no longer", () => {
    const { status, stdout } = run(
      "pending.ts",
      `symbols.usleep(1000).then(() => symbols.usleep(100_000)).then(() => console.log("answered"));`,
    );
    assert.equal(stdout, "answered\n");
    assert.equal(status, 0);
  });

  // in Deno a thread inside C keeps the process alive
  if (native.name === "bun") it("does not wait for a call that was given up", abandoned);

  function abandoned(): void {
    const { status, stdout } = run(
      "abandoned.ts",
      `await withDeadline(symbols.sleep(600), { what: "sleep", timeoutMs: 50 }).catch((e) => console.log(e.code));`,
    );
    assert.equal(stdout, "TIMEOUT\n");
    assert.equal(status, 0);
  }
});

it("libc stays open: a table of this process's own", () => {
  assert.equal(libc.symbols.getpid(), process.pid);
});
