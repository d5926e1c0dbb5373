import { isRecord } from "./items.ts";
import type { CallContext } from "./wire.ts";

/** Reads the producer's context. What cannot be read is left out: no message fails for it. */
export function readCallContext(text: unknown): CallContext {
	if (typeof text !== "string") return {};
	try {
		const context: unknown = JSON.parse(text);
		if (!isRecord(context)) return {};
		const { requestID, parentID, level, tracing, caller, meta } = context;
		return {
			...(typeof requestID === "string" && { requestID }),
			...(typeof parentID === "string" && { parentID }),
			...(typeof level === "number" && { level }),
			...(typeof tracing === "boolean" && { tracing }),
			...(typeof caller === "string" && { caller }),
			...(isRecord(meta) && { meta }),
		};
	} catch {
		return {};
	}
}
