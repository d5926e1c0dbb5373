import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { Serializers, ServiceBroker } from "moleculer";

import type { Channel } from "../../adapters/channels/index.ts";
import type { Driver, DriverHost, Incoming, Outgoing } from "../../adapters/channels/driver.ts";
import { Handling } from "../../adapters/channels/handling.ts";
import type { Link } from "../../adapters/delivery/channels/link.ts";
import { receive } from "../../adapters/delivery/channels/reception.ts";
import {
	contentTypeOf,
	decodePayload,
	type Envelope,
	type EnvelopeHead,
	Signer,
	signed,
	signWith,
	toHeaders,
	WIRE_VERSION,
} from "../../protocol/index.ts";
import { mutated, NASTY_TEXTS, nastyValue } from "../support/nasty.ts";

/** More: LOTTOR_FUZZ_CALLS=20000 npm test -- envelope-fuzz */
const RUNS = Number(process.env["LOTTOR_FUZZ_CALLS"] ?? 400);
const SEED = Number(process.env["LOTTOR_FUZZ_SEED"] ?? 7);

const SERIALIZERS = ["JSON", "JSONExt", "MsgPack", "Notepack", "CBOR"] as const;
const SECRET = "a secret of this cluster";

const PAYLOADS = [
	{ user: "ada", role: "admin" },
	[1, "two", null, { three: [3] }],
	"text",
	null,
	{ deep: { deeper: { deepest: [[[]]] } } },
];

const HEAD: EnvelopeHead = {
	v: WIRE_VERSION,
	id: "01kgb5v3g0abcdefghjkmnpqrs.0",
	group: "01kgb5v3g0abcdefghjkmnpqrs",
	source: "user",
	target: "auth",
	type: "grant role",
	attempt: 2,
	revision: 0,
	receipt: "6e1yYcPjzLQ2o1bZ0oQk5x8vWn3mT7aR",
	coordinator: "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
	storeId: "00112233445566778899aabbccddeeff",
	createdAt: 1_769_860_800_000,
	sentAt: 1_769_860_801_500,
	orderingKey: "王",
	context: "{}",
};

/** A consumer of one channel whose messages are handed to it by hand. */
class Hand {
	readonly handled: Envelope[] = [];
	readonly buried: Outgoing[] = [];
	readonly serializer: Serializers.Base;
	#handling: Handling | undefined;

	constructor(serializer: Serializers.Base, secret?: string) {
		this.serializer = serializer;
		const broker = new ServiceBroker({ nodeID: "node", logger: false });
		serializer.init(broker);
		if (secret !== undefined) signWith(broker, new Signer(secret));
		const logger = broker.getLogger("test");
		const host = {
			logger,
			options: {},
			consumerName: "c",
			serialize: (value: unknown) => serializer.serialize(value as object, "REQ"),
			deserialize: (body: Buffer): unknown => serializer.deserialize(body, "REQ"),
		} as unknown as DriverHost;
		const driver = {
			deadLetter: (message: Outgoing) => Promise.resolve(void this.buried.push(message)),
		} as unknown as Driver;
		const deadLetters = {
			queue: "dead",
			exchange: "dead",
			exchangeOptions: {},
			queueOptions: {},
		};
		const adapter = {
			serializer,
			addPrefixTopic: (name: string) => name,
			parseMessageHeaders: (raw: { headers: unknown }) => raw.headers,
			subscribe: (channel: Channel) => {
				const settings = { limit: 1, attempts: 1, retryDelay: 0, deadLetters };
				this.#handling = new Handling(channel, broker, host, driver, settings);
				return Promise.resolve();
			},
		};
		const link = { adapter, connected: Promise.resolve(), targetProblem: () => undefined };
		receive(link as unknown as Link, {
			service: { broker, logger, fullName: "auth" } as never,
			targets: ["auth"],
			storeId: null,
			maxInFlight: 1,
			handle: (envelope) => {
				this.handled.push(envelope);
				return Promise.resolve("done");
			},
		});
	}

	/** @returns what became of the message: it must be one of the two, and acknowledged */
	async give(body: Buffer, headers: unknown): Promise<"handled" | "buried"> {
		const before = { handled: this.handled.length, buried: this.buried.length };
		await new Promise<void>((resolve, reject) => {
			const message: Incoming = {
				id: String(before.handled + before.buried),
				again: false,
				repeated: false,
				body,
				headers: {},
				raw: { headers },
				ack: () => resolve(),
				release: () => reject(new Error("given back")),
			};
			this.#handling?.take(message);
		});
		const handled = this.handled.length - before.handled;
		expect(handled + this.buried.length - before.buried).toBe(1);
		return handled === 1 ? "handled" : "buried";
	}

	headersOf(head: EnvelopeHead = HEAD): Record<string, string> {
		return toHeaders(head, contentTypeOf(this.serializer));
	}
}

