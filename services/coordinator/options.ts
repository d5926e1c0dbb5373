import {
	resolveCoordinatorStore,
	type CoordinatorStore,
} from "../../adapters/coordinator-store/index.ts";
import {
	resolveDelivery,
	type Delivery,
	type DeliverySpec,
} from "../../adapters/delivery/index.ts";
import {
	type Clock,
	type Duration,
	invalidOptions,
	type Random,
	type RetryTimes,
	systemClock,
	systemRandom,
	toMs,
} from "../../protocol/index.ts";
import { isPath } from "../payload-paths.ts";

/** Options of {@link Coordinator}. Durations are milliseconds or text such as `"10s"`. */
export interface CoordinatorOptions {
	/** Where groups are kept: a URL (`sqlite:./lottor.db`, `mongodb://…`) or an instance. @default "sqlite:./data/lottor.db" */
	readonly store?: string | CoordinatorStore;
	/**
	 * How messages reach their targets: `"direct"`, by calls; over a broker, by its URL (`amqp://`,
	 * `kafka://`, `nats://`, `redis://`) or options; or an instance. @default "direct"
	 */
	readonly delivery?: DeliverySpec;
	/** From prepare to the first check-back. @default "10s" */
	readonly checkAfter?: Duration;
	/** Check-backs answered "unknown" before a group is in doubt (R16). @default 15 */
	readonly maxChecks?: number;
	/** Silence of every instance after which a group is in doubt (R16). @default "1h" */
	readonly doubtAfter?: Duration;
	/** Longest time between check-backs, and between checks of a group in doubt. @default "5m" */
	readonly checkMaxDelay?: Duration;
	/** Time limit of one check-back, ask or fence call. @default "3s" */
	readonly askTimeout?: Duration;
	/** From the claim of a message to its send (R21). @default "5s" */
	readonly lease?: Duration;
	/** From a send to the first ask (R21). @default "10s" */
	readonly ackTimeout?: Duration;
	/** Longest time between asks (R23). @default "60s" */
	readonly askMaxDelay?: Duration;
	/** The same for targets without the mixin, which can't be asked (R25). @default "5m" */
	readonly plainTimeout?: Duration;
	/** Time limit of a direct call to a consumer. @default "10s" */
	readonly callTimeout?: Duration;
	/** Over a durable broker, when an unseen message is sent again although a backlog stands (R24). @default "1h" */
	readonly resendAfter?: Duration;
	/** Retries of messages whose type has no policy of its own. @default 11, 1 s, x2, cap 5 min */
	readonly retryPolicy?: {
		readonly retries?: number;
		readonly delay?: Duration;
		readonly factor?: number;
		readonly maxDelay?: Duration;
	};
	/** Messages that this coordinator has under way to one target at once (R21). @default 256 */
	readonly maxInFlight?: number;
	/** Instances of a target lost while they ran a message before it fails for good (R23). @default 5 */
	readonly maxVanished?: number;
	/** What to do with a message for a target that was never seen. @default "accept" */
	readonly unknownTargets?: "accept" | "refuse";
	/** Largest payload in bytes (R29). @default 524288 */
	readonly maxPayload?: number;
	/** Largest group in bytes (R29). @default 8388608 */
	readonly maxGroup?: number;
	/** Most messages in a group. @default 1000 */
	readonly maxMessages?: number;
	/** Paths of payload fields whose values messages can be found by: `["user.id"]`. @default [] */
	readonly searchFields?: readonly string[];
	/** Groups being prepared at once; more are refused with LOTTOR_OVERLOADED. @default 2000 */
	readonly maxPreparing?: number;
	/** The same, in bytes of payloads. @default 67108864 */
	readonly maxPreparingBytes?: number;
	/** How long completed groups are kept (R30). @default "7d" */
	readonly keepCompleted?: Duration;
	/** How long rolled back groups are kept (R30). @default "1d" */
	readonly keepRolledBack?: Duration;
	/** How often the store is looked through for work that became due. @default "1s" */
	readonly pollInterval?: Duration;
	/** How long a graceful stop waits for the reports of what is being sent. @default "5s" */
	readonly stopTimeout?: Duration;
	/** Groups taken from the store at once. @default 200 */
	readonly claimLimit?: number;
	/** For tests. @default the machine's */
	readonly clock?: Clock;
	/** For tests. @default the machine's */
	readonly random?: Random;
}

/** The same, checked and complete; durations in milliseconds. */
export interface Settings {
	readonly store: CoordinatorStore;
	readonly delivery: Delivery;
	readonly checkAfter: number;
	readonly maxChecks: number;
	readonly doubtAfter: number;
	readonly checkMaxDelay: number;
	readonly askTimeout: number;
	readonly lease: number;
	readonly ackTimeout: number;
	readonly askMaxDelay: number;
	readonly plainTimeout: number;
	readonly callTimeout: number;
	readonly resendAfter: number;
	readonly retry: RetryTimes;
	readonly maxInFlight: number;
	readonly maxVanished: number;
	readonly unknownTargets: "accept" | "refuse";
	readonly maxPayload: number;
	readonly maxGroup: number;
	readonly maxMessages: number;
	readonly maxPreparing: number;
	readonly maxPreparingBytes: number;
	readonly searchFields: readonly string[];
	readonly keepCompleted: number;
	readonly keepRolledBack: number;
	readonly pollInterval: number;
	readonly stopTimeout: number;
	readonly claimLimit: number;
	readonly clock: Clock;
	readonly random: Random;
}

