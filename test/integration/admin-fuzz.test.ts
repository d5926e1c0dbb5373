import { Agent, type IncomingMessage, request } from "node:http";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import fc from "fast-check";

import {
	faultOf,
	type JsonSchema,
	openApi,
	PROBLEM,
	type RouteName,
	ROUTES,
} from "../../services/admin/api/index.ts";
import { startAdmin, type TestAdmin, tokenOf, withTokens } from "../support/admin.ts";
import { NASTY_QUERIES } from "../support/nasty.ts";

const REQUESTS = Number(process.env["LOTTOR_FUZZ_REQUESTS"] ?? 10_000);
const SEED = Number(process.env["LOTTOR_FUZZ_SEED"] ?? 6);
const AT_ONCE = 8;

interface Fuzzed {
	readonly name: RouteName;
	readonly method: string;
	readonly path: string;
	readonly body: string | undefined;
	readonly headers: Readonly<Record<string, string>>;
}

interface Parameter {
	readonly name: string;
	readonly in: "path" | "query";
	readonly schema: JsonSchema & { readonly $ref?: string };
}

interface Operation {
	readonly operationId: RouteName;
	readonly parameters?: readonly Parameter[];
	readonly requestBody?: {
		readonly content: Readonly<Record<string, { readonly schema: JsonSchema }>>;
	};
}

const DOCUMENT = openApi("0.0.0") as unknown as {
	readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
	readonly components: { readonly schemas: Readonly<Record<string, JsonSchema>> };
};

let admin: TestAdmin;
let known: string[] = [];
const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });

beforeAll(async () => {
	admin = await startAdmin({ ...withTokens, mask: { operator: ["**.secret"] } });
	const { lottor } = admin;
	for (let i = 0; i < 5; i++) {
		known.push(await admin.failed(), await lottor.prepare([{}, {}]));
		const done = await lottor.prepare([{ content: '{"user":{"name":"Ada"}}' }]);
		await lottor.commit(done);
		known.push(done);
	}
	known.push(await admin.inDoubt());
	known = known.flatMap((id) => [id, `${id}.0`]);
}, 60_000);

afterAll(async () => {
	agent.destroy();
	await admin.stop();
});

const nasty = fc.constantFrom(...NASTY_QUERIES);
const anyText = fc.oneof(nasty, fc.string({ unit: "binary", maxLength: 40 }));

/** Values that fit the schema, mostly. */
function valueFor(given: JsonSchema & { readonly $ref?: string }): fc.Arbitrary<unknown> {
	const name = given.$ref?.split("/").at(-1);
	const schema = name === undefined ? given : (DOCUMENT.components.schemas[name] ?? {});
	return fc.oneof({ arbitrary: fitting(schema), weight: 5 }, { arbitrary: anyText, weight: 1 });
}

function fitting(schema: JsonSchema): fc.Arbitrary<unknown> {
	if (schema.enum) return fc.constantFrom(...schema.enum);
	switch (schema.type) {
		case "string":
			return fc.oneof(
				fc.constantFrom(...known, "user", "auth", "E_ROLE", "user.name"),
				anyText,
			);
		case "integer":
		case "number":
			return fc.oneof(
				fc.integer({
					min: schema.minimum ?? -5,
					max: Math.min(schema.maximum ?? 500, 2e15),
				}),
				fc.integer(),
			);
		case "boolean":
			return fc.boolean();
		case "array":
			return fc.array(valueFor(schema.items ?? {}), { maxLength: 6 });
		case "object": {
			const fields = Object.entries(schema.properties ?? {}).map(
				([key, inner]) => [key, valueFor(inner)] as const,
			);
			const required = schema.required ?? [];
			return fc.oneof(
				{
					arbitrary: fc.record(Object.fromEntries(fields), {
						requiredKeys: required.filter((key) => fields.some(([one]) => one === key)),
					}),
					weight: 8,
				},
				{ arbitrary: fc.jsonValue(), weight: 1 },
			);
		}
		default:
			return fc.jsonValue();
	}
}

/** Half of a surrogate pair can't be part of a URL. */
function wellFormed(text: string): string {
	return Buffer.from(text).toString();
}

function encoded(value: unknown): string {
	const text = typeof value === "string" ? value : JSON.stringify(value);
	return encodeURIComponent(wellFormed(text));
}

function pairsFor({ name, schema }: Parameter): fc.Arbitrary<readonly string[]> {
	const value = valueFor(schema);
	return fc.oneof(
		{ arbitrary: fc.constant([]), weight: 4 },
		{
			arbitrary: value.map((one) =>
				Array.isArray(one)
					? (one as unknown[]).map((item) => `${name}=${encoded(item)}`)
					: [`${name}=${encoded(one)}`],
			),
			weight: 4,
		},
		{
			arbitrary: anyText.map((key) => [`${name}[${encoded(key)}]=${encoded(key)}`]),
			weight: 1,
		},
		{ arbitrary: anyText.map((key) => [`${encoded(key)}=1`]), weight: 1 },
		{
			arbitrary: fc.constantFrom(["%E0%A4%A"], ["__proto__[x]=1"], [`${name}[]=1&${name}=2`]),
			weight: 1,
		},
	);
}

