import type { CoordinatorStore } from "../../adapters/coordinator-store/index.ts";
import {
	type Change,
	type Clock,
	contentHash,
	encodePayload,
	type GroupRecord,
	type NewGroup,
	newGroupId,
	type Random,
	type RetryTimes,
} from "../../protocol/index.ts";
import { searchTerms } from "../../services/payload-paths.ts";
import { BUSINESS, type Business, FAILURES, payloadOf } from "./words.ts";

/** A clock that is set by hand. */
export interface SetClock extends Clock {
	set(at: number): void;
}

/** How a made-up group goes. */
type Fate = "completed" | "rolledBack" | "failed" | "waiting" | "prepared" | "inDoubt";

export interface SeedOptions {
	/** How many groups. */
	readonly groups: number;
	/** Days of history that they are spread over, ending now. */
	readonly days: number;
	/** Milliseconds since 1970. */
	readonly now: number;
	readonly random: Random;
	/** Payload fields that messages can be found by, as the coordinator has them; none unless given. */
	readonly searchFields?: readonly string[];
	/** Told how many are stored so far, after each batch. */
	readonly progress?: (stored: number) => void;
}

const BATCH = 500;
const DAY = 86_400_000;
const HOUR = 3_600_000;
/** Moments a day at which groups are prepared, and minutes of the last hour. */
const A_DAY = 8;
const MINUTES = 59;
/** Share of the groups that the last hour has. */
const LATE = 0.05;
const ONCE: RetryTimes = { retries: 0, delay: 1_000, factor: 2, maxDelay: 300_000 };
const TWICE: RetryTimes = { ...ONCE, retries: 1 };
const MAX_CHECKS = 3;

/**
 * Fills a store with made-up but lifelike groups, by the same calls that a coordinator makes: so
 * histories, figures and searches are what they would be.
 *
 * @param store is opened already, and nothing else writes to it
 * @param clock the store's own clock, which is moved through the days
 */
export async function seed(
	store: CoordinatorStore,
	clock: SetClock,
	options: SeedOptions,
): Promise<void> {
	let stored = 0;
	clock.set(0);
	for (const { at, count } of moments(options)) {
		clock.set(Math.max(at, clock.now()));
		for (let rest = count; rest > 0; rest -= BATCH) {
			const batch = Array.from({ length: Math.min(BATCH, rest) }, (_, index) =>
				plan(stored + index, at, clock, options),
			);
			await store.insert(batch.map(({ group }) => group));
			await play(store, clock, batch, options.random);
			stored += batch.length;
			options.progress?.(stored);
		}
	}
	clock.set(options.now);
}

/** @returns a {@link SeedOptions.progress} that tells of every so many groups only */
export function every(step: number, tell: (stored: number) => void): (stored: number) => void {
	let told = 0;
	return (stored) => {
		const passed = stored - (stored % step);
		if (passed > told) tell((told = passed));
	};
}

interface Planned {
	readonly group: NewGroup;
	readonly fate: Fate;
	readonly business: Business;
}

interface Moment {
	readonly at: number;
	/** Groups that are prepared then. */
	readonly count: number;
}

/** Eight moments a day, and each minute of the last hour, with waves as business has them; in order. */
function moments({ groups, days, now, random }: SeedOptions): Moment[] {
	const early = Array.from({ length: days * A_DAY }, (_, n) => {
		const at = Math.round(now - HOUR - (days - n / A_DAY) * DAY);
		const weekend = [0, 6].includes(new Date(at).getUTCDay());
		const noon = 1 + Math.sin(((at % DAY) / DAY) * 2 * Math.PI - Math.PI / 2);
		return {
			at,
			weight: (0.3 + noon) * (weekend ? 0.45 : 1) * (0.8 + 0.4 * random.fraction()),
		};
	});
	const late = Array.from({ length: MINUTES }, (_, n) => ({
		at: now - HOUR + n * 60_000 + 2_000,
		weight: (1 + 0.35 * Math.sin(n / 8)) * (0.85 + 0.3 * random.fraction()),
	}));
	return [...shared(early, groups * (1 - LATE)), ...shared(late, groups * LATE)];
}

function shared(parts: readonly { at: number; weight: number }[], groups: number): Moment[] {
	const total = parts.reduce((sum, { weight }) => sum + weight, 0);
	let given = 0;
	let due = 0;
	return parts.map(({ at, weight }) => {
		due += (weight / total) * groups;
		const count = Math.round(due) - given;
		given += count;
		return { at, count };
	});
}

function plan(n: number, at: number, clock: Clock, options: SeedOptions): Planned {
	const { now, random, searchFields = [] } = options;
	const business = pick(random);
	const id = newGroupId(clock, random);
	const recent = now - at < 6 * HOUR;
	const messages = business.messages.map(([target, type], index) => {
		const content = encodePayload(payloadOf(n + index), "payload");
		return {
			target,
			type,
			content,
			bytes: Buffer.byteLength(content),
			delay: 0,
			maxAttempts: null,
			orderingKey: null,
			plain: false as const,
			terms: searchTerms(content, searchFields),
		};
	});
	const instance = 1 + Math.floor(random.fraction() * 3);
	return {
		business,
		fate: fateOf(random.fraction(), recent, business),
		group: {
			id,
			source: business.source,
			storeId: contentHash(business.source).slice(0, 32),
			guarantee: business.guarantee,
			owner: { nodeID: `${business.source.split(".").at(-1)}-${instance}`, instanceID: id },
			hash: contentHash(id),
			idempotencyKey: n % 6 === 0 ? `order-${480_000 + n}` : null,
			checkAfter: DAY,
			context: "{}",
			messages,
		},
	};
}

