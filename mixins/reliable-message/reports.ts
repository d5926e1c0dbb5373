import { type ItemAnswer, messageOf, type Report } from "../../protocol/index.ts";
import { AckBatch } from "./ack-batch.ts";
import type { CoordinatorClient } from "./client.ts";
import type { Core } from "./core.ts";
import { Outbox, type Parcel } from "./outbox.ts";

/** Reports kept in memory; above it the coordinator finds out by asking. */
const LIMIT = 10_000;
/** Messages that one sweep reports again. */
const SWEEP = 5_000;
const ITEM_BYTES = 256;

interface ReportParcel extends Parcel {
	readonly report: Report;
}

/** Tells the coordinators how consumptions ended, until they acknowledge. */
export class Reports {
	readonly #core: Core;
	readonly #client: CoordinatorClient;
	readonly #outbox: Outbox<ReportParcel>;
	readonly #acks: AckBatch<{ readonly id: string; readonly attempt: number }>;
	/** Answered for good, but not acknowledged: their rows stay, and no sweep sends them again. */
	readonly #refused = new Set<string>();

	constructor(core: Core, client: CoordinatorClient) {
		this.#core = core;
		this.#client = client;
		const { clock, random } = core.settings;
		this.#outbox = new Outbox<ReportParcel>({
			clock,
			random,
			limit: LIMIT,
			send: (coordinator, parcels) =>
				client.report(
					coordinator,
					parcels.map(({ report }) => report),
				),
			settle: (parcel, answer) => this.#settle(parcel.report, answer),
			failed: (error, coordinator, failures) => {
				const message = `Lottor: reports not told to coordinator store ${coordinator}, trying again`;
				core.logger.warn(`${message} (failure ${failures}): ${messageOf(error)}`);
			},
		});
		this.#acks = new AckBatch(
			clock,
			(acks) => core.store.settled(acks),
			(error) => {
				core.logger.warn(`Lottor: inbox rows not settled yet: ${messageOf(error)}`);
			},
		);
	}

	/** Reports not acknowledged yet. */
	get size(): number {
		return this.#outbox.size;
	}

	/** @param coordinator id of the coordinator store that sent the message */
	add(coordinator: string, report: Report): void {
		const key = `${report.id} ${report.attempt} ${report.result}`;
		this.#outbox.add(coordinator, { key, report, bytes: ITEM_BYTES + errorBytes(report) });
	}

	/** The failure of this attempt, while it is not acknowledged. */
	failureOf(id: string, attempt: number): Extract<Report, { result: "failed" }> | undefined {
		const report = this.#outbox.get(`${id} ${attempt} failed`)?.report;
		return report?.result === "failed" ? report : undefined;
	}

	/** The coordinator has stored the ends of these attempts. */
	acknowledged(reports: readonly { readonly id: string; readonly attempt: number }[]): void {
		for (const report of reports) this.#acks.add(report);
	}

	/**
	 * Reports again what the inbox holds as consumed but not acknowledged.
	 *
	 * @param age milliseconds; younger rows are left alone
	 * @returns whether there are more, and room for them
	 */
	async sweep(age: number): Promise<boolean> {
		const { store, storeId } = this.#core;
		const limit = SWEEP + this.#outbox.size + this.#refused.size;
		const found = await store.unsettled(age, limit);
		for (const message of found) {
			const { id, receipt, attempt, revision, coordinator } = message;
			if (this.#refused.has(id) || this.#acks.has(id)) continue;
			this.add(coordinator, { id, receipt, storeId, attempt, revision, result: "consumed" });
		}
		return found.length === limit && this.#outbox.size < LIMIT / 2;
	}

	/**
	 * Tells that a copy which the broker has handed over before is about to run (R23).
	 * @returns the answer; undefined where there is none
	 */
	async announce(
		coordinator: string,
		report: Extract<Report, { result: "running" }>,
	): Promise<ItemAnswer | undefined> {
		const answers = await this.#client.report(coordinator, [report]).catch((error: unknown) => {
			this.#core.logger.debug(
				`Lottor: message ${report.id} runs again, untold: ${messageOf(error)}`,
			);
			return [];
		});
		return answers[0];
	}

	wake(): void {
		this.#outbox.wake();
	}

	flushed(): Promise<void> {
		return this.#outbox.flushed();
	}

	/** Tries everything once more and writes the acknowledgements. Never rejects. */
	async drained(): Promise<void> {
		await this.#outbox.drained();
		await this.#acks.flush();
	}

	close(): void {
		this.#outbox.close();
		this.#acks.close();
	}

	#settle(report: Report, answer: ItemAnswer): "done" {
		const { id, result } = report;
		const known = ["ok", "already", "stale"].includes(answer.result);
		if (known && result !== "expired") this.#acks.add({ id, attempt: report.attempt });
		if (!known) {
			const why = answer.error?.message ?? answer.state ?? "";
			this.#core.logger.error(
				`Lottor: report "${result}" of message ${id} was answered "${answer.result}": ${why}`,
			);
			if (this.#refused.size >= LIMIT) this.#refused.clear();
			this.#refused.add(id);
		}
		return "done";
	}
}

function errorBytes(report: Report): number {
	if (report.result !== "failed") return 0;
	return report.error.message.length + (report.error.stack?.length ?? 0);
}
