import type { BulkAction } from "./api/calls.ts";

/** States that the server takes in an action's filter; without any it takes the failed ones alone. */
const STATES: Readonly<Record<BulkAction, readonly string[]>> = {
	retry: ["failed"],
	discard: ["failed", "pending", "delivering"],
};

/**
 * What can be done with all that a list shows: only where the server would do it with each of them.
 *
 * @param filter the list's filter
 */
export function actionsForAll(filter: Readonly<Record<string, unknown>>): BulkAction[] {
	const states = (filter["states"] ?? []) as readonly string[];
	if (states.length === 0) return [];
	return (["retry", "discard"] as const).filter((action) =>
		states.every((state) => STATES[action].includes(state)),
	);
}
