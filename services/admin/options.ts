import {
	type Clock,
	COORDINATOR_SERVICE,
	type Duration,
	invalidOptions,
	type Random,
	systemClock,
	systemRandom,
	toMs,
} from "../../protocol/index.ts";
import { type Permission, PERMISSIONS, type Role, ROLES } from "./api/index.ts";
import { isMaskPath } from "./mask.ts";

/** A token that lets somebody in. */
export interface AdminToken {
	/** Who has it; shown in timelines and the audit log. */
	readonly name: string;
	readonly role: Role;
	/** SHA-256 of the token in hexadecimal; `newAdminToken` makes both. */
	readonly hash: string;
}

/** An OpenID provider whose bearer tokens are taken. Needs the package `jose`. */
export interface AdminOidc {
	/** As the tokens' `iss` has it. */
	readonly issuer: string;
	/** As the tokens' `aud` has it. */
	readonly audience: string;
	/** Where its keys are. @default what `<issuer>/.well-known/openid-configuration` says */
	readonly jwksUri?: string;
	/** Claim that has the role, by path; a list has several. @default "roles" */
	readonly roleClaim?: string;
	/** The claim's values and what they mean here. @default each role by its own name */
	readonly roles?: Readonly<Record<string, Role>>;
	/** Claim that has the person's name. @default "email", then "preferred_username", then "sub" */
	readonly nameClaim?: string;
}

/** Options of {@link LottorAdmin}. */
export interface LottorAdminOptions {
	/** HTTP port; 0 takes a free one. @default 9666 */
	readonly port?: number;
	/** Address to listen on. Others than this machine's own need `tokens` or `oidc`, and `hosts`. @default "127.0.0.1" */
	readonly ip?: string;
	/** Names under which it answers besides localhost: `["lottor.example.com"]`. @default [] */
	readonly hosts?: readonly string[];
	/** Who may come in. Without `tokens` and `oidc`, reading is open on this machine, and a link that is logged at start logs in. @default [] */
	readonly tokens?: readonly AdminToken[];
	/** An OpenID provider whose bearer tokens are taken. @default none */
	readonly oidc?: AdminOidc;
	/** Least role that has a permission, where it differs: `{ decide: "admin" }`. @default see `PERMISSIONS` */
	readonly permissions?: Partial<Readonly<Record<Permission, Role>>>;
	/** Payload paths that a role sees as `•••`: `{ viewer: ["card.number", "**.password"] }`. @default {} */
	readonly mask?: Partial<Readonly<Record<Role, readonly string[]>>>;
	/** Nobody can change anything. @default false */
	readonly readOnly?: boolean;
	/** How long a session lasts. @default "12h" */
	readonly sessionFor?: Duration;
	/** The session's cookie is for HTTPS only: set it behind a proxy that ends TLS. @default false */
	readonly secureCookie?: boolean;
	/** Link to a trace, with `{requestID}` in it. @default none */
	readonly traceUrl?: string;
	/** Name of the coordinator service. @default "lottor" */
	readonly coordinator?: string;
	/** Time limit of a call to the coordinator. @default "5s" */
	readonly callTimeout?: Duration;
	/** Largest body of a request, in bytes. @default 2097152 (2 MiB) */
	readonly maxBody?: number;
	/** Event streams that may be open at once. @default 500 */
	readonly maxStreams?: number;
	/** For tests. @default the machine's */
	readonly clock?: Clock;
	/** For tests. @default the machine's */
	readonly random?: Random;
}

/** The same, checked and complete; durations in milliseconds. */
export interface AdminSettings {
	readonly port: number;
	readonly ip: string;
	readonly hosts: readonly string[];
	readonly tokens: readonly AdminToken[];
	readonly oidc: AdminOidc | undefined;
	readonly permissions: Readonly<Record<Permission, Role>>;
	readonly mask: Readonly<Record<Role, readonly string[]>>;
	readonly readOnly: boolean;
	readonly sessionFor: number;
	readonly secureCookie: boolean;
	readonly traceUrl: string | undefined;
	readonly coordinator: string;
	readonly callTimeout: number;
	readonly maxBody: number;
	readonly maxStreams: number;
	readonly clock: Clock;
	readonly random: Random;
	/** Nobody was configured: reading is open, and a link logs in. */
	readonly open: boolean;
}

const LOOPBACK = ["127.0.0.1", "::1", "localhost"];
const KNOWN = [
	"port",
	"ip",
	"hosts",
	"tokens",
	"oidc",
	"permissions",
	"mask",
	"readOnly",
	"sessionFor",
	"secureCookie",
	"traceUrl",
	"coordinator",
	"callTimeout",
	"maxBody",
	"maxStreams",
	"clock",
	"random",
];

