import type { Service } from "moleculer";
import { type Delivery, resolveDelivery } from "../../adapters/delivery/index.ts";
import {
	adapterParticipantStore,
	OWN_ADAPTER,
	resolveParticipantStore,
} from "../../adapters/participant-store/index.ts";
import type { ParticipantStore } from "../../adapters/participant-store/contract.ts";
import {
	type Clock,
	invalidOptions,
	isRecord,
	type Random,
	systemClock,
	systemRandom,
	toMs,
} from "../../protocol/index.ts";
import type { ReliableMessageOptions } from "./types.ts";

/** The options after validation: durations in milliseconds, defaults filled in. */
export interface Settings {
	readonly store: ReliableMessageOptions["store"];
	readonly delivery: NonNullable<ReliableMessageOptions["delivery"]>;
	readonly maxInFlight: number;
	readonly aliases: readonly string[];
	readonly partitioned: boolean;
	readonly prepareTimeout: number;
	readonly workTimeout: number;
	readonly handlerTimeout: number;
	readonly concurrency: number;
	readonly maxQueued: number;
	readonly maxPayload: number;
	readonly keep: number;
	readonly stopTimeout: number;
	readonly clock: Clock;
	readonly random: Random;
}

const PREFIX = "ReliableMessage";

const NAMES: ReadonlySet<string> = new Set<keyof ReliableMessageOptions>([
	"store",
	"delivery",
	"maxInFlight",
	"aliases",
	"partitioned",
	"prepareTimeout",
	"workTimeout",
	"handlerTimeout",
	"concurrency",
	"maxQueued",
	"maxPayload",
	"keep",
	"stopTimeout",
	"clock",
	"random",
]);

/**
 * Checks the mixin's options and fills in the defaults.
 *
 * @throws LOTTOR_INVALID_OPTIONS that names the field, e.g. `ReliableMessage.prepareTimeout`
 */
export function readOptions(options: ReliableMessageOptions): Settings {
	const given: unknown = options;
	if (!isRecord(given)) throw invalidOptions(PREFIX, "must be an object with at least `store`");
	for (const name of Object.keys(given)) {
		if (!NAMES.has(name)) throw invalidOptions(`${PREFIX}.${name}`, "is not known");
	}

	const settings: Settings = {
		store: options.store,
		delivery: options.delivery ?? "direct",
		maxInFlight: positiveInteger(options.maxInFlight ?? 128, `${PREFIX}.maxInFlight`),
		aliases: names(options.aliases ?? [], "aliases"),
		partitioned: flag(options.partitioned ?? false, "partitioned"),
		prepareTimeout: time(options.prepareTimeout ?? "5s", "prepareTimeout"),
		workTimeout: time(options.workTimeout ?? "60s", "workTimeout"),
		handlerTimeout: time(options.handlerTimeout ?? "30s", "handlerTimeout"),
		concurrency: positiveInteger(options.concurrency ?? 32, `${PREFIX}.concurrency`),
		maxQueued: positiveInteger(options.maxQueued ?? 1_000, `${PREFIX}.maxQueued`),
		maxPayload: positiveInteger(options.maxPayload ?? 524_288, `${PREFIX}.maxPayload`),
		keep: time(options.keep ?? "7d", "keep"),
		stopTimeout: toMs(options.stopTimeout ?? "10s", `${PREFIX}.stopTimeout`),
		clock: withMethods<Clock>(options.clock ?? systemClock, ["now", "after"], "clock"),
		random: withMethods<Random>(
			options.random ?? systemRandom,
			["fraction", "bytes"],
			"random",
		),
	};
	// Made once to check the names or URLs: neither does anything before it is opened.
	makeStore(settings);
	makeDelivery(settings);
	return settings;
}

/**
 * Makes the store that the options name; each service that uses the mixin gets its own.
 *
 * @param service whose adapter may be the one
 */
export function makeStore(settings: Settings, service?: Service): ParticipantStore {
	const { store, clock, random } = settings;
	const field = `${PREFIX}.store`;
	if (store === OWN_ADAPTER) {
		const adapterOf = () => (service as { adapter?: unknown } | undefined)?.adapter;
		return adapterParticipantStore(adapterOf, field, { clock, random });
	}
	return resolveParticipantStore(store, field, { clock, random });
}

/** Makes what the messages come by. */
export function makeDelivery({ delivery }: Settings): Delivery {
	return resolveDelivery(delivery, `${PREFIX}.delivery`);
}

/**
 * @param field the option's full name, for the error
 * @throws LOTTOR_INVALID_OPTIONS when the value is no whole number from 1
 */
export function positiveInteger(value: unknown, field: string): number {
	if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 1) {
		throw invalidOptions(field, `must be a whole number from 1, got ${String(value)}`);
	}
	return value;
}

function time(value: number | string, name: string): number {
	const ms = toMs(value, `${PREFIX}.${name}`);
	if (ms === 0) throw invalidOptions(`${PREFIX}.${name}`, "must be longer than 0");
	return ms;
}

function flag(value: unknown, name: string): boolean {
	if (typeof value !== "boolean") {
		throw invalidOptions(`${PREFIX}.${name}`, `must be true or false, got ${String(value)}`);
	}
	return value;
}

function names(value: unknown, name: string): readonly string[] {
	if (!Array.isArray(value)) throw invalidOptions(`${PREFIX}.${name}`, "must be an array");
	return value.map((entry: unknown, index) => {
		if (typeof entry !== "string" || entry === "") {
			throw invalidOptions(`${PREFIX}.${name}[${index}]`, "must be a service's full name");
		}
		return entry;
	});
}

function withMethods<T extends object>(value: unknown, methods: string[], name: string): T {
	const object = isRecord(value) ? value : {};
	for (const method of methods) {
		if (typeof object[method] !== "function") {
			throw invalidOptions(`${PREFIX}.${name}`, `must have a method \`${method}\``);
		}
	}
	return value as T;
}
