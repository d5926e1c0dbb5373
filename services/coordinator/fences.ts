import {
	type Change,
	type FenceAnswer,
	type FenceItem,
	FENCED_ALL,
	type GroupRecord,
	type MessageRecord,
} from "../../protocol/index.ts";
import { readFence } from "./answers.ts";
import { apply, callParticipant, type Engine } from "./engine.ts";

/** `none`: no living instance answered; nothing is known. */
export type Fenced = "fenced" | "consumed" | "busy" | "none";

/** Makes inboxes refuse older copies of a message (R27). */
export class Fences {
	readonly #engine: Engine;

	constructor(engine: Engine) {
		this.#engine = engine;
	}

	/**
	 * Fences copies of revisions below `minRevision` ({@link FENCED_ALL}: all), and stores what the
	 * inbox answered.
	 */
	async below(group: GroupRecord, message: MessageRecord, minRevision: number): Promise<Fenced> {
		const answer = await this.#ask(message, minRevision);
		if (answer.result === "fenced") {
			await this.#store(group, message, { type: "fenced", minRevision });
		}
		if (answer.result === "consumed") {
			await this.#store(group, message, {
				type: "consumed",
				revision: answer.revision,
				who: "fence",
			});
		}
		return answer.result;
	}

	/** Fences every copy, for a discard. The same answers, nothing is stored. */
	async all(message: MessageRecord): Promise<FenceAnswer> {
		return this.#ask(message, FENCED_ALL);
	}

	async #ask(message: MessageRecord, minRevision: number): Promise<FenceAnswer> {
		if (message.storeId === null) return { result: message.plain ? "fenced" : "none" };
		const item: FenceItem = { id: message.id, storeId: message.storeId, minRevision };
		for (const instance of this.#engine.view.instances(message.target, message.storeId)) {
			const answers = await callParticipant<FenceItem, FenceAnswer>(
				this.#engine,
				instance,
				"fence",
				[item],
				readFence,
			);
			const answer = answers?.[0];
			if (answer && answer.result !== "none") return answer;
		}
		return { result: "none" };
	}

	async #store(
		group: GroupRecord,
		message: MessageRecord,
		event: Extract<Change, { index: number }>["event"],
	): Promise<void> {
		await apply(this.#engine, [{ id: group.id, index: message.index, event }]);
	}
}
