import { createHash } from "node:crypto";

import { type Duration, invalidOptions } from "../../protocol/index.ts";
import { RegistryDiscoverer } from "./base.ts";
import type { Instance, Member, MemberRegistry, NodeInfo, Publication, Site } from "./contract.ts";
import { fromRegistryName, toRegistryName } from "./instances.ts";
import {
	COMMON,
	type DiscovererOptions,
	onlyKnown,
	onlyParameters,
	optionalText,
	positiveMs,
	readCommon,
	readUrl,
} from "./options.ts";
import { ZooKeeperSession } from "./zookeeper-session.ts";

/** Options of {@link ZooKeeperDiscoverer}. */
export interface ZooKeeperOptions extends DiscovererOptions {
	/** Addresses of the servers and the path that everything is under. @default "zookeeper://127.0.0.1:2181" */
	readonly url?: string;
	/** User of the digest scheme. With it, records can only be read and written by this user. @default the URL's */
	readonly user?: string;
	/** @default the URL's */
	readonly password?: string;
	/** Folder of the nodes' records. @default "/moleculer" */
	readonly root?: string;
	/** Folder of the services, as Curator's service discovery has them. @default "/services" */
	readonly servicesRoot?: string;
	/** How long ZooKeeper keeps the records of a node that is silent. @default heartbeatTimeout */
	readonly sessionTimeout?: Duration;
}

const FIELD = "ZooKeeperDiscoverer";
const KNOWN = [...COMMON, ...["url", "user", "password", "root", "servicesRoot", "sessionTimeout"]];

/** ZooKeeper's limit of a node's data, in bytes, with room for the rest of a request. */
const LARGEST_DATA = 1_000 * 1_024;

interface ZooKeeperSettings {
	readonly hosts: readonly string[];
	readonly chroot: string;
	readonly login: string | undefined;
	readonly digest: string | undefined;
	readonly root: string;
	readonly servicesRoot: string;
	readonly sessionTimeoutMs: number | undefined;
	readonly timeout: number;
}

/**
 * Discovery by ZooKeeper. The nodes' records are ephemeral and watched; every Moleculer service is an
 * ephemeral node in the layout of Curator's service discovery, as Spring Cloud ZooKeeper reads it.
 * Needs the package node-zookeeper-client.
 *
 * @example
 * export default {
 *   transporter: "nats://localhost:4222",
 *   registry: { discoverer: new ZooKeeperDiscoverer("zookeeper://a:2181,b:2181/shop") },
 * };
 */
export class ZooKeeperDiscoverer extends RegistryDiscoverer {
	constructor(options: string | ZooKeeperOptions = {}) {
		const given = typeof options === "string" ? { url: options } : options;
		const settings = readOptions(given);
		super(given, (site) => new ZooKeeperRegistry(settings, site));
	}
}

function readOptions(options: ZooKeeperOptions): ZooKeeperSettings {
	onlyKnown(options, KNOWN, FIELD);
	const timeout = readCommon(options, FIELD);
	const field = `${FIELD}.url`;
	const url = readUrl(options.url ?? "zookeeper://127.0.0.1:2181", ["zookeeper"], 2_181, field);
	onlyParameters(url, [], field);
	const user = optionalText(options.user, `${FIELD}.user`) ?? url.user;
	const password = optionalText(options.password, `${FIELD}.password`) ?? url.password;
	if ((user === "") !== (password === "")) {
		throw invalidOptions(`${FIELD}.${user === "" ? "user" : "password"}`, "is missing");
	}
	const login = user === "" ? undefined : `${user}:${password}`;
	return {
		hosts: url.hosts,
		chroot: url.path,
		login,
		digest:
			login === undefined
				? undefined
				: `${user}:${createHash("sha1").update(login).digest("base64")}`,
		root: readPath(options.root ?? "/moleculer", `${FIELD}.root`),
		servicesRoot: readPath(options.servicesRoot ?? "/services", `${FIELD}.servicesRoot`),
		sessionTimeoutMs:
			options.sessionTimeout === undefined
				? undefined
				: positiveMs(options.sessionTimeout, `${FIELD}.sessionTimeout`),
		timeout,
	};
}

function readPath(path: unknown, field: string): string {
	if (typeof path !== "string" || !/^(\/[^/\s]+)+$/.test(path)) {
		throw invalidOptions(field, 'must be a path such as "/services"');
	}
	return path;
}

class ZooKeeperRegistry implements MemberRegistry {
	readonly title = "ZooKeeper";
	readonly #site: Site;
	readonly #session: ZooKeeperSession;
	/** Paths of the folders, below the one that the URL names. */
	readonly #nodes: string;
	readonly #infos: string;
	readonly #services: string;
	readonly #own: string;

	/** The session that this node's record belongs to. */
	#claimedIn = 0;
	/** This node's services as ZooKeeper has them, by path. */
	#registered = new Map<string, { text: string; since: number }>();
	/** The session that each ephemeral node belongs to. */
	readonly #writtenIn = new Map<string, number>();
	#watching = false;
	/** The session that the watch was set in. */
	#watchedIn = 0;

