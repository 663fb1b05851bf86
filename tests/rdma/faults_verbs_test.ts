import { peerFaults } from "../support/peer_faults.ts";
import { deviceOf } from "../support/planes.ts";
import { resources, skip } from "./device.ts";

const config = (side: "reader" | "writer") => ({
  backend: "verbs",
  deviceName: deviceOf(side),
  globalSegmentSize: "16mb",
  localBufferSize: "512kb",
} as const);
peerFaults({
  name: "verbs",
  skip,
  reader: config("reader"),
  writer: config("writer"),
  rows: 1024,
  answersWhileStopped: true,
  resources,
});
