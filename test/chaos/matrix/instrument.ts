import type { Middleware } from "moleculer";
import type { CoordinatorStore } from "../../../adapters/coordinator-store/index.ts";
import type { Delivery } from "../../../adapters/delivery/index.ts";
import type { ParticipantStore } from "../../../adapters/participant-store/index.ts";
import { COORDINATOR_SERVICE } from "../../../protocol/index.ts";
import type { Post } from "./file-broker.ts";
import { type Contract, kindOf, type Point } from "./points.ts";

/** One process start as its fault points see it. */
export interface Life {
	/** Set once the process is dead: no call of it does anything any more. */
	readonly dead: boolean;
	/** Counts what happens, so that a test can see when nothing does. */
	stirs: number;
	/** Called at each point, at the very moment; may end the life. */
	reach(point: Point): void;
}

type Call = (...args: unknown[]) => unknown;

const PARTICIPANT_ACTION = /\.reliable\.(\w+)$/;

/** The service without the mixin, whose action is called instead (R25). */
export const PLAIN_TARGET = "till";

/** What a dead process would have been answered. */
function never(): Promise<never> {
	return new Promise(() => undefined);
}

async function pass(
	life: Life,
	contract: Contract,
	call: string,
	run: () => Promise<unknown>,
): Promise<unknown> {
	const kind = kindOf(contract, call);
	if (kind === undefined) {
		throw new Error(`${contract}.${call} has no fault point: list its kind in CONTRACTS`);
	}
	const isPoint = kind === "write" || kind === "work" || kind === "send";
	life.stirs++;
	if (isPoint) life.reach(`${contract}.${call}:before`);
	if (life.dead) return never();
	try {
		return await run();
	} finally {
		life.stirs++;
		if (isPoint && !life.dead) life.reach(`${contract}.${call}:after`);
		if (life.dead) await never();
	}
}

/** The user's code inside a transaction: a crash before it, and after it but before COMMIT. */
function around(life: Life, contract: Contract, call: string, work: Call): Call {
	return async (...args) => {
		life.reach(`${contract}.${call}:begun`);
		if (life.dead) return never();
		const value = await work(...args);
		life.stirs++;
		if (!life.dead) life.reach(`${contract}.${call}:done`);
		return life.dead ? never() : value;
	};
}

/** Calls that touch nothing, and answer without a promise. */
const AT_ONCE = ["coordinator.now", "delivery.targetProblem"];

function wrap<T extends object>(contract: Contract, target: T, life: Life): T {
	return new Proxy(target, {
		get(_, name) {
			const value: unknown = Reflect.get(target, name, target);
			if (typeof value !== "function" || typeof name !== "string") return value;
			const method = value.bind(target) as Call;
			if (AT_ONCE.includes(`${contract}.${name}`)) return method;
			return (...args: unknown[]) => {
				const given =
					kindOf(contract, name) === "work"
						? [args[0], around(life, contract, name, args[1] as Call)]
						: args;
				return pass(life, contract, name, async () => method(...given));
			};
		},
	});
}

/** The store with fault points. */
export function watchCoordinatorStore(store: CoordinatorStore, life: Life): CoordinatorStore {
	return wrap("coordinator", store, life);
}

/** The store, of which a claim that brings something is told before its caller gets it. */
export function tellClaims(store: CoordinatorStore, told: () => Promise<void>): CoordinatorStore {
	const claim: CoordinatorStore["claim"] = async (request) => {
		const claimed = await store.claim(request);
		if (claimed.length > 0) await told();
		return claimed;
	};
	return new Proxy(store, {
		get: (target, name) =>
			name === "claim" ? claim : (Reflect.get(target, name, target) as unknown),
	});
}

/** The store with fault points. */
export function watchParticipantStore(store: ParticipantStore, life: Life): ParticipantStore {
	return wrap("participant", store, life);
}

/** The adapter with fault points. */
export function watchDelivery(delivery: Delivery, life: Life): Delivery {
	return wrap("delivery", delivery, life);
}

/** The way to the broker, with fault points. */
export function watchPost(post: Post, life: Life): Post {
	return wrap("channel", post, life);
}

/** Fault points at every call between the parts. */
export function watchCalls(life: Life): Middleware {
	return {
		name: "FaultPoints",
		call(next) {
			const watched = (action: string, ...rest: unknown[]) => {
				const run = async () => (next as Call)(action, ...rest);
				const [service, ...path] = action.split(".");
				if (service === COORDINATOR_SERVICE) {
					return pass(life, "lottor", path.join("."), run);
				}
				if (service === PLAIN_TARGET) return pass(life, "plain", "call", run);
				const call = PARTICIPANT_ACTION.exec(action)?.[1];
				return call === undefined ? run() : pass(life, "reliable", call, run);
			};
			// Moleculer's types want the call's result here; it is the call itself that is wrapped.
			return watched as never;
		},
	};
}
