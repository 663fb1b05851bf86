import assert from "node:assert/strict";
import { chmodSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { type Examination, examine, type Report, toData, toText } from "../../../src/cli/doctor.ts";
import type { Check, Space } from "../../../src/cli/doctor/check.ts";
import { checkRuntime, limitOf, locksAnything, memoryLimit, OLDEST } from "../../../src/cli/doctor/host.ts";
import { type Libraries, probeLibraries } from "../../../src/cli/doctor/libraries.ts";
import { parseDevinfo } from "../../../src/cli/doctor/rdma.ts";
import { ROOT } from "../../support/runtime.ts";
import { TemporaryFolder } from "./helpers.ts";
import { batchferry } from "./run.ts";

const GIB = 2 ** 30;
const TMPFS = 0x01021994;

/** Files by path, below a folder. */
type Files = Readonly<Record<string, string>>;

/** One port of a RoCE device, with its character device. */
function roce(device: string, state = "4: ACTIVE", verbs = "uverbs0"): Record<string, string> {
  const port = `sys/class/infiniband/${device}/ports/1`;
  return {
    [`${port}/state`]: `${state}\n`,
    [`${port}/link_layer`]: "Ethernet\n",
    [`${port}/rate`]: "100 Gb/sec (4X EDR)\n",
    [`${port}/gids/0`]: "fe80:0000:0000:0000:5054:00ff:fe12:3456\n",
    [`${port}/gids/1`]: "fe80:0000:0000:0000:5054:00ff:fe12:3456\n",
    [`${port}/gids/2`]: "0000:0000:0000:0000:0000:ffff:0a00:020f\n",
    [`${port}/gids/3`]: "0000:0000:0000:0000:0000:ffff:0a00:020f\n",
    [`${port}/gids/10`]: "0000:0000:0000:0000:0000:0000:0000:0000\n",
    [`${port}/gid_attrs/types/0`]: "IB/RoCE v1\n",
    [`${port}/gid_attrs/types/1`]: "RoCE v2\n",
    [`${port}/gid_attrs/types/2`]: "IB/RoCE v1\n",
    [`${port}/gid_attrs/types/3`]: "RoCE v2\n",
    [`${port}/gid_attrs/ndevs/0`]: "eth7\n",
    [`${port}/gid_attrs/ndevs/3`]: "eth7\n",
    "sys/class/net/eth7/mtu": "9000\n",
    [`sys/class/infiniband_verbs/${verbs}/ibdev`]: `${device}\n`,
    [`dev/infiniband/${verbs}`]: "",
  };
}

const LIMITS = `Limit                     Soft Limit           Hard Limit           Units
Max open files            1048576              1048576              files
Max locked memory         unlimited            unlimited            bytes
`;
const SMALL_LIMITS = LIMITS.replace(
  /^Max locked.*$/m,
  "Max locked memory         65536                65536                bytes",
);

const DEVINFO = `hca_id:\tmlx5_0
\ttransport:\t\t\tInfiniBand (0)
\tmax_mr_size:\t\t\t0xffffffffffffffff
\t\tport:\t1
\t\t\tstate:\t\t\tPORT_ACTIVE (4)
\t\t\tactive_mtu:\t\t4096 (5)

hca_id:\terdma_0
\tmax_mr_size:\t\t\t0x1000000
\t\tport:\t1
\t\t\tactive_mtu:\t\t1024 (3)
`;

/** A made-up host. */
interface Made {
  readonly files?: Files;
  readonly environment?: Readonly<Record<string, string>>;
  readonly space?: Space | undefined;
  readonly backend?: string;
  readonly master?: string;
  readonly config?: string;
  readonly libraries?: Libraries;
  readonly devinfo?: string;
}

const FOUND: Libraries = {
  probed: [
    { library: "verbs", path: "/opt/lib/libibverbs.so.1", devices: ["mlx5_0", "erdma_0"] },
    { library: "store", path: "/opt/lib/libmooncake_store.so" },
    { library: "engine", path: "/opt/lib/libtransfer_engine.so" },
  ],
  cut: undefined,
};

function write(folder: TemporaryFolder, files: Files): void {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(folder.join(name)), { recursive: true });
    writeFileSync(folder.join(name), text);
  }
}

