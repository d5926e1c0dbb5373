import { type Activity, ACTIVITY_KEPT_MS, ACTIVITY_MS, type ActivityStep } from "../contract.ts";
import { beginOf } from "../activity.ts";
import type { Tables } from "./tables.ts";

const STEPS = Object.keys(ACTIVITY_MS) as ActivityStep[];

/** What happened in the transaction under way, to be written with it. */
export class ActivityCounts {
	readonly #counts = new Map<string, Activity>();
	#cleanedAt = 0;

	add(what: Activity["what"], part: string, time: number): void {
		const at = beginOf(time, "minute");
		const key = `${at} ${what} ${part}`;
		const count = (this.#counts.get(key)?.count ?? 0) + 1;
		this.#counts.set(key, { at, what, part, count });
	}

	clear(): void {
		this.#counts.clear();
	}

	write(tables: Tables): void {
		for (const { at, what, part, count } of this.#counts.values()) {
			this.#clean(tables, at);
			for (const step of STEPS) {
				tables.run(
					"INSERT INTO lottor_activity (step, at, what, part, count) VALUES (?, ?, ?, ?, ?) " +
						"ON CONFLICT DO UPDATE SET count = count + excluded.count",
					step,
					beginOf(at, step),
					what,
					part,
					count,
				);
			}
		}
		this.clear();
	}

	/** Once a minute, deletes what is past its time. */
	#clean(tables: Tables, now: number): void {
		if (now <= this.#cleanedAt) return;
		this.#cleanedAt = now;
		for (const step of STEPS) {
			const before = now - ACTIVITY_KEPT_MS[step];
			tables.run("DELETE FROM lottor_activity WHERE step = ? AND at < ?", step, before);
		}
	}
}

export function activityOf(
	tables: Tables,
	step: ActivityStep,
	since: number,
	until: number,
): Activity[] {
	return tables
		.rows(
			"SELECT at, what, part, count FROM lottor_activity WHERE step = ? AND at >= ? AND at < ? ORDER BY at, what, part",
			step,
			beginOf(since, step),
			until,
		)
		.map((row) => ({
			at: row["at"] as number,
			what: row["what"] as Activity["what"],
			part: row["part"] as string,
			count: row["count"] as number,
		}));
}
