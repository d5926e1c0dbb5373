import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "@jest/globals";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";

import { type RouteDefinition, ROUTES } from "../../services/admin/api/index.ts";
import type { LottorAdminOptions } from "../../services/admin/index.ts";
import { startAdmin, type TestAdmin, tokenOf, withTokens } from "../support/admin.ts";
import { ManualClock } from "../support/manual-clock.ts";

const NO_GROUP = "01kc0000000000000000000000";
const NO_MESSAGE = `${NO_GROUP}.0`;

let admin: TestAdmin;
const cleanups: (() => Promise<unknown> | void)[] = [];

afterEach(async () => {
	for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(options: LottorAdminOptions = withTokens): Promise<TestAdmin> {
	admin = await startAdmin(options);
	cleanups.push(() => admin.stop());
	return admin;
}

/** What a browser keeps of a login: its cookie, and what /api/me tells it. */
function browserOf(answer: { headers: Readonly<Record<string, unknown>> }): { cookie: string } {
	const [cookie = ""] = answer.headers["set-cookie"] as string[];
	return { cookie: cookie.split(";")[0] ?? "" };
}

async function auditOf(): Promise<Record<string, unknown>[]> {
	const { body } = await admin.as("admin")("GET /api/audit");
	return body["items"] as Record<string, unknown>[];
}

/** Every route that needs a permission, with an id and a body that its schema takes. */
const GUARDED = Object.entries<RouteDefinition>(ROUTES)
	.filter(([, { permission }]) => permission !== null)
	.map(([name, { method, path, permission, body }]) => {
		const id = path.includes("/messages/") ? NO_MESSAGE : NO_GROUP;
		const line = `${method} ${path.replace(":id", id)}`;
		const wanted = body?.json.required ?? [];
		const sent = Object.fromEntries(wanted.map((field) => [field, "x"]));
		return { name, line, permission, sent: method === "GET" ? {} : { body: sent } };
	});

describe("without configuration", () => {
	test("reading is open, changing and what is for others is not: LOTTOR_LOGIN_REQUIRED", async () => {
		const { send } = await start({});
		for (const { name, line, permission, sent } of GUARDED) {
			if (name === "events") continue;
			const answer = await send(line, sent);
			if (permission === "read")
				expect({ name, ...answer }).not.toMatchObject({ status: 401 });
			else {
				expect({ name, ...answer }).toMatchObject({
					name,
					status: 401,
					body: { code: "LOTTOR_LOGIN_REQUIRED" },
				});
			}
		}
		expect((await send("GET /api/me")).body).toMatchObject({
			role: "viewer",
			via: "open",
			permissions: ["read"],
			csrf: null,
		});
	});

	test("the logged link logs in once, within an hour, as an administrator", async () => {
		const clock = new ManualClock();
		const { send, lottor } = await start({ clock });
		const newLink = async () => {
			const link = await lottor.broker.call<string>("lottor-admin.loginLink");
			expect(link).toMatch(/^http:\/\/localhost:\d+\/login\?code=[\w-]{43}$/);
			return `GET ${link.slice(link.indexOf("/login"))}`;
		};
		const line = await newLink();
		const answer = await send(line);
		expect(answer).toMatchObject({ status: 303, headers: { location: "/" } });
		expect(answer.headers["set-cookie"]).toEqual([
			expect.stringMatching(
				/^lottor_session=[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict; Max-Age=43200$/,
			),
		]);
		const headers = browserOf(answer);
		expect((await send("GET /api/me", { headers })).body).toMatchObject({
			name: "local",
			role: "admin",
			via: "session",
		});
		for (const used of [line, "GET /login", "GET /login?code=x", "GET /login?code=a&code=b"]) {
			expect(await send(used)).toMatchObject({
				status: 401,
				body: { code: "LOTTOR_LOGIN_REQUIRED" },
			});
		}
		const former = await newLink();
		const late = await newLink();
		expect((await send(former)).status).toBe(401);
		await clock.advance(3_600_001);
		expect((await send(late)).status).toBe(401);
	});

	test("the link can't be asked for from another node", async () => {
		const { lottor } = await start({});
		const actions = lottor.broker.registry.getActionList({}) as unknown as {
			name: string;
			action?: { visibility?: string };
		}[];
		const link = actions.find(({ name }) => name === "lottor-admin.loginLink");
		expect(link?.action?.visibility).toBe("protected");
	});
});

describe("tokens and roles", () => {
	test("nothing without one, but whether it lives", async () => {
		const { send } = await start();
		for (const { name, line, sent } of GUARDED) {
			expect({ name, ...(await send(line, sent)) }).toMatchObject({
				name,
				status: 401,
				headers: { "www-authenticate": "Bearer" },
				body: { code: "LOTTOR_LOGIN_REQUIRED" },
			});
		}
		for (const path of ["/api/docs", "/api/docs.js", "/api/openapi.json"]) {
			expect((await send(`GET ${path}`)).status).toBe(401);
		}
		expect((await send("GET /healthz")).status).toBe(200);
		for (const authorization of ["Bearer nonsense", "Bearer a.b.c", "Basic YTpi", "Bearer"]) {
			expect((await send("GET /api/groups", { headers: { authorization } })).status).toBe(
				401,
			);
		}
	});

	test("each action needs its permission: LOTTOR_FORBIDDEN, and the audit log notes who tried", async () => {
		const { as } = await start();
		for (const { name, line, permission, sent } of GUARDED) {
			if (name === "events") continue;
			for (const [role, may] of [
				["viewer", permission === "read"],
				["operator", permission !== "settings"],
				["admin", true],
			] as const) {
				const answer = await as(role)(line, sent);
				const forbidden = answer.body["code"] === "LOTTOR_FORBIDDEN";
				expect({ name, role, forbidden }).toEqual({ name, role, forbidden: !may });
				if (!may) {
					expect(answer).toMatchObject({
						status: 403,
						body: { data: { permission, role } },
					});
				}
			}
		}
		expect(await auditOf()).toEqual(
			expect.arrayContaining([
				expect.objectContaining({
					who: "viewer",
					action: "discardMessage",
					result: "refused",
					data: { role: "viewer", id: NO_MESSAGE },
				}),
			]),
		);
	});

	test("a permission can be moved to another role", async () => {
		const { as } = await start({
			...withTokens,
			permissions: { decide: "admin", retry: "viewer" },
		});
		const body = { why: "x" };
		expect(await as("operator")(`POST /api/groups/${NO_GROUP}/commit`, { body })).toMatchObject(
			{ status: 403 },
		);
		expect(await as("viewer")(`POST /api/messages/${NO_MESSAGE}/retry`)).toMatchObject({
			status: 404,
		});
		expect((await as("viewer")("GET /api/me")).body).toMatchObject({
			permissions: ["read", "retry"],
		});
	});

	test("read only: LOTTOR_READ_ONLY for every change, whoever asks, and nothing changes", async () => {
		const { as, failed, lottor } = await start({ ...withTokens, readOnly: true });
		const group = await failed();
		for (const { name, line, permission, sent } of GUARDED) {
			if (name === "events" || ["read", "audit", "settings"].includes(String(permission)))
				continue;
			expect({
				name,
				...(await as("admin")(line.replace(NO_GROUP, group), sent)),
			}).toMatchObject({ name, status: 403, body: { code: "LOTTOR_READ_ONLY" } });
		}
		expect((await lottor.message(group)).state).toBe("failed");
		expect((await as("admin")("GET /api/me")).body).toMatchObject({
			readOnly: true,
			permissions: ["read", "audit", "settings"],
		});
	});

	test("who did what, and why, is in the audit log; a batch as one entry", async () => {
		const { as, failed } = await start();
		const group = await failed();
		await as("operator")(`POST /api/messages/${group}.0/retry`, { body: { why: "mended" } });
		await as("operator")(`POST /api/messages/${NO_MESSAGE}/discard`, { body: { why: "gone" } });
		const entries = await auditOf();
		expect(entries).toMatchObject([
			{
				who: "operator",
				action: "discard",
				result: "unknown",
				subject: NO_MESSAGE,
				why: "gone",
				data: { code: "LOTTOR_MESSAGE_UNKNOWN" },
			},
			{
				who: "operator",
				action: "retry",
				result: "ok",
				subject: `${group}.0`,
				why: "mended",
			},
		]);
		const of = async (query: string) =>
			((await as("operator")(`GET /api/audit?${query}`)).body["items"] as object[]).length;
		expect(await of("action=retry")).toBe(1);
		expect(await of("who=nobody")).toBe(0);
		expect(await of("limit=1")).toBe(1);
	});
});

describe("sessions", () => {
	async function logIn(role: "viewer" | "operator" | "admin") {
		const answer = await admin.send("POST /api/login", { body: { token: tokenOf(role) } });
		expect(answer.status).toBe(200);
		return { headers: browserOf(answer), csrf: answer.body["csrf"] as string };
	}

	test("a token begins one; a change must bring its CSRF token", async () => {
		const { send, failed } = await start();
		const group = await failed();
		const { headers, csrf } = await logIn("operator");
		expect((await send("GET /api/me", { headers })).body).toMatchObject({
			name: "operator",
			via: "session",
			csrf,
		});
		const line = `POST /api/messages/${group}.0/retry`;
		for (const wrong of [{}, { "x-csrf-token": "" }, { "x-csrf-token": `${csrf}x` }]) {
			expect(await send(line, { headers: { ...headers, ...wrong } })).toMatchObject({
				status: 403,
				body: { code: "LOTTOR_FORBIDDEN", data: { field: "X-CSRF-Token" } },
			});
		}
		expect(await send(line, { headers: { ...headers, "x-csrf-token": csrf } })).toMatchObject({
			status: 200,
		});
		expect(await auditOf()).toEqual(
			expect.arrayContaining([
				expect.objectContaining({ who: "operator", action: "login", result: "ok" }),
			]),
		);
	});

	test("it ends by logout and by its time", async () => {
		const clock = new ManualClock();
		const { send } = await start({ ...withTokens, clock, sessionFor: "1h" });
		const first = await logIn("viewer");
		expect((await send("GET /api/me", first)).status).toBe(200);
		const out = await send("POST /api/logout", first);
		expect(out.headers["set-cookie"]).toEqual([expect.stringContaining("Max-Age=0")]);
		expect((await send("GET /api/me", first)).status).toBe(401);
		const second = await logIn("viewer");
		await clock.advance(3_600_001);
		expect(await send("GET /api/me", second)).toMatchObject({
			status: 401,
			body: { code: "LOTTOR_LOGIN_REQUIRED" },
		});
	});

	test("behind TLS the cookie is for HTTPS only", async () => {
		const { send } = await start({
			...withTokens,
			secureCookie: true,
			hosts: ["lottor.example.com"],
		});
		const host = "lottor.example.com";
		const answer = await send("POST /api/login", {
			headers: { host, origin: `https://${host}`, "sec-fetch-site": "same-origin" },
			body: { token: tokenOf("viewer") },
		});
		expect(answer.headers["set-cookie"]).toEqual([expect.stringMatching(/; Secure$/)]);
		expect(answer.headers["strict-transport-security"]).toBe("max-age=31536000");
	});

	test("guesses are turned away by the socket's address, whatever the headers say: LOTTOR_TOO_MANY_ATTEMPTS", async () => {
		const clock = new ManualClock();
		const { send } = await start({ ...withTokens, clock });
		const guess = (i: number) =>
			send("POST /api/login", {
				headers: { "x-forwarded-for": `10.0.0.${i}`, forwarded: `for=10.0.0.${i}` },
				body: { token: `guess-${i}` },
			});
		for (let i = 0; i < 10; i++) expect((await guess(i)).status).toBe(401);
		expect(await guess(11)).toMatchObject({
			status: 429,
			headers: { "retry-after": "300" },
			body: { code: "LOTTOR_TOO_MANY_ATTEMPTS" },
		});
		const headers = { authorization: "Bearer guess" };
		expect((await send("GET /api/groups", { headers })).status).toBe(429);
		expect((await send("GET /login?code=guess")).status).toBe(429);
		await clock.advance(300_001);
		expect((await guess(12)).status).toBe(401);
	});

	// Behind a proxy all have its address: wrong tokens of one must not lock out the others.
	test("wrong tokens lock out nobody who has a right one", async () => {
		const { send, as, lottor } = await start();
		const headers = { authorization: "Bearer of.a.script" };
		for (let i = 0; i < 20; i++) await send("GET /api/groups", { headers });
		expect((await send("GET /api/groups", { headers })).status).toBe(429);
		expect((await as("viewer")("GET /api/groups")).status).toBe(200);
		const right = { body: { token: tokenOf("admin") } };
		expect((await send("POST /api/login", right)).status).toBe(200);
		const link = await lottor.broker.call<string>("lottor-admin.loginLink");
		expect((await send(`GET ${link.slice(link.indexOf("/login"))}`)).status).toBe(303);
	});
});

describe("an OpenID provider", () => {
	let provider: Server;
	let issuer: string;
	/** What the provider says its keys are, and how often it was asked for anything. */
	let keySet: { status: number; body: string };
	let asked = 0;

	interface Over {
		readonly key?: CryptoKey;
		readonly aud?: string;
		readonly iss?: string;
		readonly exp?: number;
	}

	const inSeconds = (seconds: number) => Math.floor(Date.now() / 1_000) + seconds;

	function signed(key: CryptoKey, claims: JWTPayload, over: Omit<Over, "key"> = {}) {
		return new SignJWT(claims)
			.setProtectedHeader({ alg: "RS256", kid: "k1" })
			.setIssuer(over.iss ?? issuer)
			.setAudience(over.aud ?? "lottor")
			.setSubject("u1")
			.setExpirationTime(over.exp ?? inSeconds(600))
			.sign(key);
	}

	async function startProvider() {
		asked = 0;
		const keys = await generateKeyPair("RS256", { extractable: true });
		const jwk = { ...(await exportJWK(keys.publicKey)), kid: "k1", alg: "RS256", use: "sig" };
		keySet = { status: 200, body: JSON.stringify({ keys: [jwk] }) };
		provider = createServer((req, res) => {
			asked++;
			const found = { status: 200, body: JSON.stringify({ jwks_uri: `${issuer}/jwks` }) };
			const { status, body } = req.url?.endsWith("/jwks") ? keySet : found;
			res.writeHead(status, { "Content-Type": "application/json" });
			res.end(body);
		});
		await new Promise<void>((resolve) => provider.listen(0, "127.0.0.1", resolve));
		issuer = `http://127.0.0.1:${(provider.address() as AddressInfo).port}`;
		cleanups.push(() => {
			provider.closeAllConnections();
			provider.close();
		});
		return keys;
	}

	test("its tokens are taken with the roles they mean, and nobody else's", async () => {
		const { privateKey } = await startProvider();
		const other = await generateKeyPair("RS256");
		const { send } = await start({
			oidc: {
				issuer,
				audience: "lottor",
				roleClaim: "realm.roles",
				roles: { ops: "operator", look: "viewer" },
			},
		});
		const sign = (claims: JWTPayload, { key = privateKey, ...over }: Over = {}) =>
			signed(key, claims, over);
		const me = async (token: string) =>
			send("GET /api/me", { headers: { authorization: `Bearer ${token}` } });
		const claims = { email: "ann@example.com", realm: { roles: ["look", "ops", "other"] } };
		expect(await me(await sign(claims))).toMatchObject({
			status: 200,
			body: { name: "ann@example.com", role: "operator", via: "oidc" },
		});
		const session = await send("POST /api/login", { body: { token: await sign(claims) } });
		expect(session.body).toMatchObject({ via: "session", role: "operator" });
		expect(session.body["expiresAt"]).toBeLessThanOrEqual(Date.now() + 600_000);

		for (const token of [
			await sign(claims, { exp: inSeconds(-60) }),
			await sign(claims, { aud: "other" }),
			await sign(claims, { iss: "https://evil.example" }),
			await sign(claims, { key: other.privateKey }),
			await sign({ email: "bob@example.com", realm: { roles: ["other"] } }),
			await sign({ email: "bob@example.com", realm: { roles: ["constructor"] } }),
			"eyJhbGciOiJub25lIn0.e30.",
		]) {
			expect(await me(token)).toMatchObject({
				status: 401,
				body: { code: "LOTTOR_LOGIN_REQUIRED" },
			});
		}
	});

	test("a token that it signed and that is over, or for somebody else, is no guess", async () => {
		const { privateKey } = await startProvider();
		const { send } = await start({ oidc: { issuer, audience: "lottor" } });
		const me = async (token: string) =>
			send("GET /api/me", { headers: { authorization: `Bearer ${token}` } });
		const roles = ["viewer"];
		const refused = [
			await signed(privateKey, { roles }, { exp: inSeconds(-60) }),
			await signed(privateKey, { roles }, { aud: "other" }),
			await signed(privateKey, { roles: [] }),
		];
		for (let i = 0; i < 15; i++) {
			for (const token of refused) {
				expect(await me(token)).toMatchObject({
					status: 401,
					body: { code: "LOTTOR_LOGIN_REQUIRED" },
				});
			}
		}
		const { privateKey: other } = await generateKeyPair("RS256");
		const guess = await signed(other, { roles });
		for (let i = 0; i < 10; i++) expect((await me(guess)).status).toBe(401);
		expect((await me(guess)).status).toBe(429);
		expect((await me(await signed(privateKey, { roles }))).status).toBe(200);
		// Its configuration and its keys, whatever was sent.
		expect(asked).toBe(2);
	});

	test("one that can't be reached is no failed login: LOTTOR_IDENTITY_UNAVAILABLE", async () => {
		issuer = "http://127.0.0.1:1";
		const { send } = await start({ oidc: { issuer, audience: "lottor" } });
		const { privateKey } = await generateKeyPair("RS256");
		const token = await signed(privateKey, { roles: ["viewer"] });
		for (let i = 0; i < 12; i++) {
			const headers = { authorization: `Bearer ${token}` };
			expect(await send("GET /api/me", { headers })).toMatchObject({
				status: 503,
				body: { code: "LOTTOR_IDENTITY_UNAVAILABLE" },
			});
		}
	});

	test("nor is one that answers, but not with its keys; then it works again", async () => {
		const { privateKey } = await startProvider();
		const keys = keySet;
		const { send } = await start({ oidc: { issuer, audience: "lottor" } });
		const token = await signed(privateKey, { roles: ["viewer"] });
		const me = () => send("GET /api/me", { headers: { authorization: `Bearer ${token}` } });
		for (const wrong of [
			{ status: 500, body: "{}" },
			{ status: 302, body: "" },
			{ status: 200, body: "<h1>Down for maintenance</h1>" },
			{ status: 200, body: '{"error":"try later"}' },
		]) {
			keySet = wrong;
			for (let i = 0; i < 4; i++) {
				expect({ wrong, ...(await me()) }).toMatchObject({
					wrong,
					status: 503,
					body: { code: "LOTTOR_IDENTITY_UNAVAILABLE" },
				});
			}
		}
		keySet = keys;
		expect(await me()).toMatchObject({ status: 200, body: { role: "viewer", via: "oidc" } });
	});

	test("nobody asks it about what has no form of a token", async () => {
		await startProvider();
		const { send } = await start({ oidc: { issuer, audience: "lottor" } });
		for (const token of ["a.b.c", "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJIUzI1NiJ9.e30.x"]) {
			const headers = { authorization: `Bearer ${token}` };
			expect((await send("GET /api/me", { headers })).status).toBe(401);
		}
		expect(asked).toBe(0);
	});
});

describe("masks", () => {
	const PAYLOAD = {
		card: { number: "4111-1111", holder: "Ada" },
		users: [{ password: "pw-1" }, { password: "pw-2", name: "Bob" }],
	};
	const options: LottorAdminOptions = {
		...withTokens,
		mask: { viewer: ["card.number", "**.password"], operator: ["**.password"] },
		traceUrl: "https://traces.example.com/{requestID}?x",
	};

	test("hide payload fields by role: in payloads, former ones, context and columns", async () => {
		const { as, failed, lottor } = await start(options);
		await failed(JSON.stringify(PAYLOAD));
		const group = await lottor.prepare([{ content: JSON.stringify(PAYLOAD) }], {
			context: '{"requestID":"r/1","meta":{"password":"pw-3"}}',
		});
		const viewed = (await as("viewer")(`GET /api/groups/${group}`)).body;
		const hidden = {
			card: { number: "•••", holder: "Ada" },
			users: [{ password: "•••" }, { password: "•••", name: "Bob" }],
		};
		expect(viewed).toMatchObject({
			messages: [{ payload: hidden, revisions: [{ payload: hidden }] }],
			context: { requestID: "r/1", meta: { password: "•••" } },
			trace: "https://traces.example.com/r%2F1?x",
		});
		expect((await as("operator")(`GET /api/groups/${group}`)).body).toMatchObject({
			messages: [
				{ payload: { card: { number: "4111-1111" }, users: [{ password: "•••" }, {}] } },
			],
		});
		expect((await as("admin")(`GET /api/groups/${group}`)).body).toMatchObject({
			messages: [{ payload: PAYLOAD }],
		});
		const columns = await as("viewer")(
			"GET /api/messages?fields=card.number,card,users.password,users.name",
		);
		expect(columns.body).toMatchObject({
			items: [{ fields: { "card.number": "•••", "users.name": "Bob" } }, {}],
		});
		for (const secret of ["4111-1111", "pw-1", "pw-2", "pw-3"]) {
			expect(JSON.stringify([viewed, columns.body])).not.toContain(secret);
		}
	});

	test("an edit leaves what its author can't see as it was", async () => {
		const { as, failed } = await start(options);
		const group = await failed(JSON.stringify(PAYLOAD));
		const edit = (payload: unknown) =>
			as("operator")(`PUT /api/messages/${group}.0/payload`, {
				body: { payload, why: "a slip" },
			});
		const shown = {
			card: { number: "4222-2222", holder: "Ada" },
			users: [{ password: "•••" }, { password: "pw-9", name: "Bob" }],
		};
		expect((await edit(shown)).status).toBe(200);
		expect((await as("admin")(`GET /api/groups/${group}`)).body).toMatchObject({
			messages: [
				{
					payload: {
						card: { number: "4222-2222", holder: "Ada" },
						users: [{ password: "pw-1" }, { password: "pw-9", name: "Bob" }],
					},
				},
			],
		});
		const nowhere = { users: [{}, {}, { password: "•••" }] };
		expect(await edit(nowhere)).toMatchObject({
			status: 422,
			body: { code: "LOTTOR_INVALID_REQUEST", data: { field: "payload" } },
		});
	});
});

describe("what browsers are told", () => {
	test("every answer has the headers, errors and pages too", async () => {
		const { send, as } = await start();
		for (const answer of [
			await send("GET /healthz"),
			await send("GET /api/groups"),
			await send("GET /nothing/here"),
			await as("viewer")("GET /api/openapi.json"),
			await send("GET /api/groups", { headers: { host: "evil.example" } }),
		]) {
			const csp = String(answer.headers["content-security-policy"]);
			expect(csp).toContain("default-src 'none'; script-src 'self';");
			expect(csp).toContain("require-trusted-types-for 'script'");
			expect(csp).not.toContain("unsafe-eval");
			expect(csp.replace("style-src-attr 'unsafe-inline'", "")).not.toContain(
				"unsafe-inline",
			);
			expect(answer.headers).toMatchObject({
				"x-content-type-options": "nosniff",
				"x-frame-options": "DENY",
				"referrer-policy": "no-referrer",
				"cross-origin-opener-policy": "same-origin",
				"cache-control": "no-store",
			});
			expect(answer.headers).not.toHaveProperty("access-control-allow-origin");
		}
	});

	test("the page to try the interface has no inline script or style, and asks nobody else", async () => {
		const { as } = await start();
		const files = await Promise.all(
			["/api/docs", "/api/docs.js", "/api/docs.css"].map((path) => text(path)),
		);
		expect(files.map(({ type }) => type)).toEqual([
			"text/html; charset=utf-8",
			"text/javascript; charset=utf-8",
			"text/css; charset=utf-8",
		]);
		const [page = "", script = "", style = ""] = files.map((file) => file.text);
		expect(page).not.toMatch(/<script(?![^>]*\bsrc="\/)|<style|\bon\w+=|style=/);
		expect(script).not.toMatch(/innerHTML|insertAdjacentHTML|document\.write|eval\(/);
		for (const file of [page, script, style]) expect(file).not.toMatch(/https?:\/\//);
		const { body } = await as("viewer")("GET /api/openapi.json");
		expect(body).toMatchObject({ openapi: "3.1.0", info: { title: "Lottor" } });
	});

	async function text(path: string): Promise<{ type: string | null; text: string }> {
		const headers = { authorization: `Bearer ${tokenOf("viewer")}` };
		const answer = await fetch(`http://127.0.0.1:${admin.port}${path}`, { headers });
		return { type: answer.headers.get("content-type"), text: await answer.text() };
	}

	test("health can be asked under any name", async () => {
		const { send } = await start();
		const headers = { host: "10.1.2.3:9666" };
		expect((await send("GET /healthz", { headers })).status).toBe(200);
		expect((await send("GET /api/groups", { headers })).status).toBe(403);
	});

	test("no URL is logged: a login link's code is part of one", async () => {
		const { send, lottor } = await start({});
		const logged: string[] = [];
		const { logger } = lottor.broker.getLocalService("lottor-admin");
		for (const level of ["info", "debug", "warn", "error"] as const) {
			logger[level] = (...args: unknown[]) => void logged.push(JSON.stringify(args));
		}
		await send("GET /login?code=sesame");
		await send("GET /api/groups?text=sesame");
		expect(logged.join("\n")).not.toContain("sesame");
	});
});
