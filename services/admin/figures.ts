import {
	type Activity,
	ACTIVITY_MS,
	type ActivityStep,
	type StoreStats,
} from "../../adapters/coordinator-store/contract.ts";
import type { EventData, Overview, Rates } from "./api/index.ts";
import type { CallCoordinator } from "./coordinator-calls.ts";
import type { Handlers } from "./handlers.ts";

/** What the coordinator's `stats` answers. */
export interface Stats extends Omit<StoreStats, "backlog"> {
	readonly backlog: readonly (StoreStats["backlog"][number] & { readonly living: boolean })[];
	readonly inFlight: number;
}

type Counts = Pick<Rates["points"][number], (typeof COUNTED)[number]>;

const COUNTED = [
	"prepared",
	"committed",
	"rolledBack",
	"inDoubt",
	"completed",
	"consumed",
	"failed",
] as const;

const HOUR_MINUTES = 60;
const DEFAULT_DAYS = 30;

export const figureHandlers = {
	async overview({ call, clock }) {
		const now = clock.now();
		const [stats, hour] = await Promise.all([
			call<Stats>("stats", {}),
			activity(call, "minute", now, HOUR_MINUTES),
		]);
		const lastHour = { ...countsIn(hour), latency: latencyIn(hour) };
		return { at: now, ...countsOf(stats), lastHour };
	},

	async rates({ call, clock }, { query: { minutes = HOUR_MINUTES } }) {
		const points = await spans(call, "minute", clock.now(), minutes);
		return {
			step: ACTIVITY_MS.minute,
			points: points.map(({ at, rows }) => ({
				at,
				...countsIn(rows),
				latency: latencyIn(rows),
			})),
		};
	},

	async daily({ call, clock }, { query: { days = DEFAULT_DAYS } }) {
		const points = await spans(call, "day", clock.now(), days);
		return {
			days: points.map(({ at, rows }) => ({
				day: new Date(at).toISOString().slice(0, 10),
				at,
				...countsIn(rows),
			})),
		};
	},

	async services({ call, clock }, { query: { days = DEFAULT_DAYS } }) {
		const rows = await activity(call, "day", clock.now(), days);
		const partsOf = (whats: readonly Activity["what"][]) => [
			...new Set(rows.filter(({ what }) => whats.includes(what)).map(({ part }) => part)),
		];
		const of = (part: string) => countsIn(rows.filter((row) => row.part === part));
		return {
			since: begin(clock.now(), "day", days),
			sources: partsOf(["prepared", "committed", "rolledBack", "inDoubt", "completed"])
				.sort()
				.map((source) => {
					const { prepared, committed, rolledBack, inDoubt, completed } = of(source);
					return { source, prepared, committed, rolledBack, inDoubt, completed };
				}),
			targets: partsOf(["consumed", "failed"])
				.sort()
				.map((target) => {
					const { consumed, failed } = of(target);
					return { target, consumed, failed };
				}),
		};
	},

	facets: ({ call }) => call("facets", {}),
} satisfies Partial<Handlers>;

/** The figures at a glance, as the coordinator tells them. */
export function countsOf(
	stats: Stats,
): Omit<EventData<"counts">, "at"> & Pick<Overview, "groups" | "messages"> {
	const { groups, messages, conflicts, oldestPrepared, oldestInDoubt, backlog, inFlight } = stats;
	return { groups, messages, conflicts, oldestPrepared, oldestInDoubt, backlog, inFlight };
}

function begin(now: number, step: ActivityStep, count: number): number {
	const ms = ACTIVITY_MS[step];
	return now - (now % ms) - (count - 1) * ms;
}

/** What happened in the last minutes or days, the one under way included. */
function activity(
	call: CallCoordinator,
	step: ActivityStep,
	now: number,
	count: number,
): Promise<Activity[]> {
	const since = Math.max(begin(now, step, count), 0);
	return call<Activity[]>("activity", { step, since, until: now + ACTIVITY_MS[step] });
}

/** The same minute by minute or day by day, those without activity too. */
async function spans(call: CallCoordinator, step: ActivityStep, now: number, count: number) {
	const rows = new Map<number, Activity[]>();
	for (const row of await activity(call, step, now, count)) {
		const of = rows.get(row.at);
		if (of) of.push(row);
		else rows.set(row.at, [row]);
	}
	const first = begin(now, step, count);
	return Array.from({ length: count }, (_, index) => first + index * ACTIVITY_MS[step])
		.filter((at) => at >= 0)
		.map((at) => ({ at, rows: rows.get(at) ?? [] }));
}

function countsIn(rows: readonly Activity[]): Counts {
	const sum = (what: Activity["what"]) =>
		rows.reduce((total, row) => (row.what === what ? total + row.count : total), 0);
	return Object.fromEntries(COUNTED.map((what) => [what, sum(what)])) as Record<
		(typeof COUNTED)[number],
		number
	>;
}

/** Half and nineteen of twenty groups took at most so long. */
function latencyIn(rows: readonly Activity[]): { p50: number; p95: number } | null {
	const classes = new Map<number, number>();
	for (const { what, part, count } of rows) {
		if (what !== "latency") continue;
		classes.set(Number(part), (classes.get(Number(part)) ?? 0) + count);
	}
	const sorted = [...classes].sort(([a], [b]) => a - b);
	const total = sorted.reduce((sum, [, count]) => sum + count, 0);
	if (total === 0) return null;
	const at = (share: number) => {
		let seen = 0;
		for (const [bound, count] of sorted) {
			seen += count;
			if (seen >= share * total) return bound;
		}
		return sorted.at(-1)?.[0] ?? 0;
	};
	return { p50: at(0.5), p95: at(0.95) };
}
