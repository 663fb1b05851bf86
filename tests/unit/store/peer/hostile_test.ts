/**
 * What peers say of themselves is checked before anything is done with it.
 *
 * @module
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { GID_TYPE } from "../../../../ffi/ibverbs.ts";
import { CorruptionError } from "../../../../src/errors.ts";
import { GUARD_BYTES, tableFromWire, tableToWire } from "../../../../src/store/peer/messages.ts";
import type { Wire } from "../../../../src/store/peer/plane.ts";
import { checkPieces, describeMemory, remoteMemoryOf } from "../../../../src/store/peer/remote_memory.ts";
import { chooseGid } from "../../../../src/store/peer/verbs/device.ts";
import { endpointOf } from "../../../../src/store/peer/verbs/queue_pair.ts";

const NONSENSE: readonly Wire[] = [null, 1, "x", true, [], {}, [1], { bytes: 1 }, "0".repeat(100)];

describe("a peer's table of a bundle", () => {
  const table = {
    generation: 0xdead_beef_0000_0001n,
    guard: [3, 64],
    segments: new Map([[3, { bytes: 4096, remote: { address: "1000", bytes: 4096 } }]]),
    objects: new Map([["p/q/x", { segment: 3, offset: 128, bytes: 3968 }]]),
  } as const;
  const wire = JSON.parse(JSON.stringify(tableToWire(table))) as Record<string, unknown>;

  it("comes as it was sent", () => {
    assert.deepEqual(tableFromWire(wire, "h:1"), table);
  });

  it("is refused where it makes no sense", () => {
    const changes: Record<string, unknown>[] = [
      { generation: 5 },
      { generation: "-1" },
      { generation: "1".repeat(17) },
      { guard: null },
      { guard: [4, 64] },
      { guard: [3, 4096 - GUARD_BYTES + 1] },
      { guard: [3, -1] },
      { segments: {} },
      { segments: [[3]] },
      { segments: [["3", 4096, {}]] },
      { segments: [[3, -1, {}]] },
      { objects: [["x", 3, 128, 3969]] },
      { objects: [["x", 3, 2 ** 60, 1]] },
      { objects: [["x", 3, 1.5, 1]] },
      { objects: [["x", 5, 0, 1]] },
      { objects: [[7, 3, 0, 1]] },
      { objects: [null] },
    ];
    for (const change of changes) {
      assert.throws(
        () => tableFromWire({ ...wire, ...change }, "h:1"),
        CorruptionError,
        JSON.stringify(change),
      );
    }
    for (const value of NONSENSE) assert.throws(() => tableFromWire(value, "h:1"), CorruptionError);
  });
});

describe("a peer's memory", () => {
  it("comes as it was sent", () => {
    const memory = { address: 0x7fff_1234_5000n, bytes: 8192 };
    assert.deepEqual(remoteMemoryOf(JSON.parse(JSON.stringify(describeMemory(memory)))), memory);
    for (const value of [...NONSENSE, { address: "0x10", bytes: 1 }, { address: "10", bytes: 0 }]) {
      assert.throws(() => remoteMemoryOf(value), CorruptionError, JSON.stringify(value));
    }
  });

  it("is read within its bounds only", () => {
    const [local, remote] = [{ bytes: 100 }, { address: 1n, bytes: 50 }];
    checkPieces([{ localOffset: 50, remoteOffset: 0, bytes: 50 }], local, remote);
    checkPieces([{ localOffset: 100, remoteOffset: 50, bytes: 0 }], local, remote);
    for (
      const [localOffset, remoteOffset, bytes] of [
        [51, 0, 50],
        [0, 1, 50],
        [0, -1, 1],
        [-1, 0, 1],
        [0, 0, -1],
        [0, 0.5, 1],
        [0, 0, NaN],
        [0, 2 ** 53, 1],
      ] as const
    ) {
      const piece = { localOffset, remoteOffset, bytes };
      assert.throws(() => checkPieces([piece], local, remote), CorruptionError, JSON.stringify(piece));
    }
  });
});

describe("a peer's queue pair", () => {
  const endpoint = { qpn: 17, psn: 5, gid: "00000000000000000000ffff0a090001", lid: 0, mtu: 5, reads: 16 };

  it("is refused where it makes no sense", () => {
    assert.deepEqual(endpointOf(endpoint), endpoint);
    for (
      const change of [
        { qpn: 0 },
        { qpn: 2 ** 24 },
        { psn: -1 },
        { psn: "5" },
        { gid: "0".repeat(32) },
        { gid: "00" },
        { mtu: 6 },
        { mtu: 0 },
        { reads: 0 }, // READs would wait for ever
        { reads: 256 },
        { lid: 65536 },
      ]
    ) {
      assert.throws(() => endpointOf({ ...endpoint, ...change }), CorruptionError, JSON.stringify(change));
    }
    for (const value of NONSENSE) assert.throws(() => endpointOf(value), CorruptionError);
  });
});

describe("chooseGid()", () => {
  const gid = (index: number, hex: string, type: number) => ({ index, gid: Uint8Array.fromHex(hex), type });
  const local = gid(0, "fe80000000000000505400fffe123456", GID_TYPE.ROCE_V2);
  const v1 = gid(1, "00000000000000000000ffff0a00020f", GID_TYPE.ROCE_V1);
  const v2 = gid(2, "00000000000000000000ffff0a00020f", GID_TYPE.ROCE_V2);

  it("takes the IPv4 one of RoCE v2, which routers pass on", () => {
    assert.equal(chooseGid([local, v1, v2], true), v2);
    assert.equal(chooseGid([v1, local], true), local);
    assert.equal(chooseGid([v1], true), v1);
    assert.equal(chooseGid([], true), undefined);
  });

  it("takes the port's own on InfiniBand", () => {
    assert.equal(chooseGid([gid(0, "fe80000000000000b8599f0300aabbcc", GID_TYPE.IB)], false)?.index, 0);
  });
});
