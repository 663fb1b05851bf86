/**
 * Mooncake's Transfer Engine over TCP.
 *
 * @module
 */

import process from "node:process";
import { setUpMooncake } from "../support/mooncake.ts";
import { planeSuite } from "../support/plane_suite.ts";

const { skip } = await setUpMooncake();
delete process.env.MOONCAKE_PROTOCOL;
planeSuite("transfer-engine", { skip, largeBytes: 64 * 2 ** 20, answersWhileStopped: false });
