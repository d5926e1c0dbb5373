import type { Job } from "./api/types.ts";

/** Jobs shown at once; of those that are over, the oldest go first. */
export const MOST_SHOWN = 6;

/**
 * @param told what the server says of a job
 * @returns the jobs with it: one that is not known is taken up if it runs, whoever began it
 */
export function withNews(jobs: readonly Job[], told: Job): readonly Job[] {
	if (jobs.some(({ id }) => id === told.id)) {
		return jobs.map((old) => (old.id === told.id ? newer(old, told) : old));
	}
	return told.state === "running" ? withJob(jobs, told) : jobs;
}

/** @returns the jobs with a new one first */
export function withJob(jobs: readonly Job[], job: Job): readonly Job[] {
	const all = [job, ...jobs];
	const running = all.filter(isRunning).length;
	const over = all.filter((one) => !isRunning(one)).slice(0, Math.max(0, MOST_SHOWN - running));
	return all.filter((one) => isRunning(one) || over.includes(one));
}

/** @returns the jobs, with one cancelled of which the server knows nothing: it has started anew */
export function withLost(jobs: readonly Job[], id: string): readonly Job[] {
	return jobs.map((job) =>
		job.id === id && isRunning(job) ? { ...job, state: "cancelled" } : job,
	);
}

export function isRunning({ state }: Job): boolean {
	return state === "running";
}

/** An answer may overtake an event. */
function newer(old: Job, told: Job): Job {
	return !isRunning(old) || old.done > told.done ? old : told;
}
