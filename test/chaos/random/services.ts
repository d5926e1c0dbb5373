import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Context, Errors, type Service, type ServiceSchema } from "moleculer";

import { sqliteCoordinatorStore } from "../../../adapters/coordinator-store/index.ts";
import type { DeliverySpec } from "../../../adapters/delivery/index.ts";
import {
	type ParticipantStore,
	recordedSqliteStore,
	SqliteParticipantStore,
	type TxBase,
} from "../../../adapters/participant-store/index.ts";
import { openSqliteFile, type SqliteFile, type SqliteTx } from "../../../adapters/sqlite/index.ts";
import {
	type IncomingMessage,
	type OutgoingMessage,
	ReliableMessage,
	reliableOf,
} from "../../../mixins/reliable-message/index.ts";
import { type Guarantee, systemClock, systemRandom } from "../../../protocol/index.ts";
import { Coordinator } from "../../../services/coordinator/index.ts";
import type { Dice } from "./dice.ts";
import type { Disk } from "./disk.ts";
import { CHECK_AFTER_MS, CONSUMERS, SQLITE, THROWN, type Times } from "./words.ts";

/** What its process gives a service. */
export interface Surroundings {
	readonly folder: string;
	/** Which start of which process it is. */
	readonly start: string;
	readonly guarantee: Guarantee;
	readonly delivery: DeliverySpec;
	/** `sqlite`: the file in the folder; or the URL of the coordinators' store. */
	readonly store: string;
	readonly calm: boolean;
	readonly coordinator: Times;
	/** How long a producer tries to prepare. */
	readonly prepareTimeout?: string;
	readonly dice: Dice;
	readonly disk: Disk;
	/** Told of each effect that a handler wrote. */
	readonly effected: () => void;
}

/** How a local work goes: `slow` takes longer than the first check-back waits. */
export type WorkKind = "plain" | "throws" | "slow";

interface Order {
	readonly messages: readonly OutgoingMessage[];
	readonly kind: WorkKind;
}

/** Any message to anybody: the targets are picked at random. */
type Sends = Record<string, Record<string, unknown>>;

/** The file of a service: its own tables beside Lottor's, and what wrote to it. */
interface Books {
	readonly store: ParticipantStore;
	open(): Promise<void>;
	close(): Promise<void>;
	/** Writes inside `tx`, or, with a recorded store, on its own. */
	write(tx: TxBase, sql: string, ...values: string[]): Promise<void>;
}

const TABLES = [
	"CREATE TABLE IF NOT EXISTS orders (grp TEXT NOT NULL, targets TEXT NOT NULL)",
	"CREATE TABLE IF NOT EXISTS effects (message TEXT NOT NULL, grp TEXT NOT NULL, by TEXT NOT NULL)",
];
const ORDER = "INSERT INTO orders (grp, targets) VALUES (?, ?)";
const EFFECT = "INSERT INTO effects (message, grp, by) VALUES (?, ?, ?)";

/** Times that let a short run see all of the protocol. */
const SHORT_TIMES = {
	checkAfter: CHECK_AFTER_MS,
	checkMaxDelay: "5s",
	askTimeout: "1s",
	callTimeout: "2s",
	lease: "500ms",
	ackTimeout: "1s",
	askMaxDelay: "5s",
	pollInterval: "200ms",
} as const;

/** A coordinator on the store that all coordinators share. */
export function coordinator({
	folder,
	guarantee,
	delivery,
	store,
	calm,
	coordinator: times,
	disk,
}: Surroundings): ServiceSchema {
	return Coordinator({
		store:
			store === SQLITE
				? sqliteCoordinatorStore({ file: join(folder, "lottor.db"), connect: disk.connect })
				: store,
		delivery,
		maxChecks: guarantee === "recorded" ? 3 : 15,
		...(!calm && SHORT_TIMES),
		...times,
	});
}

const IMPATIENT = { prepareTimeout: "3s" } as const;

