import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";

import { kafka } from "../../scripts/servers/kafka.ts";
import { nats } from "../../scripts/servers/nats.ts";
import { rabbitmq } from "../../scripts/servers/rabbitmq.ts";
import { mongodb } from "../../scripts/servers/mongodb.ts";
import { postgres } from "../../scripts/servers/postgres.ts";
import { redis } from "../../scripts/servers/redis.ts";
import { Runner } from "../support/runner.ts";
import { withServer } from "../support/servers.ts";

const PATIENCE_MS = 300_000;

const ALL = [
	"success",
	"local-failure",
	"consume-failure-then-retry",
	"fan-out",
	"delayed",
	"duplicate-delivery",
	"producer-killed-after-commit",
	"producer-killed-before-commit",
	"coordinator-killed",
	"consumer-killed",
	"in-doubt",
];

let folder: string;

beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "lottor-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

interface Result {
	readonly ok: boolean;
	readonly scenarios: readonly {
		readonly name: string;
		readonly guarantee: string;
		readonly ok: boolean;
		readonly group: string;
		readonly messages: readonly { readonly state: string }[];
	}[];
}

test(
	"npm run demo: every scenario ends as its store's guarantee says",
	async () => {
		const demo = new Runner("demo", { TMPDIR: folder }, "--json");
		const end = await demo.ended();
		const last = demo.stdout.trimEnd().split("\n").at(-1) ?? "";
		const { ok, scenarios } = JSON.parse(last) as Result;

		expect(scenarios.filter((one) => !one.ok)).toEqual([]);
		expect(scenarios.map(({ name }) => name)).toEqual(ALL);
		expect({ ok, end }).toEqual({ ok: true, end: [0, null] });
		const states = scenarios.map(({ messages }) => messages.map(({ state }) => state));
		expect(states).toEqual([
			["consumed"],
			["discarded"],
			["consumed"],
			["consumed", "consumed", "consumed"],
			["consumed"],
			["consumed"],
			["consumed"],
			["discarded"],
			["consumed"],
			["consumed"],
			["consumed"],
		]);
		expect(readdirSync(folder)).toEqual([]);
	},
	PATIENCE_MS,
);

describe("npm run demo: --broker has the messages delivered over", () => {
	const quick = ["duplicate-delivery", "consumer-killed"];
	// The brokers have the same contract; one is enough for all scenarios.
	for (const [kind, played] of [
		[redis, quick],
		[nats, ALL],
		[rabbitmq, quick],
		[kafka, quick],
	] as const) {
		withServer(kind, kind.name, (url) => {
			test(
				`${kind.name}, ${played.length} scenarios`,
				async () => {
					const only = played.map((name) => `--only ${name}`).join(" ");
					const demo = new Runner(
						"demo",
						{ TMPDIR: folder },
						`--json ${only} --broker ${url}`,
					);
					const end = await demo.ended();
					const { ok, scenarios } = JSON.parse(demo.stdout) as Result;

					expect(scenarios.filter((one) => !one.ok)).toEqual([]);
					expect(scenarios.map(({ name }) => name)).toEqual(played);
					expect({ ok, end }).toEqual({ ok: true, end: [0, null] });
				},
				PATIENCE_MS,
			);
		});
	}
});

const REGISTRIES = ["CONSUL_URL", "ZOOKEEPER_URL", "EUREKA_URL"];
const { NATS_URL: transporter } = process.env;
const present = transporter !== undefined && REGISTRIES.every((name) => process.env[name]);
const required = process.env["LOTTOR_REQUIRE_SERVERS"] === "1";
(present || required ? test : test.skip)(
	"npm run demo: the processes find each other by Consul, ZooKeeper or Eureka",
	async () => {
		if (!present) {
			throw new Error(`${REGISTRIES.join()} and NATS_URL must be set: npm run servers -- up`);
		}
		const scenarios = ["success", "coordinator-killed", "consumer-killed"];
		const only = scenarios.map((name) => `--only ${name}`).join(" ");
		// At the same time, since they mostly wait.
		const results = await Promise.all(
			REGISTRIES.map(async (name) => {
				const network = `--discoverer ${String(process.env[name])} --transporter ${transporter}`;
				const demo = new Runner("demo", { TMPDIR: folder }, `--json ${only} ${network}`);
				const end = await demo.ended();
				const last = demo.stdout.trimEnd().split("\n").at(-1) ?? "";
				const { ok, scenarios: played } = JSON.parse(last) as Result;
				return { name, ok, end, played: played.map((one) => [one.name, one.ok]) };
			}),
		);
		expect(results).toEqual(
			REGISTRIES.map((name) => ({
				name,
				ok: true,
				end: [0, null],
				played: scenarios.map((scenario) => [scenario, true]),
			})),
		);
	},
	PATIENCE_MS,
);

test("npm run demo: --only plays one, for a person to read", async () => {
	const demo = new Runner("demo", { TMPDIR: folder }, "--only local-failure");
	expect(await demo.ended()).toEqual([0, null]);
	expect(demo.output).toContain("[1/1] local-failure");
	expect(demo.output).toMatch(/All 1 held, in [\d.]+ s\./);
}, 60_000);

test.each(["--fast", "--only nonsense", "success"])("npm run demo: %s is refused", async (args) => {
	const demo = new Runner("demo", { TMPDIR: folder }, args);
	expect(await demo.ended()).toEqual([2, null]);
	expect(demo.output).toContain("npm run demo -- [options]");
	expect(existsSync(folder) && readdirSync(folder)).toEqual([]);
});

test("npm run demo: --help lists the scenarios", async () => {
	const demo = new Runner("demo", {}, "--help");
	expect(await demo.ended()).toEqual([0, null]);
	for (const name of ALL) expect(demo.output).toContain(name);
});

/** The quick ones; the rest differs by store in time only. */
const ON_SERVERS = [
	"success",
	"local-failure",
	"producer-killed-after-commit",
	"coordinator-killed",
];

for (const [kind, guarantee] of [
	[postgres, "transactional"],
	[redis, "recorded"],
	[mongodb, "transactional"],
] as const) {
	const title = `npm run demo: coordinator on mongodb, services on ${kind.name}`;
	withServer(mongodb, title, (coordinator) => {
		withServer(kind, title, (participants) => {
			test(
				`${title}: as a ${guarantee} store promises`,
				async () => {
					const demo = new Runner(
						"demo",
						{ TMPDIR: folder },
						[
							`--json --coordinator-store ${coordinator} --participant-store ${participants}`,
							...ON_SERVERS.map((name) => `--only ${name}`),
						].join(" "),
					);
					const end = await demo.ended();
					const last = demo.stdout.trimEnd().split("\n").at(-1) ?? "";
					const { ok, scenarios } = JSON.parse(last) as Result;

					expect(scenarios.filter((one) => !one.ok)).toEqual([]);
					expect(scenarios.map((one) => [one.name, one.guarantee])).toEqual(
						ON_SERVERS.map((name) => [name, guarantee]),
					);
					expect({ ok, end }).toEqual({ ok: true, end: [0, null] });
				},
				PATIENCE_MS,
			);
		});
	});
}
