import type { SQLInputValue } from "node:sqlite";

import type { AuditEntry, AuditFilter, Facets, FailureKind, NewAuditEntry } from "../contract.ts";
import type { Row } from "./rows.ts";
import type { Tables } from "./tables.ts";

/** Kinds of a thing that are told at most. */
const MOST_KINDS = 1_000;

/** Failed messages by kind; the newest comes from the row that has the greatest `seq`. */
export const FAILURES_SQL =
	"SELECT target, type, error_code, count(*) AS n, max(seq) AS seq, idx FROM lottor_messages " +
	"INDEXED BY lottor_messages_failed WHERE state = 'failed' GROUP BY target, type, error_code " +
	"ORDER BY n DESC, target, type, error_code LIMIT ?";

/** Steps from one value of an index to the next, however many rows have it. */
export function distinctSql(table: string, column: string): string {
	const index = column === "error_code" ? "error" : column;
	const from = `FROM ${table} INDEXED BY ${table}_${index} WHERE ${column}`;
	return (
		`WITH RECURSIVE found(value) AS (SELECT (SELECT ${column} ${from} IS NOT NULL ORDER BY ${column} LIMIT 1) ` +
		`UNION ALL SELECT (SELECT ${column} ${from} > value ORDER BY ${column} LIMIT 1) FROM found WHERE value IS NOT NULL) ` +
		"SELECT value FROM found WHERE value IS NOT NULL LIMIT ?"
	);
}

export function facetsOf(tables: Tables): Facets {
	const distinct = (table: string, column: string) =>
		tables.rows(distinctSql(table, column), MOST_KINDS).map((row) => row["value"] as string);
	return {
		sources: distinct("lottor_groups", "source"),
		targets: distinct("lottor_messages", "target"),
		types: distinct("lottor_messages", "type"),
		errorCodes: distinct("lottor_messages", "error_code"),
	};
}

export function failuresOf(tables: Tables): FailureKind[] {
	return tables.rows(FAILURES_SQL, MOST_KINDS).flatMap((row) => {
		const newest = tables.findMessage(row["seq"] as number, row["idx"] as number);
		if (!newest) return [];
		return [
			{
				target: row["target"] as string,
				type: row["type"] as string,
				errorCode: row["error_code"] as string,
				messages: row["n"] as number,
				newest,
			},
		];
	});
}

export function addAudit(tables: Tables, entry: NewAuditEntry, now: number): void {
	tables.run(
		"INSERT INTO lottor_audit (at, who, action, result, why, subject, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
		now,
		entry.who,
		entry.action,
		entry.result,
		entry.why,
		entry.subject,
		entry.data && JSON.stringify(entry.data),
	);
}

/** Entries below `before`, newest first. */
export function auditsOf(
	tables: Tables,
	{ who, action }: AuditFilter,
	before: number,
	limit: number,
): AuditEntry[] {
	const where = ["id < ?"];
	const values: SQLInputValue[] = [before];
	if (who !== undefined) {
		where.push("who = ?");
		values.push(who);
	}
	if (action !== undefined) {
		where.push("action = ?");
		values.push(action);
	}
	return tables
		.rows(
			`SELECT * FROM lottor_audit WHERE ${where.join(" AND ")} ORDER BY id DESC LIMIT ?`,
			...values,
			limit,
		)
		.map(auditOf);
}

function auditOf(row: Row): AuditEntry {
	const data = row["data"] as string | null;
	return {
		id: String(row["id"]),
		at: row["at"] as number,
		who: row["who"] as string,
		action: row["action"] as string,
		result: row["result"] as string,
		why: row["why"] as string | null,
		subject: row["subject"] as string | null,
		data: data === null ? null : (JSON.parse(data) as Record<string, unknown>),
	};
}
