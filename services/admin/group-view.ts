import type { GroupRecord, PayloadRecord, TimelineEntry } from "../../protocol/index.ts";
import type { Group } from "./api/index.ts";
import { masked } from "./mask.ts";

/** What the coordinator answers about one group. */
export interface StoredGroup {
	readonly group: GroupRecord;
	readonly payloads: readonly PayloadRecord[];
	/** JSON text. */
	readonly context?: string | null;
	readonly timeline: readonly TimelineEntry[];
}

/**
 * One group as a person wants to read it: its record, each message with its payloads parsed, the
 * caller's context, the timeline.
 *
 * @param mask paths in payloads and context that stay hidden
 * @param traceUrl where its trace is, with `{requestID}`
 */
export function groupView(
	{ group, payloads, context, timeline }: StoredGroup,
	mask: readonly string[] = [],
	traceUrl?: string,
): Group {
	const caller = context ? parsed(context) : null;
	return {
		...group,
		messages: group.messages.map((message) => {
			const own = payloads.filter((payload) => payload.message === message.id);
			const revisions = own.map(({ revision, content }) => ({
				revision,
				payload: masked(parsed(content), mask),
			}));
			const current = revisions.findLast(({ revision }) => revision <= message.revision);
			return { ...message, payload: current?.payload ?? null, revisions };
		}),
		context: masked(caller, mask),
		timeline,
		trace: traceOf(caller, traceUrl),
	};
}

function traceOf(context: unknown, traceUrl: string | undefined): string | null {
	if (traceUrl === undefined || typeof context !== "object" || context === null) return null;
	const { requestID } = context as { readonly requestID?: unknown };
	if (typeof requestID !== "string" || requestID === "") return null;
	return traceUrl.replaceAll("{requestID}", encodeURIComponent(requestID));
}

/** Stored text is JSON; what is not, in a damaged store, is shown as it is. */
function parsed(content: string): unknown {
	try {
		return JSON.parse(content) as unknown;
	} catch {
		return content;
	}
}
