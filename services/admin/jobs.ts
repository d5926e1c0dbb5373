import { type Clock, type ItemAnswer, LottorError, messageOf } from "../../protocol/index.ts";
import type { Job } from "./api/index.ts";
import type { CallCoordinator } from "./coordinator-calls.ts";
import { errorOf, problemOf } from "./problem.ts";

/** Messages that one call of the coordinator handles. */
const BATCH = 200;
const CALL_TIMEOUT_MS = 60_000;
const TOLD_EVERY_MS = 200;
const MOST_RUNNING = 5;
/** Jobs that are over and remembered. */
const MOST_KEPT = 100;
const MOST_ERRORS = 50;

/** What a job is to do. */
export interface JobOrder {
	readonly action: "retry" | "discard";
	readonly ids?: readonly string[];
	/** As `messages.list` of the coordinator takes it. */
	readonly filter?: Readonly<Record<string, unknown>>;
	readonly by: string;
	readonly why: string | null;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

interface Running {
	readonly job: Mutable<Job> & { errors: Job["errors"][number][] };
	cancelled: boolean;
	/** Undefined: nobody did, or the process that stops. */
	cancelledBy: string | undefined;
	toldAt: number;
}

/** Bulk actions: they run in this process, batch by batch, and end with it. */
export class Jobs {
	readonly #call: CallCoordinator;
	readonly #clock: Clock;
	readonly #newId: () => string;
	readonly #tell: (job: Job) => void;
	readonly #jobs = new Map<string, Running>();
	readonly #ends = new Set<Promise<void>>();

	constructor(options: {
		readonly call: CallCoordinator;
		readonly clock: Clock;
		readonly newId: () => string;
		/** Called with a job that began, went on or ended. */
		readonly tell: (job: Job) => void;
	}) {
		this.#call = options.call;
		this.#clock = options.clock;
		this.#newId = options.newId;
		this.#tell = options.tell;
	}

	/** Begins a job. @throws LOTTOR_TOO_MANY_JOBS */
	async start(order: JobOrder): Promise<Job> {
		const running = [...this.#jobs.values()].filter(({ job }) => job.state === "running");
		if (running.length >= MOST_RUNNING) {
			throw new LottorError(
				"LOTTOR_TOO_MANY_JOBS",
				`${MOST_RUNNING} jobs are running already`,
			);
		}
		const entry: Running = {
			job: {
				id: this.#newId(),
				action: order.action,
				state: "running",
				total: await this.#totalOf(order),
				done: 0,
				ok: 0,
				already: 0,
				refused: 0,
				errors: [],
				by: order.by,
				why: order.why,
				startedAt: this.#clock.now(),
				endedAt: null,
			},
			cancelled: false,
			cancelledBy: undefined,
			toldAt: 0,
		};
		await this.#audit(entry.job, "begun");
		this.#keep(entry);
		this.#tell(copyOf(entry.job));
		const end = this.#run(entry, order).finally(() => this.#ends.delete(end));
		this.#ends.add(end);
		return copyOf(entry.job);
	}

	list(): Job[] {
		return [...this.#jobs.values()].map(({ job }) => copyOf(job)).reverse();
	}

	/** @throws LOTTOR_JOB_UNKNOWN */
	get(id: string): Job {
		return copyOf(this.#find(id).job);
	}

	/** Ends a job after the batch under way; one that is over, or cancelled, stays as it is. */
	async cancel(id: string, by: string): Promise<Job> {
		const entry = this.#find(id);
		if (entry.job.state === "running" && !entry.cancelled) {
			entry.cancelled = true;
			entry.cancelledBy = by;
			const { action, by: begunBy } = entry.job;
			const data = { action, begunBy };
			// It ends, whether or not that can be written down now.
			await this.#note({
				who: by,
				action: "cancel job",
				result: "ok",
				subject: id,
				data,
			}).catch(() => undefined);
		}
		return copyOf(entry.job);
	}

	/** Cancels all and waits for the batches under way. */
	async stop(): Promise<void> {
		for (const entry of this.#jobs.values()) entry.cancelled = true;
		await Promise.all(this.#ends);
	}

	async #run(entry: Running, order: JobOrder): Promise<void> {
		const { job } = entry;
		try {
			for await (const ids of this.#batches(order)) {
				if (entry.cancelled) break;
				const items = ids.map((id) => ({
					id,
					by: order.by,
					...(order.why !== null && { why: order.why }),
				}));
				const answers = await this.#call<ItemAnswer[]>(
					`messages.${order.action}`,
					{ items },
					CALL_TIMEOUT_MS,
				);
				answers.forEach((answer, index) => count(job, ids[index] ?? "", answer));
				this.#progress(entry);
				if (entry.cancelled) break;
			}
			job.state = entry.cancelled ? "cancelled" : "done";
		} catch (error) {
			job.state = "failed";
			const { code } = problemOf(error);
			job.errors = [
				...job.errors.slice(0, MOST_ERRORS - 1),
				{ id: "", code, message: messageOf(error) },
			];
		}
		job.endedAt = this.#clock.now();
		this.#tell(copyOf(job));
		const { state } = job;
		const stopped = state === "cancelled" && entry.cancelledBy === undefined;
		// What it did is in the log already, batch by batch.
		await this.#audit(job, stopped ? "stopped" : state, entry.cancelledBy).catch(
			() => undefined,
		);
	}