	constructor(settings: ZooKeeperSettings, site: Site) {
		this.#site = site;
		this.#session = new ZooKeeperSession({
			hosts: settings.hosts,
			sessionTimeoutMs: settings.sessionTimeoutMs ?? site.heartbeatTimeoutMs,
			timeout: settings.timeout,
			login: settings.login,
			digest: settings.digest,
			counted: () => site.counted(),
		});
		const folder = `${settings.chroot}${settings.root}/${toRegistryName(site.namespace) || "-"}`;
		this.#nodes = `${folder}/nodes`;
		this.#infos = `${folder}/info`;
		this.#services = `${settings.chroot}${settings.servicesRoot}`;
		this.#own = toRegistryName(site.nodeID);
	}

	async claim(self: Member, takeOver: boolean): Promise<Member | undefined> {
		this.#registered = new Map();
		for (const folder of [this.#nodes, this.#infos, this.#services]) {
			await this.#session.makePath(folder);
		}
		const path = `${this.#nodes}/${this.#own}`;
		if (takeOver) {
			await this.#session.remove(path);
			await this.#session.remove(`${this.#infos}/${this.#own}`);
		}
		if (!(await this.#session.create(path, self, true))) {
			const holder = (await this.#session.read(path)) as Member | undefined;
			return holder ?? { ...self, instanceID: "" };
		}
		this.#claimedIn = this.#session.number;
		return undefined;
	}

	async publish({ self, info, instances }: Publication): Promise<boolean> {
		if (this.#claimedIn !== this.#session.number) return false;
		if (Buffer.byteLength(JSON.stringify(info)) <= LARGEST_DATA) {
			await this.#put(`${this.#infos}/${this.#own}`, info);
		} else {
			await this.#session.remove(`${this.#infos}/${this.#own}`);
		}
		if (!(await this.#session.write(`${this.#nodes}/${this.#own}`, self))) return false;
		await this.#register(instances);
		return true;
	}

	/** The session is kept alive by the client library; this finds out whether it still is the same. */
	async keepAlive(): Promise<boolean> {
		const there = await this.#session.exists(`${this.#nodes}/${this.#own}`);
		if (this.#watching && this.#watchedIn !== this.#session.number) await this.#follow();
		return there && this.#claimedIn === this.#session.number;
	}

	async read(nodeID: string): Promise<NodeInfo | undefined> {
		const info = await this.#session.read(`${this.#infos}/${toRegistryName(nodeID)}`);
		return info as NodeInfo | undefined;
	}

	watch(): void {
		this.#watching = true;
		this.#follow().catch((error: unknown) => this.#site.troubled(error));
	}

	async withdraw(): Promise<void> {
		const services = [...this.#registered.keys()];
		this.#registered = new Map();
		const paths = [`${this.#nodes}/${this.#own}`, `${this.#infos}/${this.#own}`, ...services];
		await Promise.all(paths.map((path) => this.#session.remove(path)));
	}

	async close(): Promise<void> {
		this.#watching = false;
		this.#watchedIn = 0;
		await this.#session.close();
	}

	/** Writes an ephemeral node of this session, also where a former session's is still there. */
	async #put(path: string, value: unknown): Promise<void> {
		const here = this.#writtenIn.get(path) === this.#session.number;
		if (here && (await this.#session.write(path, value))) return;
		await this.#session.remove(path);
		await this.#session.create(path, value, true);
		this.#writtenIn.set(path, this.#session.number);
	}

	/** Registers what is new or has changed, and removes what is no more. */
	async #register(instances: readonly Instance[]): Promise<void> {
		const wanted = new Map(
			instances.map((one) => [`${this.#services}/${one.name}/${one.id}`, one]),
		);
		for (const path of this.#registered.keys()) {
			if (wanted.has(path)) continue;
			await this.#session.remove(path);
			this.#registered.delete(path);
			this.#writtenIn.delete(path);
		}
		for (const [path, instance] of wanted) {
			const text = JSON.stringify(instance);
			const former = this.#registered.get(path);
			if (former?.text === text) continue;
			const since = former?.since ?? Date.now();
			await this.#session.makePath(`${this.#services}/${instance.name}`);
			await this.#put(path, curatorNode(instance, since));
			this.#registered.set(path, { text, since });
		}
	}

	/** Sets the watch, again after each time that it was triggered and in each new session. */
	async #follow(): Promise<void> {
		if (!this.#watching) return;
		const session = this.#session.number;
		const children = await this.#session.children(this.#nodes, () => {
			this.#follow().catch((error: unknown) => {
				this.#watchedIn = 0;
				this.#site.troubled(error);
			});
		});
		// Where the folder itself is gone, the next claim makes it anew.
		this.#watchedIn = children ? Math.max(session, this.#session.number) : 0;
		// The node's name is all that is known of it here; its heartbeats tell the rest.
		const nodes = (children ?? []).map((name): [string, string] => [
			fromRegistryName(name),
			"",
		]);
		this.#site.present(new Map(nodes));
	}
}

/** A service as Curator stores it and Spring Cloud ZooKeeper reads it. */
function curatorNode(instance: Instance, since: number): object {
	const { id, name, address, port, secure, metadata } = instance;
	const literal = (value: string) => ({ value, variable: false });
	const variable = (value: string) => ({ value, variable: true });
	return {
		name,
		id,
		address,
		port: port > 0 && !secure ? port : null,
		sslPort: port > 0 && secure ? port : null,
		payload: {
			"@class": "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance",
			id,
			name,
			metadata,
		},
		registrationTimeUTC: since,
		serviceType: "DYNAMIC",
		uriSpec: {
			parts: [
				variable("scheme"),
				literal("://"),
				variable("address"),
				literal(":"),
				// Curator fills in each from the field of its name.
				variable(secure ? "ssl-port" : "port"),
			],
		},
	};
}