function requestFor(path: string, method: string, route: Operation): fc.Arbitrary<Fuzzed> {
	const { parameters = [], requestBody, operationId: name } = route;
	const ids = fc.oneof(
		{ arbitrary: fc.constantFrom(...known), weight: 6 },
		{ arbitrary: anyText.filter((text) => text !== ""), weight: 2 },
	);
	const schema = requestBody?.content["application/json"]?.schema;
	const bodies: fc.Arbitrary<string | undefined> =
		schema === undefined
			? fc.constantFrom(undefined, undefined, "{}", "[]")
			: fc.oneof(
					{ arbitrary: valueFor(schema).map((one) => JSON.stringify(one)), weight: 8 },
					{
						arbitrary: fc.constantFrom(undefined, "", "{", "null", "[[[[", "\u0000"),
						weight: 1,
					},
					{ arbitrary: fc.constant("[".repeat(20_000)), weight: 1 },
				);
	const roles = fc.constantFrom("admin", "admin", "operator", "viewer", null);
	return fc
		.record({
			id: ids,
			broken: fc.constantFrom(...Array<string>(20).fill(""), "%E0%A4%A", "%00", "..%2f"),
			pairs: fc.tuple(...parameters.filter((one) => one.in === "query").map(pairsFor)),
			body: bodies,
			role: roles,
			type: fc.constantFrom(...Array<string>(12).fill("application/json"), "text/plain", ""),
			last: fc.option(anyText, { freq: 10 }),
		})
		.map(({ id, broken, pairs, body, role, type, last }) => {
			const query = pairs.flat().join("&");
			const full = path.replace("{id}", broken || encoded(id));
			const sent = method === "get" ? undefined : body;
			return {
				name,
				method: method.toUpperCase(),
				path: query === "" ? full : `${full}?${query}`,
				body: sent,
				headers: {
					...(role && { authorization: `Bearer ${tokenOf(role)}` }),
					...(sent !== undefined && type !== "" && { "content-type": type }),
					...(last !== null && { "last-event-id": encodeURI(wellFormed(last)) }),
				},
			};
		});
}

interface Reply {
	readonly status: number;
	readonly type: string;
	readonly text: string;
}

function send({ method, path, body, headers }: Fuzzed): Promise<Reply> {
	return new Promise((resolve, reject) => {
		const req = request(
			{ host: "127.0.0.1", port: admin.port, method, path, headers, agent },
			(res: IncomingMessage) => {
				const type = String(res.headers["content-type"] ?? "");
				const status = res.statusCode ?? 0;
				if (type.startsWith("text/event-stream")) {
					req.destroy();
					resolve({ status, type, text: "" });
					return;
				}
				let text = "";
				res.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
				res.on("end", () => resolve({ status, type, text }));
				res.on("error", reject);
			},
		);
		req.on("error", reject);
		req.end(body);
	});
}

test(`${REQUESTS} requests made from the OpenAPI document: no 5xx, and every answer fits it`, async () => {
	const operations = Object.entries(DOCUMENT.paths).flatMap(([path, methods]) =>
		Object.entries(methods).map(([method, route]) => requestFor(path, method, route)),
	);
	const sample = fc.sample(fc.oneof(...operations), { numRuns: REQUESTS, seed: SEED });
	const wrong: object[] = [];
	const seen: Record<number, number> = {};
	const queue = sample[Symbol.iterator]();
	await Promise.all(
		Array.from({ length: AT_ONCE }, async () => {
			for (const one of queue) {
				const reply = await send(one);
				seen[reply.status] = (seen[reply.status] ?? 0) + 1;
				const problem = problemWith(one, reply);
				if (problem !== undefined) wrong.push({ problem, ...one, ...reply });
			}
		}),
	);
	expect(wrong.slice(0, 3)).toEqual([]);
	expect(seen[200]).toBeGreaterThan(REQUESTS / 20);
	expect((await admin.send("GET /readyz")).status).toBe(200);
}, 600_000);

function problemWith({ name }: Fuzzed, { status, type, text }: Reply): string | undefined {
	if (status >= 500) return "a 5xx";
	if (type.startsWith("text/event-stream")) return undefined;
	if (!type.startsWith("application/json")) return "an answer that is no JSON";
	const schema = status < 400 ? ROUTES[name].response.json : PROBLEM.json;
	const fault = faultOf(schema, JSON.parse(text));
	return fault && `${fault.field} ${fault.problem}`;
}
