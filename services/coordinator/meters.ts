import type { ServiceBroker } from "moleculer";

const COUNTERS = {
	prepared: ["moleculer.lottor.groups.prepared.total", "Groups prepared"],
	committed: ["moleculer.lottor.groups.committed.total", "Groups committed"],
	rolledBack: ["moleculer.lottor.groups.rolledBack.total", "Groups rolled back"],
	inDoubt: ["moleculer.lottor.groups.inDoubt.total", "Groups that came in doubt"],
	conflicts: ["moleculer.lottor.groups.conflicts.total", "Contradicting decisions"],
	unknownCommits: [
		"moleculer.lottor.commits.unknown.total",
		"Commits of groups that are not known",
	],
	sent: ["moleculer.lottor.messages.sent.total", "Messages sent"],
	consumed: ["moleculer.lottor.messages.consumed.total", "Messages consumed"],
	attemptsFailed: ["moleculer.lottor.messages.attempts.failed.total", "Attempts that failed"],
	failed: ["moleculer.lottor.messages.failed.total", "Messages that failed for good"],
	overloaded: ["moleculer.lottor.groups.overloaded.total", "Prepares refused for overload"],
	refusedReports: ["moleculer.lottor.reports.refused.total", "Reports refused"],
	refusedPrepares: ["moleculer.lottor.prepares.refused.total", "Malformed prepares refused"],
	refusedDecisions: [
		"moleculer.lottor.decisions.refused.total",
		"Commits and rollbacks refused: malformed, or by somebody who can't know",
	],
	refusedAnswers: [
		"moleculer.lottor.answers.refused.total",
		"Answers of participants that could not be read",
	],
} as const;

/** Counters of one coordinator, in Moleculer's metrics where they are on. */
export interface Meters {
	count(name: keyof typeof COUNTERS, by?: number): void;
	/** Counts since the start. */
	totals(): Record<keyof typeof COUNTERS, number>;
}

export function meters(broker: ServiceBroker): Meters {
	const names = Object.keys(COUNTERS) as (keyof typeof COUNTERS)[];
	const totals = Object.fromEntries(names.map((name) => [name, 0])) as Record<
		keyof typeof COUNTERS,
		number
	>;
	const metrics = broker.isMetricsEnabled() ? broker.metrics : undefined;
	for (const name of names) {
		const [metric, description] = COUNTERS[name];
		// Registering again would set a counter back to zero.
		if (metrics && !metrics.hasMetric(metric)) {
			metrics.register({ type: "counter", name: metric, description });
		}
	}
	return {
		count(name, by = 1) {
			totals[name] += by;
			metrics?.increment(COUNTERS[name][0], undefined, by);
		},
		totals: () => ({ ...totals }),
	};
}
