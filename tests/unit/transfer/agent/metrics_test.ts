import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { openMetrics } from "../../../../src/transfer/agent/metrics.ts";

describe("openMetrics()", () => {
  const text = openMetrics({
    pid: 1,
    hostname: "h:1",
    master: 'quo"ted\\',
    transport: { asked: "auto", effective: "tcp" },
    uptimeMs: 1500,
    segmentBytes: 64,
    clients: [2, 3],
    leases: 4,
    pool: { bytes: 100, free: 90, quarantined: 5, waiting: 6 },
    total: { clients: 7, puts: 8, gets: 9, bytesPut: 10, bytesGot: 11, errors: 12 },
  });

  it("is text as the specification has it", () => {
    const lines = text.split("\n");
    assert.deepEqual(lines.slice(-2), ["# EOF", ""]);
    const families = new Map<string, string>();
    for (const line of lines.slice(0, -2)) {
      const type = /^# TYPE (\S+) (gauge|counter|info)$/.exec(line);
      if (type !== null) {
        assert.ok(!families.has(type[1]!), "a family twice");
        families.set(type[1]!, type[2]!);
      } else if (!line.startsWith("# ")) {
        const [, name = "", value] = /^([a-z_]+)(?:\{[^}]*\})? ([0-9.]+)$/.exec(line) ?? assert.fail(line);
        assert.ok(Number.isFinite(Number(value)));
        const [family] = [...families].at(-1)!;
        const suffix = { gauge: "", counter: "_total", info: "_info" }[families.get(family)!];
        assert.equal(name, `${family}${suffix}`);
      } else assert.match(line, /^# (HELP|UNIT) /);
    }
    for (const [family, unit] of [["uptime_seconds", "seconds"], ["put_bytes", "bytes"]]) {
      assert.ok(text.includes(`# UNIT batchferry_agent_${family} ${unit}\n`));
    }
  });

  it("has what the agent does", () => {
    assert.match(text, /^batchferry_agent_clients 2$/m);
    assert.match(text, /^batchferry_agent_put_bytes_total 10$/m);
    assert.match(text, /^batchferry_agent_pool_free_bytes 90$/m);
    assert.match(text, /master="quo\\"ted\\\\"/);
    assert.match(text, /protocol_asked="auto",protocol="tcp"/);
  });
});
