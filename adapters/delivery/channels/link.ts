import type { ServiceBroker } from "moleculer";
import { contentTypeOf, invalidOptions, LottorError } from "../../../protocol/index.ts";
import type { ChannelAdapter } from "../../channels/index.ts";
import { channelOf, deadLettersOf } from "./names.ts";
import type { ChannelSpec } from "./spec.ts";

/** How often the state of the connection is looked at. */
const LOOK_MS = 200;
/** How long nothing is sent after the broker was found to be gone. */
const REST_MS = 1_000;

/** Connections of a node, by what they were made from: its services share one. */
const links = new WeakMap<ServiceBroker, Map<unknown, Promise<Link>>>();

/** One node's connection to a message broker, and whether it works. */
export class Link {
	readonly adapter: ChannelAdapter;
	/** Resolves once the broker was reached for the first time, or never will be. */
	readonly connected: Promise<void>;
	readonly #broker: ServiceBroker;
	readonly #spec: ChannelSpec;
	readonly #listeners = new Set<() => void>();
	readonly #timer: NodeJS.Timeout;
	#users = 0;
	#available = false;
	#restUntil = 0;

	private constructor(broker: ServiceBroker, spec: ChannelSpec, adapter: ChannelAdapter) {
		this.adapter = adapter;
		this.#broker = broker;
		this.#spec = spec;
		this.connected = adapter
			.connect()
			.then(() => this.#look())
			// It waits for a server that is down: what is left is a stop before there was one.
			.catch(() => undefined);
		this.#timer = setInterval(() => this.#look(), LOOK_MS).unref();
	}

	/**
	 * Takes part in the node's connection; the first one makes it. To be given back by `leave`.
	 * @throws LOTTOR_INVALID_OPTIONS when a package is missing
	 */
	static async join(broker: ServiceBroker, spec: ChannelSpec): Promise<Link> {
		const ofBroker = links.get(broker) ?? new Map<unknown, Promise<Link>>();
		links.set(broker, ofBroker);
		const made = ofBroker.get(spec) ?? Link.#make(broker, spec);
		ofBroker.set(spec, made);
		try {
			const link = await made;
			link.#users++;
			return link;
		} catch (error) {
			ofBroker.delete(spec);
			throw error;
		}
	}

	static async #make(broker: ServiceBroker, spec: ChannelSpec): Promise<Link> {
		const { channelAdapter } = await import("../../channels/index.ts").catch(
			(error: unknown) => {
				if ((error as { code?: unknown }).code !== "ERR_MODULE_NOT_FOUND") throw error;
				throw new LottorError(
					"LOTTOR_INVALID_OPTIONS",
					'The package @moleculer/channels is missing: install it with "npm install @moleculer/channels"',
					{ field: "delivery" },
					error,
				);
			},
		);
		// Bodies are what Moleculer itself would send from node to node.
		const serializer = (broker.options.serializer ?? "JSON") as string | object;
		const adapter =
			typeof spec === "string"
				? channelAdapter(spec, { serializer }, "delivery")
				: channelAdapter(
						"publish" in spec ? spec : { ...spec, serializer },
						{},
						"delivery",
					);
		adapter.init(broker, broker.getLogger("lottor-broker"));
		const own = contentTypeOf(adapter.serializer);
		const nodes = contentTypeOf(broker.serializer ?? adapter.serializer);
		if (own !== nodes) {
			throw invalidOptions(
				"delivery",
				`is an adapter that writes ${own}, and this node's serializer writes ${nodes}: give both the same serializer`,
			);
		}
		return new Link(broker, spec, adapter);
	}

	/** @returns why the broker can't have a channel of this target, where that is so */
	targetProblem(target: string): string | undefined {
		const own = channelOf(target, null);
		for (const name of [own, deadLettersOf(own)]) {
			const problem = this.adapter.nameProblem(this.adapter.addPrefixTopic(name), target);
			if (problem !== undefined) return problem;
		}
		return undefined;
	}

	/** Whether the broker can be reached. */
	get available(): boolean {
		return this.#available;
	}

	/** @param listener called each time that `available` has changed */
	listen(listener: () => void): void {
		this.#listeners.add(listener);
	}

	/** The broker was found to be gone: nothing is sent for a moment, however soon it is back. */
	refused(): void {
		this.#restUntil = performance.now() + REST_MS;
		this.#look();
	}

	/** Gives the connection back; the last one closes it. */
	async leave(listener?: () => void): Promise<void> {
		if (listener) this.#listeners.delete(listener);
		if (--this.#users > 0) return;
		links.get(this.#broker)?.delete(this.#spec);
		clearInterval(this.#timer);
		await this.adapter.disconnect();
	}

	#look(): void {
		const available = this.adapter.connected && performance.now() >= this.#restUntil;
		if (this.#available === available) return;
		this.#available = available;
		const { description } = this.adapter;
		if (available) this.#broker.logger.info(`Lottor: ${description} can be reached`);
		else this.#broker.logger.warn(`Lottor: waiting for ${description}`);
		for (const listener of this.#listeners) listener();
	}
}
