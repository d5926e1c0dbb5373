import { join, resolve } from "node:path";

import { resolveCoordinatorStore } from "../adapters/coordinator-store/index.ts";
import { resolveDelivery } from "../adapters/delivery/index.ts";
import { resolveDiscoverer } from "../adapters/discoverer/index.ts";
import { resolveParticipantStore } from "../adapters/participant-store/index.ts";
import {
	type Duration,
	invalidOptions,
	messageOf,
	systemClock,
	systemRandom,
	toMs,
} from "../protocol/index.ts";

import type { LottorAdminOptions } from "./admin/index.ts";
import { readAdminOptions } from "./admin/options.ts";

/** Which of the services this process runs: all of them, or one of the three processes. */
export const PROCESSES = ["all", "lottor", "admin", "auth", "user"] as const;
export type ProcessName = (typeof PROCESSES)[number];

const LOG_LEVELS = ["fatal", "error", "warn", "info", "debug", "trace"] as const;

/** Times of the coordinator that can be set from outside, each named as its option. */
export interface CoordinatorTimes {
	readonly checkAfter?: Duration;
	readonly ackTimeout?: Duration;
	readonly lease?: Duration;
}

/** What the shipped configuration and services read from the environment. */
export interface Settings {
	/** `LOTTOR_PROCESS`. @default "all" */
	readonly process: ProcessName;
	/** `LOTTOR_DATA`: the folder of the databases, absolute. @default "./data" */
	readonly data: string;
	/** `LOTTOR_TCP_PORT`: where the coordinator's process is found by the others. @default 9888 */
	readonly tcpPort: number;
	/** `LOTTOR_TRANSPORTER`: URL of the transporter. @default none for one process, loopback TCP for three */
	readonly transporter: string | undefined;
	/** `LOTTOR_DISCOVERER`: URL of the registry; needs a transporter. @default Moleculer's own discovery */
	readonly discoverer: string | undefined;
	/**
	 * `LOTTOR_BROKER`: URL of the message broker that delivers (`amqp://`, `kafka://`, `nats://`,
	 * `redis://`). @default "direct", by calls
	 */
	readonly delivery: string;
	/** `LOTTOR_HTTP_PORT`: HTTP port of the coordinator; 0 takes a free one. @default 9666 */
	readonly httpPort: number;
	/**
	 * Who may do what over HTTP, and under which names it answers: `LOTTOR_HTTP_IP`,
	 * `LOTTOR_HTTP_HOSTS`, `LOTTOR_ADMIN_TOKENS` (`<name>:<role>:<SHA-256>`, separated by commas),
	 * `LOTTOR_OIDC_ISSUER`, `LOTTOR_OIDC_AUDIENCE`, `LOTTOR_READ_ONLY`, where they are set.
	 */
	readonly admin: LottorAdminOptions;
	/** `LOTTOR_SEARCH_FIELDS`: payload fields to find messages by, separated by commas. @default none */
	readonly searchFields: readonly string[];
	/** `LOTTOR_USER_PORT`: HTTP port of the sample `user`; 0 takes a free one. @default 8009 */
	readonly userPort: number;
	/** `LOTTOR_AUTH_PORT`: HTTP port of the sample `auth`; 0 takes a free one. @default 8007 */
	readonly authPort: number;
	/** `LOTTOR_STORE`: the coordinator's store. @default `sqlite:<data>/lottor.db` */
	readonly lottorStore: string;
	/** `USER_STORE`: database of the sample `user`. @default `sqlite:<data>/user.db` */
	readonly userStore: string;
	/** `AUTH_STORE`: database of the sample `auth`. @default `sqlite:<data>/auth.db` */
	readonly authStore: string;
	/** `LOTTOR_SECRET`: all nodes sign their calls with it and refuse others. @default unsigned calls */
	readonly secret: string | undefined;
	/** `LOTTOR_LOG_LEVEL`. @default "info" */
	readonly logLevel: (typeof LOG_LEVELS)[number];
	/** `LOTTOR_CHECK_AFTER`, `LOTTOR_ACK_TIMEOUT`, `LOTTOR_LEASE`, where they are set. */
	readonly times: CoordinatorTimes;
}

