import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";

import {
	type EnvelopeHead,
	fromHeaders,
	hasCode,
	messageId,
	newGroupId,
	systemClock,
	systemRandom,
	toHeaders,
	WIRE_VERSION,
} from "../../protocol/index.ts";

const JSON_TYPE = "application/json";

function head(more: Partial<EnvelopeHead> = {}): EnvelopeHead {
	const group = newGroupId(systemClock, systemRandom);
	return {
		v: WIRE_VERSION,
		id: messageId(group, 3),
		group,
		source: "v2.user",
		target: "v2.auth",
		type: "grant-role",
		attempt: 2,
		revision: 1,
		receipt: "receipt",
		coordinator: "coordinator",
		storeId: "store",
		createdAt: 1_769_860_800_000,
		sentAt: 1_769_860_801_000,
		orderingKey: "ada",
		context: '{"requestID":"r"}',
		...more,
	};
}

/** @returns the header that the parser refuses, or undefined when it refuses nothing */
function refused(headers: unknown, contentType = JSON_TYPE): unknown {
	try {
		fromHeaders(headers, contentType);
		return undefined;
	} catch (error) {
		if (!hasCode(error, "LOTTOR_ENVELOPE_INVALID")) throw error;
		return (error as { data: { field: string } }).data.field;
	}
}

const text = fc.string({ minLength: 1, maxLength: 30, unit: "binary" });

describe("an envelope's headers", () => {
	it("come back as they were, whatever the texts are, in ASCII that no broker changes", () => {
		fc.assert(
			fc.property(
				fc.record({
					source: text,
					target: text,
					type: text,
					orderingKey: fc.option(text),
					storeId: fc.option(text),
					attempt: fc.integer({ min: 1 }),
					revision: fc.nat(),
				}),
				(fields) => {
					const given = head(fields);
					const headers = toHeaders(given, JSON_TYPE);
					for (const value of Object.values(headers))
						expect(value).toMatch(/^[\x21-\x7e]+$/);
					expect(fromHeaders(headers, JSON_TYPE)).toEqual(given);
				},
			),
		);
	});

	it("are read from buffers, as some clients bring them, and beside headers of others", () => {
		const given = head({ type: "授权" });
		const headers = Object.entries(toHeaders(given, JSON_TYPE)).map(
			([name, value]) => [name, Buffer.from(value)] as const,
		);
		const all = { ...Object.fromEntries(headers), "x-other": 5 };
		expect(fromHeaders(all, JSON_TYPE)).toEqual(given);
	});

	it("carry the caller's trace as W3C has it, where there is one", () => {
		const requestID = "0af76519-16cd-43dd-8448-eb211c80319c";
		const parentID = "b7ad6b71-6920-3331-0000-000000000000";
		const trace = (context: object) =>
			toHeaders(head({ context: JSON.stringify(context) }), JSON_TYPE)["traceparent"];
		expect(trace({ requestID, parentID, tracing: true })).toBe(
			"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		);
		expect(trace({ requestID, parentID, tracing: false })).toMatch(/-00$/);
		expect(trace({ requestID: "no-uuid" })).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
		expect(trace({ requestID: "no-uuid" })).toBe(trace({ requestID: "no-uuid" }));
		expect(trace({})).toBeUndefined();
	});

	it("LOTTOR_ENVELOPE_INVALID: each is needed, and its form is checked", () => {
		const good = toHeaders(head(), JSON_TYPE);
		expect(refused(good)).toBeUndefined();
		for (const name of Object.keys(good)) {
			const optional = ["lottor-store", "lottor-key", "traceparent"].includes(name);
			const rest = Object.fromEntries(Object.entries(good).filter(([key]) => key !== name));
			expect(refused(rest)).toBe(optional ? undefined : name);
		}
		const wrong: Record<string, string> = {
			"lottor-version": "2",
			"lottor-id": good["lottor-id"]?.replace(/^./, "i") ?? "",
			"lottor-attempt": "0",
			"lottor-revision": "-1",
			"lottor-created": "1e3",
			"lottor-sent": "99999999999999999",
			"lottor-type": "%",
			"lottor-source": "",
			"content-type": "application/cbor",
		};
		for (const [name, value] of Object.entries(wrong)) {
			expect(refused({ ...good, [name]: value })).toBe(name);
		}
	});

	it("LOTTOR_ENVELOPE_INVALID is all that comes of anything else", () => {
		const names = Object.keys(toHeaders(head(), JSON_TYPE));
		fc.assert(
			fc.property(
				fc.oneof(
					fc.anything(),
					fc.dictionary(fc.constantFrom(...names), fc.anything()),
					fc
						.dictionary(
							fc.constantFrom(...names),
							fc.oneof(fc.string(), fc.uint8Array(), fc.anything()),
							{ maxKeys: 2 },
						)
						.map((changes) => ({ ...toHeaders(head(), JSON_TYPE), ...changes })),
				),
				(headers) => {
					refused(headers);
				},
			),
			{ numRuns: 2_000 },
		);
	});
});
