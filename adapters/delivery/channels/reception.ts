import type { Context, Service } from "moleculer";
import {
	checkSignature,
	contentTypeOf,
	encodePayload,
	type EnvelopeHead,
	fromHeaders,
	hasCode,
	invalidOptions,
	LottorError,
	messageOf,
	readCallContext,
	signerOf,
	type Special,
} from "../../../protocol/index.ts";
import type { Channel, Delivered } from "../../channels/index.ts";
import type { Receiver, Reception } from "../contract.ts";
import type { Link } from "./link.ts";
import { channelOf, deadLettersOf } from "./names.ts";

/** What another node's serializer brought is taken as it comes. */
const ALL: ReadonlySet<Special> = new Set(["Date", "Buffer", "BigInt"]);

/**
 * Subscribes a consumer to the channels of its names, as soon as the broker can be reached. A message
 * is acknowledged when the consumer says so, and not before: whatever a hook throws, it is kept, and
 * handled again after a growing pause. Only what is found here to be none of Lottor's goes to the
 * dead-letter queue.
 *
 * @throws LOTTOR_INVALID_OPTIONS naming the name of which the broker can't have a channel
 */
export function receive(link: Link, receiver: Receiver): Reception {
	const { service } = receiver;
	const { adapter } = link;
	const { broker } = service;
	const contentType = contentTypeOf(adapter.serializer);
	/** Errors of messages that are none of Lottor's: a hook may throw one of the same code. */
	const poison = new WeakSet<object>();
	let ended = false;

	receiver.targets.forEach((target, place) => {
		const problem = link.targetProblem(target);
		if (problem === undefined) return;
		const field = place === 0 ? "name" : `aliases[${place - 1}]`;
		throw invalidOptions(`${service.fullName}.${field}`, `is ${target}, ${problem}`);
	});

	const channels = receiver.targets.map(channelFor);
	const subscribed = link.connected.then(async () => {
		if (!ended) await Promise.all(channels.map((channel) => adapter.subscribe(channel)));
	});
	subscribed.catch((error: unknown) => {
		service.logger.error(`Lottor: messages can't be consumed: ${messageOf(error)}`);
	});

	function channelFor(target: string): Channel {
		const own = channelOf(target, receiver.storeId);
		const dead = deadLettersOf(own);
		const name = adapter.addPrefixTopic(own);
		const channel = {
			id: adapter.addPrefixTopic(`${broker.nodeID}.${service.fullName}.${own}`),
			name,
			group: target,
			context: true,
			maxInFlight: receiver.maxInFlight,
			maxRetries: -1,
			deadLettering: { enabled: true, queueName: dead, exchangeName: dead },
			isPoison: (error: unknown) => poison.has(error as object),
			unsubscribing: false,
		};
		const take = async ({ params }: Context<unknown>, incoming: Incoming): Promise<void> => {
			try {
				const envelope = { ...incoming.head, content: contentOf(params, incoming.body) };
				incoming.end = await receiver.handle(envelope, incoming.repeated);
			} catch (error) {
				incoming.end = judged(error);
				throw error;
			}
		};
		// The hook of channels' own middleware: whoever uses it sees these messages, too.
		const { middlewares } = broker as unknown as { middlewares: Middlewares };
		const handle = middlewares.wrapHandler("localChannel", take, channel);
		const handler = async (payload: unknown, raw: unknown, delivered: Delivered) => {
			const incoming = read(raw, delivered);
			let thrown: Error | undefined;
			try {
				await handle(contextOf(service, payload, incoming.head), incoming);
			} catch (error) {
				thrown = asError(error);
			}
			// What the consumer found stands, whatever a hook made of it.
			const { end } = incoming;
			if (end instanceof Error) throw end;
			if (end === "keep") {
				throw new LottorError("LOTTOR_STOPPING", `${service.fullName} is stopping`);
			}
			if (end === "done" && !thrown) return;
			const what = `a middleware's hook localChannel for '${name}'`;
			if (end === "done") {
				service.logger.warn(`Lottor: ${what} failed afterwards: ${messageOf(thrown)}`);
				return;
			}
			throw thrown ?? new Error(`${what} has not called its handler`);
		};
		return { ...channel, handler };
	}

	/** Remembers that a message is none of Lottor's. @returns the error, as it is */
	function judged(thrown: unknown): Error {
		const error = asError(thrown);
		if (hasCode(error, "LOTTOR_ENVELOPE_INVALID") || hasCode(error, "LOTTOR_SIGNATURE_INVALID"))
			poison.add(error);
		return error;
	}

	function read(raw: unknown, { body, repeated }: Delivered): Incoming {
		try {
			const headers = headersOf(raw);
			const head = fromHeaders(headers, contentType);
			const signer = signerOf(broker);
			if (signer) checkSignature(headers as object, body, signer);
			return { headers, raw, body, repeated, head, end: undefined };
		} catch (error) {
			throw judged(error);
		}
	}

	function headersOf(raw: unknown): Record<string, unknown> | null {
		try {
			return adapter.parseMessageHeaders(raw);
		} catch (error) {
			throw invalid("headers", `The headers can't be read: ${messageOf(error)}`);
		}
	}

	function contentOf(params: unknown, body: Buffer): string {
		try {
			return encodePayload(params, "body", ALL);
		} catch (error) {
			if (!hasCode(error, "LOTTOR_INVALID_PAYLOAD")) throw error;
			// A hook may have changed it: what came is judged, not that.
			if (isPayload(adapter.serializer.deserialize(body))) throw error;
			throw invalid("body", messageOf(error));
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

/** A message as the broker's client gave it, its headers whatever the client, and what became of it. */
interface Incoming extends Delivered {
	readonly headers: unknown;
	readonly raw: unknown;
	readonly head: EnvelopeHead;
	end: "done" | "keep" | Error | undefined;
}

interface Middlewares {
	wrapHandler<T>(hook: string, handler: T, definition: object): T;
}

function invalid(field: string, problem: string): LottorError {
	return new LottorError("LOTTOR_ENVELOPE_INVALID", problem, { field });
}

function asError(thrown: unknown): Error {
	return thrown instanceof Error ? thrown : new Error(messageOf(thrown), { cause: thrown });
}

function isPayload(value: unknown): boolean {
	try {
		encodePayload(value, "body", ALL);
		return true;
	} catch {
		return false;
	}
}

/** The context that hooks get, as channels itself would make it from its headers. */
function contextOf({ broker }: Service, payload: unknown, head: EnvelopeHead): Context<unknown> {
	const { requestID, parentID, level, tracing, caller, meta } = readCallContext(head.context);
	const ctx: Context<unknown> = new broker.ContextFactory(broker);
	ctx.params = payload;
	ctx.requestID = requestID ?? ctx.requestID;
	ctx.parentID = parentID ?? null;
	ctx.level = (level ?? 0) + 1;
	ctx.tracing = tracing ?? null;
	ctx.caller = caller ?? head.source;
	ctx.meta = meta ?? {};
	return ctx;
}
