import { conformanceOverRdma } from "./conformance.ts";

await conformanceOverRdma("verbs");
