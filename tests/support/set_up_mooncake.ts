/**
 * Sets up what tests need of Mooncake, and prints where it is; for test processes that can install nothing.
 *
 * @module
 */

import { setUpMooncake } from "./mooncake.ts";

console.log(JSON.stringify(await setUpMooncake()));
