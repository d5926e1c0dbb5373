import { api, type BulkAction, type BulkChoice } from "./api/calls.ts";
import type { Job } from "./api/types.ts";
import { live } from "./live/live.svelte.ts";

const POLL = 1_500;

const state = $state<{ jobs: readonly Job[] }>({ jobs: [] });

/** Bulk actions that this tab began, with their progress. */
export const jobs = {
	get list(): readonly Job[] {
		return state.jobs;
	},
	async start(action: BulkAction, what: BulkChoice, why: string): Promise<void> {
		const job = await api.many(action, what, why);
		state.jobs = [job, ...state.jobs];
		watch(job.id);
	},
	async cancel(id: string): Promise<void> {
		keep(await api.cancelJob(id));
	},
	dismiss(id: string): void {
		state.jobs = state.jobs.filter((job) => job.id !== id);
	},
	/** Takes the stream's news of jobs; called while the shell is made. */
	listen(): void {
		live.on("job", keep);
	},
};

function keep(job: Job): void {
	state.jobs = state.jobs.map((old) => (old.id === job.id ? newer(old, job) : old));
}

/** An answer may overtake an event. */
function newer(old: Job, job: Job): Job {
	return old.state !== "running" || old.done > job.done ? old : job;
}

/** The stream tells more often, but may be paused or gone. */
function watch(id: string): void {
	const timer = setInterval(() => {
		const job = state.jobs.find((one) => one.id === id);
		if (job?.state !== "running") {
			clearInterval(timer);
			return;
		}
		api.job(id).then(keep, () => undefined);
	}, POLL);
}
