import { createHash } from "node:crypto";

import type { CoordinatorStore } from "../adapters/coordinator-store/index.ts";
import {
	type Change,
	type Clock,
	type Decision,
	newGroupId,
	type NewGroup,
	type Random,
} from "../protocol/index.ts";
import { searchTerms } from "../services/payload-paths.ts";

/** Payload fields that the made-up data can be searched by. */
export const SEEDED_FIELDS = ["user.email", "order"];

const BATCH = 500;
const STORE_ID = createHash("md5").update("seed").digest("hex");

interface Kind {
	readonly source: string;
	readonly messages: readonly (readonly [target: string, type: string])[];
	/** How many of a hundred groups. */
	readonly share: number;
}

const KINDS: readonly Kind[] = [
	{ source: "user", messages: [["auth", "grant-role"]], share: 40 },
	{
		source: "shop",
		messages: [
			["stock", "reserve"],
			["mail", "order-confirmation"],
		],
		share: 30,
	},
	{ source: "shop", messages: [["billing", "charge"]], share: 12 },
	{
		source: "billing",
		messages: [
			["mail", "invoice"],
			["ledger", "post-entry"],
		],
		share: 10,
	},
	{
		source: "v2.shipping",
		messages: [
			["shop", "shipped"],
			["search", "reindex"],
		],
		share: 8,
	},
];

const ERRORS = [
	["STOCK_TOO_LOW", "Only 2 of article 4711 are left"],
	["MAILBOX_UNKNOWN", "550 5.1.1 The email account does not exist"],
	["ECONNREFUSED", "connect ECONNREFUSED 10.3.0.12:5432"],
	["VALIDATION_ERROR", "Parameters validation error!"],
	["CARD_DECLINED", "The issuer declined the card"],
] as const;

/** Names of people, for payloads that look like some. */
const PEOPLE = "ada,grace,linus,margaret,edsger,barbara,dennis,frances,ken,radia".split(",");

/** How groups end, of ten thousand. */
const ENDS = [
	["completed", 9_300],
	["rolledBack", 300],
	["failed", 180],
	["retrying", 100],
	["prepared", 80],
	["inDoubt", 40],
] as const;

type End = (typeof ENDS)[number][0];

/** Numbers that look random and are the same in every run. */
function sequence(seed: number): Random {
	let state = seed >>> 0;
	const next = () => {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
		return state;
	};
	return {
		fraction: () => next() / 2 ** 32,
		bytes: (size) => Uint8Array.from({ length: size }, () => next() >>> 24),
	};
}

function pick<T>(of: readonly (readonly [T, number])[], fraction: number): T {
	const total = of.reduce((sum, [, share]) => sum + share, 0);
	let left = fraction * total;
	for (const [value, share] of of) {
		left -= share;
		if (left < 0) return value;
	}
	return (of[0] as readonly [T, number])[0];
}

/**
 * Fills an open store with made-up groups that look like those of a shop.
 *
 * @param count how many groups
 * @param tick moves the store's clock on before each batch, where it can be moved
 * @param told called after each batch with the number of groups so far
 */
export async function seed(
	store: CoordinatorStore,
	count: number,
	tick: (done: number) => void = () => undefined,
	told: (done: number) => void = () => undefined,
): Promise<void> {
	const random = sequence(count);
	const clock: Clock = { now: () => store.now(), after: () => ({ cancel: () => undefined }) };
	for (let done = 0; done < count; done += BATCH) {
		tick(done);
		const size = Math.min(BATCH, count - done);
		const groups = Array.from({ length: size }, () => groupOf(clock, random));
		await store.insert(groups);
		await settle(store, groups, random);
		told(done + size);
	}
}

function groupOf(clock: Clock, random: Random): NewGroup {
	const kind = pick(
		KINDS.map((one) => [one, one.share] as const),
		random.fraction(),
	);
	const name = PEOPLE[Math.floor(random.fraction() * PEOPLE.length)] ?? "ada";
	const number = Math.floor(random.fraction() * 1_000_000);
	const payload = {
		user: { id: `u-${number}`, email: `${name}${number % 5_000}@example.com`, name },
		order: `o-${number}`,
		amount: Math.round(random.fraction() * 50_000) / 100,
		items: [{ sku: `A-${number % 977}`, quantity: 1 + (number % 3) }],
	};
	const content = JSON.stringify(payload);
	const terms = searchTerms(content, SEEDED_FIELDS);
	const id = newGroupId(clock, random);
	return {
		id,
		source: kind.source,
		storeId: STORE_ID,
		guarantee: "transactional",
		owner: { nodeID: `${kind.source}-1`, instanceID: "seed" },
		hash: id.padEnd(64, "0"),
		idempotencyKey: null,
		checkAfter: 10_000,
		context: JSON.stringify({ requestID: `req-${number}`, level: 1 }),
		messages: kind.messages.map(([target, type]) => ({
			target,
			type,
			content,
			bytes: content.length,
			delay: 0,
			maxAttempts: null,
			orderingKey: null,
			plain: false,
			terms,
		})),
	};
}

async function settle(
	store: CoordinatorStore,
	groups: readonly NewGroup[],
	random: Random,
): Promise<void> {
	const decisions: Decision[] = [];
	const changes: Change[] = [];
	for (const group of groups) {
		const end = pick(ENDS, random.fraction());
		if (end === "rolledBack") decisions.push(decisionOf(group, "rolledBack"));
		else if (end !== "prepared" && end !== "inDoubt")
			decisions.push(decisionOf(group, "committed"));
		changes.push(...changesOf(group, end, random));
	}
	await store.decide(decisions);
	await store.apply(changes);
}

function decisionOf(group: NewGroup, to: "committed" | "rolledBack"): Decision {
	const decided = { id: group.id, to, by: "producer", who: group.source } as const;
	if (to === "rolledBack") return decided;
	const ready = new Map(group.messages.map(({ target }) => [target, { storeId: STORE_ID }]));
	return { ...decided, dispatch: { owner: "seed", lease: 5_000, ackTimeout: 10_000, ready } };
}

function changesOf({ id, messages }: NewGroup, end: End, random: Random): Change[] {
	if (end === "rolledBack" || end === "prepared") return [];
	if (end === "inDoubt") {
		const event = {
			type: "checked",
			answer: "unknown",
			delay: 300_000,
			maxChecks: 1,
			doubtAfter: 3_600_000,
		} as const;
		return [{ id, epoch: 0, event }];
	}
	return messages.map((_, index): Change => {
		const last = index === messages.length - 1;
		if (end === "completed" || !last) {
			return { id, index, event: { type: "consumed", revision: 0, who: "consumer" } };
		}
		const [code, message] =
			ERRORS[Math.floor(random.fraction() ** 2 * ERRORS.length)] ?? ERRORS[0];
		const retryable = end === "retrying";
		return {
			id,
			index,
			event: {
				type: "failed",
				attempt: 1,
				revision: 0,
				error: {
					code,
					message,
					stack: `Error: ${message}\n    at Service.handler (/app/${code}.ts:42:9)`,
					retryable,
				},
				policy: { retries: 11, delay: 3_600_000, factor: 2, maxDelay: 86_400_000 },
				fraction: 0.5,
				who: "consumer",
			},
		};
	});
}
