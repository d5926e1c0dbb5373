import { describe, expect, test } from "@jest/globals";

import { MOST_SHOWN, withJob, withLost, withNews } from "../../admin-ui/src/lib/jobs.ts";
import type { Job } from "../../services/admin/api/index.ts";

function job(id: string, state: Job["state"] = "running", done = 0): Job {
	return {
		id,
		action: "retry",
		state,
		total: { count: 10, exact: true },
		done,
		ok: done,
		already: 0,
		refused: 0,
		errors: [],
		by: "olga",
		why: null,
		startedAt: 1,
		endedAt: null,
	};
}

describe("bulk jobs in the tray", () => {
	test("one that somebody else began is taken up while it runs, not when it is over", () => {
		const jobs = withNews([], job("a"));
		expect(jobs).toEqual([job("a")]);
		expect(withNews(jobs, job("b", "done"))).toEqual(jobs);
	});

	test("go on by what is newer: an answer may overtake an event", () => {
		const jobs = withNews([job("a", "running", 4)], job("a", "running", 2));
		expect(jobs).toEqual([job("a", "running", 4)]);
		const over = withNews(jobs, job("a", "cancelled", 4));
		expect(over).toEqual([job("a", "cancelled", 4)]);
		expect(withNews(over, job("a", "running", 5))).toEqual(over);
	});

	test("are bounded: those that are over make room, the oldest first, and none that runs is hidden", () => {
		let jobs: readonly Job[] = [job("runs")];
		for (let at = 0; at < 9; at++) jobs = withJob(jobs, job(`over-${at}`, "done"));
		expect(jobs.map(({ id }) => id)).toEqual([
			"over-8",
			"over-7",
			"over-6",
			"over-5",
			"over-4",
			"runs",
		]);
		for (let at = 0; at < MOST_SHOWN; at++) jobs = withJob(jobs, job(`more-${at}`));
		expect(jobs).toHaveLength(MOST_SHOWN + 1);
		expect(jobs.every(({ state }) => state === "running")).toBe(true);
	});

	test("one that the server has forgotten was cancelled by its stop", () => {
		expect(withLost([job("a", "running", 3), job("b", "done")], "a")).toEqual([
			job("a", "cancelled", 3),
			job("b", "done"),
		]);
		expect(withLost([job("a", "done")], "a")).toEqual([job("a", "done")]);
	});
});
