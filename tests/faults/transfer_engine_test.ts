import { setUpMooncake } from "../support/mooncake.ts";
import { peerFaults } from "../support/peer_faults.ts";

const found = await setUpMooncake();
const config = {
  backend: "transfer-engine",
  protocol: "tcp",
  localHostname: "127.0.0.1",
  globalSegmentSize: "16mb",
  localBufferSize: "512kb",
  ...(found.skip === false ? { libraryPath: found.transferEngine } : {}),
} as const;
peerFaults({
  name: "transfer-engine over TCP",
  skip: found.skip,
  reader: config,
  writer: config,
  rows: 1024,
  answersWhileStopped: false,
});
