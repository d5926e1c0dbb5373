import { existsSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { FENCED_ALL, type GroupRecord } from "../../../protocol/index.ts";
import type { Scenario } from "./scenarios.ts";
import type { ProducerName } from "./world.ts";

/** What a caller was told of its transaction, or a person of an action. */
export interface Told {
	by: ProducerName | undefined;
	/** Set once `transaction` had resolved. */
	committed?: string;
	/** Whether the work's own error came back. */
	rolledBack?: boolean;
	/** Set once all of it had ended as it must: retention may take it away from then on. */
	ended?: boolean;
}

/** Breaches of the promise, by kind; each a sentence. */
export interface Breaches {
	lost: string[];
	phantom: string[];
	doubles: string[];
	/** Anything else that PROTOCOL, section 8, forbids. */
	wrong: string[];
}

/** Attempts that the consumers' own policy allows before a person has to look. */
const BUDGET = 2;

/** Compares the business rows with the effects, and both with what the coordinator says. */
export function audit(
	folder: string,
	groups: readonly GroupRecord[],
	told: Told,
	scenario: Scenario,
): Breaches {
	const found: Breaches = { lost: [], phantom: [], doubles: [], wrong: [] };
	const orders = {
		shop: counts(folder, "shop", "SELECT grp AS id, count(*) AS n FROM orders GROUP BY grp"),
		bank: counts(
			folder,
			"bank-rows",
			"SELECT grp AS id, count(*) AS n FROM orders GROUP BY grp",
		),
	};
	const effects = new Map<string, number>();
	for (const name of ["stock", "mail"]) {
		const sql = "SELECT message AS id, count(*) AS n FROM effects GROUP BY message";
		for (const [id, n] of counts(folder, name, sql)) effects.set(id, n);
	}
	const rows = new Map([...orders.shop, ...orders.bank]);
	const stored = new Map(groups.map((group) => [group.id, group]));

	for (const id of rows.keys()) {
		if (!stored.has(id)) auditGone(id, effects, told, scenario, found);
	}
	for (const [id, n] of effects) {
		if (n > 1) found.doubles.push(`message ${id} took effect ${n} times`);
		const group = id.slice(0, id.indexOf("."));
		if (!rows.has(group)) found.phantom.push(`message ${id} took effect without its row`);
	}
	for (const group of groups) auditGroup(group, rows.has(group.id), effects, found, scenario);

	if (told.committed !== undefined && !rows.has(told.committed)) {
		found.wrong.push(`the caller was told that ${told.committed} is committed, and it is not`);
	}
	if (told.rolledBack && rows.size > 0 && told.by === "shop") {
		found.wrong.push("the caller was told that the work is rolled back, and its row is there");
	}
	return found;
}

/** A row whose group no coordinator has: right only once the group had ended, and with its effects. */
function auditGone(
	id: string,
	effects: ReadonlyMap<string, number>,
	told: Told,
	scenario: Scenario,
	found: Breaches,
): void {
	if (!told.ended) found.lost.push(`group ${id} has its row, but no coordinator knows it`);
	if (scenario.person === "discard") return;
	Object.keys(scenario.orders).forEach((_, index) => {
		if (!effects.has(`${id}.${index}`)) found.lost.push(`message ${id}.${index} has no effect`);
	});
}

function auditGroup(
	group: GroupRecord,
	row: boolean,
	effects: ReadonlyMap<string, number>,
	found: Breaches,
	scenario: Scenario,
): void {
	const { id, state, conflict } = group;
	const isCommitted = state === "committed" || state === "completed";
	if (conflict !== null) found.wrong.push(`group ${id} is in conflict: ${conflict}`);
	if (row && state === "rolledBack") found.lost.push(`group ${id} is ${state} with its row`);
	if (!row && isCommitted) found.wrong.push(`group ${id} is ${state} without its row`);
	if (state !== "completed" && state !== "rolledBack")
		found.wrong.push(`group ${id} is ${state}`);
	if (group.leaseUntil > 0) found.wrong.push(`group ${id} is leased at the end`);
	for (const message of group.messages) {
		const n = effects.get(message.id) ?? 0;
		const given = message.state === "discarded" && scenario.person === "discard";
		if (isCommitted && n === 0 && !given) {
			found.lost.push(`message ${message.id} is ${message.state} without effect`);
		}
		if (message.state === "discarded" && message.fenced === FENCED_ALL && n > 0) {
			found.wrong.push(`message ${message.id} took effect although its inbox was fenced`);
		}
		if (message.attempts - message.budgetFrom > BUDGET) {
			found.wrong.push(
				`message ${message.id} had ${message.attempts - message.budgetFrom} attempts, its consumer allows ${BUDGET}`,
			);
		}
		if (message.vanished > 1) {
			found.wrong.push(`message ${message.id} counts ${message.vanished} vanished instances`);
		}
	}
}

/** Whether nothing is left that Lottor itself would still have to end. */
export function isQuiet(groups: readonly GroupRecord[]): boolean {
	return groups.every((group) => {
		if (group.state === "rolledBack" || group.state === "inDoubt") return true;
		if (group.state === "prepared") return false;
		return group.messages.every(
			({ state, nextAt }) =>
				state === "consumed" ||
				state === "failed" ||
				(state === "discarded" && nextAt === null),
		);
	});
}

/** Outcomes and inbox rows that are kept, by id. */
export function keptRows(folder: string): Map<string, { readonly acknowledged: boolean }> {
	const kept = new Map<string, { readonly acknowledged: boolean }>();
	for (const name of ["shop", "bank"]) {
		for (const [id, confirmed] of counts(
			folder,
			name,
			"SELECT id, confirmed AS n FROM lottor_outcome",
		))
			kept.set(`${name} ${id}`, { acknowledged: confirmed === 1 });
	}
	for (const name of ["stock", "mail"]) {
		for (const [id, settled] of counts(
			folder,
			name,
			"SELECT id, settled AS n FROM lottor_inbox",
		))
			kept.set(`${name} ${id}`, { acknowledged: settled === 1 });
	}
	return kept;
}

function counts(folder: string, name: string, sql: string): Map<string, number> {
	const file = join(folder, `${name}.db`);
	if (!existsSync(file)) return new Map();
	const db = new DatabaseSync(file);
	try {
		return new Map(
			db
				.prepare(sql)
				.all()
				.map((row) => [String(row["id"]), Number(row["n"])]),
		);
	} finally {
		db.close();
	}
}
