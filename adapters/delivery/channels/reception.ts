import type { ServiceBroker } from "moleculer";
import {
	checkSignature,
	contentTypeOf,
	encodePayload,
	type Envelope,
	fromHeaders,
	hasCode,
	LottorError,
	messageOf,
	signerOf,
	type Special,
} from "../../../protocol/index.ts";
import type { Channel, Delivered } from "../../channels/index.ts";
import type { Receiver, Reception } from "../contract.ts";
import type { Link } from "./link.ts";
import { channelOf } from "./names.ts";

/** Counted by the adapter too, for bodies that it can't read. */
const POISON = "moleculer.lottor.channels.poison.total";

/** What another node's serializer brought is taken as it comes. */
const ALL: ReadonlySet<Special> = new Set(["Date", "Buffer", "BigInt"]);

/**
 * Subscribes a consumer to the channels of its names, as soon as the broker can be reached. A message
 * is acknowledged when the consumer says so. The broker has no retries: only what is none of Lottor's
 * is refused, and goes to the dead-letter queue.
 */
export function receive(link: Link, receiver: Receiver): Reception {
	const { service } = receiver;
	const { adapter } = link;
	const { broker } = service;
	const contentType = contentTypeOf(adapter.serializer);
	let ended = false;

	const channels = receiver.targets.map(channelFor);
	const subscribed = link.connected.then(async () => {
		if (!ended) await Promise.all(channels.map((channel) => adapter.subscribe(channel)));
	});
	subscribed.catch((error: unknown) => {
		service.logger.error(`Lottor: messages can't be consumed: ${messageOf(error)}`);
	});

	function channelFor(target: string): Channel {
		const own = channelOf(target, receiver.storeId);
		const name = adapter.addPrefixTopic(own);
		const channel = {
			id: adapter.addPrefixTopic(`${broker.nodeID}.${service.fullName}.${own}`),
			name,
			group: target,
			context: false,
			maxInFlight: receiver.maxInFlight,
			maxRetries: 0,
			deadLettering: { enabled: true, queueName: `${own}.dead`, exchangeName: `${own}.dead` },
			unsubscribing: false,
		};
		const take = async (payload: unknown, incoming: Incoming): Promise<void> => {
			try {
				const end = await receiver.handle(read(payload, incoming), incoming.repeated);
				if (end === "done") return;
			} catch (error) {
				count(broker, channel);
				throw error;
			}
			throw new LottorError("LOTTOR_STOPPING", `${service.fullName} is stopping`);
		};
		// The hook of channels' own middleware: whoever uses it sees these messages, too.
		const { middlewares } = broker as unknown as { middlewares: Middlewares };
		const handle = middlewares.wrapHandler("localChannel", take, channel);
		const handler = (payload: unknown, raw: unknown, { body, repeated }: Delivered) =>
			handle(payload, { headers: adapter.parseMessageHeaders(raw), raw, body, repeated });
		return { ...channel, handler };
	}

	function read(payload: unknown, { headers, body }: Incoming): Envelope {
		const head = fromHeaders(headers, contentType);
		const signer = signerOf(broker);
		if (signer) checkSignature(headers as object, body, signer);
		try {
			return { ...head, content: encodePayload(payload, "body", ALL) };
		} catch (error) {
			if (!hasCode(error, "LOTTOR_INVALID_PAYLOAD")) throw error;
			throw new LottorError("LOTTOR_ENVELOPE_INVALID", messageOf(error), { field: "body" });
		}
	}

	return {
		async stop() {
			ended = true;
			await Promise.allSettled(channels.map((channel) => adapter.unsubscribe(channel)));
			await Promise.allSettled([subscribed, link.leave()]);
		},
	};
}

/** A message as the broker's client gave it, and its headers whatever the client. */
interface Incoming extends Delivered {
	readonly headers: unknown;
	readonly raw: unknown;
}

interface Middlewares {
	wrapHandler<T>(hook: string, handler: T, definition: object): T;
}

function count(broker: ServiceBroker, { name, group }: { name: string; group: string }): void {
	if (!broker.isMetricsEnabled() || !broker.metrics.hasMetric(POISON)) return;
	broker.metrics.increment(POISON, { channel: name, group });
}
