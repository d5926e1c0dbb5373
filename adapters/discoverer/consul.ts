import { setTimeout as sleep } from "node:timers/promises";

import { type Duration, invalidOptions, LottorError } from "../../protocol/index.ts";
import { RegistryDiscoverer } from "./base.ts";
import type {
	Instance,
	Member,
	MemberRegistry,
	NodeInfo,
	Publication,
	Site,
	TlsOptions,
} from "./contract.ts";
import { type HttpAnswer, HttpClient, type HttpRequest } from "./http.ts";
import { fromRegistryName, toRegistryName } from "./instances.ts";
import {
	COMMON,
	type DiscovererOptions,
	onlyKnown,
	onlyParameters,
	optionalText,
	positiveMs,
	readCommon,
	readTls,
	readUrl,
} from "./options.ts";

/** Options of {@link ConsulDiscoverer}. */
export interface ConsulOptions extends DiscovererOptions {
	/** Address of the agent, `consul://host:8500`; `consuls://` for HTTPS. @default "consul://127.0.0.1:8500" */
	readonly url?: string;
	/** ACL token; needs `service:write`, `session:write`, `key:write` on the prefix. @default the URL's password */
	readonly token?: string;
	/** @default the URL's parameter `datacenter`, then the agent's own */
	readonly datacenter?: string;
	/** Folder of the nodes' records in the key-value store. @default "moleculer" */
	readonly prefix?: string;
	/** How long a service may be critical before Consul removes it; at least a minute. @default "1m" */
	readonly deregisterAfter?: Duration;
	/** @default those of Node */
	readonly tls?: TlsOptions;
}

const FIELD = "ConsulDiscoverer";
const KNOWN = [...COMMON, "url", "token", "datacenter", "prefix", "deregisterAfter", "tls"];

/** Consul takes no shorter session, and removes no service earlier. */
const SHORTEST_SESSION_MS = 10_000;
const SHORTEST_DEREGISTER_MS = 60_000;
/** Consul's limit of a value, in bytes. */
const LARGEST_VALUE = 512 * 1_024;
const WATCH_SECONDS = 60;
/** Where Consul, or a proxy before it, tells no index to wait on, so that nobody asks without a pause. */
const INDEX_PAUSE = 1_000;
const WATCH_PAUSES_MS = [500, 1_000, 2_000];

interface ConsulSettings {
	readonly base: string;
	readonly token: string | undefined;
	readonly datacenter: string | undefined;
	readonly prefix: string;
	readonly deregisterAfterMs: number;
	readonly timeout: number;
	readonly tls: TlsOptions;
}

/**
 * Discovery by Consul. Every Moleculer service is a service of Consul's, with a TTL check that the
 * heartbeat keeps passing; the nodes' records are keys under a session, followed by blocking queries.
 *
 * @example
 * export default {
 *   transporter: "nats://localhost:4222",
 *   registry: { discoverer: new ConsulDiscoverer("consul://localhost:8500") },
 * };
 */
export class ConsulDiscoverer extends RegistryDiscoverer {
	constructor(options: string | ConsulOptions = {}) {
		const given = typeof options === "string" ? { url: options } : options;
		const settings = readOptions(given);
		super(given, (site) => new ConsulRegistry(settings, site));
	}
}

function readOptions(options: ConsulOptions): ConsulSettings {
	onlyKnown(options, KNOWN, FIELD);
	const timeout = readCommon(options, FIELD);
	const field = `${FIELD}.url`;
	const url = readUrl(
		options.url ?? "consul://127.0.0.1:8500",
		["consul", "consuls"],
		8_500,
		field,
	);
	onlyParameters(url, ["datacenter"], field);
	if (url.hosts.length !== 1) throw invalidOptions(field, "must name one agent");
	if (url.path !== "") throw invalidOptions(field, "must have no path; use the option prefix");

	const deregisterAfterMs = positiveMs(
		options.deregisterAfter ?? "1m",
		`${FIELD}.deregisterAfter`,
	);
	if (deregisterAfterMs < SHORTEST_DEREGISTER_MS) {
		throw invalidOptions(`${FIELD}.deregisterAfter`, "must be a minute or longer");
	}
	const token = optionalText(options.token, `${FIELD}.token`) ?? (url.password || url.user);
	const datacenter = optionalText(options.datacenter, `${FIELD}.datacenter`);
	const prefix = optionalText(options.prefix, `${FIELD}.prefix`) ?? "moleculer";
	return {
		base: `${url.scheme === "consuls" ? "https" : "http"}://${String(url.hosts[0])}/v1`,
		token: token === "" ? undefined : token,
		datacenter: datacenter ?? url.query.get("datacenter") ?? undefined,
		prefix: prefix.replace(/^\/+|\/+$/g, ""),
		deregisterAfterMs,
		timeout,
		tls: readTls(options.tls, `${FIELD}.tls`),
	};
}

/** What Consul says of a key. */
interface KeyEntry {
	readonly Key: string;
	readonly Value: string | null;
	readonly Session?: string;
	readonly ModifyIndex: number;
}

