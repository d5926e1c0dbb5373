import type { Guarantee, MessageState } from "../../protocol/index.ts";
import type { Scenario } from "./scenarios.ts";
import type { Check } from "./stage.ts";

/** How a scenario went. */
export interface Played {
	readonly name: string;
	readonly ok: boolean;
	readonly guarantee: Guarantee;
	readonly expected: string;
	/** The group's id; "" when it never came to one. */
	readonly group: string;
	readonly state: string;
	readonly messages: readonly {
		readonly id: string;
		readonly target: string;
		readonly state: MessageState;
	}[];
	readonly checks: readonly Check[];
	readonly ms: number;
	/** Why it could not be played to its end. */
	readonly error: string | null;
}

/** What is told before a scenario starts. */
export function announcement(scenario: Scenario, place: number, all: number): string {
	return `\n[${place}/${all}] ${scenario.name}: ${scenario.story}`;
}

/** What is told when it has ended: each thing that was looked at. */
export function details(played: Played): string {
	const lines = played.checks.map(({ what, expected, found, held }) =>
		held
			? `   held    ${what}: ${show(found)}`
			: `   BROKEN  ${what}: expected ${show(expected)}, found ${show(found)}`,
	);
	if (played.error !== null) lines.push(`   BROKEN  ${played.error}`);
	return lines.join("\n");
}

/** The table of all scenarios. */
export function table(all: readonly Played[]): string {
	const rows = all.map((one) => [
		one.name,
		one.guarantee,
		one.ok ? "held" : "BROKEN",
		`${(one.ms / 1_000).toFixed(1)} s`,
		one.expected,
	]);
	const head = ["scenario", "guarantee", "", "time", "expected"];
	const widths = head.map((title, column) =>
		Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)),
	);
	const line = (cells: readonly string[]) =>
		cells
			.map((cell, column) => cell.padEnd(widths[column] ?? 0))
			.join("  ")
			.trimEnd();
	return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join(
		"\n",
	);
}

function show(value: unknown): string {
	return typeof value === "string" ? value : JSON.stringify(value ?? null);
}
