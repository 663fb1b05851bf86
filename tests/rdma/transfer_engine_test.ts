/**
 * Mooncake's Transfer Engine over RDMA.
 *
 * @module
 */

import { planeSuite } from "../support/plane_suite.ts";
import { skip } from "./device.ts";

planeSuite("transfer-engine", { skip, largeBytes: 4 * 2 ** 20, answersWhileStopped: true });
