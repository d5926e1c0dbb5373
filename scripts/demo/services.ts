import { appendFileSync } from "node:fs";
import { join } from "node:path";
import {
	type ActionHandler,
	type ActionSchema,
	type Context,
	Errors,
	type Middleware,
	type ServiceSchema,
} from "moleculer";
import DbService from "moleculer-db";

import { type Delivery, resolveDelivery } from "../../adapters/delivery/index.ts";
import {
	defineMessages,
	type IncomingMessage,
	type OutgoingMessage,
	ReliableMessage,
	reliableOf,
} from "../../mixins/reliable-message/index.ts";
import { type Envelope, PARTICIPANT_ACTIONS } from "../../protocol/index.ts";
import { authService } from "../../samples/auth/auth.service.ts";
import {
	sampleDatabase,
	sampleSchema,
	type SampleService,
	type SampleTx,
} from "../../samples/support/stores.ts";
import { userService } from "../../samples/user/user.service.ts";
import { Coordinator } from "../../services/coordinator/index.ts";
import type { Databases } from "./databases.ts";
import { Faults } from "./faults.ts";
import { type Consumer, CONSUMERS, type FaultPoint, type NodeName } from "./words.ts";

/** What a consumer is asked to do. */
export interface Note {
	/** How many attempts are to fail first. */
	readonly failures?: number;
}

/** What the demo's producers send. */
export type Sends = Record<Consumer, { note: Note }>;

interface Order {
	readonly _id: string;
	readonly group: string;
}

interface Effect extends Order {
	readonly message: string;
}

/** What the services of a process need of the demo. */
interface Surroundings {
	/** Where the notes of runs go. */
	readonly folder: string;
	readonly databases: Databases;
	/** What delivers the messages. */
	readonly delivery: string;
}

/** The services of one of the demo's processes. */
export function servicesOf(
	name: NodeName,
	{ folder, databases, delivery }: Surroundings,
): ServiceSchema[] {
	const faults = new Faults();
	return [faultService(name, faults), ...own()];

	function own(): ServiceSchema[] {
		switch (name) {
			case "coordinator":
				return [
					coordinator(databases.lottor, resolveDelivery(delivery, "delivery"), faults),
				];
			case "producer":
				return [userService(databases.user), producer("shop", databases.shop, faults)];
			case "consumer":
				return [
					authService(databases.auth, delivery),
					...CONSUMERS.map((service) =>
						consumer(service, databases[service], { folder, delivery, faults }),
					),
				];
			case "bank":
				return [producer("bank", databases.bank, faults)];
		}
	}
}

/** The coordinator, with times that let a person wait for them. */
function coordinator(store: string, delivery: Delivery, faults: Faults): ServiceSchema {
	return Coordinator({
		store,
		delivery: faults.ofDelivery(delivery),
		checkAfter: "1s",
		checkMaxDelay: "1s",
		maxChecks: 2,
		askTimeout: "1s",
		lease: "1s",
		ackTimeout: "1s",
		askMaxDelay: "1s",
		pollInterval: "100ms",
	});
}

/**
 * A producer, which may be made to stop inside its work or after its local COMMIT. On a recorded
 * store it has nothing to tell how a work ended that it did not live to record.
 */
function producer(name: string, url: string, faults: Faults): ServiceSchema {
	const { store, adapter } = sampleDatabase<Order>(url, "orders");
	return sampleSchema<Order>({
		name,
		mixins: [
			DbService as Partial<ServiceSchema>,
			ReliableMessage({ store: faults.afterCommit(store) }),
		],
		adapter,
		actions: {
			order(ctx: Context<{ messages: OutgoingMessage<Sends>[] }>) {
				return reliableOf<Sends, SampleTx>(this).transaction(
					ctx,
					ctx.params.messages,
					async (tx) => {
						await this.adapter.withTx(tx).insert({ group: tx.group });
						await faults.here("in-work", tx.group);
						return tx.group;
					},
				);
			},
		},
	});
}

/** A consumer that notes each run of its handler outside, and each effect inside its transaction. */
function consumer(
	name: string,
	url: string,
	{ folder, delivery, faults }: { folder: string; delivery: string; faults: Faults },
): ServiceSchema {
	const { store, adapter } = sampleDatabase<Effect>(url, "effects");
	return sampleSchema<Effect>({
		name,
		mixins: [DbService as Partial<ServiceSchema>, ReliableMessage({ store, delivery })],
		adapter,
		messages: defineMessages<Sends[Consumer], SampleTx>({
			note: {
				retryPolicy: { retries: 5, delay: 200 },
				async handler(this: SampleService<Effect>, ctx, tx) {
					const { id, attempt } = ctx.locals.message as IncomingMessage;
					appendFileSync(join(folder, `${name}.runs`), `${id}\n`);
					await this.adapter.withTx(tx).insert({ group: tx.group, message: id });
					await faults.here("in-handler", tx.group);
					if (attempt <= (ctx.params.failures ?? 0)) {
						throw new Errors.MoleculerRetryableError("Not yet", 503, "DEMO_NOT_YET");
					}
				},
			},
		}),
	});
}

/** How the demo reaches a process: who it is, and where it is to stop. */
function faultService(name: NodeName, faults: Faults): ServiceSchema {
	return {
		name: `${name}-faults`,
		actions: {
			pid: () => process.pid,
			arm: (ctx: Context<{ point: FaultPoint }>) => faults.arm(ctx.params.point),
			copies: (ctx: Context<{ message: string }>) => copies.get(ctx.params.message) ?? 0,
		},
	};
}

/** Copies of each message that reached this process. */
const copies = new Map<string, number>();

/** Counts the copies of messages before the product sees them. */
export const countCopies: Middleware = {
	localAction(next: ActionHandler, action: ActionSchema): ActionHandler {
		if (!action.name?.endsWith(`.${PARTICIPANT_ACTIONS.consume}`)) return next;
		return function count(ctx: Context<{ items: Envelope[] }>) {
			for (const { id } of ctx.params.items) countCopy(id);
			return next.call(this, ctx) as unknown;
		};
	},
	localChannel(next: (payload: unknown, message: Incoming) => unknown) {
		return function count(payload: unknown, message: Incoming) {
			countCopy(String(message.headers["lottor-id"]));
			return next(payload, message);
		};
	},
} as Middleware;

/** What the hook `localChannel` sees of a message from a broker. */
interface Incoming {
	readonly headers: Readonly<Record<string, unknown>>;
}

function countCopy(id: string): void {
	copies.set(id, (copies.get(id) ?? 0) + 1);
}
