import type { GroupRecord, PayloadRecord, TimelineEntry } from "../../protocol/index.ts";

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
 */
export function groupView({ group, payloads, context, timeline }: StoredGroup) {
	return {
		...group,
		messages: group.messages.map((message) => {
			const own = payloads.filter((payload) => payload.message === message.id);
			const revisions = own.map(({ revision, content }) => ({
				revision,
				payload: parsed(content),
			}));
			const current = revisions.find(({ revision }) => revision === message.revision);
			return {
				...message,
				payload: (current ?? revisions.at(-1))?.payload ?? null,
				revisions,
			};
		}),
		context: context ? parsed(context) : null,
		timeline,
	};
}

/** Stored text is JSON; what is not, in a damaged store, is shown as it is. */
function parsed(content: string): unknown {
	try {
		return JSON.parse(content) as unknown;
	} catch {
		return content;
	}
}
