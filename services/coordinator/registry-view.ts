import type { ServiceBroker } from "moleculer";
import type { TargetInstance } from "../../adapters/delivery/index.ts";
import {
	type Clock,
	COORDINATOR_SERVICE,
	type CoordinatorMetadata,
	type Guarantee,
	GUARANTEES,
	isRecord,
	type LivingService,
	livingServices,
	type Owner,
	type ParticipantMetadata,
	sameOwner,
} from "../../protocol/index.ts";

/** A living service that uses the mixin. */
export interface Participant extends Owner {
	readonly service: string;
	readonly local: boolean;
	readonly storeId: string;
	readonly guarantee: Guarantee;
	readonly roles: readonly string[];
	readonly types: readonly string[];
	readonly aliases: readonly string[];
	readonly partitioned: boolean;
	readonly receives: boolean;
}

/**
 * Who came to life since the last look: names, or names with another store. Everybody who lives, once
 * a coordinator is gone: it may have let messages wait for one that it had not seen yet.
 */
export interface Arrivals {
	readonly targets: ReadonlySet<string>;
	readonly storeIds: ReadonlySet<string>;
}

/** A living coordinator; without a store while it does not work yet. */
export interface LivingCoordinator extends Owner {
	readonly storeId: string | null;
}

/** How long somebody who left is remembered, in milliseconds: well over any `deadAfter`. */
const FORGET_MS = 2 * 3_600_000;

/** Names of services that are remembered, whenever they were last seen. */
const KNOWN_NAMES = 10_000;

/**
 * Who lives, as this coordinator sees it in Moleculer's registry. A wrong view costs time, never
 * correctness.
 */
export class RegistryView {
	readonly #broker: ServiceBroker;
	readonly #clock: Clock;
	readonly #startedAt: number;
	#participants: Participant[] = [];
	/** Names that messages may be sent to, aliases included. */
	#byTarget = new Map<string, Participant[]>();
	#services = new Map<string, Owner[]>();
	/** Names that were seen, those longest ago first. */
	readonly #known = new Set<string>();
	#lastSeen = new Map<string, number>();
	/** When a node was last seen with a participant store. */
	readonly #stores = new Map<string, number>();
	#coordinators: LivingCoordinator[] = [];
	/** Targets whose living instances have different stores (R3). */
	#contradicted: readonly string[] = [];
	#arrivals = 0;
	/** Living names with their stores, to see who arrives, and since when they live. */
	#pairs: ReadonlyMap<string, number> = new Map();

	constructor(broker: ServiceBroker, clock: Clock) {
		this.#broker = broker;
		this.#clock = clock;
		this.#startedAt = clock.now();
	}

