import { readFileSync } from "node:fs";

import { describe, expect, test } from "@jest/globals";
import { ServiceBroker } from "moleculer";

import {
	contentTypeOf,
	type EnvelopeHead,
	fromHeaders,
	toHeaders,
	WIRE_VERSION,
} from "../../protocol/index.ts";

const DOCS = readFileSync(new URL("../../docs/delivery.md", import.meta.url), "utf8");

/** The message of the documentation. */
const HEAD: EnvelopeHead = {
	v: WIRE_VERSION,
	id: "01kgb5v3g0abcdefghjkmnpqrs.0",
	group: "01kgb5v3g0abcdefghjkmnpqrs",
	source: "user",
	target: "v2.auth",
	type: "grant role",
	attempt: 2,
	revision: 0,
	receipt: "6e1yYcPjzLQ2o1bZ0oQk5x8vWn3mT7aR",
	coordinator: "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
	storeId: "00112233445566778899aabbccddeeff",
	createdAt: 1_769_860_800_000,
	sentAt: 1_769_860_801_500,
	orderingKey: "王",
	context:
		'{"requestID":"0af76519-16cd-43dd-8448-eb211c80319c","parentID":"b7ad6b71-6920-3331-0000-000000000000","meta":{"user":"ada"}}',
};
const BODY = { user: "ada", role: "admin" };
const SPECIAL = { at: new Date("2026-01-31T12:00:00.000Z"), bytes: Buffer.from("hi") };

async function serializerOf(name: "JSON" | "JSONExt" | "MsgPack" | "Notepack" | "CBOR") {
	const broker = new ServiceBroker({ logger: false, serializer: name });
	await broker.start();
	await broker.stop();
	return broker.serializer as NonNullable<ServiceBroker["serializer"]>;
}

describe("the envelope of docs/delivery.md, byte for byte", () => {
	test("headers and JSON body", async () => {
		const [, text = ""] = /```http\n([^]*?)\n```/.exec(DOCS) ?? [];
		const json = await serializerOf("JSON");
		const headers = toHeaders(HEAD, contentTypeOf(json));
		const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\n`);

		expect(`${lines.join("")}\n${json.serialize(BODY).toString()}`).toBe(text);
		expect(fromHeaders(headers, contentTypeOf(json))).toEqual(HEAD);
	});

	test.each(["JSONExt", "MsgPack", "Notepack", "CBOR"] as const)("bodies by %s", async (name) => {
		const serializer = await serializerOf(name);
		const type = contentTypeOf(serializer);
		const row = DOCS.split("\n").find(
			(line) => line.startsWith(`| \`${type}\``) && !line.includes("yes"),
		);
		const hex = (value: object) => serializer.serialize(value).toString("hex");

		expect(row?.split("|").map((cell) => cell.trim())).toEqual([
			"",
			`\`${type}\``,
			`\`${hex(BODY)}\``,
			`\`${hex(SPECIAL)}\``,
			"",
		]);
		expect(serializer.deserialize(serializer.serialize(SPECIAL))).toEqual(SPECIAL);
	});
});