/** Transporters that Moleculer finds by their URL and that carry heartbeats. */
const TRANSPORTERS = "nats redis rediss amqp amqps amqp10 mqtt mqtts kafka".split(" ");

/** For stores that are made only to have a wrong URL refused by its variable's name. */
const MACHINE = { clock: systemClock, random: systemRandom };

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the environment. Moleculer's runner has its own way to set broker options from it; these
 * variables are apart from that, since it turns text such as `TRUE` or `007` into something else.
 *
 * @throws LOTTOR_INVALID_OPTIONS that names the variable
 */
export function readSettings(env: Environment = process.env): Settings {
	const data = resolve(text(env, "LOTTOR_DATA") ?? "data");
	if (data.includes("?")) throw invalidOptions("LOTTOR_DATA", "must not have a ? in its path");
	const store = (name: string, file: string) => text(env, name) ?? `sqlite:${join(data, file)}`;
	const sampleStore = (name: string, file: string) => {
		const url = store(name, file);
		if (/^memory:?$/i.test(url)) {
			throw invalidOptions(name, "must be a database that has the sample's rows too");
		}
		resolveParticipantStore(url, name, MACHINE);
		return url;
	};
	const lottorStore = store("LOTTOR_STORE", "lottor.db");
	resolveCoordinatorStore(lottorStore, "LOTTOR_STORE", MACHINE);
	return {
		process: oneOf(env, "LOTTOR_PROCESS", PROCESSES) ?? "all",
		data,
		tcpPort: port(env, "LOTTOR_TCP_PORT", 1) ?? 9888,
		...readNetwork(text(env, "LOTTOR_TRANSPORTER"), text(env, "LOTTOR_DISCOVERER"), [
			"LOTTOR_TRANSPORTER",
			"LOTTOR_DISCOVERER",
		]),
		delivery: readBroker(text(env, "LOTTOR_BROKER"), "LOTTOR_BROKER"),
		httpPort: port(env, "LOTTOR_HTTP_PORT", 0) ?? 9666,
		admin: readAdmin(env),
		searchFields: list(env, "LOTTOR_SEARCH_FIELDS"),
		userPort: port(env, "LOTTOR_USER_PORT", 0) ?? 8009,
		authPort: port(env, "LOTTOR_AUTH_PORT", 0) ?? 8007,
		lottorStore,
		userStore: sampleStore("USER_STORE", "user.db"),
		authStore: sampleStore("AUTH_STORE", "auth.db"),
		secret: text(env, "LOTTOR_SECRET"),
		logLevel: oneOf(env, "LOTTOR_LOG_LEVEL", LOG_LEVELS) ?? "info",
		times: {
			...duration(env, "LOTTOR_CHECK_AFTER", "checkAfter"),
			...duration(env, "LOTTOR_ACK_TIMEOUT", "ackTimeout"),
			...duration(env, "LOTTOR_LEASE", "lease"),
		},
	};
}

/**
 * Checks the URLs of what holds several nodes together. No error shows one, since it may hold a secret.
 *
 * @param fields what both are called in an error
 * @throws LOTTOR_INVALID_OPTIONS that names the field
 */
export function readNetwork(
	transporter: string | undefined,
	discoverer: string | undefined,
	fields: readonly [transporter: string, discoverer: string],
): Pick<Settings, "transporter" | "discoverer"> {
	const [transporterField, discovererField] = fields;
	const scheme = /^([a-z0-9]+):\/\/[^/]/.exec(transporter ?? "")?.[1];
	if (transporter !== undefined && !TRANSPORTERS.includes(scheme ?? "")) {
		const schemes = TRANSPORTERS.map((name) => `${name}://`);
		throw invalidOptions(transporterField, `must be a URL: ${schemes.join(", ")}`);
	}
	if (discoverer !== undefined) {
		try {
			resolveDiscoverer(discoverer);
		} catch (error) {
			throw invalidOptions(discovererField, `is not usable: ${messageOf(error)}`);
		}
		if (transporter === undefined) {
			throw invalidOptions(
				discovererField,
				`needs ${transporterField}, since heartbeats and calls go over it`,
			);
		}
	}
	return { transporter, discoverer };
}