/** A producer, which orders what the load asks of it. */
export function producer(name: string, around: Surroundings): ServiceSchema {
	const books = booksOf(name, around);
	const { calm, prepareTimeout } = around;
	const options = {
		store: books.store,
		...(!calm && IMPATIENT),
		...(prepareTimeout !== undefined && { prepareTimeout }),
	};
	return {
		name,
		mixins: [ReliableMessage(options)],
		methods: {
			order(this: Service, { messages, kind }: Order): Promise<string> {
				const targets = JSON.stringify(messages.map(({ target }) => target));
				return reliableOf<Sends>(this).transaction(null, messages, async (tx) => {
					// What a recorded work has done stands: there it fails before it does anything.
					const thrower = around.guarantee === "recorded" && kind === "throws";
					if (!thrower) await books.write(tx, ORDER, tx.group, targets);
					if (kind === "slow") await sleep(around.dice.between(300, 1_600));
					if (kind === "throws") throw new WorkFailed();
					return tx.group;
				});
			},
		},
		started: () => books.open(),
		stopped: () => books.close(),
	};
}

/** Orders at a producer of this process. @returns the group */
export function order(service: Service, given: Order): Promise<string> {
	const method = Reflect.get(service, "order") as (given: Order) => Promise<string>;
	return method.call(service, given);
}

/** A consumer whose handlers write one effect each, fail and dawdle at random, and pass on orders. */
export function consumer(name: string, around: Surroundings): ServiceSchema {
	const { dice } = around;
	const books = booksOf(name, around);
	const retryPolicy = { retries: 50, delay: 100, maxDelay: 1_000 };

	async function effect(ctx: Context<object>, tx: TxBase): Promise<void> {
		const fails = dice.chance(0.1);
		// A recorded handler's effect stands whatever comes of it: there it fails first.
		if (fails && around.guarantee === "recorded") throw new NotYet();
		const { id } = ctx.locals["message"] as IncomingMessage;
		await books.write(tx, EFFECT, id, tx.group, around.start);
		around.effected();
		if (dice.chance(0.02)) await sleep(dice.between(50, 800));
		if (fails) throw new NotYet();
	}

	return {
		name,
		mixins: [
			ReliableMessage({
				store: books.store,
				delivery: around.delivery,
				...(!around.calm && { ...IMPATIENT, handlerTimeout: "5s" }),
			}),
		],
		messages: {
			note: { retryPolicy, handler: effect },
			relay: {
				retryPolicy,
				async handler(this: Service, ctx: Context<{ to: string }>, tx: TxBase) {
					const { to } = ctx.params;
					const messages = [{ target: to, type: "note", payload: {} }];
					await reliableOf<Sends>(this).transaction(ctx, messages, (nested) =>
						books.write(nested, ORDER, nested.group, JSON.stringify([to])),
					);
					await effect(ctx, tx);
				},
			},
		},
		started: () => books.open(),
		stopped: () => books.close(),
	};
}

/** What a producer is to send in one transaction. */
export function messages(dice: Dice): OutgoingMessage[] {
	const targets = dice.chance(0.2)
		? CONSUMERS
		: [dice.pick(CONSUMERS), ...(dice.chance(0.2) ? [dice.pick(CONSUMERS)] : [])];
	return targets.map((target) => ({
		target,
		...(dice.chance(0.1)
			? { type: "relay", payload: { to: dice.pick(CONSUMERS) } }
			: { type: "note", payload: { text: "x".repeat(dice.between(0, 2_000)) } }),
		...(dice.chance(0.15) && { delay: dice.between(100, 2_000) }),
	}));
}

function booksOf(name: string, { folder, guarantee, disk }: Surroundings): Books {
	const path = join(folder, `${name}.db`);
	const options = { clock: systemClock, random: systemRandom, connect: disk.connect };
	const recorded = guarantee === "recorded";
	let file: SqliteFile | undefined;
	return {
		store: recorded
			? recordedSqliteStore(path, options)
			: new SqliteParticipantStore(path, options),
		async open() {
			file = await openSqliteFile(path, options);
			await file.write((tx) => {
				for (const statement of TABLES) tx.run(statement);
			});
		},
		async close() {
			await file?.close();
		},
		async write(tx, sql, ...values) {
			if (!recorded) (tx as SqliteTx).run(sql, ...values);
			else await file?.write((own) => own.run(sql, ...values));
		},
	};
}

class WorkFailed extends Errors.MoleculerError {
	constructor() {
		super("The local work was to fail", 409, THROWN);
	}
}

class NotYet extends Errors.MoleculerRetryableError {
	constructor() {
		super("The handler was to fail this time", 503, "CHAOS_NOT_YET");
	}
}
