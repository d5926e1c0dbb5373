import type { ServiceBroker } from "moleculer";
import type {
	ApplyResult,
	Claimed,
	ClaimRequest,
	CoordinatorStore,
} from "../../adapters/coordinator-store/index.ts";
import {
	type Change,
	type Complaints,
	due,
	type DueKind,
	messageOf,
	type Owner,
	PARTICIPANT_ACTIONS,
	sameOwner,
} from "../../protocol/index.ts";
import type { Reader } from "./answers.ts";
import type { Flights } from "./flights.ts";
import type { Meters } from "./meters.ts";
import type { Settings } from "./options.ts";
import type { RegistryView } from "./registry-view.ts";
import { slotsOf } from "./share.ts";

/** What every part of the coordinator works with. */
export interface Engine {
	readonly settings: Settings;
	readonly broker: ServiceBroker;
	readonly logger: ServiceBroker["logger"];
	readonly store: CoordinatorStore;
	readonly storeId: string;
	/** Key of the receipts (R5). */
	readonly key: Uint8Array;
	/** This coordinator as the owner of leases (R2). */
	readonly owner: string;
	readonly view: RegistryView;
	readonly flights: Flights;
	readonly meters: Meters;
	/** What peers do wrong. */
	readonly complaints: Complaints;
	/**
	 * Asks for a pass over due work at that time of the store's clock.
	 * @param group what becomes due; when that is soon, this coordinator takes it up, whosever it is
	 */
	wakeAt(at: number, group?: string): void;
	/** Slots of what this coordinator was to be woken for about now. */
	promised(): readonly number[];
	/** How many groups to claim next, by kind: as many as fit in memory, going by the last ones. */
	readonly claimSizes: Map<DueKind, number>;
	/** How late claimed work was, by kind, in milliseconds; of the last claim of each kind. */
	readonly lags: Map<DueKind, number>;
	/** Whether this coordinator ends: what it claims now is to be handed back. */
	stopping(): boolean;
}

/** Groups of the first claim, whose size nobody knows, and bytes that later ones are to bring. */
const FIRST_CLAIM = 10;
const CLAIM_BYTES = 16 * 1_024 * 1_024;

/**
 * Claims due groups one batch after another and has each handled, until nothing is left. Batches
 * hold what is this coordinator's share and what anybody may take since it is overdue. They are
 * small where groups are large: their payloads are in memory.
 *
 * @param lease milliseconds that handling one batch may take
 */
export async function eachClaim(
	engine: Engine,
	kind: DueKind,
	lease: number,
	handle: (claimed: Claimed[]) => Promise<void>,
): Promise<void> {
	const { store, owner, settings, claimSizes } = engine;
	for (;;) {
		const own = shareOf(engine);
		const share = own && { ...own, slots: [...new Set([...own.slots, ...engine.promised()])] };
		const limit = Math.min(claimSizes.get(kind) ?? FIRST_CLAIM, settings.claimLimit);
		const claimed = await store.claim({ kind, owner, lease, limit, ...(share && { share }) });
		if (engine.stopping()) {
			await store.release(claimed.map(({ group: { id, epoch } }) => ({ id, epoch })));
			return;
		}
		engine.lags.set(kind, lagOf(claimed[0], store.now()));
		claimSizes.set(kind, nextSize(claimed, limit));
		await handle(claimed);
		if (claimed.length < limit) return;
	}
}

/** @returns how many groups like these fit; at most twice as many as before */
function nextSize(claimed: readonly Claimed[], limit: number): number {
	let bytes = 1;
	for (const { payloads } of claimed) for (const { content } of payloads) bytes += content.length;
	const fit = Math.floor((CLAIM_BYTES * claimed.length) / bytes);
	return claimed.length === 0 ? limit : Math.max(Math.min(fit, limit * 2), 1);
}

/** @returns the slots to claim from, where other coordinators work on the same store */
export function shareOf({ view, storeId, broker, settings }: ShareView): ClaimRequest["share"] {
	const living = view.coordinators.filter((one) => one.storeId === storeId);
	const self = { nodeID: broker.nodeID, instanceID: broker.instanceID };
	if (living.every((one) => sameOwner(one, self))) return undefined;
	return { slots: slotsOf(self, living), after: settings.lease };
}

