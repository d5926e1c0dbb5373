import { type Duration, invalidOptions, LottorError } from "../../protocol/index.ts";
import { RegistryDiscoverer } from "./base.ts";
import type {
	Instance,
	Member,
	MemberRegistry,
	NodeInfo,
	Phase,
	Publication,
	Site,
	TlsOptions,
} from "./contract.ts";
import { EurekaView, type RemoteInstance } from "./eureka-view.ts";
import { type HttpAnswer, HttpClient } from "./http.ts";
import { toRegistryName } from "./instances.ts";
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

/** Options of {@link EurekaDiscoverer}. */
export interface EurekaOptions extends DiscovererOptions {
	/**
	 * Addresses of the servers, `eureka://a:8761,b:8761/eureka`; `eurekas://` for HTTPS. One is used until
	 * it fails, then the next.
	 *
	 * @default "eureka://127.0.0.1:8761/eureka"
	 */
	readonly url?: string;
	/** User of basic authentication. @default the URL's */
	readonly user?: string;
	/** @default the URL's */
	readonly password?: string;
	/** Between two renewals of an instance. @default "30s", as Eureka's own clients */
	readonly renewInterval?: Duration;
	/** After how long without a renewal the server may evict an instance. @default three times renewInterval */
	readonly leaseDuration?: Duration;
	/** Between two fetches of what has changed. @default "30s", as Eureka's own clients */
	readonly fetchInterval?: Duration;
	/** The application whose instances are the nodes. @default "MOLECULER", with the namespace behind it */
	readonly app?: string;
	/** @default those of Node */
	readonly tls?: TlsOptions;
}

const FIELD = "EurekaDiscoverer";
const KNOWN = [
	...COMMON,
	...["url", "user", "password", "renewInterval", "leaseDuration", "fetchInterval", "app", "tls"],
];

interface EurekaSettings {
	readonly servers: readonly string[];
	readonly authorization: string | undefined;
	readonly renewMs: number;
	readonly leaseMs: number;
	readonly fetchMs: number;
	readonly app: string;
	readonly timeout: number;
	readonly tls: TlsOptions;
}

/**
 * Discovery by Eureka. Every Moleculer service is an instance of an application of its name, beside
 * one instance for the node itself. What a node offers does not fit into Eureka's metadata: nodes ask
 * each other for it, over the transporter.
 *
 * @example
 * export default {
 *   transporter: "nats://localhost:4222",
 *   registry: { discoverer: new EurekaDiscoverer("eureka://localhost:8761/eureka") },
 * };
 */
export class EurekaDiscoverer extends RegistryDiscoverer {
	constructor(options: string | EurekaOptions = {}) {
		const given = typeof options === "string" ? { url: options } : options;
		const settings = readOptions(given);
		super(given, (site) => new EurekaRegistry(settings, site));
	}
}

function readOptions(options: EurekaOptions): EurekaSettings {
	onlyKnown(options, KNOWN, FIELD);
	const timeout = readCommon(options, FIELD);
	const field = `${FIELD}.url`;
	const address = options.url ?? "eureka://127.0.0.1:8761/eureka";
	const url = readUrl(address, ["eureka", "eurekas"], 8_761, field);
	onlyParameters(url, [], field);
	const scheme = url.scheme === "eurekas" ? "https" : "http";

	const user = optionalText(options.user, `${FIELD}.user`) ?? url.user;
	const password = optionalText(options.password, `${FIELD}.password`) ?? url.password;
	const login = Buffer.from(`${user}:${password}`).toString("base64");
	const renewMs = positiveMs(options.renewInterval ?? "30s", `${FIELD}.renewInterval`);
	const leaseMs = positiveMs(options.leaseDuration ?? renewMs * 3, `${FIELD}.leaseDuration`);
	if (leaseMs <= renewMs) {
		throw invalidOptions(`${FIELD}.leaseDuration`, "must be longer than renewInterval");
	}
	return {
		servers: url.hosts.map((host) => `${scheme}://${host}${url.path || "/eureka"}`),
		authorization: user === "" && password === "" ? undefined : `Basic ${login}`,
		renewMs,
		leaseMs,
		fetchMs: positiveMs(options.fetchInterval ?? "30s", `${FIELD}.fetchInterval`),
		app: optionalText(options.app, `${FIELD}.app`) ?? "MOLECULER",
		timeout,
		tls: readTls(options.tls, `${FIELD}.tls`),
	};
}

class EurekaRegistry implements MemberRegistry {
	readonly title = "Eureka";
	readonly #settings: EurekaSettings;
	readonly #site: Site;
	readonly #http: HttpClient;
	readonly #app: string;
	readonly #view: EurekaView;