const DURATIONS = {
	checkAfter: "10s",
	doubtAfter: "1h",
	checkMaxDelay: "5m",
	askTimeout: "3s",
	lease: "5s",
	ackTimeout: "10s",
	askMaxDelay: "60s",
	plainTimeout: "5m",
	callTimeout: "10s",
	resendAfter: "1h",
	keepCompleted: "7d",
	keepRolledBack: "1d",
	pollInterval: "1s",
	stopTimeout: "5s",
} as const;

const COUNTS = {
	maxChecks: 15,
	maxInFlight: 256,
	maxVanished: 5,
	maxPayload: 512 * 1_024,
	maxGroup: 8 * 1_024 * 1_024,
	maxMessages: 1_000,
	maxPreparing: 2_000,
	maxPreparingBytes: 64 * 1_024 * 1_024,
	claimLimit: 200,
} as const;

const OTHERS = [
	"store",
	"delivery",
	"retryPolicy",
	"unknownTargets",
	"searchFields",
	"clock",
	"random",
];

/**
 * Checks the options and fills in what is left out.
 * @throws LOTTOR_INVALID_OPTIONS naming the field
 */
export function checkOptions(options: CoordinatorOptions): Settings {
	const known = new Set([...Object.keys(DURATIONS), ...Object.keys(COUNTS), ...OTHERS]);
	for (const name of Object.keys(options)) {
		if (!known.has(name)) throw invalidOptions(`Coordinator.${name}`, "is not known");
	}
	const clock = options.clock ?? systemClock;
	const random = options.random ?? systemRandom;
	const unknownTargets = options.unknownTargets ?? "accept";
	if (unknownTargets !== "accept" && unknownTargets !== "refuse") {
		throw invalidOptions("Coordinator.unknownTargets", 'must be "accept" or "refuse"');
	}
	return {
		...durations(options),
		...counts(options),
		retry: retryTimes(options.retryPolicy ?? {}),
		unknownTargets,
		searchFields: searchFields(options.searchFields ?? []),
		clock,
		random,
		store: resolveCoordinatorStore(
			options.store ?? "sqlite:./data/lottor.db",
			"Coordinator.store",
			{
				clock,
				random,
			},
		),
		delivery: resolveDelivery(options.delivery ?? "direct", "Coordinator.delivery"),
	};
}

function searchFields(paths: readonly string[]): readonly string[] {
	if (Array.isArray(paths) && paths.every(isPath)) return [...paths];
	throw invalidOptions(
		"Coordinator.searchFields",
		'must be an array of paths in the payload, such as "user.id"',
	);
}

function durations(options: CoordinatorOptions): Record<keyof typeof DURATIONS, number> {
	const result = {} as Record<keyof typeof DURATIONS, number>;
	for (const name of Object.keys(DURATIONS) as (keyof typeof DURATIONS)[]) {
		result[name] = toMs(options[name] ?? DURATIONS[name], `Coordinator.${name}`);
	}
	if (result.pollInterval < 1)
		throw invalidOptions("Coordinator.pollInterval", "must be 1 ms or more");
	return result;
}

function counts(options: CoordinatorOptions): Record<keyof typeof COUNTS, number> {
	const result = {} as Record<keyof typeof COUNTS, number>;
	for (const name of Object.keys(COUNTS) as (keyof typeof COUNTS)[]) {
		result[name] = count(options[name] ?? COUNTS[name], `Coordinator.${name}`, 1);
	}
	if (result.maxMessages > 10_000) {
		throw invalidOptions("Coordinator.maxMessages", "must be 10000 or less");
	}
	return result;
}

function count(value: unknown, field: string, least: number): number {
	if (typeof value !== "number" || !Number.isSafeInteger(value) || value < least) {
		throw invalidOptions(field, `must be a whole number of ${least} or more`);
	}
	return value;
}

function retryTimes(policy: NonNullable<CoordinatorOptions["retryPolicy"]>): RetryTimes {
	const field = "Coordinator.retryPolicy";
	const factor = policy.factor ?? 2;
	if (typeof factor !== "number" || !(factor >= 1))
		throw invalidOptions(`${field}.factor`, "must be 1 or more");
	return {
		retries: count(policy.retries ?? 11, `${field}.retries`, 0),
		delay: toMs(policy.delay ?? "1s", `${field}.delay`),
		factor,
		maxDelay: toMs(policy.maxDelay ?? "5m", `${field}.maxDelay`),
	};
}