/** Examines a made-up host; `directory` of the shm store is its `shm`. */
async function look(folder: TemporaryFolder, made: Made = {}): Promise<Report> {
  write(folder, { "proc/self/limits": LIMITS, "shm/.keep": "", ...made.files });
  const environment: Record<string, string> = {
    BATCHFERRY_DIRECTORY: folder.join("shm"),
    BATCHFERRY_RUNTIME_DIR: folder.join("run"),
    ...made.environment,
  };
  const examination: Examination = {
    asked: { backend: made.backend, config: made.config, master: made.master },
    host: {
      sys: folder.join("sys"),
      proc: folder.join("proc"),
      dev: folder.join("dev"),
      environment: (name) => environment[name],
      space: () => "space" in made ? made.space : { bytes: 8 * GIB, free: 7 * GIB, type: TMPFS },
    },
    timeoutMs: 2000,
    libraries: () => Promise.resolve(made.libraries ?? FOUND),
    devices: () => Promise.resolve(parseDevinfo(made.devinfo ?? "")),
  };
  return await examine(examination);
}

function find({ checks }: Report, name: string): Check {
  const found = checks.find((check) => check.name === name);
  assert.ok(found, `no check ${name} among ${checks.map(({ name }) => name).join(", ")}`);
  return found;
}

/** State, words and advice of one check. */
function expectCheck(report: Report, name: string, state: string, says: RegExp, fix?: RegExp): Check {
  const check = find(report, name);
  assert.equal(check.state, state, `${name}: ${check.says}`);
  assert.match(check.says, says);
  if (fix === undefined) assert.equal(check.fix, undefined);
  else assert.match(check.fix ?? "", fix);
  return check;
}

/** Every warning and problem says what mends it, and nothing else does. */
function hasAdvice({ checks }: Report): void {
  for (const { name, state, fix } of checks) {
    assert.equal(fix !== undefined, state === "warning" || state === "problem", name);
  }
}