async function handWith(name: (typeof SERIALIZERS)[number], secret?: string): Promise<Hand> {
	const hand = new Hand(Serializers.resolve(name), secret);
	await new Promise(setImmediate);
	return hand;
}

const damaged = (valid: Buffer): fc.Arbitrary<Buffer> =>
	fc.oneof(
		fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
		fc.nat(valid.length).map((length) => valid.subarray(0, length)),
		fc
			.array(fc.tuple(fc.nat(Math.max(valid.length - 1, 0)), fc.nat(255)), { maxLength: 4 })
			.map((changes) => {
				const bytes = Buffer.from(valid);
				for (const [place, value] of changes) bytes[place] = value;
				return bytes;
			}),
		fc.constantFrom(
			Buffer.from("[".repeat(50_000)),
			Buffer.from('{"__proto__":{"polluted":1}}'),
			Buffer.alloc(5_000, 0x91),
			Buffer.alloc(5_000, 0x81),
			Buffer.from([0xdf, 0xff, 0xff, 0xff, 0xff]),
			Buffer.from([0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
			Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff]),
			Buffer.from([0xff]),
			Buffer.alloc(0),
		),
	);

describe.each(SERIALIZERS)("by %s", (name) => {
	test("whatever comes as headers and body is handled as a message of Lottor's, or buried", async () => {
		const hand = await handWith(name);
		const valid = hand.headersOf();
		const headers = fc.oneof(
			{ arbitrary: fc.constant(valid), weight: 3 },
			{ arbitrary: mutated(fc.constant(valid)), weight: 3 },
			{
				arbitrary: fc
					.tuple(fc.constantFrom(...Object.keys(valid)), fc.constantFrom(...NASTY_TEXTS))
					.map(([key, text]) => ({ ...valid, [key]: text })),
				weight: 3,
			},
			{ arbitrary: nastyValue, weight: 1 },
		);
		const bodies = fc
			.constantFrom(...PAYLOADS)
			.chain((payload) => damaged(hand.serializer.serialize(payload as object, "REQ")));
		await fc.assert(
			fc.asyncProperty(bodies, headers, async (body, given) => {
				if ((await hand.give(body, given)) === "buried") return;
				const envelope = hand.handled.at(-1);
				expect(envelope?.group).toBe(envelope?.id.split(".")[0]);
				// What is handed on can be read again, as the handler will.
				decodePayload(envelope?.content ?? "");
			}),
			{ seed: SEED, numRuns: RUNS },
		);
		expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
		expect(
			await hand.give(hand.serializer.serialize(PAYLOADS[0] as object, "REQ"), valid),
		).toBe("handled");
	});

	test("with a secret, nothing is handled that was changed anywhere, or never signed", async () => {
		const hand = await handWith(name, SECRET);
		const body = hand.serializer.serialize(PAYLOADS[0] as object, "REQ");
		const valid = signed(hand.headersOf(), body, new Signer(SECRET));
		expect(await hand.give(body, valid)).toBe("handled");
		const bytes = Object.fromEntries(
			Object.entries(valid).map(([key, text]) => [key, Buffer.from(text)]),
		);
		expect(await hand.give(body, bytes)).toBe("handled");

		const others = Object.entries(
			hand.headersOf({
				...HEAD,
				id: "01kgb5v3g0abcdefghjkmnpqr0.1",
				group: "01kgb5v3g0abcdefghjkmnpqr0",
				source: "eve",
				target: "v2.auth",
				type: "revoke role",
				attempt: 3,
				revision: 1,
				receipt: "r".repeat(32),
				coordinator: "c".repeat(32),
				storeId: "s".repeat(32),
				createdAt: 1,
				sentAt: 2,
				orderingKey: null,
				context: '{"meta":{"user":"eve"}}',
			}),
		).filter(([key, text]) => valid[key] !== text);
		expect(others.length).toBe(13);
		for (const [key, text] of others) {
			expect(await hand.give(body, { ...valid, [key]: text })).toBe("buried");
		}
		const without = (name: string) =>
			Object.fromEntries(Object.entries(valid).filter(([key]) => key !== name));
		const withoutKey = without("lottor-key");
		const unsigned = without("lottor-signature");
		const foreign = signed(unsigned, body, new Signer("a secret of another one"));
		const changed = hand.serializer.serialize({ user: "eve", role: "admin" }, "REQ");
		for (const [given, headers] of [
			[body, withoutKey],
			[body, unsigned],
			[body, foreign],
			[changed, valid],
		] as const) {
			expect(await hand.give(given, headers)).toBe("buried");
		}
		const reasons = hand.buried.map(({ headers }) => headers["x-error-type"]);
		expect(reasons.filter((reason) => reason === "LOTTOR_SIGNATURE_INVALID").length).toBe(
			reasons.length - 2,
		);
	});
});