type ShareView = Pick<Engine, "view" | "storeId" | "broker" | "settings">;

/** Claims come oldest first. */
function lagOf(oldest: Claimed | undefined, now: number): number {
	if (!oldest) return 0;
	const { checkAt, messages } = oldest.group;
	const times = [checkAt, ...messages.map(({ nextAt }) => nextAt)].filter((at) => at !== null);
	return Math.max(now - Math.min(now, ...times), 0);
}

/** Applies changes and sees to it that what they make due is taken up in time. */
export async function apply(engine: Engine, changes: readonly Change[]): Promise<ApplyResult[]> {
	if (changes.length === 0) return [];
	const results = await engine.store.apply(changes);
	for (const result of results) {
		if (result.result !== "done") continue;
		const next = due(result.group);
		if (next) engine.wakeAt(next.at, result.group.id);
	}
	return results;
}

/** An instance that one of Lottor's own actions is called on. */
interface Callee extends Owner {
	readonly service: string;
}

/** @returns a name of the instance, for sets */
export function instanceKey({ nodeID, instanceID, service }: Callee): string {
	return `${nodeID}|${instanceID}|${service}`;
}

/**
 * Calls one of the mixin's actions on one instance (R28). What it answers is not believed before it
 * is read: what can't be read is no answer, is counted, and is complained of.
 *
 * @param read see {@link Reader}
 * @param silent instances that left a call unanswered in this pass: they are not waited for again, and
 *   this one joins them if it does not answer
 * @returns its answers, or undefined when it did not answer: then nothing is known
 */
export async function callParticipant<Item, Answer>(
	engine: Engine,
	callee: Callee,
	action: keyof typeof PARTICIPANT_ACTIONS,
	items: readonly Item[],
	read: Reader<Item, Answer>,
	silent = new Set<string>(),
): Promise<(Answer | undefined)[] | undefined> {
	const key = instanceKey(callee);
	if (silent.has(key)) return undefined;
	const answers = await answersOf(engine, callee, action, items, read);
	if (!answers) silent.add(key);
	return answers;
}

async function answersOf<Item, Answer>(
	engine: Engine,
	callee: Callee,
	action: keyof typeof PARTICIPANT_ACTIONS,
	items: readonly Item[],
	read: Reader<Item, Answer>,
): Promise<(Answer | undefined)[] | undefined> {
	let answers: unknown;
	try {
		answers = await engine.broker.call<unknown, { items: readonly Item[] }>(
			`${callee.service}.${PARTICIPANT_ACTIONS[action]}`,
			{ items },
			{ nodeID: callee.nodeID, timeout: engine.settings.askTimeout, retries: 0 },
		);
	} catch (error) {
		engine.logger.debug(
			`${callee.service} on ${callee.nodeID} did not answer ${action}: ${messageOf(error)}`,
		);
		return undefined;
	}
	const given: readonly unknown[] = Array.isArray(answers) ? answers : [];
	const found =
		given.length === items.length ? items.map((item, place) => read(given[place], item)) : [];
	const wrong = items.length - found.filter((answer) => answer !== undefined).length;
	if (wrong > 0) {
		const { nodeID, service } = callee;
		engine.meters.count("refusedAnswers", wrong);
		engine.complaints.say(
			"warn",
			action,
			nodeID,
			() => `${service} on ${nodeID} answered ${action} with what is no answer`,
		);
	}
	return wrong < items.length ? found : undefined;
}

/** @returns the values by key, in the order of their first appearance */
export function groupBy<T>(values: Iterable<T>, key: (value: T) => string): Map<string, T[]> {
	const groups = new Map<string, T[]>();
	for (const value of values) {
		const name = key(value);
		const list = groups.get(name);
		if (list) list.push(value);
		else groups.set(name, [value]);
	}
	return groups;
}

/** @returns a delay that doubles with each of `times`, up to `cap`; milliseconds */
export function doubling(first: number, times: number, cap: number): number {
	return Math.min(first * 2 ** Math.min(times, 30), cap);
}
