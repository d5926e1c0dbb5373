import { onMount } from "svelte";

import { api, type BulkAction, type BulkChoice } from "./api/calls.ts";
import { ApiError } from "./api/client.ts";
import type { Job } from "./api/types.ts";
import { errorTitle } from "./errors.ts";
import { isRunning, withJob, withLost, withNews } from "./jobs.ts";
import { live } from "./live/live.svelte.ts";
import { session } from "./session.svelte.ts";
import { toasts } from "./toasts.svelte.ts";

const POLL = 1_500;

const state = $state<{ jobs: readonly Job[] }>({ jobs: [] });

/** Bulk actions with their progress: those that run, whoever began them, and those that this tab saw end. */
export const jobs = {
	get list(): readonly Job[] {
		return state.jobs;
	},
	async start(action: BulkAction, what: BulkChoice, why: string): Promise<void> {
		const job = await api.many(action, what, why);
		// The stream may have told of it before.
		if (!state.jobs.some(({ id }) => id === job.id)) state.jobs = withJob(state.jobs, job);
	},
	async cancel(id: string): Promise<void> {
		try {
			keep(await api.cancelJob(id));
		} catch (error) {
			if (!(error instanceof ApiError)) throw error;
			lose(id, error);
			if (!session.expired) toasts.show("bad", errorTitle(error), error.message);
		}
	},
	dismiss(id: string): void {
		state.jobs = state.jobs.filter((job) => job.id !== id);
	},
	/** Finds what runs already and takes the news of it, as long as the component that calls it lives. */
	watch(): void {
		live.on("job", keep);
		live.on("reset", find);
		onMount(() => {
			find();
			// The stream tells more often, but may be paused or gone.
			const timer = setInterval(() => {
				if (!session.expired) state.jobs.filter(isRunning).forEach(ask);
			}, POLL);
			return () => clearInterval(timer);
		});
	},
};

function find(): void {
	api.jobs().then(
		({ items }) => [...items].reverse().forEach(keep),
		// What it can't be asked for now is found by the next `reset`, and by the stream.
		() => undefined,
	);
}

function ask({ id }: Job): void {
	api.job(id).then(keep, (error: unknown) => lose(id, error));
}

function keep(job: Job): void {
	state.jobs = withNews(state.jobs, job);
}

function lose(id: string, error: unknown): void {
	if (error instanceof ApiError && error.code === "LOTTOR_JOB_UNKNOWN") {
		state.jobs = withLost(state.jobs, id);
	}
}
