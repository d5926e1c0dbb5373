import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { ServiceBroker } from "moleculer";

import { specialsOf } from "../../mixins/reliable-message/specials.ts";
import { decodePayload, encodePayload, type Special } from "../../protocol/index.ts";

const ALL: ReadonlySet<Special> = new Set(["Date", "Buffer", "BigInt"]);

/** Payloads with everything that a serializer may carry, and with keys that look like tags. */
const payloads = fc.letrec<{ value: unknown }>((tie) => ({
	value: fc.oneof(
		{ depthSize: "small", withCrossShrink: true },
		fc.string(),
		fc.integer(),
		fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => (Object.is(n, -0) ? 0 : n)),
		fc.boolean(),
		fc.constant(null),
		fc.bigInt(),
		fc.date({ noInvalidDate: true, min: new Date(0) }),
		fc.uint8Array().map((bytes) => Buffer.from(bytes)),
		fc.array(tie("value"), { maxLength: 4 }),
		fc.dictionary(
			fc.oneof(
				fc.constantFrom("$date", "$binary", "$bigint", "$literal", "__proto__", "a"),
				fc.string(),
			),
			tie("value"),
			{ maxKeys: 3, noNullPrototype: true },
		),
	),
})).value;

describe("a payload's text", () => {
	it("is plain JSON where JSON says it all", () => {
		expect(encodePayload({ a: [1, "x", null, { b: true, c: undefined }] }, "p")).toBe(
			'{"a":[1,"x",null,{"b":true}]}',
		);
	});

	it("names what JSON has no form for", () => {
		const payload = {
			at: new Date("2026-01-31T12:00:00.123Z"),
			bytes: Buffer.from("hi"),
			many: 2n ** 70n,
			own: { $date: "mine" },
		};
		const text = encodePayload(payload, "p", ALL);
		expect(text).toBe(
			'{"at":{"$date":"2026-01-31T12:00:00.123Z"},"bytes":{"$binary":"aGk="},' +
				'"many":{"$bigint":"1180591620717411303424"},"own":{"$literal":{"$date":"mine"}}}',
		);
		expect(decodePayload(text)).toEqual(payload);
	});

	it("comes back as the payload that it was, whatever that is", () => {
		fc.assert(
			fc.property(payloads, (payload) => {
				expect(decodePayload(encodePayload(payload, "p", ALL))).toEqual(payload);
			}),
			{ numRuns: 500 },
		);
	});

	it("leaves alone what only looks like a special value", () => {
		for (const text of [
			'{"$date":"no date"}',
			'{"$bigint":"1.5"}',
			'{"$binary":5}',
			'{"$literal":{"a":1}}',
			'{"$date":"2026-01-31","more":1}',
		]) {
			expect(decodePayload(text)).toEqual(JSON.parse(text));
		}
	});

	it("LOTTOR_INVALID_PAYLOAD: what the serializer can't carry is refused by its place", () => {
		const refused = (payload: unknown) => {
			try {
				return encodePayload(payload, "p");
			} catch (error) {
				return (error as { type: string; data: { field: string } }).type ===
					"LOTTOR_INVALID_PAYLOAD"
					? (error as { data: { field: string } }).data.field
					: error;
			}
		};
		expect(refused({ a: [new Date()] })).toBe("p.a[0]");
		expect(refused({ b: Buffer.alloc(1) })).toBe("p.b");
		expect(refused({ c: 1n })).toBe("p.c");
		expect(refused({ d: new Date(Number.NaN) })).toBe("p.d");
		expect(refused(new Map())).toBe("p");
		expect(refused({ e: () => 1 })).toBe("p.e");
	});
});

describe("what a serializer carries besides JSON is found out by trying", () => {
	it.each([
		["JSON", []],
		["JSONExt", ["Date", "Buffer", "BigInt"]],
		["MsgPack", ["Date", "Buffer"]],
		["Notepack", ["Date", "Buffer"]],
		["CBOR", ["Date", "Buffer", "BigInt"]],
	] as const)("%s", async (serializer, specials) => {
		const broker = new ServiceBroker({ logger: false, serializer });
		await broker.start();
		expect([...specialsOf(broker.serializer)]).toEqual(specials);
		await broker.stop();
	});
});
