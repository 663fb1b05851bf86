import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { joinAddress, listens, splitAddress } from "../../../../src/store/addresses.ts";
import { MasterPages } from "../../../../src/store/mooncake/master.ts";

async function serve(answer: (path: string) => [status: number, body: string]): Promise<[Server, number]> {
  const server = createServer((request, response) => {
    const [status, body] = answer(request.url ?? "");
    response.writeHead(status).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return [server, (server.address() as AddressInfo).port];
}

describe("the master", () => {
  it("has an address in any of the usual spellings", () => {
    assert.deepEqual(splitAddress("10.0.0.1:50051"), { host: "10.0.0.1", port: 50051 });
    assert.deepEqual(splitAddress("master"), { host: "master", port: 50051 });
    assert.deepEqual(splitAddress("[fe80::1]:7", 9003), { host: "fe80::1", port: 7 });
    assert.deepEqual(splitAddress("http://h:8", 9003), { host: "h", port: 8 });
    assert.equal(joinAddress({ host: "fe80::1", port: 7 }), "[fe80::1]:7");
    for (const bad of ["", ":1", "h:0", "h:99999", "a:b:c", "h:x"]) {
      assert.throws(() => splitAddress(bad), { code: "CONFIG" }, bad);
    }
  });

  it("has its pages beside it, or where they are configured", () => {
    assert.equal(new MasterPages("h:1", undefined).address, "h:9003");
    assert.equal(new MasterPages("h:1", "g:2").address, "g:2");
  });

  it("tells keys and segments", async () => {
    const [server, port] = await serve((path) =>
      path === "/get_all_keys"
        ? [200, "a b\nc\r\n\n"]
        : path === "/get_all_segments"
        ? [200, ""]
        : [404, "no"]
    );
    const pages = new MasterPages("h:1", `127.0.0.1:${port}`);
    assert.deepEqual(await pages.keys(AbortSignal.timeout(5000)), ["a b", "c"]);
    assert.deepEqual(await pages.segmentsIfKnown(), []);
    assert.equal(await listens(`127.0.0.1:${port}`, 5000), true);
    await new Promise((resolve) => server.close(resolve));
    server.closeAllConnections?.();
    assert.equal(await listens(`127.0.0.1:${port}`, 5000), false);
    assert.equal(await pages.segmentsIfKnown(), undefined);
  });

  it("fails for an answer that is none", async () => {
    const [server, port] = await serve(() => [500, "broken"]);
    await assert.rejects(
      new MasterPages("h:1", `127.0.0.1:${port}`).keys(AbortSignal.timeout(5000)),
      /answered 500/,
    );
    server.close();
    server.closeAllConnections?.();
  });
});
