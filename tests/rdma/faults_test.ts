/**
 * The faults of peers over RDMA. The Transfer Engine's are among the long tests: software RoCE never gives up its READs to
 * a process that is gone, and the engine takes most of a minute to go on.
 *
 * @module
 */

import process from "node:process";
import { setUpMooncake } from "../support/mooncake.ts";
import { peerFaults } from "../support/peer_faults.ts";
import { deviceOf } from "../support/planes.ts";
import { LEVEL } from "../support/runtime.ts";
import { resources, skip } from "./device.ts";

/** Few rows, in small pieces: the lab's processor is emulated. */
const small = { globalSegmentSize: "4mb", localBufferSize: "64kb" } as const;
const rows = 128;

const verbs = (side: "reader" | "writer") =>
  ({ backend: "verbs", deviceName: deviceOf(side), ...small }) as const;
peerFaults({
  name: "verbs",
  skip,
  reader: verbs("reader"),
  writer: verbs("writer"),
  rows,
  answersWhileStopped: true,
  resources,
});

if (LEVEL === "long") {
  const found = skip === false ? await setUpMooncake() : { skip };
  const engine = {
    backend: "transfer-engine",
    protocol: "rdma",
    deviceName: process.env.MOONCAKE_DEVICE_NAME ?? "",
    localHostname: process.env.MOONCAKE_LOCAL_HOSTNAME ?? "127.0.0.1",
    ...small,
    ...(found.skip === false ? { libraryPath: found.transferEngine } : {}),
  } as const;
  peerFaults({
    name: "transfer-engine over RDMA",
    skip: found.skip,
    reader: engine,
    writer: engine,
    rows,
    answersWhileStopped: true,
  });
}
