import type { Claimed } from "../../adapters/coordinator-store/index.ts";
import {
	BATCH_ITEMS,
	type Change,
	type CheckAnswer,
	type CheckItem,
	type Decision,
	type GroupRecord,
} from "../../protocol/index.ts";
import { readCheck } from "./answers.ts";
import type { Dispatcher } from "./dispatcher.ts";
import {
	apply,
	callParticipant,
	doubling,
	eachClaim,
	type Engine,
	groupBy,
	instanceKey,
} from "./engine.ts";
import type { Intake } from "./intake.ts";
import type { Participant } from "./registry-view.ts";

/** Check-backs under way at once, each with all groups of one instance. */
const ITEMS_A_CALL = Math.min(BATCH_ITEMS, 100);

/** Asks producers how their local transactions ended (R13 to R16). */
export class CheckBack {
	readonly #engine: Engine;
	readonly #intake: Intake;
	readonly #dispatcher: Dispatcher;

	constructor(engine: Engine, intake: Intake, dispatcher: Dispatcher) {
		this.#engine = engine;
		this.#intake = intake;
		this.#dispatcher = dispatcher;
	}

	/** Looks through the store for groups whose check-back is due. */
	async pass(): Promise<void> {
		const { lease, askTimeout } = this.#engine.settings;
		// Who did not answer once is not waited for again in this pass.
		const silent = new Set<string>();
		await eachClaim(this.#engine, "check", lease + 2 * askTimeout, (claimed) =>
			this.#handle(claimed, silent),
		);
	}

	async #handle(claimed: readonly Claimed[], silent: Set<string>): Promise<void> {
		const { store, view } = this.#engine;
		const { arrivals } = view;
		const answers = await this.ask(
			claimed.map((one) => one.group),
			silent,
		);
		const decisions: Decision[] = [];
		const changes: Change[] = [];
		for (const { group } of claimed) {
			const answer = answers.get(group.id) ?? { result: "none" };
			if (answer.result === "committed" || answer.result === "rolledBack") {
				decisions.push(this.decisionOf(group, answer.result, answer.why));
			} else {
				changes.push(this.#checked(group, answer));
			}
		}
		if (decisions.length > 0) {
			const results = await this.#engine.store.decide(decisions);
			results.forEach((result, place) => {
				const decision = decisions[place];
				if (decision) this.#intake.decided(result, decision);
			});
		}
		const results = await apply(this.#engine, changes);
		if (view.arrivals !== arrivals) {
			// Somebody arrived while these were asked for, and may have been looked for too early.
			const storeIds = new Set(claimed.map((one) => one.group.storeId));
			await Promise.all(
				[...storeIds].map((storeId) => store.wake({ storeId }, claimed.length)),
			);
			this.#engine.wakeAt(store.now());
		}
		const undecided = new Set(
			claimed.filter(({ group }) => group.state === "prepared").map(({ group }) => group.id),
		);
		for (const result of results) {
			if (result.result !== "done" || result.group.state !== "inDoubt") continue;
			if (!undecided.has(result.group.id)) continue;
			this.#engine.meters.count("inDoubt");
			this.#engine.logger.warn(
				`Group ${result.group.id} is in doubt; it waits for an operator`,
			);
		}
	}

	decisionOf(
		group: GroupRecord,
		to: "committed" | "rolledBack",
		why = "answer to check-back",
	): Decision {
		return {
			id: group.id,
			to,
			by: "resolved",
			who: group.source,
			why,
			...(to === "committed" ? { dispatch: this.#dispatcher.lease() } : {}),
		};
	}

	#checked(group: GroupRecord, answer: CheckAnswer): Change {
		const { checkAfter, checkMaxDelay, maxChecks, doubtAfter } = this.#engine.settings;
		const said =
			answer.result === "running" || answer.result === "unknown" ? answer.result : "none";
		return {
			id: group.id,
			epoch: group.epoch,
			event: {
				type: "checked",
				answer: said,
				delay:
					group.state === "inDoubt"
						? checkMaxDelay
						: doubling(Math.max(checkAfter, 1), group.checks, checkMaxDelay),
				maxChecks,
				doubtAfter,
				...(answer.why === undefined ? {} : { why: answer.why }),
			},
		};
	}

	/**
	 * Asks who can know: first the instance that prepared, if it lives, then any other with the
	 * same participant store, one after the other (R13).
	 *
	 * @param silent who is not to be asked, having left a call unanswered; who does so is added
	 * @returns the answers by group id; a group without one got none
	 */
	async ask(
		groups: readonly GroupRecord[],
		silent = new Set<string>(),
	): Promise<Map<string, CheckAnswer>> {
		const answers = new Map<string, CheckAnswer>();
		const bySource = groupBy(groups, (group) => `${group.source}|${group.storeId}`);
		await Promise.all(
			[...bySource.values()].map((some) => this.#askSource(some, answers, silent)),
		);
		return answers;
	}

	async #askSource(
		groups: readonly GroupRecord[],
		answers: Map<string, CheckAnswer>,
		silent: Set<string>,
	): Promise<void> {
		const first = groups[0];
		if (!first) return;
		const all = this.#engine.view.answerers(first.source, first.storeId);
		const byOwner = groupBy(
			groups,
			(group) => `${group.owner.nodeID}|${group.owner.instanceID}`,
		);
		await Promise.all(
			[...byOwner.values()].map(async (some) => {
				const owner = some[0]?.owner;
				const order = [...all].sort((a, b) => rank(a, owner) - rank(b, owner));
				let open: readonly GroupRecord[] = some;
				for (const instance of order) {
					if (open.length === 0) return;
					await this.#askInstance(instance, open, answers, silent);
					open = open.filter((group) => !answers.has(group.id));
				}
				const why =
					all.length === 0
						? `no living instance of ${first.source} with the store of this group`
						: `no instance of ${first.source} answered`;
				for (const group of open) answers.set(group.id, { result: "none", why });
			}),
		);
	}

	async #askInstance(
		instance: Participant,
		groups: readonly GroupRecord[],
		answers: Map<string, CheckAnswer>,
		silent: Set<string>,
	): Promise<void> {
		for (let start = 0; start < groups.length; start += ITEMS_A_CALL) {
			if (silent.has(instanceKey(instance))) return;
			const some = groups.slice(start, start + ITEMS_A_CALL);
			const items = await Promise.all(some.map((group) => this.#item(group)));
			const said = await callParticipant<CheckItem, CheckAnswer>(
				this.#engine,
				instance,
				"check",
				items,
				readCheck,
				silent,
			);
			some.forEach((group, place) => {
				const answer = said?.[place];
				if (answer && answer.result !== "none") answers.set(group.id, answer);
			});
		}
	}

	async #item(group: GroupRecord): Promise<CheckItem> {
		const { id, storeId, owner, createdAt } = group;
		const item = {
			id,
			storeId,
			owner,
			createdAt,
			ownerGoneMs: this.#engine.view.goneFor(owner),
		};
		if (group.guarantee === "transactional") return item;
		const payloads = await this.#engine.store.payloads(id);
		const contents = new Map(payloads.map((payload) => [payload.message, payload.content]));
		return {
			...item,
			messages: group.messages.map((message) => ({
				target: message.target,
				type: message.type,
				content: contents.get(message.id) ?? "null",
			})),
		};
	}
}

function rank(instance: Participant, owner: GroupRecord["owner"] | undefined): number {
	const same = instance.nodeID === owner?.nodeID && instance.instanceID === owner.instanceID;
	return same ? 0 : 1;
}
