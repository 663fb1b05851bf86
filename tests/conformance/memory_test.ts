import { conformance } from "./suite.ts";

conformance({ name: "memory", config: () => ({ backend: "memory" }), shared: false });
