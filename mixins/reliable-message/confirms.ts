import { type DecideItem, type ItemAnswer, messageOf, type Outcome } from "../../protocol/index.ts";
import { AckBatch } from "./ack-batch.ts";
import type { CoordinatorClient } from "./client.ts";
import type { Core } from "./core.ts";
import { Outbox, type Parcel } from "./outbox.ts";

/** Decisions kept in memory; above it the store's own rows are the memory. */
const LIMIT = 10_000;
/** Outcomes that one sweep sends again. */
const SWEEP = 5_000;
const ITEM_BYTES = 128;

interface Decision extends Parcel {
	readonly id: string;
	readonly to: "commit" | "rollback";
}

/** Tells the coordinators commits and rollbacks until they are acknowledged (R9). */
export class Confirms {
	readonly #core: Core;
	readonly #commits: Outbox<Decision>;
	readonly #rollbacks: Outbox<Decision>;
	readonly #acks: AckBatch<{ readonly id: string }>;
	/** Groups whose coordinator answered a commit with "unknown". */
	readonly #unknown = new Set<string>();
	/** Answered for good, but not acknowledged: their rows stay, and no sweep sends them again. */
	readonly #refused = new Set<string>();

	constructor(core: Core, client: CoordinatorClient) {
		this.#core = core;
		this.#commits = this.#outbox("commit", client);
		this.#rollbacks = this.#outbox("rollback", client);
		this.#acks = new AckBatch(
			core.settings.clock,
			(acks) => core.store.confirm(acks.map(({ id }) => id)),
			(error) => {
				core.logger.warn(`Lottor: outcomes not confirmed yet: ${messageOf(error)}`);
			},
		);
	}

	/** Decisions not acknowledged yet. */
	get size(): number {
		return this.#commits.size + this.#rollbacks.size;
	}

	/** Commits that the coordinator does not know, and which are repeated. */
	get unknown(): number {
		return this.#unknown.size;
	}

	/** The decision about a group that could not be told yet. */
	outcomeOf(id: string): Outcome | undefined {
		if (this.#commits.get(id)) return "committed";
		return this.#rollbacks.get(id) ? "rolledBack" : undefined;
	}

	/**
	 * @param coordinator id of the coordinator store that has the group
	 * @param id the group
	 */
	commit(coordinator: string, id: string): void {
		this.#commits.add(coordinator, { key: id, id, to: "commit", bytes: ITEM_BYTES });
	}

	/** Only for groups whose COMMIT was never issued, or whose stored outcome is rolledBack (R8). */
	rollback(coordinator: string, id: string): void {
		this.#rollbacks.add(coordinator, { key: id, id, to: "rollback", bytes: ITEM_BYTES });
	}

	/**
	 * Sends again what the store holds as committed but not acknowledged: a crash between commit
	 * and confirm heals here.
	 *
	 * @param age milliseconds; younger outcomes are left alone
	 * @returns whether there are more, and room for them
	 */
	async sweep(age: number): Promise<boolean> {
		const limit = SWEEP + this.#commits.size + this.#refused.size;
		const found = await this.#core.store.unconfirmed(age, limit);
		for (const { id, coordinator } of found) {
			const running = this.#core.active.has(id) || this.#acks.has(id);
			if (!running && !this.#refused.has(id)) this.commit(coordinator, id);
		}
		return found.length === limit && this.#commits.size < LIMIT / 2;
	}

	wake(): void {
		this.#commits.wake();
		this.#rollbacks.wake();
	}

	async flushed(): Promise<void> {
		await Promise.all([this.#commits.flushed(), this.#rollbacks.flushed()]);
	}

	/** Tries everything once more and writes the acknowledgements. Never rejects. */
	async drained(): Promise<void> {
		await Promise.all([this.#commits.drained(), this.#rollbacks.drained()]);
		await this.#acks.flush();
	}

	close(): void {
		this.#commits.close();
		this.#rollbacks.close();
		this.#acks.close();
	}

	#outbox(to: Decision["to"], client: CoordinatorClient): Outbox<Decision> {
		const { clock, random } = this.#core.settings;
		const { storeId, logger } = this.#core;
		return new Outbox<Decision>({
			clock,
			random,
			limit: LIMIT,
			send: (coordinator, decisions) => {
				const items = decisions.map(({ id }): DecideItem => ({ id, storeId }));
				return client.decide(to, coordinator, items);
			},
			settle: (decision, answer) => this.#settle(decision, answer),
			failed: (error, coordinator, failures) => {
				const message = `Lottor: ${to} not told to coordinator store ${coordinator}, trying again`;
				logger.warn(`${message} (failure ${failures}): ${messageOf(error)}`);
			},
		});
	}

	#settle({ id, to }: Decision, answer: ItemAnswer): "done" | "again" {
		const { logger } = this.#core;
		this.#unknown.delete(id);
		switch (answer.result) {
			case "ok":
			case "already":
				logger.debug(`Lottor: ${to} of group ${id} acknowledged`);
				this.#acks.add({ id });
				return "done";
			case "unknown":
				if (to === "rollback") {
					logger.warn(
						`Lottor: rollback of group ${id}, which the coordinator does not have`,
					);
					return "done";
				}
				this.#unknown.add(id);
				logger.error(
					`Lottor: the coordinator does not know group ${id}, which is committed here; it will be told again`,
				);
				return "again";
			case "stale":
			case "conflict":
			case "invalid": {
				// A coordinator that has not seen this node's service yet.
				if (answer.error?.retryable) return "again";
				const why = answer.error?.message ?? answer.state ?? "";
				logger.error(
					`Lottor: ${to} of group ${id} was answered "${answer.result}": ${why}`,
				);
				if (this.#refused.size >= LIMIT) this.#refused.clear();
				this.#refused.add(id);
				return "done";
			}
		}
	}
}