/**
 * Checks the URL of the message broker.
 *
 * @param field what it is called in an error
 * @returns what the option `delivery` takes
 * @throws LOTTOR_INVALID_OPTIONS that names the field; it does not show the URL, which may hold a secret
 */
export function readBroker(broker: string | undefined, field: string): string {
	if (broker === undefined) return "direct";
	resolveDelivery(broker, field);
	return broker;
}

function readAdmin(env: Environment): LottorAdminOptions {
	const ip = text(env, "LOTTOR_HTTP_IP");
	const hosts = list(env, "LOTTOR_HTTP_HOSTS");
	const tokens = list(env, "LOTTOR_ADMIN_TOKENS").map((entry) => {
		const [name = "", role = "", hash = ""] = entry.split(":");
		return { name, role: role as "viewer", hash };
	});
	const issuer = text(env, "LOTTOR_OIDC_ISSUER");
	const audience = text(env, "LOTTOR_OIDC_AUDIENCE");
	const readOnly = oneOf(env, "LOTTOR_READ_ONLY", ["true", "false"]);
	const options: LottorAdminOptions = {
		...(ip !== undefined && { ip }),
		...(hosts.length > 0 && { hosts }),
		...(tokens.length > 0 && { tokens }),
		...((issuer ?? audience) !== undefined && {
			oidc: { issuer: issuer ?? "", audience: audience ?? "" },
		}),
		...(readOnly !== undefined && { readOnly: readOnly === "true" }),
	};
	try {
		readAdminOptions(options);
	} catch (error) {
		// The option's name tells the variable; its value may be a secret and is not shown.
		throw invalidOptions(variableOf(error), `is not usable: ${messageOf(error)}`);
	}
	return options;
}

const ADMIN_VARIABLES: Readonly<Record<string, string>> = {
	ip: "LOTTOR_HTTP_IP",
	hosts: "LOTTOR_HTTP_HOSTS",
	tokens: "LOTTOR_ADMIN_TOKENS",
	"oidc.issuer": "LOTTOR_OIDC_ISSUER",
	"oidc.audience": "LOTTOR_OIDC_AUDIENCE",
};

function variableOf(error: unknown): string {
	const { field = "" } = (error as { readonly data?: { readonly field?: string } }).data ?? {};
	const option = field.replace(/^LottorAdmin\./, "").replace(/\[.*$/, "");
	return ADMIN_VARIABLES[option] ?? field;
}

/** Values separated by commas. */
function list(env: Environment, name: string): string[] {
	return (text(env, name) ?? "")
		.split(",")
		.map((value) => value.trim())
		.filter((value) => value !== "");
}

/** An empty variable counts as not set. */
function text(env: Environment, name: string): string | undefined {
	return env[name]?.trim() || undefined;
}

function oneOf<const T extends string>(
	env: Environment,
	name: string,
	allowed: readonly T[],
): T | undefined {
	const value = text(env, name);
	if (value === undefined) return undefined;
	const found = allowed.find((item) => item === value);
	if (found === undefined) {
		throw invalidOptions(name, `must be one of ${allowed.join(", ")}, got "${value}"`);
	}
	return found;
}

function port(env: Environment, name: string, min: number): number | undefined {
	const value = text(env, name);
	if (value === undefined) return undefined;
	const number = /^\d{1,5}$/.test(value) ? Number(value) : Number.NaN;
	if (!(number >= min && number <= 65_535)) {
		throw invalidOptions(name, `must be a port from ${min} to 65535, got "${value}"`);
	}
	return number;
}

function duration(env: Environment, name: string, option: keyof CoordinatorTimes) {
	const value = text(env, name);
	if (value === undefined) return {};
	return { [option]: toMs(value, name) };
}
