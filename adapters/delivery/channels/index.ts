import {
	contentTypeOf,
	decodePayload,
	type Envelope,
	type Failure,
	hasCode,
	messageOf,
	signed,
	signerOf,
	toHeaders,
} from "../../../protocol/index.ts";
import { callAction } from "../action-call.ts";
import type { Delivery, DeliveryHost, Outgoing, SendResult } from "../contract.ts";
import { itemError } from "../results.ts";
import { Link } from "./link.ts";
import { channelOf } from "./names.ts";
import { Pauses } from "./pauses.ts";
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
	const pauses = new Pauses();

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
		const channel = channelFor(target, storeId);
		let body: Buffer;
		try {
			body = adapter.serializer.serialize(decodePayload(envelope.content));
		} catch (error) {
			const problem = `The payload can't be written by this node's serializer: ${messageOf(error)}`;
			return failed(envelope, "LOTTOR_INVALID_PAYLOAD", problem);
		}
		try {
			const headers = toHeaders(envelope, contentTypeOf(adapter.serializer));
			const signer = signerOf(lent.broker);
			await adapter.publish(channel, body, {
				raw: true,
				headers: signer ? signed(headers, body, signer) : headers,
				groups: [target],
				key: envelope.orderingKey ?? envelope.group,
				messageId: copyOf(envelope),
			});
			pauses.taken(channel);
			return { result: "accepted", instance: null };
		} catch (error) {
			const why = itemError(error);
			if (hasCode(error, "LOTTOR_PAYLOAD_TOO_LARGE"))
				return failed(envelope, why.code, why.message);
			if (!hasCode(error, "LOTTOR_CHANNEL_UNAVAILABLE"))
				return { result: "unknown", instance: null, error: why };
			if (!adapter.connected) {
				used.refused();
				return { result: "refused", error: why };
			}
			// The broker is there: it is this message or channel that it does not take.
			const { delay, longer } = pauses.refused(channel);
			if (longer)
				lent.logger.warn(`Lottor: ${why.message}. It is tried again in ${delay} ms`);
			return { result: "refused", error: why, delay };
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
		targetProblem: (target) => link?.targetProblem(target),
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
			const joined = await Link.join(receiver.service.broker, spec);
			try {
				return receive(joined, receiver);
			} catch (error) {
				await joined.leave();
				throw error;
			}
		},
	};
}

/** Names one send of a message: the broker drops a repeat of it, and must let another send through. */
function copyOf({ id, attempt, revision, sentAt }: Envelope): string {
	return `${id}/${attempt}/${revision}/${sentAt}`;
}

/** It can never be sent as it is: an operator has to see it. */
function failed(envelope: Envelope, code: Failure["code"], message: string): SendResult {
	const { id, receipt, storeId, attempt, revision } = envelope;
	const error = { code, message, retryable: false };
	const report = { id, receipt, storeId, attempt, revision, result: "failed", error } as const;
	return { result: "accepted", instance: null, report };
}

function refused(message: string): SendResult {
	return {
		result: "refused",
		error: { code: "LOTTOR_CHANNEL_UNAVAILABLE", message, retryable: true },
	};
}
