import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

import { type CoordinatorData, CoordinatorFile, type StoredMessage } from "./coordinator-file.ts";
import { type CallerSaw, type NodeName, NODES, SERVICES, THROWN } from "./words.ts";

/** What the databases say when all is over, compared. */
export interface Verdict {
	readonly transactions: number;
	/** Messages whose local transaction stands, and which have no effect. */
	readonly lost: number;
	/** Effects, or committed groups, without a local transaction that stands. */
	readonly phantom: number;
	/** Effects beyond the first of a message. */
	readonly doubles: number;
	/** Those whose first one was not the work of a process that was harmed: wrong with any store. */
	readonly unexplained: number;
	readonly inDoubt: number;
	/** Groups neither completed, rolled back nor in doubt. */
	readonly unfinished: number;
	readonly groups: Readonly<Record<string, number>>;
	readonly effects: number;
	/** What was found, for a person to look into. */
	readonly findings: readonly string[];
}

interface Row {
	readonly service: string;
	readonly targets: readonly string[];
}

interface Effect {
	readonly service: string;
	/** Which start of which process it is the work of. */
	readonly by: string;
}

/**
 * Reads all files of a run whose processes have ended, and compares them.
 *
 * @param harmed starts of processes that were killed, or whose disk failed
 * @param data the coordinators' store, where it is not the file in the folder; stays open
 * @param nodes those of the run
 */
export async function compare(
	folder: string,
	harmed: ReadonlySet<string>,
	data?: CoordinatorData,
	nodes: readonly NodeName[] = NODES,
): Promise<Verdict> {
	const findings: string[] = [];
	const stored = data ?? new CoordinatorFile(folder);
	const all = await stored.groups();
	const states = new Map(all.map(({ id, state }) => [id, state]));
	const messages = new Map((await stored.messages()).map((message) => [message.id, message]));
	const groups = await stored.states();
	for (const { id, conflict } of all) {
		if (conflict !== null) findings.push(`group ${id} is in conflict: ${conflict}`);
	}
	if (!data) await stored.close();
	const services = [...new Set(nodes.flatMap((node) => SERVICES[node] ?? []))];
	const rows = readRows(folder, services);
	const effects = readEffects(folder, services);

	let lost = 0;
	for (const [group, { service, targets }] of rows) {
		const state = states.get(group);
		if (state === "inDoubt") continue;
		targets.forEach((target, index) => {
			const id = `${group}.${index}`;
			const message = messages.get(id);
			if (effects.has(id) || message?.state === "failed") return;
			lost++;
			findings.push(
				`lost: message ${id} of ${service} to ${target}; group ${state}, message ${message?.state}`,
			);
		});
	}

	let phantom = 0;
	let doubles = 0;
	let unexplained = 0;
	for (const [id, all] of effects) {
		const at = all.map(({ service }) => service);
		const target = rows.get(id.replace(/\.\d+$/, ""))?.targets[Number(id.split(".").at(-1))];
		if (target === undefined) {
			phantom++;
			findings.push(`phantom: effect of ${id} at ${at.join()}, and no row`);
		} else if (at.some((service) => service !== target)) {
			phantom++;
			findings.push(`phantom: effect of ${id} at ${at.join()} instead of ${target}`);
		}
		if (all.length > 1) {
			const text = all.map(({ service, by }) => `${service} (${by})`).join(", ");
			findings.push(`doubles: ${all.length} effects of ${id} at ${text}`);
			doubles += all.length - 1;
			unexplained += all.slice(0, -1).filter(({ by }) => !harmed.has(by)).length;
		}
	}
	for (const [id, state] of states) {
		if ((state === "committed" || state === "completed") && !rows.has(id)) {
			phantom++;
			findings.push(`phantom: group ${id} is ${state}, and no row`);
		}
		if (state === "prepared" || state === "committed" || state === "inDoubt") {
			const open: StoredMessage[] = [];
			for (let index = 0, found; (found = messages.get(`${id}.${index}`)); index++)
				open.push(found);
			const text = open.map(({ target, state: to, error }) => `${target} ${to} ${error}`);
			findings.push(`unfinished: group ${id} is ${state}: ${text.join(", ")}`);
		}
	}
	for (const { group, result } of readResults(folder, nodes)) {
		if (result === "ok" && !rows.has(group)) {
			lost++;
			findings.push(`lost: the caller was told that ${group} is committed, and no row`);
		}
		if (result === THROWN && rows.has(group)) {
			phantom++;
			findings.push(`phantom: the caller was told that ${group} threw, and its row stands`);
		}
	}
	const inDoubt = groups["inDoubt"] ?? 0;
	return {
		transactions: states.size,
		lost,
		phantom,
		doubles,
		unexplained,
		inDoubt,
		unfinished: (groups["prepared"] ?? 0) + (groups["committed"] ?? 0),
		groups,
		effects: effects.size,
		findings,
	};
}

/** What each producer's local transactions left, by group. */
function readRows(folder: string, services: readonly string[]): Map<string, Row> {
	const rows = new Map<string, Row>();
	for (const service of services) {
		for (const row of rowsOf(folder, service, "SELECT grp, targets FROM orders")) {
			const targets = JSON.parse(String(row["targets"])) as string[];
			rows.set(String(row["grp"]), { service, targets });
		}
	}
	return rows;
}

/** Where each message took effect, as often as it did. */
function readEffects(folder: string, services: readonly string[]): Map<string, Effect[]> {
	const effects = new Map<string, Effect[]>();
	for (const service of services) {
		for (const row of rowsOf(
			folder,
			service,
			"SELECT message, by FROM effects ORDER BY rowid",
		)) {
			const id = String(row["message"]);
			const effect = { service, by: String(row["by"]) };
			effects.set(id, [...(effects.get(id) ?? []), effect]);
		}
	}
	return effects;
}

function readResults(folder: string, nodes: readonly NodeName[]): CallerSaw[] {
	return nodes.flatMap((node) => {
		const path = join(folder, `${node}.results`);
		if (!existsSync(path)) return [];
		const lines = readFileSync(path, "utf8").split("\n");
		// A killed process may have left half a line.
		return lines.slice(0, -1).map((line) => JSON.parse(line) as CallerSaw);
	});
}

function rowsOf(folder: string, service: string, sql: string) {
	const db = new DatabaseSync(join(folder, `${service}.db`), { readOnly: true });
	try {
		return db.prepare(sql).all();
	} finally {
		db.close();
	}
}