describe("doctor", () => {
  it("finds nothing wrong on a plain host", async () => {
    using folder = new TemporaryFolder();
    const report = await look(folder);
    assert.deepEqual([report.backend, report.ok], ["shm", true]);
    assert.deepEqual(report.checks.filter(({ state }) => state === "warning" || state === "problem"), []);
    expectCheck(report, "configuration", "ok", /^backend shm \(default\); set: BATCHFERRY_DIRECTORY/);
    expectCheck(report, "shared memory", "ok", /8\.00 GiB, 7\.00 GiB free/);
    expectCheck(report, "shm store", "absent", /first put/);
    expectCheck(report, "memory limit", "ok", /none/);
    expectCheck(report, "RDMA", "absent", /no device; not configured/);
    expectCheck(report, "master", "absent", /none is configured/);
    expectCheck(report, "runtime folder", "absent", /when it is needed/);
    hasAdvice(report);
    // and it has made nothing
    assert.deepEqual(readdirSync(folder.path).sort(), ["proc", "shm"]);
    assert.deepEqual(readdirSync(folder.join("shm")), [".keep"]);
  });

  it("knows the supported runtimes", () => {
    const { engines } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    assert.deepEqual(OLDEST, { bun: engines.bun.slice(2), deno: engines.deno.slice(2) });
    assert.equal(checkRuntime().state, "ok");
    for (const version of ["1.3.99", "0.9.0", "canary"]) {
      const { state, fix } = checkRuntime({ bun: version });
      assert.equal(`${state} ${fix}`, "problem bun upgrade (1.4.0 or newer)");
    }
    for (const version of ["2.9.0", "2.9.1", "2.10.0-rc.1+abc", "3.0.0"]) {
      assert.equal(checkRuntime({ deno: version }, "linux", "arm64").state, "ok", version);
    }
    assert.match(checkRuntime({ deno: "2.8.9" }).fix ?? "", /^deno upgrade/);
    assert.match(checkRuntime({ deno: "2.9.0" }, "darwin").says, /Linux only/);
  });

  it("tells a configuration that cannot be used", async () => {
    using folder = new TemporaryFolder();
    for (
      const [text, says, fix] of [
        ['{"bakend":"shm"}', /unknown key "bakend"/, /^use one of backend, /],
        ['{"backend":"shmm"}', /shmm/, /there are memory, shm, mooncake/],
        ['{"backend":"shm","poolBytes":"many"}', /poolBytes .*is not a size/, /256mb/],
        ['{"backend":"mooncake"}', /needs the address of its master/, /masterServerAddr/],
        ['{"annotations":1}', /neither true nor false/, /set it to a boolean/],
        ["{", /no JSON/, /correct/],
      ] as const
    ) {
      const report = await look(folder, { config: folder.write("c.json", text) });
      expectCheck(report, "configuration", "problem", says, fix);
      assert.equal(report.ok, false);
      hasAdvice(report);
      assert.match(toText(report), /1 problem with /);
    }
  });

  it("says where the backend is from, and what is ignored", async () => {
    using folder = new TemporaryFolder();
    const roll = { transfer_backend: { backend_name: "shm", namespace: "x", backend_config: { policy: 1 } } };
    const config = folder.write("roll.json", JSON.stringify(roll));
    const from = async (made: Made): Promise<unknown> =>
      find(await look(folder, made), "configuration").facts.from;
    assert.equal(await from({ config }), config);
    assert.equal(await from({ config, environment: { BATCHFERRY_BACKEND: "memory" } }), "BATCHFERRY_BACKEND");
    assert.equal(await from({ config, backend: "memory" }), "--backend");
    assert.equal(
      await from({ environment: { BATCHFERRY_CONFIG: folder.write("p.json", '{"keyPrefix":"k"}') } }),
      "default",
    );
    const check = find(await look(folder, { config }), "configuration");
    assert.match(check.says, /without a meaning here: namespace, policy/);
  });

  it("looks at shared memory", async () => {
    using folder = new TemporaryFolder();
    for (
      const [space, state, says, fix] of [
        [
          { bytes: 64 * 2 ** 20, free: 64 * 2 ** 20, type: TMPFS },
          "warning",
          /Docker's default/,
          /--shm-size=8g/,
        ],
        [
          { bytes: 100 * 2 ** 20, free: 90 * 2 ** 20, type: TMPFS },
          "warning",
          /too little/,
          /BATCHFERRY_DIRECTORY/,
        ],
        [{ bytes: 8 * GIB, free: 0.5 * GIB, type: TMPFS }, "warning", /nearly full/, /batchferry gc/],
        [{ bytes: 8 * GIB, free: 4096, type: TMPFS }, "problem", /is full/, /batchferry gc/],
        [{ bytes: 80 * GIB, free: 70 * GIB, type: 0xef53 }, "warning", /on a disk/, /tmpfs/],
        [undefined, "problem", /is not there/, /mkdir -p/],
      ] as const
    ) {
      const report = await look(folder, { space });
      expectCheck(report, "shared memory", state, says, fix);
      assert.equal(report.ok, state !== "problem");
      // a backend that does not use it does not mind
      const other = await look(folder, { space, backend: "memory" });
      assert.match(find(other, "shared memory").state, /^(ok|absent)$/);
      hasAdvice(other);
    }
  });

  it("looks at the folder of the shm store", async () => {
    using folder = new TemporaryFolder();
    await look(folder);
    const root = folder.join(`shm/batchferry-${process.geteuid!()}`);
    mkdirSync(root, { mode: 0o700 });
    expectCheck(await look(folder), "shm store", "ok", /mode 0700/);
    chmodSync(root, 0o755);
    const open = await look(folder);
    expectCheck(open, "shm store", "problem", /cannot be trusted.*mode 0755/, /^chmod 700 /);
    assert.equal(open.ok, false);
    chmodSync(root, 0o700);
    using other = new TemporaryFolder();
    write(other, { "shm/.keep": "" });
    symlinkSync("/", other.join(`shm/batchferry-${process.geteuid!()}`));
    expectCheck(await look(other), "shm store", "problem", /is no folder/, /^rm /);
  });

  it("reads memory limits of both versions", async () => {
    using two = new TemporaryFolder();
    const mount = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
    const files = {
      "proc/self/cgroup": "0::/pod/box\n",
      "proc/self/mountinfo": mount,
      "sys/fs/cgroup/pod/memory.max": `${4 * GIB}\n`,
      "sys/fs/cgroup/pod/memory.current": `${2 * GIB}\n`,
      "sys/fs/cgroup/pod/memory.stat": `anon 5\ninactive_file ${GIB}\n`,
      "sys/fs/cgroup/pod/box/memory.max": "max\n",
    };
    const report = await look(two, { files, space: { bytes: 2 * GIB, free: 2 * GIB, type: TMPFS } });
    const check = expectCheck(report, "memory limit", "ok", /^4\.00 GiB \(cgroup v2\), 1\.00 GiB in use$/);
    assert.equal(check.facts.limit, 4 * GIB);
    expectCheck(
      await look(two),
      "memory limit",
      "warning",
      /killed before a put fails/,
      /--memory=.*--shm-size/,
    );
    expectCheck(
      await look(two, { files: { "sys/fs/cgroup/pod/memory.current": `${5 * GIB}\n` } }),
      "memory limit",
      "warning",
      /killed soon/,
      /--memory=/,
    );

    using one = new TemporaryFolder();
    write(one, {
      "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/abc/in\n0::/\n",
      "proc/self/mountinfo":
        "33 31 0:30 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n34 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n",
      "sys/fs/cgroup/memory/memory.limit_in_bytes": `${GIB}\n`,
      "sys/fs/cgroup/memory/memory.usage_in_bytes": "4096\n",
      "sys/fs/cgroup/memory/in/memory.limit_in_bytes": "9223372036854771712\n",
    });
    const host = { sys: one.join("sys"), proc: one.join("proc") };
    assert.deepEqual(memoryLimit(host), {
      version: 1,
      file: one.join("sys/fs/cgroup/memory/memory.limit_in_bytes"),
      limit: GIB,
      used: 4096,
    });
    assert.equal(memoryLimit({ sys: one.join("none"), proc: one.join("none") }), undefined);
  });

  it("reads the limits of the process", () => {
    using folder = new TemporaryFolder();
    const host = { proc: folder.join("proc") };
    write(folder, {
      "proc/self/limits": SMALL_LIMITS,
      "proc/self/status": "Name:\tbun\nCapEff:\t0000000000004000\n",
      "proc/self/uid_map": "         0          0 4294967295\n",
    });
    assert.deepEqual(limitOf(host, "Max locked memory"), { soft: 65536, hard: 65536 });
    assert.deepEqual(limitOf(host, "Max open files"), { soft: 1048576, hard: 1048576 });
    assert.equal(limitOf(host, "Max"), undefined);
    assert.equal(locksAnything(host), true);
    write(folder, { "proc/self/uid_map": "         0       1000          1\n" });
    assert.equal(locksAnything(host), false);
    assert.equal(limitOf({ proc: folder.join("none") }, "Max open files"), undefined);
  });

  it("minds a small memlock where memory is registered", async () => {
    using folder = new TemporaryFolder();
    const files = { ...roce("mlx5_0"), "proc/self/limits": SMALL_LIMITS };
    const report = await look(folder, { files, backend: "verbs" });
    expectCheck(report, "locked memory", "problem", /64\.0 KiB.*registers 1\.03 GiB/, /--ulimit memlock=-1/);
    assert.equal(report.ok, false);
    expectCheck(await look(folder, { files }), "locked memory", "ok", /64\.0 KiB/);
    const soft = {
      ...files,
      "proc/self/limits": LIMITS.replace("memory         unlimited", "memory         65536    "),
    };
    expectCheck(
      await look(folder, { files: soft, backend: "verbs" }),
      "locked memory",
      "problem",
      /./,
      /^ulimit -l unlimited/,
    );
    const few = {
      "proc/self/limits": LIMITS.replace("1048576              1048576", "256                  524288 "),
    };
    expectCheck(await look(folder, { files: few }), "open files", "warning", /256/, /^ulimit -n 65536/);
  });

  it("has a problem without a device only where RDMA is configured", async () => {
    using folder = new TemporaryFolder();
    const report = await look(folder, { backend: "verbs" });
    expectCheck(report, "RDMA", "problem", /no RDMA device/, /\/dev\/infiniband/);
    assert.equal(report.ok, false);
    const auto = await look(folder, {
      config: folder.write("a.json", '{"backend":"transfer-engine","protocol":"auto"}'),
    });
    expectCheck(auto, "RDMA", "warning", /TCP is used instead/, /./);
    assert.equal(auto.ok, true);
  });

  it("shows an ACTIVE RoCE port", async () => {
    using folder = new TemporaryFolder();
    const report = await look(folder, { files: roce("mlx5_0"), backend: "verbs", devinfo: DEVINFO });
    assert.equal(report.ok, true);
    hasAdvice(report);
    expectCheck(report, "RDMA", "ok", /mlx5_0; required/);
    const port = expectCheck(
      report,
      "RDMA mlx5_0/1",
      "ok",
      /^ACTIVE, Ethernet, 100 Gb\/sec \(4X EDR\), MTU 4096, /,
    );
    assert.deepEqual([port.facts.roceV2Ipv4, port.facts.interfaceMtu, port.facts.activeMtu], [3, 9000, 4096]);
    assert.equal(port.more?.length, 4);
    assert.match(port.more?.[3] ?? "", /^GID 3 {2}10\.0\.2\.15 {2}RoCE v2 {2}eth7 {2}←/);
    expectCheck(report, "GID index", "ok", /MC_GID_INDEX is not set; RoCE v2 IPv4 is 3 \(mlx5_0\/1\)$/);
    for (
      const [set, state, says] of [
        ["3", "ok", /MC_GID_INDEX=3/],
        ["2", "warning", /on mlx5_0\/1 that is IB\/RoCE v1/],
        ["1", "warning", /not of an IPv4 address/],
        ["10", "problem", /has no such GID/],
        ["x", "warning", /is no index/],
      ] as const
    ) {
      const other = await look(folder, { backend: "verbs", environment: { MC_GID_INDEX: set } });
      expectCheck(other, "GID index", state, says, state === "ok" ? undefined : /^export MC_GID_INDEX=3$/);
      assert.equal(other.ok, state !== "problem");
    }
  });

  it("tells a DOWN port, a missing permission and a missing provider", async () => {
    using folder = new TemporaryFolder();
    const down = { ...roce("mlx5_0"), ...roce("mlx5_1", "1: DOWN", "uverbs1") };
    const both = await look(folder, { files: down, backend: "verbs" });
    assert.equal(both.ok, true);
    expectCheck(both, "RDMA mlx5_1/1", "warning", /^DOWN.*link is not up/, /^ip link set eth7 up/);
    expectCheck(both, "libibverbs", "warning", /no provider for mlx5_1/, /ibverbs-providers/);
    const config = folder.write("v.json", '{"backend":"verbs","deviceName":"mlx5_1"}');
    const chosen = await look(folder, { config });
    expectCheck(chosen, "RDMA", "problem", /no port of the RDMA device mlx5_1 is ACTIVE \(DOWN\)/, /./);
    expectCheck(chosen, "libibverbs", "problem", /no provider for mlx5_1/, /ibverbs-providers/);

    using denied = new TemporaryFolder();
    const { "dev/infiniband/uverbs0": _, ...files } = roce("erdma_0");
    const report = await look(denied, { files, backend: "verbs", devinfo: DEVINFO });
    expectCheck(report, "RDMA", "problem", /no character device this process can open/, /--device=/);
    expectCheck(report, "RDMA erdma_0/1", "warning", /uverbs0 is not there/, /--device=\/dev\/infiniband/);
    assert.equal(report.ok, false);
    assert.equal((await look(denied)).ok, true);
    if (process.geteuid!() !== 0) {
      write(denied, { "dev/infiniband/uverbs0": "" });
      chmodSync(denied.join("dev/infiniband/uverbs0"), 0);
      expectCheck(await look(denied), "RDMA erdma_0/1", "warning", /may not be opened/, /^chmod 666 /);
      chmodSync(denied.join("dev/infiniband/uverbs0"), 0o600);
    }
    write(denied, { "dev/infiniband/uverbs0": "" });
    chmodSync(denied.join("dev/infiniband/uverbs0"), 0o600);
    const small = await look(denied, { backend: "verbs", devinfo: DEVINFO });
    expectCheck(
      small,
      "RDMA erdma_0/1",
      "warning",
      /up to 16\.0 MiB.*registers less at once/,
      /globalSegmentSize/,
    );
  });

  it("tells libraries: found, not found, not told", async () => {
    using folder = new TemporaryFolder();
    const tried = [{ place: "the loader's search path", error: "not there" }];
    const failure = { code: "LIBRARY_MISSING", message: "none", tried, hint: "install it" };
    const missing: Libraries = { probed: [{ library: "store", failure }], cut: "no answer in 2.0 s" };
    const made = { libraries: missing, environment: { MOONCAKE_MASTER: "127.0.0.1:1" } };
    const report = await look(folder, { ...made, backend: "mooncake" });
    const check = expectCheck(
      report,
      "Mooncake Store",
      "problem",
      /tried the loader's search path/,
      /^install it$/,
    );
    assert.deepEqual(check.more, ["the loader's search path: not there"]);
    expectCheck(report, "libibverbs", "absent", /not known: no answer in 2\.0 s/);
    expectCheck(await look(folder, made), "Mooncake Store", "absent", /tried/);
    const late = await look(folder, { ...made, backend: "transfer-engine" });
    expectCheck(late, "Transfer Engine", "warning", /no answer/, /MOONCAKE_TRANSFER_ENGINE_LIBRARY=/);
    assert.equal(late.ok, true);
    const crashed = { probed: [], cut: "the process that loads it ended with SIGSEGV" };
    const broken = await look(folder, { libraries: crashed, backend: "transfer-engine" });
    expectCheck(broken, "Transfer Engine", "problem", /SIGSEGV/, /install it again/);
  });

  it("loads libraries in a process of its own", async () => {
    using folder = new TemporaryFolder();
    const { probed, cut } = await probeLibraries(
      { store: folder.write("no.so", "x"), engine: "/none.so" },
      30_000,
    );
    assert.equal(cut, undefined);
    assert.deepEqual(probed.map(({ library }) => library), ["verbs", "store", "engine"]);
    for (const { failure } of probed.slice(1)) {
      assert.equal(failure?.code, "LIBRARY_MISSING");
      assert.match(failure?.tried.map(({ place }) => place).join(", ") ?? "", /the path given/);
    }
    const late = await probeLibraries({}, 1);
    assert.match(late.cut ?? "", /^no answer in 0\.0 s$/);
  });

  it("asks the master, and nobody else", async () => {
    using folder = new TemporaryFolder();
    let segments = "";
    const server: Server = createServer((request, response) => {
      response.writeHead(request.url === "/get_all_segments" ? 200 : 404).end(segments);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
      const config = folder.write(
        "m.json",
        JSON.stringify({ backend: "mooncake", masterMetricsAddr: address }),
      );
      expectCheck(
        await look(folder, { config, master: address }),
        "master",
        "warning",
        /0 segments/,
        /batchferry agent/,
      );
      segments = "10.0.0.1:1\n10.0.0.2:2\n";
      const report = await look(folder, { config, master: address });
      const check = expectCheck(report, "master", "ok", /answers, 2 segments/);
      assert.deepEqual(check.facts.segments, ["10.0.0.1:1", "10.0.0.2:2"]);
      assert.equal(report.ok, true);
      expectCheck(report, "agent", "absent", /none is running/);
      const gone = await look(folder, { config, master: "127.0.0.1:1" });
      expectCheck(
        gone,
        "master",
        "problem",
        /nobody answers at 127\.0\.0\.1:1/,
        /mooncake_master --rpc_port 1/,
      );
      assert.equal(gone.ok, false);
      // of no matter to shm
      assert.equal((await look(folder, { master: "127.0.0.1:1" })).ok, true);
    } finally {
      server.close();
    }
  });

  it("looks at the runtime folder and the secret", async () => {
    using folder = new TemporaryFolder();
    mkdirSync(folder.join("run"), { mode: 0o700 });
    expectCheck(await look(folder), "runtime folder", "ok", /mode 0700/);
    chmodSync(folder.join("run"), 0o755);
    expectCheck(await look(folder), "runtime folder", "warning", /not yours alone/, /^chmod 700 /);
    const secretFile = folder.write("secret", "s");
    chmodSync(secretFile, 0o644);
    const peer = (more: Record<string, unknown>): Made => ({
      config: folder.write(
        "t.json",
        JSON.stringify({ backend: "transfer-engine", peers: ["10.0.0.9:7"], ...more }),
      ),
    });
    expectCheck(await look(folder, peer({})), "configuration", "warning", /no secretFile/, /openssl rand/);
    expectCheck(
      await look(folder, peer({ secretFile })),
      "configuration",
      "problem",
      /by others/,
      /^chmod 600 /,
    );
    chmodSync(secretFile, 0o600);
    expectCheck(await look(folder, peer({ secretFile })), "configuration", "ok", /transfer-engine/);
  });

  it("prints the same as data", async () => {
    using folder = new TemporaryFolder();
    const report = await look(folder, { files: roce("mlx5_0"), devinfo: DEVINFO });
    const { checks } = toData(report) as { checks: Record<string, unknown>[] };
    assert.equal(checks.length, report.checks.length);
    for (const check of checks) {
      assert.deepEqual(Object.keys(check), ["name", "state", "says", "fix", "facts"]);
    }
    const text = toText(report);
    for (const { name, state, says } of report.checks) {
      assert.ok(
        text.split("\n").some((line) => line.startsWith(state) && line.includes(name) && line.endsWith(says)),
        name,
      );
    }
    assert.match(text, /\n\nno problem with the backend shm$/);
  });

  it("runs as a command", () => {
    using folder = new TemporaryFolder();
    const place = {
      cwd: folder.path,
      store: folder.path,
      environment: { BATCHFERRY_RUNTIME_DIR: folder.join("run") },
    };
    const start = performance.now();
    const plain = batchferry(place, "doctor");
    assert.ok(performance.now() - start < 15_000);
    assert.equal(`${plain.code} ${plain.stderr}`, "0 ");
    assert.match(plain.stdout, /^ok +runtime +(deno|bun) \d/);
    assert.match(plain.stdout, /no problem with the backend shm/);
    const data = JSON.parse(batchferry(place, "doctor", "--json").stdout);
    assert.deepEqual([data.backend, data.ok], ["shm", true]);

    const bad = batchferry(place, "doctor", "--backend", "nope", "--json");
    assert.equal(`${bad.code} ${bad.stderr}`, "1 ");
    assert.equal(JSON.parse(bad.stdout).ok, false);
    assert.equal(batchferry(place, "doctor", "--backend", "mooncake").code, 1);
    assert.equal(batchferry(place, "doctor", "--master", "a:b:c").code, 2);
    assert.equal(batchferry(place, "doctor", "--config", "none.json").code, 2);
    assert.match(batchferry(place, "help", "doctor").stdout, /--master HOST:PORT/);
    assert.deepEqual(readdirSync(folder.path), []);
  });
});
