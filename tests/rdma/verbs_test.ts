/**
 * libibverbs over real devices: in the lab two that reach each other as those of two hosts do.
 *
 * @module
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Deadline } from "../../src/deadline.ts";
import type { BackendUnavailableError } from "../../src/errors.ts";
import { newMemory } from "../../src/store/registered/memory.ts";
import { planeSuite } from "../support/plane_suite.ts";
import { deviceOf, openPlane } from "../support/planes.ts";
import { mtuOf, resources, sentPackets, skip } from "./device.ts";

const MIB = 2 ** 20;

const before = skip === false ? await resources() : undefined;

planeSuite("verbs", { skip, largeBytes: 8 * MIB, answersWhileStopped: true });

describe("verbs", () => {
  it("moves every byte through the device", { skip }, async () => {
    const [writer, reader] = [await openPlane("verbs", "writer"), await openPlane("verbs", "reader")];
    const [from, to] = [newMemory(MIB), newMemory(MIB)];
    const source = await writer.register(from.address, MIB);
    const target = await reader.register(to.address, MIB);
    const deadline = new Deadline("read", {}, 60_000);
    const offer = await reader.offer();
    const { answer } = await writer.accept(offer.hello, deadline);
    const link = await offer.open(answer, deadline);
    const device = deviceOf("writer");
    const sent = sentPackets(device);
    await link.read(
      target,
      source.remote,
      [{ localOffset: 0, remoteOffset: 0, bytes: MIB }],
      deadline,
      () => {},
    );
    assert.ok(sentPackets(device) - sent >= MIB / mtuOf(device));

    // a key of nobody's: the device of the other side refuses, and the connection is over
    const { rkey } = source.remote as { rkey: number };
    const wrong = { ...source.remote as object, rkey: (rkey ^ 0x5a5a00) >>> 0 };
    await assert.rejects(
      link.read(target, wrong, [{ localOffset: 0, remoteOffset: 0, bytes: 4096 }], deadline, () => {}),
      (error: BackendUnavailableError) => {
        assert.equal(error.code, "PEER_LOST");
        assert.equal(error.details.nativeName, "REM_ACCESS_ERR", error.message);
        return true;
      },
    );
    assert.equal(link.alive, false);

    // a handle that tells of more memory than there is: the device refuses that as well
    const next = await reader.offer();
    const again = await next.open((await writer.accept(next.hello, deadline)).answer, deadline);
    const more = { ...source.remote as object, bytes: 2 * MIB };
    to.bytes.fill(0xa5);
    await assert.rejects(
      again.read(target, more, [{ localOffset: 0, remoteOffset: MIB, bytes: 4096 }], deadline, () => {}),
      (error: BackendUnavailableError) => error.details.nativeName === "REM_ACCESS_ERR",
    );
    assert.ok(to.bytes.every((byte) => byte === 0xa5));
    await reader.close();
    await writer.close();
    from.close();
    to.close();
  });

  it("says which attributes a connection cannot be made with", { skip }, async () => {
    const reader = await openPlane("verbs", "reader");
    const offer = await reader.offer();
    const nobody = { ...offer.hello as object, gid: "00000000000000000000ffff0a090909" };
    await assert.rejects(
      offer.open(nobody, new Deadline("open", {}, 60_000)),
      /ibv_modify_qp to RTR failed with E\w+; attributes STATE, AV, PATH_MTU.*GID \d/,
    );
    await offer.close();
    await reader.close();
  });

  it("gives everything back", { skip }, async () => {
    // what killed processes held is given back by the kernel, some time later
    for (let tries = 0; tries < 50; tries++) {
      const now = await resources();
      if (JSON.stringify(now) === JSON.stringify(before)) return;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    assert.deepEqual(await resources(), before);
  });
});
