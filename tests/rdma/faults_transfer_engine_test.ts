import process from "node:process";
import { setUpMooncake } from "../support/mooncake.ts";
import { peerFaults } from "../support/peer_faults.ts";
import { skip } from "./device.ts";

const found = skip === false ? await setUpMooncake() : { skip };
const config = {
  backend: "transfer-engine",
  protocol: "rdma",
  deviceName: process.env.MOONCAKE_DEVICE_NAME ?? "",
  localHostname: process.env.MOONCAKE_LOCAL_HOSTNAME ?? "127.0.0.1",
  globalSegmentSize: "16mb",
  localBufferSize: "512kb",
  ...(found.skip === false ? { libraryPath: found.transferEngine } : {}),
} as const;
peerFaults({
  name: "transfer-engine over RDMA",
  skip: found.skip,
  reader: config,
  writer: config,
  rows: 1024,
  answersWhileStopped: true,
});
