import { conformanceOverRdma } from "./conformance.ts";

await conformanceOverRdma("transfer-engine");