/** Old groups are done; only of late is there something under way. */
function fateOf(dice: number, recent: boolean, { guarantee }: Business): Fate {
	if (dice < 0.04) return "rolledBack";
	if (dice < 0.048) return "failed";
	// A transactional store always tells.
	if (guarantee === "recorded" && dice < 0.07) return "inDoubt";
	if (!recent) return "completed";
	if (dice < 0.074) return "waiting";
	return dice < 0.08 ? "prepared" : "completed";
}

async function play(
	store: CoordinatorStore,
	clock: SetClock,
	batch: readonly Planned[],
	random: Random,
): Promise<void> {
	const decided = batch.filter(({ fate }) => fate !== "prepared" && fate !== "inDoubt");
	later(clock, 8 + random.fraction() * 25);
	const ready = new Map(
		BUSINESS.flatMap(({ messages }) =>
			messages.map(
				([target]) => [target, { storeId: contentHash(target).slice(0, 32) }] as const,
			),
		),
	);
	const answers = await store.decide(
		decided.map(({ group, fate }) => ({
			id: group.id,
			to: fate === "rolledBack" ? ("rolledBack" as const) : ("committed" as const),
			by: "producer" as const,
			who: `${group.source}@${group.owner.nodeID}`,
			...(fate !== "rolledBack" && {
				dispatch: { owner: "lottor-1", lease: 5_000, ackTimeout: HOUR, ready },
			}),
		})),
	);
	later(clock, 10 + random.fraction() * 60);
	const committed = answers.flatMap((answer, index) => {
		const planned = decided[index];
		return answer.result === "done" && planned && planned.fate !== "rolledBack"
			? [{ ...planned, record: answer.group }]
			: [];
	});
	const stumbling = committed.filter(() => random.fraction() < 0.03);
	await settle(
		store,
		committed.filter((one) => !stumbling.includes(one)),
		1,
	);
	await store.apply(stumbling.map((one) => failure(one, 0, 1, true)));
	later(clock, 1_000 + random.fraction() * 400);
	await store.apply(stumbling.map(sentAgain));
	later(clock, 20 + random.fraction() * 80);
	await settle(store, stumbling, 2);
	await doubt(
		store,
		clock,
		batch.filter(({ fate }) => fate === "inDoubt"),
	);
}

type Committed = Planned & { readonly record: GroupRecord };

/** @param attempt of the first message: 2 when it has stumbled once */
async function settle(
	store: CoordinatorStore,
	committed: readonly Committed[],
	attempt: number,
): Promise<void> {
	const changes = committed.flatMap((one): Change[] => {
		if (one.fate === "waiting") {
			return one.record.messages.slice(1).map((_, at) => consumed(one, at + 1));
		}
		return one.record.messages.map((_, at) => {
			const fails = one.fate === "failed" && at === failing(one.business, one.group.id);
			return fails ? failure(one, at, at === 0 ? attempt : 1, false) : consumed(one, at);
		});
	});
	await store.apply(changes);
}

/** Which of its messages fails, when one does. */
function failing({ messages }: Business, id: string): number {
	return (id.charCodeAt(id.length - 1) + id.charCodeAt(id.length - 2)) % messages.length;
}

function consumed({ group }: Committed, index: number): Change {
	const target = group.messages[index]?.target ?? "";
	return { id: group.id, index, event: { type: "consumed", revision: 0, who: `${target}-1` } };
}

function failure(one: Committed, index: number, attempt: number, again: boolean): Change {
	const target = one.group.messages[index]?.target ?? "";
	const error = FAILURES[target] ?? {
		code: "UPSTREAM_UNAVAILABLE",
		message: `The upstream of ${target} answered 503`,
		retryable: true,
	};
	return {
		id: one.group.id,
		index,
		event: {
			type: "failed",
			attempt,
			revision: 0,
			error: again ? { ...error, retryable: true } : error,
			policy: again ? TWICE : ONCE,
			fraction: 0.5,
			who: `${target}-1`,
		},
	};
}

function sentAgain({ group, record }: Committed): Change {
	const target = group.messages[0]?.target ?? "";
	return {
		id: group.id,
		epoch: record.epoch,
		index: 0,
		event: {
			type: "sent",
			storeId: contentHash(target).slice(0, 32),
			instance: { nodeID: `${target}-2`, instanceID: "i2" },
			ackTimeout: HOUR,
		},
	};
}

/** Asks the producers of these until they are in doubt. */
async function doubt(
	store: CoordinatorStore,
	clock: SetClock,
	planned: readonly Planned[],
): Promise<void> {
	for (let check = 0; check < MAX_CHECKS; check++) {
		later(clock, 400);
		await store.apply(
			planned.map(({ group }) => ({
				id: group.id,
				epoch: 0,
				event: {
					type: "checked" as const,
					answer: "unknown" as const,
					delay: 300_000,
					maxChecks: MAX_CHECKS,
					doubtAfter: HOUR,
				},
			})),
		);
	}
}

function later(clock: SetClock, ms: number): void {
	clock.set(clock.now() + Math.round(ms));
}

function pick(random: Random): Business {
	const total = BUSINESS.reduce((sum, { weight }) => sum + weight, 0);
	let dice = random.fraction() * total;
	const found = BUSINESS.find(({ weight }) => (dice -= weight) < 0);
	return found ?? (BUSINESS[0] as Business);
}