class ConsulRegistry implements MemberRegistry {
	readonly title = "Consul";
	readonly #settings: ConsulSettings;
	readonly #site: Site;
	readonly #http: HttpClient;
	readonly #ttlMs: number;
	/** Folder of the records, with a slash at its end. */
	readonly #nodes: string;
	readonly #infos: string;
	readonly #own: string;

	#session: string | undefined;
	#renewAt = 0;
	/** What Consul has of each of this node's services, as it was sent. */
	#registered = new Map<string, string>();
	#watching: AbortController | undefined;

	constructor(settings: ConsulSettings, site: Site) {
		this.#settings = settings;
		this.#site = site;
		this.#http = new HttpClient({
			headers: settings.token === undefined ? {} : { "X-Consul-Token": settings.token },
			timeout: settings.timeout,
			tls: settings.tls,
			counted: () => site.counted(),
		});
		this.#ttlMs = Math.max(SHORTEST_SESSION_MS, site.heartbeatTimeoutMs);
		const folder = `${settings.prefix}/${toRegistryName(site.namespace) || "-"}`;
		this.#nodes = `${folder}/nodes/`;
		this.#infos = `${folder}/info/`;
		this.#own = toRegistryName(site.nodeID);
	}

	async claim(self: Member, takeOver: boolean): Promise<Member | undefined> {
		this.#registered = new Map();
		const session = await this.#openSession();
		if (takeOver) await this.#freeKey(session);
		if (await this.#acquire(`${this.#nodes}${this.#own}`, self)) return undefined;
		const entry = await this.#entry(`${this.#nodes}${this.#own}`);
		const holder = entry && (decode(entry.Value) as Member | undefined);
		// Freed between the two requests: the caller tries again.
		return holder ?? { ...self, instanceID: "" };
	}

	async publish({ self, info, instances }: Publication): Promise<boolean> {
		const value = Buffer.byteLength(JSON.stringify(info)) <= LARGEST_VALUE ? info : null;
		const held =
			(await this.#acquire(`${this.#infos}${this.#own}`, value)) &&
			(await this.#acquire(`${this.#nodes}${this.#own}`, self));
		if (held) await this.#register(instances);
		return held;
	}

	async keepAlive(): Promise<boolean> {
		await Promise.all([...this.#registered.keys()].map((id) => this.#pass(id)));
		if (Date.now() < this.#renewAt) return true;
		const answer = await this.#put(`session/renew/${String(this.#session)}`);
		if (answer.status === 404) {
			this.#session = undefined;
			return false;
		}
		mustBeOk(answer, "renew the session");
		this.#renewAt = Date.now() + this.#ttlMs / 3;
		return true;
	}

	async read(nodeID: string): Promise<NodeInfo | undefined> {
		const entry = await this.#entry(`${this.#infos}${toRegistryName(nodeID)}`);
		return (entry && (decode(entry.Value) as NodeInfo | null)) ?? undefined;
	}

	watch(): void {
		this.#watching = new AbortController();
		void this.#follow(this.#watching.signal);
	}

	async withdraw(): Promise<void> {
		const ids = [...this.#registered.keys()];
		this.#registered = new Map();
		const session = this.#session;
		this.#session = undefined;
		await Promise.all([
			...ids.map((id) => this.#put(`agent/service/deregister/${encodeURIComponent(id)}`)),
			// The keys go with their session.
			session !== undefined && this.#put(`session/destroy/${session}`),
		]);
	}

	async close(): Promise<void> {
		this.#watching?.abort();
		this.#watching = undefined;
		this.#http.close();
	}

	async #openSession(): Promise<string> {
		if (this.#session !== undefined) return this.#session;
		const answer = await this.#put("session/create", {
			Name: `moleculer node ${this.#site.nodeID}`,
			TTL: seconds(this.#ttlMs),
			Behavior: "delete",
			LockDelay: "0s",
		});
		mustBeOk(answer, "open a session");
		this.#session = (JSON.parse(answer.text) as { ID: string }).ID;
		this.#renewAt = Date.now() + this.#ttlMs / 3;
		return this.#session;
	}

	/** Ends the session that holds this node's record. */
	async #freeKey(own: string): Promise<void> {
		const entry = await this.#entry(`${this.#nodes}${this.#own}`);
		if (entry?.Session === undefined || entry.Session === own) return;
		mustBeOk(await this.#put(`session/destroy/${entry.Session}`), "end the former session");
	}

	/** @returns whether the key is this session's now */
	async #acquire(key: string, value: unknown): Promise<boolean> {
		const session = await this.#openSession();
		const answer = await this.#put(`kv/${escapeKey(key)}`, value, { acquire: session });
		if (answer.status === 500 && answer.text.includes("invalid session")) {
			this.#session = undefined;
			return false;
		}
		mustBeOk(answer, `write the key ${key}`);
		return answer.text.trim() === "true";
	}

	async #entry(key: string): Promise<KeyEntry | undefined> {
		const answer = await this.#request("GET", `kv/${escapeKey(key)}`, {});
		if (answer.status === 404) return undefined;
		mustBeOk(answer, `read the key ${key}`);
		return (JSON.parse(answer.text) as KeyEntry[])[0];
	}

	/** Registers what is new or has changed, and removes what is no more. */
	async #register(instances: readonly Instance[]): Promise<void> {
		const wanted = new Map(instances.map((instance) => [instance.id, instance]));
		for (const id of this.#registered.keys()) {
			if (wanted.has(id)) continue;
			await this.#put(`agent/service/deregister/${encodeURIComponent(id)}`);
			this.#registered.delete(id);
		}
		for (const [id, instance] of wanted) {
			const body = this.#serviceOf(instance);
			const text = JSON.stringify(body);
			if (this.#registered.get(id) === text) continue;
			mustBeOk(await this.#put("agent/service/register", body), `register ${instance.name}`);
			this.#registered.set(id, text);
		}
	}

	#serviceOf(instance: Instance): object {
		const { id, name, address, port, tags, metadata, secure } = instance;
		const { deregisterAfterMs } = this.#settings;
		return {
			ID: id,
			Name: name,
			Address: address,
			...(port > 0 && { Port: port }),
			Tags: tags,
			Meta: { ...metadata, secure: String(secure) },
			Check: {
				CheckID: `service:${id}`,
				Name: "Moleculer heartbeat",
				TTL: seconds(this.#site.heartbeatTimeoutMs),
				Status: "passing",
				DeregisterCriticalServiceAfter: seconds(deregisterAfterMs),
			},
		};
	}

	/** Keeps a service's check passing, and registers the service again where the agent has lost it. */
	async #pass(id: string): Promise<void> {
		const check = encodeURIComponent(`service:${id}`);
		const answer = await this.#put(`agent/check/pass/${check}`);
		const body = this.#registered.get(id);
		if ((answer.status !== 404 && answer.status !== 500) || body === undefined) {
			return mustBeOk(answer, `pass the check of ${id}`);
		}
		const again = await this.#put("agent/service/register", JSON.parse(body));
		mustBeOk(again, `register ${id} again`);
	}

	/** Blocking queries: each is answered when the records change, or after a minute. */
	async #follow(signal: AbortSignal): Promise<void> {
		let index = 0;
		let failures = 0;
		while (!signal.aborted) {
			try {
				const answer = await this.#request(
					"GET",
					`kv/${escapeKey(this.#nodes)}`,
					{ recurse: "true", index: String(index), wait: `${WATCH_SECONDS}s` },
					// Consul adds up to a sixteenth so that waiting clients don't come all at once.
					{ signal, timeout: (WATCH_SECONDS * 17 * 1_000) / 16 + this.#settings.timeout },
				);
				if (answer.status !== 404) mustBeOk(answer, "follow the nodes");
				const next = Number(answer.headers["x-consul-index"] ?? 0);
				// An index that runs backwards is of a registry that was set up anew.
				index = next < index ? 0 : next;
				failures = 0;
				if (index === 0) await sleep(INDEX_PAUSE, undefined, { ref: false });
				this.#tell(answer.status === 404 ? [] : (JSON.parse(answer.text) as KeyEntry[]));
			} catch (error) {
				if (signal.aborted) return;
				this.#site.troubled(error);
				index = 0;
				const pause = WATCH_PAUSES_MS[Math.min(failures++, WATCH_PAUSES_MS.length - 1)];
				await sleep(pause, undefined, { ref: false });
			}
		}
	}

	#tell(entries: readonly KeyEntry[]): void {
		const nodes = entries.map(({ Key, ModifyIndex }): [string, string] => [
			fromRegistryName(Key.slice(this.#nodes.length)),
			String(ModifyIndex),
		]);
		this.#site.present(new Map(nodes));
	}

	#put(path: string, body?: unknown, query: Record<string, string> = {}): Promise<HttpAnswer> {
		return this.#request("PUT", path, query, body === undefined ? {} : { body });
	}

	#request(
		method: string,
		path: string,
		query: Readonly<Record<string, string>>,
		request: HttpRequest = {},
	): Promise<HttpAnswer> {
		const { base, datacenter } = this.#settings;
		const url = new URL(`${base}/${path}`);
		for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
		// The agent's own services are where the agent is.
		if (datacenter !== undefined && !path.startsWith("agent/")) {
			url.searchParams.set("dc", datacenter);
		}
		return this.#http.request(method, url.href, request);
	}
}

function mustBeOk({ status, text }: HttpAnswer, what: string): void {
	if (status >= 200 && status < 300) return;
	const why = `Consul answered ${status}: ${text.trim().slice(0, 200)}`;
	if (status === 401 || status === 403) {
		throw new LottorError(
			"LOTTOR_REGISTRY_REFUSED",
			`Consul does not let the token ${what}. ${why}`,
		);
	}
	throw new LottorError("LOTTOR_REGISTRY_UNAVAILABLE", `Consul did not ${what}. ${why}`);
}

function escapeKey(key: string): string {
	return key.split("/").map(encodeURIComponent).join("/");
}

function decode(value: string | null): unknown {
	return value === null ? undefined : JSON.parse(Buffer.from(value, "base64").toString());
}

function seconds(ms: number): string {
	return `${Math.ceil(ms / 1_000)}s`;
}
