import { resolve } from "node:path";
import { describe, expect, test } from "@jest/globals";

import { readSettings } from "../../services/settings.ts";

describe("the environment", () => {
	test("everything has a default", () => {
		const data = resolve("data");
		expect(readSettings({})).toEqual({
			process: "all",
			data,
			tcpPort: 9888,
			transporter: undefined,
			discoverer: undefined,
			delivery: "direct",
			httpPort: 9666,
			admin: {},
			searchFields: [],
			userPort: 8009,
			authPort: 8007,
			lottorStore: `sqlite:${data}/lottor.db`,
			userStore: `sqlite:${data}/user.db`,
			authStore: `sqlite:${data}/auth.db`,
			logLevel: "info",
			times: {},
		});
	});

	test("an empty variable counts as not set", () => {
		expect(readSettings({ LOTTOR_PROCESS: "", LOTTOR_HTTP_PORT: " " })).toEqual(
			readSettings({}),
		);
	});

	test("who may come in over HTTP", () => {
		const hash = "0a".repeat(32);
		const { admin, searchFields } = readSettings({
			LOTTOR_HTTP_IP: "0.0.0.0",
			LOTTOR_HTTP_HOSTS: "lottor.example.com, 10.0.0.7",
			LOTTOR_ADMIN_TOKENS: `ann:admin:${hash},bob:viewer:${hash}`,
			LOTTOR_OIDC_ISSUER: "https://id.example.com",
			LOTTOR_OIDC_AUDIENCE: "lottor",
			LOTTOR_READ_ONLY: "true",
			LOTTOR_SEARCH_FIELDS: "user.id,order",
		});
		expect(admin).toEqual({
			ip: "0.0.0.0",
			hosts: ["lottor.example.com", "10.0.0.7"],
			tokens: [
				{ name: "ann", role: "admin", hash },
				{ name: "bob", role: "viewer", hash },
			],
			oidc: { issuer: "https://id.example.com", audience: "lottor" },
			readOnly: true,
		});
		expect(searchFields).toEqual(["user.id", "order"]);
	});

	test.each([
		[{ LOTTOR_HTTP_IP: "0.0.0.0" }, "LOTTOR_HTTP_IP"],
		[{ LOTTOR_HTTP_HOSTS: "http://x" }, "LOTTOR_HTTP_HOSTS"],
		[{ LOTTOR_ADMIN_TOKENS: "ann:admin:secret" }, "LOTTOR_ADMIN_TOKENS"],
		[{ LOTTOR_ADMIN_TOKENS: "ann" }, "LOTTOR_ADMIN_TOKENS"],
		[{ LOTTOR_OIDC_ISSUER: "https://id.example.com" }, "LOTTOR_OIDC_AUDIENCE"],
		[{ LOTTOR_OIDC_AUDIENCE: "lottor" }, "LOTTOR_OIDC_ISSUER"],
		[{ LOTTOR_READ_ONLY: "yes" }, "LOTTOR_READ_ONLY"],
	])("%j is refused by the variable's name, its value not shown", (env, field) => {
		expect(() => readSettings(env)).toThrow(
			expect.objectContaining({
				data: { field },
				message: expect.not.stringContaining("secret"),
			}),
		);
	});

	test("what is set is taken", () => {
		const settings = readSettings({
			LOTTOR_PROCESS: "auth",
			LOTTOR_DATA: "/tmp/lottor",
			LOTTOR_TCP_PORT: "19888",
			LOTTOR_HTTP_PORT: "0",
			LOTTOR_STORE: "sqlite:/tmp/other.db",
			USER_STORE: "sqlite:/tmp/user.db?guarantee=recorded",
			LOTTOR_LOG_LEVEL: "debug",
			LOTTOR_CHECK_AFTER: "1.5s",
			LOTTOR_LEASE: "200",
		});
		expect(settings).toMatchObject({
			process: "auth",
			data: "/tmp/lottor",
			tcpPort: 19_888,
			httpPort: 0,
			lottorStore: "sqlite:/tmp/other.db",
			userStore: "sqlite:/tmp/user.db?guarantee=recorded",
			authStore: "sqlite:/tmp/lottor/auth.db",
			logLevel: "debug",
			times: { checkAfter: 1_500, lease: 200 },
		});
	});

	test.each([
		["LOTTOR_PROCESS", "everything"],
		["LOTTOR_DATA", "./a?b"],
		["LOTTOR_TCP_PORT", "0"],
		["LOTTOR_TCP_PORT", "tcp://10.0.0.1:9888"],
		["LOTTOR_TRANSPORTER", "NATS"],
		["LOTTOR_TRANSPORTER", "tcp://10.0.0.1:9888/lottor"],
		["LOTTOR_DISCOVERER", "consul"],
		["LOTTOR_DISCOVERER", "consul://a:8500,b:8500"],
		["LOTTOR_DISCOVERER", "consul://localhost:8500"],
		["LOTTOR_HTTP_PORT", "65536"],
		["LOTTOR_USER_PORT", "-1"],
		["LOTTOR_AUTH_PORT", "80.5"],
		["LOTTOR_STORE", "nonsense:x"],
		["USER_STORE", "memory:"],
		["AUTH_STORE", "sqlite:"],
		["LOTTOR_LOG_LEVEL", "INFO"],
		["LOTTOR_CHECK_AFTER", "soon"],
		["LOTTOR_ACK_TIMEOUT", "-1"],
		["LOTTOR_LEASE", "1 week"],
	])("%s=%s is refused in one line that names it", (name, value) => {
		expect.assertions(2);
		try {
			readSettings({ [name]: value });
		} catch (error) {
			const { type, message } = error as { type: string; message: string };
			expect(type).toBe("LOTTOR_INVALID_OPTIONS");
			expect(message).toMatch(new RegExp(`^Option ${name} [^\\n]+$`));
		}
	});

	test("a registry with a transporter that carries heartbeats is taken", () => {
		const transporter = "nats://localhost:4222";
		for (const discoverer of [
			"consul://:token@localhost:8500?datacenter=dc2",
			"zookeeper://a:2181,b:2181/shop",
			"eureka://user:password@a:8761,b:8761/eureka",
			"etcd3://localhost:2379",
			"redis://localhost:6379",
		]) {
			const env = { LOTTOR_TRANSPORTER: transporter, LOTTOR_DISCOVERER: discoverer };
			expect(readSettings(env)).toMatchObject({ transporter, discoverer });
		}
	});

	test("a message broker is taken by its URL", () => {
		for (const delivery of [
			"amqp://user:password@localhost:5672",
			"kafka://a:9092,b:9092",
			"nats://localhost:4222",
			"redis://:password@localhost:6379/1",
		]) {
			expect(readSettings({ LOTTOR_BROKER: delivery })).toMatchObject({ delivery });
		}
	});

	test.each([
		["LOTTOR_BROKER", "mqtt://user:S3cret@host"],
		["LOTTOR_BROKER", "redis://:S3cret@"],
		["LOTTOR_TRANSPORTER", "tls://user:S3cret@host"],
		["LOTTOR_DISCOVERER", "consuls://:S3cret@host:port"],
		["LOTTOR_DISCOVERER", "unknown://:S3cret@host"],
	])("%s that is refused never shows its secret", (name, value) => {
		expect(() => readSettings({ [name]: value })).toThrow(`Option ${name}`);
		expect(() => readSettings({ [name]: value })).not.toThrow(/S3cret/);
	});
});
