import { it } from "node:test";
import { setUpMooncake } from "../support/mooncake.ts";
import { peerConformance } from "./peer.ts";

const found = await setUpMooncake();
if (found.skip !== false) it("backend transfer-engine", { skip: found.skip }, () => {});
else {
  peerConformance({
    backend: "transfer-engine",
    protocol: "tcp",
    libraryPath: found.transferEngine,
    localBufferSize: "16mb",
  });
}
