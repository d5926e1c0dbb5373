import { type BrokerOptions, type Service, ServiceBroker, type ServiceSchema } from "moleculer";
import type { ParticipantStore } from "../../adapters/participant-store/index.ts";
import { memoryParticipantStore } from "../../adapters/participant-store/index.ts";
import type { Reliable } from "../../mixins/reliable-message/index.ts";
import {
	type Clock,
	type ConsumeAnswer,
	messageId,
	newGroupId,
	type ParticipantMetadata,
	PARTICIPANT_ACTIONS,
	systemClock,
	systemRandom,
	WIRE_VERSION,
	type Envelope,
} from "../../protocol/index.ts";
import { type ScriptedCoordinator, scriptedCoordinator } from "./scripted-coordinator.ts";

/** One broker with a scripted coordinator and the services of a test. */
export interface MixinNode {
	readonly broker: ServiceBroker;
	readonly coordinator: ScriptedCoordinator;
	service(name: string): Service;
	reliable(name: string): Reliable;
	metadata(name: string): ParticipantMetadata;
	/** An envelope for a service of this node, of a group of its own. */
	envelope(target: string, type: string, payload: unknown, more?: Partial<Envelope>): Envelope;
	consume(name: string, ...envelopes: unknown[]): Promise<ConsumeAnswer[]>;
	ask<Answer>(
		name: string,
		action: keyof typeof PARTICIPANT_ACTIONS,
		...items: unknown[]
	): Promise<Answer[]>;
}

const running: ServiceBroker[] = [];
let made = 0;

/** Makes a broker that {@link stopNodes} stops. */
export function makeBroker(options: BrokerOptions = {}): ServiceBroker {
	const broker = new ServiceBroker({
		nodeID: `node-${++made}`,
		logger: false,
		registry: { stopDelay: 0 },
		// New services are announced at once.
		transit: { serviceChangedDebounceTime: 0 } as object,
		...options,
	});
	running.push(broker);
	return broker;
}

const hung = new Set<(error: Error) => void>();
let over = false;

/** A promise that does not settle while the test runs; it rejects at its end, so that no timer is left. */
export function hang(): Promise<never> {
	return new Promise((_, reject) => {
		if (over) reject(new Error("the test is over"));
		else hung.add(reject);
	});
}

/** Stops all brokers of the test; for `afterEach`. */
export async function stopNodes(): Promise<void> {
	over = true;
	for (const reject of hung) reject(new Error("the test is over"));
	hung.clear();
	await Promise.all(running.splice(0).map((broker) => broker.stop()));
	over = false;
}

/** Starts one broker with these services, and a coordinator unless it is `null`. */
export async function startNode(
	services: readonly ServiceSchema[],
	coordinator: ScriptedCoordinator | null = scriptedCoordinator(),
	options: BrokerOptions = {},
): Promise<MixinNode> {
	const broker = makeBroker(options);
	if (coordinator) broker.createService(coordinator.schema);
	for (const schema of services) broker.createService(schema);
	await broker.start();
	const service = (name: string) => broker.getLocalService(name);
	const metadata = (name: string) => service(name).metadata["lottor"] as ParticipantMetadata;
	const ask: MixinNode["ask"] = (name, action, ...items) =>
		broker.call(`${name}.${PARTICIPANT_ACTIONS[action]}`, { items });
	return {
		broker,
		coordinator: coordinator ?? scriptedCoordinator(),
		service,
		reliable: (name) => (service(name) as Service & { reliable: Reliable }).reliable,
		metadata,
		envelope: (target, type, payload, more = {}) => {
			const group = newGroupId(systemClock, systemRandom);
			return {
				v: WIRE_VERSION,
				id: messageId(group, 0),
				group,
				source: "user",
				target,
				type,
				attempt: 1,
				revision: 0,
				receipt: "receipt",
				coordinator: "coordinator-1",
				storeId: metadata(target).storeId,
				createdAt: Date.now(),
				sentAt: Date.now(),
				orderingKey: null,
				context: "{}",
				content: JSON.stringify(payload),
				...more,
			};
		},
		consume: (name, ...envelopes) => ask(name, "consume", ...envelopes),
		ask,
	};
}

/** A memory store, some of whose methods do something else. */
export function storeWith(
	overrides: Partial<ParticipantStore>,
	clock: Clock = systemClock,
	store: ParticipantStore = memoryParticipantStore({ clock, random: systemRandom }),
): ParticipantStore {
	return new Proxy(store, {
		get(target, name) {
			const value: unknown =
				name in overrides
					? Reflect.get(overrides, name)
					: Reflect.get(target, name, target);
			return typeof value === "function" ? (value.bind(target) as unknown) : value;
		},
	});
}

/** A promise that a test settles by hand. */
export function deferred<T = void>() {
	let resolve: (value: T) => void = () => undefined;
	let reject: (error: unknown) => void = () => undefined;
	const promise = new Promise<T>((yes, no) => {
		resolve = yes;
		reject = no;
	});
	return { promise, resolve, reject };
}
