import { type Duration, invalidOptions, isRecord, toMs } from "../../protocol/index.ts";
import type { ServiceAddress, TlsOptions } from "./contract.ts";

/** Options of every discoverer here. */
export interface DiscovererOptions {
	/** Seconds between two heartbeats. @default the broker's */
	readonly heartbeatInterval?: number;
	/** Seconds without a heartbeat after which a node counts as gone. @default the broker's */
	readonly heartbeatTimeout?: number;
	/** Address of this node that the registry shows. @default the first one of this machine that is not its own loopback */
	readonly address?: string;
	/** Where services serve HTTP, by full name. @default {} */
	readonly services?: Readonly<Record<string, ServiceAddress>>;
	/** Time limit of a request to the registry. @default "3s" */
	readonly requestTimeout?: Duration;
}

/** Names of the options above. */
export const COMMON = [
	"heartbeatInterval",
	"heartbeatTimeout",
	"address",
	"services",
	"requestTimeout",
];

const PATHS = ["homePath", "healthPath", "statusPath"] as const;
const SERVICE_KEYS = ["address", "port", "secure", "tags", "metadata", ...PATHS];
const TLS_KEYS = ["ca", "cert", "key", "passphrase", "servername", "rejectUnauthorized"];

/** @throws LOTTOR_INVALID_OPTIONS for what is no object, and for a key that is not known */
export function onlyKnown(options: unknown, known: readonly string[], field: string): void {
	if (!isRecord(options)) throw invalidOptions(field, "must be an object");
	const unknown = Object.keys(options).find((key) => !known.includes(key));
	if (unknown !== undefined) throw invalidOptions(`${field}.${unknown}`, "is not known");
}

/** Checks the options that all discoverers have. @returns the request's time limit in ms */
export function readCommon(options: DiscovererOptions, field: string): number {
	for (const name of ["heartbeatInterval", "heartbeatTimeout"] as const) {
		const value = options[name];
		if (value !== undefined && !(Number.isFinite(value) && value > 0)) {
			throw invalidOptions(`${field}.${name}`, "must be a number of seconds above 0");
		}
	}
	optionalText(options.address, `${field}.address`);
	const services: unknown = options.services ?? {};
	if (!isRecord(services)) throw invalidOptions(`${field}.services`, "must be an object");
	for (const [name, value] of Object.entries(services)) {
		readService(value, `${field}.services["${name}"]`);
	}
	return positiveMs(options.requestTimeout ?? "3s", `${field}.requestTimeout`);
}

function readService(value: unknown, field: string): void {
	if (!isRecord(value)) throw invalidOptions(field, "must be an object");
	onlyKnown(value, SERVICE_KEYS, field);
	const { port, secure, tags, metadata } = value;
	optionalText(value["address"], `${field}.address`);
	if (port !== undefined && !isPort(port)) {
		throw invalidOptions(`${field}.port`, "must be a port from 1 to 65535");
	}
	if (secure !== undefined && typeof secure !== "boolean") {
		throw invalidOptions(`${field}.secure`, "must be true or false");
	}
	for (const name of PATHS) {
		const path = value[name];
		if (path !== undefined && !(typeof path === "string" && path.startsWith("/"))) {
			throw invalidOptions(`${field}.${name}`, 'must begin with "/"');
		}
	}
	if (tags !== undefined && !(Array.isArray(tags) && tags.every(isText))) {
		throw invalidOptions(`${field}.tags`, "must be an array of strings");
	}
	if (metadata !== undefined && !(isRecord(metadata) && Object.values(metadata).every(isText))) {
		throw invalidOptions(`${field}.metadata`, "must be an object of strings");
	}
}

/** Checks the `tls` option. */
export function readTls(tls: unknown, field: string): TlsOptions {
	if (tls === undefined) return {};
	if (!isRecord(tls)) throw invalidOptions(field, "must be an object as node:tls takes it");
	onlyKnown(tls, TLS_KEYS, field);
	for (const name of ["ca", "cert", "key"]) {
		const given: unknown = tls[name] ?? [];
		for (const one of Array.isArray(given) ? (given as unknown[]) : [given]) {
			if ((isText(one) || Buffer.isBuffer(one)) && /-----BEGIN /.test(String(one))) continue;
			throw invalidOptions(`${field}.${name}`, "must be text in PEM, not the path of a file");
		}
	}
	return tls;
}

/** @returns milliseconds, 1 or more */
export function positiveMs(value: Duration, field: string): number {
	const ms = toMs(value, field);
	if (ms === 0) throw invalidOptions(field, "must be longer than 0");
	return ms;
}

/** @returns a string that is not empty, or undefined */
export function optionalText(value: unknown, field: string): string | undefined {
	if (value === undefined) return undefined;
	if (!isText(value) || value === "") throw invalidOptions(field, "must be a string, not empty");
	return value;
}

/** What a URL such as `zookeeper://user:password@a:2181,b:2181/path?x=1` says. */
export interface RegistryUrl {
	readonly scheme: string;
	readonly user: string;
	readonly password: string;
	/** Each `host:port`. */
	readonly hosts: readonly string[];
	/** Without a slash at the end; empty where there is none. */
	readonly path: string;
	readonly query: URLSearchParams;
}

/**
 * Reads a URL that may name several hosts. The error never shows the URL, since it may hold a secret.
 *
 * @throws LOTTOR_INVALID_OPTIONS naming `field`
 */
export function readUrl(
	text: unknown,
	schemes: readonly string[],
	defaultPort: number,
	field: string,
): RegistryUrl {
	const expected = `must be a URL such as ${String(schemes[0])}://host:${defaultPort}`;
	if (typeof text !== "string") throw invalidOptions(field, expected);
	const match = /^([a-z0-9]+):\/\/(?:([^@/]*)@)?([^@/?#]+)(\/[^?#]*)?(\?[^#]*)?$/.exec(text);
	const scheme = match?.[1] ?? "";
	if (!match || !schemes.includes(scheme)) throw invalidOptions(field, expected);

	const hosts = (match[3] ?? "").split(",").map((host) => {
		const parts = /^(\[[0-9a-fA-F:]+\]|[^:[\]\s]+)(?::(\d{1,5}))?$/.exec(host);
		const port = Number(parts?.[2] ?? defaultPort);
		if (!parts || !isPort(port))
			throw invalidOptions(field, `${expected}; a host is malformed`);
		return `${String(parts[1])}:${port}`;
	});
	const [user = "", ...rest] = (match[2] ?? "").split(":");
	try {
		return {
			scheme,
			user: decodeURIComponent(user),
			password: decodeURIComponent(rest.join(":")),
			hosts,
			path: decodeURIComponent(match[4] ?? "").replace(/\/+$/, ""),
			query: new URLSearchParams(match[5] ?? ""),
		};
	} catch {
		throw invalidOptions(field, `${expected}; it has a "%" that is no escape`);
	}
}

/** @throws LOTTOR_INVALID_OPTIONS for a query parameter that is not known */
export function onlyParameters(url: RegistryUrl, known: readonly string[], field: string): void {
	onlyKnown(Object.fromEntries(url.query), known, `${field} parameter`);
}

function isText(value: unknown): value is string {
	return typeof value === "string";
}

function isPort(value: unknown): value is number {
	return Number.isInteger(value) && Number(value) >= 1 && Number(value) <= 65_535;
}
