import type { NewAuditEntry } from "../../adapters/coordinator-store/index.ts";
import type { ItemAnswer } from "../../protocol/index.ts";
import type { OperatorItem } from "./operator.ts";

/** Ids that the entry of a whole batch names. */
const NAMED = 20;

/** @returns the entry of an operator's action: of one item by its id, of many by counts */
export function auditOf(
	action: string,
	items: readonly unknown[],
	answers: readonly ItemAnswer[],
): NewAuditEntry {
	const orders = items.map(orderOf);
	const [first] = orders;
	const said = {
		who: short(first?.by, 255) ?? "operator",
		action,
		why: short(first?.why, 1_000),
	};
	if (orders.length === 1) {
		const [answer] = answers;
		return {
			...said,
			result: answer?.result ?? "unknown",
			subject: short(first?.id, 255),
			data: answer?.error ? { code: answer.error.code } : null,
		};
	}
	const tally: Record<string, number> = {};
	for (const { result } of answers) tally[result] = (tally[result] ?? 0) + 1;
	return {
		...said,
		result: tally["ok"] === answers.length ? "ok" : "mixed",
		subject: null,
		data: { tally, ids: orders.slice(0, NAMED).map(({ id }) => short(id, 255)) },
	};
}

/** What an item says of itself; nothing where it can't be read, and was refused. */
function orderOf(item: unknown): Partial<Pick<OperatorItem, "id" | "by" | "why">> {
	try {
		const { id, by, why } = item as OperatorItem;
		return { id, ...(by !== undefined && { by }), ...(why !== undefined && { why }) };
	} catch {
		return {};
	}
}

function short(value: unknown, longest: number): string | null {
	return typeof value === "string" && value !== "" ? value.slice(0, longest) : null;
}