	/** The server in use, by its place among the settings' servers. */
	#server = 0;
	#renewAt = 0;
	#phase: Phase = "starting";
	/** This node's services as Eureka has them, by instance id. */
	#registered = new Map<string, { path: string; text: string }>();
	#fetching: NodeJS.Timeout | undefined;

	constructor(settings: EurekaSettings, site: Site) {
		this.#settings = settings;
		this.#site = site;
		const { authorization, timeout, tls } = settings;
		this.#http = new HttpClient({
			headers: authorization === undefined ? {} : { Authorization: authorization },
			timeout,
			tls,
			counted: () => site.counted(),
		});
		const namespace = site.namespace === "" ? "" : `-${toRegistryName(site.namespace)}`;
		this.#app = `${toRegistryName(settings.app)}${namespace}`.toUpperCase();
		this.#view = new EurekaView(this.#app);
	}

	async claim(self: Member, takeOver: boolean): Promise<Member | undefined> {
		this.#registered = new Map();
		this.#phase = "starting";
		const answer = await this.#request("GET", this.#nodePath());
		if (answer.status !== 404) {
			mustBeOk(answer, "read the node's instance");
			const { instance } = JSON.parse(answer.text) as { instance: RemoteInstance };
			const { instanceID = "", seq } = instance.metadata ?? {};
			if (instanceID !== self.instanceID && !takeOver) {
				return { nodeID: self.nodeID, instanceID, seq: Number(seq) };
			}
		}
		await this.#registerNode(self, "STARTING");
		return undefined;
	}

	async publish({ self, instances, phase }: Publication): Promise<boolean> {
		if (phase === "stopping" && this.#phase !== "stopping") {
			const query = `?value=OUT_OF_SERVICE&lastDirtyTimestamp=${Date.now()}`;
			mustBeOk(
				await this.#request("PUT", `${this.#nodePath()}/status${query}`),
				"set the status",
			);
		} else {
			await this.#registerNode(self, phase === "up" ? "UP" : "STARTING");
		}
		this.#phase = phase;
		await this.#register(instances);
		return true;
	}

	async keepAlive(): Promise<boolean> {
		if (Date.now() < this.#renewAt) return true;
		const answer = await this.#request("PUT", this.#nodePath());
		if (answer.status === 404) return false;
		mustBeOk(answer, "renew the node's instance");
		await Promise.all([...this.#registered.values()].map((instance) => this.#renew(instance)));
		this.#renewAt = Date.now() + this.#settings.renewMs;
		return true;
	}

	/** Eureka's metadata is not made for what a node tells of itself. */
	async read(): Promise<NodeInfo | undefined> {
		return undefined;
	}

	watch(): void {
		void this.#fetch();
		this.#fetching = setInterval(() => void this.#fetch(), this.#settings.fetchMs);
		this.#fetching.unref();
	}

	async withdraw(): Promise<void> {
		const paths = [this.#nodePath(), ...[...this.#registered.values()].map(({ path }) => path)];
		this.#registered = new Map();
		await Promise.all(paths.map((path) => this.#request("DELETE", path)));
	}

	async close(): Promise<void> {
		clearInterval(this.#fetching);
		this.#fetching = undefined;
		this.#view.reset();
		this.#http.close();
	}

	#nodePath(): string {
		return `/apps/${this.#app}/${toRegistryName(this.#site.nodeID)}`;
	}

	async #registerNode(self: Member, status: string): Promise<void> {
		const { nodeID, instanceID, seq } = self;
		const { namespace, address } = this.#site;
		const metadata = { nodeID, instanceID, seq: String(seq), namespace };
		const body = this.#body({
			instanceId: toRegistryName(nodeID),
			app: this.#app,
			address,
			status,
			metadata,
		});
		mustBeOk(await this.#request("POST", `/apps/${this.#app}`, body), "register the node");
		this.#renewAt = Date.now() + this.#settings.renewMs;
	}

	/** Registers what is new or has changed, and removes what is no more. */
	async #register(instances: readonly Instance[]): Promise<void> {
		const wanted = new Set(instances.map(({ id }) => id));
		for (const [id, { path }] of this.#registered) {
			if (wanted.has(id)) continue;
			await this.#request("DELETE", path);
			this.#registered.delete(id);
		}
		for (const instance of instances) {
			const app = instance.name.toUpperCase();
			const text = JSON.stringify(instance);
			if (this.#registered.get(instance.id)?.text === text) continue;
			const answer = await this.#request(
				"POST",
				`/apps/${app}`,
				this.#instanceBody(instance),
			);
			mustBeOk(answer, `register ${instance.name}`);
			this.#registered.set(instance.id, { path: `/apps/${app}/${instance.id}`, text });
		}
	}

	async #renew({ path, text }: { path: string; text: string }): Promise<void> {
		const answer = await this.#request("PUT", path);
		if (answer.status !== 404) return mustBeOk(answer, `renew ${path}`);
		const instance = JSON.parse(text) as Instance;
		const app = instance.name.toUpperCase();
		const again = await this.#request("POST", `/apps/${app}`, this.#instanceBody(instance));
		mustBeOk(again, `register ${instance.name} again`);
	}

	#instanceBody(instance: Instance): object {
		const { id, name, address, port, secure, homePath, healthPath, statusPath } = instance;
		const root = `${secure ? "https" : "http"}://${address}:${port}`;
		return this.#body({
			instanceId: id,
			app: name.toUpperCase(),
			vipAddress: name,
			address,
			status: "UP",
			metadata: instance.metadata,
			port: secure ? 0 : port,
			securePort: secure ? port : 0,
			...(port > 0 && {
				homePageUrl: root + homePath,
				[secure ? "secureHealthCheckUrl" : "healthCheckUrl"]: root + healthPath,
				statusPageUrl: root + statusPath,
			}),
		});
	}

	/** An instance as Eureka's own clients send it. */
	#body(fields: {
		instanceId: string;
		app: string;
		address: string;
		status: string;
		metadata: Readonly<Record<string, string>>;
		vipAddress?: string;
		port?: number;
		securePort?: number;
	}): object {
		const { address, port = 0, securePort = 0, vipAddress, ...rest } = fields;
		const { renewMs, leaseMs } = this.#settings;
		const vip = vipAddress ?? fields.app.toLowerCase();
		return {
			instance: {
				...rest,
				hostName: address,
				ipAddr: address,
				vipAddress: vip,
				secureVipAddress: vip,
				overriddenStatus: "UNKNOWN",
				port: { $: port, "@enabled": String(port > 0) },
				securePort: { $: securePort, "@enabled": String(securePort > 0) },
				countryId: 1,
				dataCenterInfo: {
					"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
					name: "MyOwn",
				},
				leaseInfo: {
					renewalIntervalInSecs: Math.ceil(renewMs / 1_000),
					durationInSecs: Math.ceil(leaseMs / 1_000),
				},
				isCoordinatingDiscoveryServer: "false",
				lastDirtyTimestamp: String(Date.now()),
				actionType: "ADDED",
			},
		};
	}

	/** Fetches what has changed; everything at first, and where the changes don't add up. */
	async #fetch(): Promise<void> {
		try {
			if (this.#view.complete) {
				const delta = await this.#request("GET", "/apps/delta");
				mustBeOk(delta, "fetch the changes");
				this.#view.apply(JSON.parse(delta.text));
			}
			if (!this.#view.complete) {
				const all = await this.#request("GET", "/apps");
				mustBeOk(all, "fetch the applications");
				this.#view.replace(JSON.parse(all.text));
			}
			this.#site.present(this.#view.nodes());
		} catch (error) {
			this.#site.troubled(error);
		}
	}

	/** Asks the server in use; one that does not answer, or cannot, makes the next one be asked. */
	async #request(method: string, path: string, body?: object): Promise<HttpAnswer> {
		const { servers } = this.#settings;
		let failure: unknown;
		for (let attempt = 0; attempt < servers.length; attempt++) {
			const url = `${String(servers[this.#server])}${path}`;
			try {
				const answer = await this.#http.request(method, url, body ? { body } : {});
				if (answer.status < 500) return answer;
				failure = new LottorError(
					"LOTTOR_REGISTRY_UNAVAILABLE",
					`Eureka at ${new URL(url).host} answered ${answer.status}`,
				);
			} catch (error) {
				failure = error;
			}
			this.#server = (this.#server + 1) % servers.length;
		}
		throw failure;
	}
}

function mustBeOk({ status }: HttpAnswer, what: string): void {
	if (status >= 200 && status < 300) return;
	if (status === 401 || status === 403) {
		throw new LottorError(
			"LOTTOR_REGISTRY_REFUSED",
			`Eureka does not let this user and password ${what}: it answered ${status}`,
		);
	}
	throw new LottorError(
		"LOTTOR_REGISTRY_UNAVAILABLE",
		`Eureka did not ${what}: it answered ${status}`,
	);
}
