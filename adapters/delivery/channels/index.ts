import {
	contentTypeOf,
	decodePayload,
	type Envelope,
	hasCode,
	signed,
	signerOf,
	toHeaders,
} from "../../../protocol/index.ts";
import { callAction } from "../action-call.ts";
import type { Delivery, DeliveryHost, Outgoing, SendResult } from "../contract.ts";
import { itemError } from "../results.ts";
import { Link } from "./link.ts";
import { channelOf } from "./names.ts";
import { receive } from "./reception.ts";
import { type ChannelSpec, checkSpec } from "./spec.ts";

export type { ChannelSpec } from "./spec.ts";

/** Room for the headers beside the largest payload, in bytes: the caller's meta is most of it. */
const HEADER_BYTES = 64 * 1_024;
/** What every broker takes as it is installed. */
const LEAST_MAX_BYTES = 1_000_000;

/**
 * Delivers over a message broker, through an adapter of `@moleculer/channels` (R24): to the channel
 * `tx-<target>`, whose consumer group is the target. What the broker has confirmed outlives every
 * process. Messages for plain actions go by calls, past the broker.
 *
 * @param spec see {@link ChannelSpec}; all services of a node that name the same one share a connection
 * @param field the option's full name, for the error
 * @throws LOTTOR_INVALID_OPTIONS naming `field`
 */
export function channelDelivery(spec: ChannelSpec, field = "delivery"): Delivery {
	const name = checkSpec(spec, field);
	let host: DeliveryHost | undefined;
	let link: Link | undefined;

	function started(): { host: DeliveryHost; link: Link } {
		if (!host || !link) throw new Error("The delivery adapter was used before start()");
		return { host, link };
	}

	/** The channel is the instances' own where each has a store of its own (R3). */
	function channelFor(target: string, storeId: string | null): string {
		const { host: lent, link: used } = started();
		const [instance] = storeId === null ? [] : lent.instances(target, storeId);
		const own = channelOf(target, instance?.partitioned ? storeId : null);
		return used.adapter.addPrefixTopic(own);
	}

	async function publish({ envelope, plain }: Outgoing): Promise<SendResult> {
		const { host: lent, link: used } = started();
		const { target, storeId } = envelope;
		if (plain === "action") return callAction(lent, envelope);
		if (!plain && !lent.instances(target, storeId).some((instance) => instance.receives)) {
			return refused(
				`${target} takes no messages from a broker: its mixin needs the option delivery`,
			);
		}
		if (!used.available) return refused(`${name} can't be reached`);
		const { adapter } = used;
		try {
			const body = adapter.serializer.serialize(decodePayload(envelope.content));
			const headers = toHeaders(envelope, contentTypeOf(adapter.serializer));
			const signer = signerOf(lent.broker);
			await adapter.publish(channelFor(target, storeId), body, {
				raw: true,
				headers: signer ? signed(headers, body, signer) : headers,
				groups: [target],
				key: envelope.orderingKey ?? envelope.group,
				messageId: copyOf(envelope),
			});
			return { result: "accepted", instance: null };
		} catch (error) {
			const why = itemError(error);
			if (!hasCode(error, "LOTTOR_CHANNEL_UNAVAILABLE"))
				return { result: "unknown", instance: null, error: why };
			used.refused();
			return { result: "refused", error: why };
		}
	}

	const changed = () => host?.availabilityChanged();

	return {
		get description() {
			return link?.adapter.description ?? name;
		},
		durable: true,
		get maxBytes() {
			return (link?.adapter.maxBytes ?? LEAST_MAX_BYTES) - HEADER_BYTES;
		},
		get available() {
			return link?.available ?? false;
		},
		async start(given) {
			host = given;
			link = await Link.join(given.broker, spec);
			link.listen(changed);
		},
		async stop() {
			await link?.leave(changed);
			link = undefined;
		},
		async send(items, settled) {
			await Promise.all(
				items.map(async (item, place) => {
					void settled(place, await publish(item));
				}),
			);
		},
		async backlog(target, storeId) {
			const { link: used } = started();
			if (!used.available) return undefined;
			return used.adapter.backlog(channelFor(target, storeId), target);
		},
		async receive(receiver) {
			return receive(await Link.join(receiver.service.broker, spec), receiver);
		},
	};
}

/** Names one send of a message: the broker drops a repeat of it, and must let another send through. */
function copyOf({ id, attempt, revision, sentAt }: Envelope): string {
	return `${id}/${attempt}/${revision}/${sentAt}`;
}

function refused(message: string): SendResult {
	return {
		result: "refused",
		error: { code: "LOTTOR_CHANNEL_UNAVAILABLE", message, retryable: true },
	};
}