/** @throws LOTTOR_INVALID_OPTIONS that names the option */
export function readAdminOptions(options: LottorAdminOptions): AdminSettings {
	const unknown = Object.keys(options).find((key) => !KNOWN.includes(key));
	if (unknown !== undefined) throw invalid(unknown, "is not known");

	const { port = 9666, ip = "127.0.0.1", coordinator = COORDINATOR_SERVICE } = options;
	if (!Number.isInteger(port) || port < 0 || port > 65_535) {
		throw invalid("port", `must be a port from 0 to 65535, got ${String(port)}`);
	}
	if (typeof coordinator !== "string" || coordinator === "") {
		throw invalid("coordinator", "must be the name of a service");
	}
	const tokens = readTokens(options.tokens ?? []);
	const oidc = options.oidc === undefined ? undefined : readOidc(options.oidc);
	const hosts = readHosts(options.hosts ?? []);
	const open = tokens.length === 0 && oidc === undefined;
	if (typeof ip !== "string" || ip === "") throw invalid("ip", "must be an address");
	if (!LOOPBACK.includes(ip)) {
		const needs = `must be a loopback address (${LOOPBACK.join(", ")})`;
		if (open) throw invalid("ip", `${needs} while there are no tokens and no oidc`);
		if (hosts.length === 0) throw invalid("ip", `${needs} while hosts names none`);
	}
	return {
		port,
		ip,
		hosts,
		tokens,
		oidc,
		open,
		permissions: readPermissions(options.permissions ?? {}),
		mask: readMask(options.mask ?? {}),
		readOnly: truth(options.readOnly ?? false, "readOnly"),
		sessionFor: toMs(options.sessionFor ?? "12h", "LottorAdmin.sessionFor"),
		secureCookie: truth(options.secureCookie ?? false, "secureCookie"),
		traceUrl: readTraceUrl(options.traceUrl),
		coordinator,
		callTimeout: toMs(options.callTimeout ?? "5s", "LottorAdmin.callTimeout"),
		maxBody: whole(options.maxBody ?? 2 * 1_024 * 1_024, "maxBody"),
		maxStreams: whole(options.maxStreams ?? 500, "maxStreams"),
		clock: options.clock ?? systemClock,
		random: options.random ?? systemRandom,
	};
}

function readTokens(tokens: readonly AdminToken[]): readonly AdminToken[] {
	const given: unknown = tokens;
	if (!Array.isArray(given)) throw invalid("tokens", "must be a list");
	const names = new Set<string>();
	for (const [index, token] of tokens.entries()) {
		const field = `tokens[${index}]`;
		if (typeof token !== "object" || token === null) throw invalid(field, "must be an object");
		if (typeof token.name !== "string" || !/^[^\s:,]{1,100}$/.test(token.name)) {
			throw invalid(`${field}.name`, "must be a name without spaces, commas and colons");
		}
		if (names.has(token.name)) throw invalid(`${field}.name`, "is there twice");
		names.add(token.name);
		role(token.role, `${field}.role`);
		if (typeof token.hash !== "string" || !/^[0-9a-f]{64}$/.test(token.hash)) {
			throw invalid(`${field}.hash`, "must be a SHA-256 in 64 hexadecimal digits");
		}
	}
	return tokens;
}

function readOidc(oidc: AdminOidc): AdminOidc {
	const urls = {
		issuer: oidc.issuer,
		...(oidc.jwksUri !== undefined && { jwksUri: oidc.jwksUri }),
	};
	for (const [name, url] of Object.entries(urls)) {
		if (typeof url !== "string" || !URL.canParse(url) || !/^https?:/.test(url)) {
			throw invalid(`oidc.${name}`, "must be an HTTP URL");
		}
	}
	if (typeof oidc.audience !== "string" || oidc.audience === "") {
		throw invalid("oidc.audience", "must be what tokens have as aud");
	}
	for (const [value, meant] of Object.entries(oidc.roles ?? {})) {
		role(meant, `oidc.roles.${value}`);
	}
	return oidc;
}

function readHosts(hosts: readonly string[]): readonly string[] {
	const isHost = (host: unknown) => typeof host === "string" && /^[a-z0-9.:[\]-]+$/i.test(host);
	const given: unknown = hosts;
	if (!(Array.isArray(given) && given.every(isHost))) {
		throw invalid("hosts", "must be a list of host names");
	}
	return hosts.map((host) => host.toLowerCase());
}

function readPermissions(given: Partial<Record<Permission, Role>>): Record<Permission, Role> {
	for (const [name, least] of Object.entries(given)) {
		if (!Object.hasOwn(PERMISSIONS, name)) throw invalid(`permissions.${name}`, "is not known");
		role(least, `permissions.${name}`);
	}
	return { ...PERMISSIONS, ...given };
}

function readMask(mask: Partial<Record<Role, readonly string[]>>): Record<Role, readonly string[]> {
	for (const [name, paths] of Object.entries(mask)) {
		role(name, `mask.${name}`);
		if (!Array.isArray(paths) || !paths.every(isMaskPath)) {
			throw invalid(`mask.${name}`, 'must be a list of paths such as "card.number"');
		}
	}
	return { viewer: [], operator: [], admin: [], ...mask };
}

function readTraceUrl(url: string | undefined): string | undefined {
	if (url === undefined) return undefined;
	if (typeof url !== "string" || !/^https?:\/\/.*\{requestID\}/.test(url)) {
		throw invalid("traceUrl", "must be an HTTP URL with {requestID} in it");
	}
	return url;
}

function role(value: unknown, field: string): void {
	if (!(ROLES as readonly unknown[]).includes(value)) {
		throw invalid(field, `must be one of ${ROLES.join(", ")}`);
	}
}

function truth(value: unknown, field: string): boolean {
	if (typeof value !== "boolean") throw invalid(field, "must be true or false");
	return value;
}

function whole(value: unknown, field: string): number {
	if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 1) {
		throw invalid(field, "must be a whole number of 1 or more");
	}
	return value;
}

function invalid(field: string, problem: string) {
	return invalidOptions(`LottorAdmin.${field}`, problem);
}