	async *#batches({ ids, filter }: JobOrder): AsyncGenerator<readonly string[]> {
		if (ids) {
			for (let at = 0; at < ids.length; at += BATCH) yield ids.slice(at, at + BATCH);
			return;
		}
		let cursor: string | undefined;
		do {
			// Going down the list, what this job changes or what fails again does not come up twice.
			const page = await this.#call<{ items: readonly { id: string }[]; next?: string }>(
				"messages.list",
				{ ...filter, limit: BATCH, ...(cursor !== undefined && { cursor }) },
				CALL_TIMEOUT_MS,
			);
			if (page.items.length > 0) yield page.items.map(({ id }) => id);
			cursor = page.next;
		} while (cursor !== undefined);
	}

	async #totalOf({ ids, filter }: JobOrder): Promise<Job["total"]> {
		if (ids) return { count: ids.length, exact: true };
		const { total } = await this.#call<{ total?: Job["total"] }>("messages.list", {
			...filter,
			limit: 1,
			total: true,
		});
		return total ?? { count: 0, exact: false };
	}

	#progress(entry: Running): void {
		const now = this.#clock.now();
		if (now - entry.toldAt < TOLD_EVERY_MS) return;
		entry.toldAt = now;
		this.#tell(copyOf(entry.job));
	}

	/** Notes that a job began or ended. @param who it was, where that is not the one who began it */
	#audit(job: Job, result: string, who = job.by): Promise<unknown> {
		const { id, action, by, why, done, ok, already, refused } = job;
		const counts = { total: job.total.count, done, ok, already, refused };
		const data = { ...counts, ...(who !== by && { begunBy: by }) };
		return this.#note({ who, action: `${action} job`, result, why, subject: id, data });
	}

	#note(entry: object): Promise<unknown> {
		return this.#call("audit.add", { items: [entry] });
	}

	#keep(entry: Running): void {
		this.#jobs.set(entry.job.id, entry);
		for (const [id, { job }] of this.#jobs) {
			if (this.#jobs.size <= MOST_KEPT) break;
			if (job.state !== "running") this.#jobs.delete(id);
		}
	}

	#find(id: string): Running {
		const entry = this.#jobs.get(id);
		if (!entry) throw new LottorError("LOTTOR_JOB_UNKNOWN", `No job ${id} here`);
		return entry;
	}
}

function count(job: Running["job"], id: string, answer: ItemAnswer): void {
	job.done++;
	const error = errorOf(answer, "message", id);
	if (!error) {
		if (answer.result === "already") job.already++;
		else job.ok++;
		return;
	}
	job.refused++;
	if (job.errors.length < MOST_ERRORS) {
		job.errors.push({ id, code: error.type, message: error.message });
	}
}

function copyOf(job: Job): Job {
	return { ...job, errors: [...job.errors] };
}