	/** Looks at the registry anew. */
	refresh(): Arrivals {
		const living = livingServices(this.#broker);
		const coordinators = living.filter(({ fullName }) => fullName === COORDINATOR_SERVICE);
		const lost = this.#coordinators.some(
			(one) => !coordinators.some((other) => sameOwner(one, other)),
		);
		const arrivals = { targets: new Set<string>(), storeIds: new Set<string>() };
		const before = this.#pairs;
		const pairs = new Map<string, number>();
		this.#pairs = pairs;
		const now = this.#clock.now();
		const pair = (name: string, storeId: string, arrived: () => void) => {
			const key = pairKey(name, storeId);
			pairs.set(key, before.get(key) ?? now);
			if (lost || !before.has(key)) arrived();
		};
		this.#participants = [];
		this.#byTarget = new Map();
		this.#services = new Map();
		this.#coordinators = coordinators.map(coordinatorOf);
		for (const service of living) {
			const owner = { nodeID: service.nodeID, instanceID: service.instanceID };
			this.#lastSeen.set(ownerKey(owner), now);
			this.#know(service.fullName);
			add(this.#services, service.fullName, owner);
			const participant = participantOf(
				service.fullName,
				service.local,
				owner,
				service.metadata.lottor,
			);
			if (!participant) {
				// A plain target (R25): there is no store that it could bring along.
				pair(service.fullName, "", () => arrivals.targets.add(service.fullName));
				continue;
			}
			this.#participants.push(participant);
			this.#stores.set(`${owner.nodeID}|${participant.storeId}`, now);
			for (const name of [participant.service, ...participant.aliases]) {
				this.#know(name);
				if (participant.roles.includes("consumer")) add(this.#byTarget, name, participant);
				pair(name, participant.storeId, () => {
					arrivals.targets.add(name);
					arrivals.storeIds.add(participant.storeId);
				});
			}
		}
		// What two stores under one name held up may go once one of them has left.
		const contradicted = this.#contradicted;
		this.#contradicted = [...this.#byTarget.keys()].filter(
			(target) => this.storeOf(target) === undefined,
		);
		for (const target of contradicted) {
			if (this.#byTarget.has(target) && this.storeOf(target) !== undefined)
				arrivals.targets.add(target);
		}
		for (const times of [this.#lastSeen, this.#stores]) {
			for (const [key, seen] of times) if (now - seen > FORGET_MS) times.delete(key);
		}
		for (const name of this.#known) {
			if (this.#known.size <= KNOWN_NAMES) break;
			this.#known.delete(name);
		}
		this.#arrivals += arrivals.targets.size + arrivals.storeIds.size;
		return arrivals;
	}

	#know(name: string): void {
		this.#known.delete(name);
		this.#known.add(name);
	}

	/** How many arrivals there were: another number means that somebody came. */
	get arrivals(): number {
		return this.#arrivals;
	}

	/** Every living service with the mixin. */
	get participants(): readonly Participant[] {
		return this.#participants;
	}

	/** Every living coordinator, whatever its store. */
	get coordinators(): readonly LivingCoordinator[] {
		return this.#coordinators;
	}

	/** Names of the targets that have a living instance with the mixin. */
	get targets(): Iterable<string> {
		return this.#byTarget.keys();
	}

	/** Living instances of a target, bound to this store where one is given. */
	instances(target: string, storeId: string | null): TargetInstance[] {
		const all = this.#byTarget.get(target) ?? [];
		return storeId === null ? all : all.filter((instance) => instance.storeId === storeId);
	}

	/**
	 * For how long instances of the target with this store have lived without a gap, in milliseconds;
	 * never longer than this coordinator is up.
	 */
	livesFor(target: string, storeId: string): number {
		const now = this.#clock.now();
		return now - (this.#pairs.get(pairKey(target, storeId)) ?? now);
	}

	/** Living instances of a service that can answer for a participant store. */
	answerers(service: string, storeId: string): Participant[] {
		return this.#participants.filter(
			(one) => answersFor(one, service) && one.storeId === storeId,
		);
	}

	/** Names of all living services, with the mixin or without. */
	get services(): Iterable<string> {
		return this.#services.keys();
	}

	/** Whether any instance of the service lives, with the mixin or without. */
	serves(service: string): boolean {
		return this.#services.has(service);
	}

	/**
	 * Whether a service of this name was ever seen here. By number, not by age: a target that is down
	 * for hours is no unknown one. Peers that announce ever new names push out only those that are gone.
	 */
	knows(target: string): boolean {
		return this.#known.has(target) || this.#byTarget.has(target) || this.#services.has(target);
	}

	/**
	 * The one store behind a target's living instances (R3); null when it declares `partitioned`
	 * and any will do; undefined when the instances contradict each other.
	 */
	storeOf(target: string): string | null | undefined {
		const all = this.#byTarget.get(target) ?? [];
		const ids = this.#storeIds(all);
		if (ids.size === 1) return all[0]?.storeId;
		return all.every((one) => one.partitioned) ? null : undefined;
	}

	/** Whether a service on this node has this participant store, or lately had: a node that stops still tells. */
	hasStore(nodeID: string, storeId: string): boolean {
		return this.#stores.has(`${nodeID}|${storeId}`);
	}

	/** Whether this process start of this node lives. */
	isLiving(owner: Owner): boolean {
		return this.goneFor(owner) === null;
	}

	/**
	 * How long the owner has been gone in the eyes of this coordinator, in milliseconds; null while
	 * it lives. Never longer than this coordinator is up (R15).
	 */
	goneFor(owner: Owner): number | null {
		const living = this.#participants.some(
			(one) => one.nodeID === owner.nodeID && one.instanceID === owner.instanceID,
		);
		if (living) return null;
		const seen = this.#lastSeen.get(ownerKey(owner)) ?? this.#startedAt;
		return this.#clock.now() - seen;
	}

	#storeIds(participants: readonly Participant[]): Set<string> {
		return new Set(participants.map((one) => one.storeId));
	}
}

function pairKey(name: string, storeId: string): string {
	return `${name}|${storeId}`;
}

function answersFor(participant: Participant, service: string): boolean {
	return participant.service === service || participant.aliases.includes(service);
}

function ownerKey(owner: Owner): string {
	return `${owner.nodeID}|${owner.instanceID}`;
}

function add<T>(map: Map<string, T[]>, key: string, value: T): void {
	const list = map.get(key);
	if (list) list.push(value);
	else map.set(key, [value]);
}

function coordinatorOf({ nodeID, instanceID, metadata }: LivingService): LivingCoordinator {
	const { lottor } = metadata;
	const said: Partial<CoordinatorMetadata> = isRecord(lottor) ? lottor : {};
	const ready = said.ready === true && typeof said.storeId === "string";
	return { nodeID, instanceID, storeId: ready ? (said.storeId ?? null) : null };
}

function participantOf(
	service: string,
	local: boolean,
	owner: Owner,
	metadata: unknown,
): Participant | undefined {
	if (!isRecord(metadata)) return undefined;
	const said: { readonly [Field in keyof ParticipantMetadata]?: unknown } = metadata;
	const { storeId, guarantee = "recorded" } = said;
	const roles = names(said.roles);
	const types = names(said.types ?? []);
	const aliases = names(said.aliases ?? []);
	// What a node says of itself is its own: one that says nonsense must not stop the coordinator.
	if (!roles || !types || !aliases || roles.includes("coordinator")) return undefined;
	if (!isName(storeId) || !isOneOf(GUARANTEES, guarantee)) return undefined;
	return {
		...owner,
		service,
		local,
		storeId,
		guarantee,
		roles,
		types,
		aliases,
		partitioned: said.partitioned === true,
		receives: said.receives === true,
	};
}

const MOST_NAMES = 1_000;
const LONGEST_NAME = 255;

function names(value: unknown): readonly string[] | undefined {
	if (!Array.isArray(value) || value.length > MOST_NAMES) return undefined;
	return value.every(isName) ? value : undefined;
}

function isName(value: unknown): value is string {
	return typeof value === "string" && value !== "" && value.length <= LONGEST_NAME;
}

function isOneOf<T>(all: readonly T[], value: unknown): value is T {
	return all.some((one) => one === value);
}
