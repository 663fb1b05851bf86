import { mooncakeConformance } from "./mooncake.ts";

await mooncakeConformance("node");
