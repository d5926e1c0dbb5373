import { existsSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { FENCED_ALL, type GroupRecord } from "../../../protocol/index.ts";
import type { Scenario } from "./scenarios.ts";
import type { ProducerName, TargetName } from "./world.ts";

/** What a caller was told of its transaction, or a person of an action, and what has happened so far. */
export interface Told {
	readonly by: ProducerName;
	/** Crashes so far. */
	readonly crashes: number;
	/**
	 * How often a crash came between the effect of a message on a recorded store and its row: so
	 * often it may take effect again (PROTOCOL, section 1).
	 */
	readonly unrecorded: Readonly<Record<string, number>>;
	/** Set once `transaction` had resolved. */
	committed?: string;
	/** Whether the work's own error came back. */
	rolledBack?: boolean;
	/** A person's acts that were answered. */
	acts: number;
	/** Whether the coordinator was told to stop. */
	stopped?: boolean;
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

/** Where business rows are: of a recorded participant apart from its store. */
const ROW_FILES = { shop: "shop", bank: "bank-rows", stock: "stock", box: "box-rows" } as const;
/** Where effects are, by target. */
const EFFECT_FILES = { stock: "stock", mail: "mail", box: "box-rows", till: "till" } as const;
type Source = keyof typeof ROW_FILES;

/** Attempts that the consumers' own policy allows before a person has to look; without one: the default. */
const BUDGET: Readonly<Record<string, number>> = { stock: 2, mail: 2, box: 2, till: 12 };

/** The business rows and the effects, as the databases have them. */
interface Books {
	/** Whose row it is, by group. */
	readonly rows: ReadonlyMap<string, Source>;
	/** How often each message took effect, by target. */
	readonly effects: ReadonlyMap<TargetName, ReadonlyMap<string, number>>;
}

/** Compares the business rows with the effects, and both with what the coordinator says. */
export function audit(
	folder: string,
	groups: readonly GroupRecord[],
	told: Told,
	scenario: Scenario,
): Breaches {
	const found: Breaches = { lost: [], phantom: [], doubles: [], wrong: [] };
	const books = { rows: rowsIn(folder), effects: effectsIn(folder) };
	const stored = new Set(groups.map((group) => group.id));
	for (const [id, source] of books.rows) {
		if (!stored.has(id)) auditGone(id, source, books, told, scenario, found);
	}
	for (const [target, effects] of books.effects)
		auditEffects(target, effects, books, told, found);
	for (const group of groups) auditGroup(group, books, told, found, scenario);
	auditNested(books, scenario, found);

	if (told.committed !== undefined && !books.rows.has(told.committed)) {
		found.wrong.push(`the caller was told that ${told.committed} is committed, and it is not`);
	}
	if (told.rolledBack && [...books.rows.values()].includes("shop")) {
		found.wrong.push("the caller was told that the work is rolled back, and its row is there");
	}
	return found;
}

/** @returns whose business row stands, by group */
export function rowsIn(folder: string): Map<string, Source> {
	const rows = new Map<string, Source>();
	for (const [source, file] of Object.entries(ROW_FILES) as [Source, string][]) {
		const sql = "SELECT grp AS id, count(*) AS n FROM orders GROUP BY grp";
		for (const id of counts(folder, file, sql).keys()) rows.set(id, source);
	}
	return rows;
}

/** @returns messages that took effect on the recorded store, which has no row of it */
export function unrecordedIn(folder: string): string[] {
	const effects = [...effectsOf(folder, "box").keys()];
	// Its store may not even be made yet.
	if (effects.length === 0) return [];
	const sql = "SELECT id, 1 AS n FROM lottor_inbox WHERE state = 'consumed'";
	const recorded = counts(folder, "box", sql);
	return effects.filter((id) => !recorded.has(id));
}

/**
 * @returns messages of which the target's inbox says how they ended, that they may not run, or, on
 *   a recorded store, that somebody has claimed them: other copies may be dropped (R32, R33)
 */
export function seenBy(folder: string, target: string): ReadonlySet<string> {
	return new Set(counts(folder, target, "SELECT id, 1 AS n FROM lottor_inbox").keys());
}

function effectsIn(folder: string): Map<TargetName, Map<string, number>> {
	const targets = Object.keys(EFFECT_FILES) as TargetName[];
	return new Map(targets.map((target) => [target, effectsOf(folder, target)]));
}

function effectsOf(folder: string, target: TargetName): Map<string, number> {
	const sql = "SELECT message AS id, count(*) AS n FROM effects GROUP BY message";
	return counts(folder, EFFECT_FILES[target], sql);
}

function auditEffects(
	target: TargetName,
	effects: ReadonlyMap<string, number>,
	{ rows }: Books,
	told: Told,
	found: Breaches,
): void {
	for (const [id, n] of effects) {
		const again = mayRepeat(target, id, told);
		if (n > 1 + again)
			found.doubles.push(
				`message ${id} took effect ${n} times at ${target}, ${again} allowed`,
			);
		if (!rows.has(groupOf(id))) found.phantom.push(`message ${id} took effect without its row`);
	}
}

/** @returns how often the guarantee lets a message take effect again (PROTOCOL, section 1; R25) */
function mayRepeat(target: TargetName, id: string, told: Told): number {
	if (target === "box") return told.unrecorded[id] ?? 0;
	// Each crash may have taken one answer with it.
	return target === "till" ? told.crashes : 0;
}

/** Each handler that took effect has begun one transaction within (R11). */
function auditNested({ rows, effects }: Books, scenario: Scenario, found: Breaches): void {
	for (const target of ["stock", "box"] as const) {
		if (!scenario.orders[target]?.forwards) continue;
		const nested = [...rows.values()].filter((source) => source === target).length;
		const runs = [...(effects.get(target)?.values() ?? [])].reduce((sum, n) => sum + n, 0);
		// On a recorded store the handler may have died between its effect and the nested one.
		if (nested > runs || (target === "stock" ? nested < runs : runs > 0 && nested === 0))
			found.wrong.push(`${runs} effects at ${target} have ${nested} nested groups`);
	}
}

/** A row whose group no coordinator has: right only once the group had ended, and with its effects. */
function auditGone(
	id: string,
	source: Source,
	{ effects }: Books,
	told: Told,
	scenario: Scenario,
	found: Breaches,
): void {
	if (!told.ended) found.lost.push(`group ${id} has its row, but no coordinator knows it`);
	if (scenario.person === "discard") return;
	const isNested = source === "stock" || source === "box";
	const targets: string[] = isNested ? ["mail"] : Object.keys(scenario.orders);
	targets.forEach((target, index) => {
		if (!effects.get(target as TargetName)?.has(`${id}.${index}`))
			found.lost.push(`message ${id}.${index} has no effect`);
	});
}

function auditGroup(
	group: GroupRecord,
	{ rows, effects }: Books,
	told: Told,
	found: Breaches,
	scenario: Scenario,
): void {
	const { id, state, conflict } = group;
	const row = rows.has(id);
	const isCommitted = state === "committed" || state === "completed";
	if (conflict !== null) found.wrong.push(`group ${id} is in conflict: ${conflict}`);
	if (row && state === "rolledBack") found.lost.push(`group ${id} is ${state} with its row`);
	if (!row && isCommitted) found.wrong.push(`group ${id} is ${state} without its row`);
	if (state !== "completed" && state !== "rolledBack")
		found.wrong.push(`group ${id} is ${state}`);
	if (group.leaseUntil > 0) found.wrong.push(`group ${id} is leased at the end`);
	for (const message of group.messages) {
		const n = effects.get(message.target as TargetName)?.get(message.id) ?? 0;
		const given = message.state === "discarded" && scenario.person === "discard";
		if (isCommitted && n === 0 && !given) {
			found.lost.push(`message ${message.id} is ${message.state} without effect`);
		}
		if (message.state === "discarded" && message.fenced === FENCED_ALL && n > 0) {
			found.wrong.push(`message ${message.id} took effect although its inbox was fenced`);
		}
		const budget = BUDGET[message.target] ?? 0;
		if (message.attempts - message.budgetFrom > budget) {
			found.wrong.push(
				`message ${message.id} had ${message.attempts - message.budgetFrom} attempts, its consumer allows ${budget}`,
			);
		}
		if (message.vanished > told.crashes) {
			found.wrong.push(
				`message ${message.id} counts ${message.vanished} vanished instances, ${told.crashes} ended`,
			);
		}
	}
}

function groupOf(message: string): string {
	return message.slice(0, message.indexOf("."));
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
	for (const name of ["shop", "bank", "stock", "box"]) {
		for (const [id, confirmed] of counts(
			folder,
			name,
			"SELECT id, confirmed AS n FROM lottor_outcome",
		))
			kept.set(`${name} ${id}`, { acknowledged: confirmed === 1 });
	}
	for (const name of ["stock", "mail", "box"]) {
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
