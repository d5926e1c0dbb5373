import type * as zookeeper from "node-zookeeper-client";
import type { ACL, Client, Event } from "node-zookeeper-client";

import { LottorError, messageOf } from "../../protocol/index.ts";

type Library = typeof zookeeper;

/** How to reach ZooKeeper, and as whom. */
export interface SessionSettings {
	/** Each `host:port`. */
	readonly hosts: readonly string[];
	readonly sessionTimeoutMs: number;
	readonly timeout: number;
	/** `user:password` of the digest scheme. */
	readonly login: string | undefined;
	/** `user:hash`, as ZooKeeper stores it in its access lists. */
	readonly digest: string | undefined;
	counted(): void;
}

/** How ZooKeeper says no, by the client library's codes. */
const NO_NODE = -101;
const NO_AUTH = -102;
const NODE_EXISTS = -110;
const NOT_EMPTY = -111;
const AUTH_FAILED = -115;

/**
 * One ZooKeeper session after another: where one has expired, or does not answer any more, the next
 * call opens a new one. All methods are calls with a time limit.
 */
export class ZooKeeperSession {
	readonly #settings: SessionSettings;
	#library: Library | undefined;
	#client: Client | undefined;
	#connected: Promise<void> | undefined;
	#number = 0;

	constructor(settings: SessionSettings) {
		this.#settings = settings;
	}

	/** Counts the sessions; what is ephemeral lives as long as its own. */
	get number(): number {
		return this.#number;
	}

	/** @returns false where it exists already */
	async create(path: string, value: unknown, ephemeral: boolean, open = false): Promise<boolean> {
		const data = Buffer.from(value === undefined ? "" : JSON.stringify(value));
		const made = await this.#call<string>(
			`create ${path}`,
			(client, library, done) => {
				const mode = library.CreateMode[ephemeral ? "EPHEMERAL" : "PERSISTENT"];
				client.create(path, data, this.#accessList(library, open), mode, done);
			},
			[NODE_EXISTS],
		);
		return made !== undefined;
	}

	/** Makes a path of nodes that stay, where they are missing. */
	async makePath(path: string): Promise<void> {
		const parts = path.split("/").filter((part) => part !== "");
		for (let length = 1; length <= parts.length; length++) {
			const part = `/${parts.slice(0, length).join("/")}`;
			if (!(await this.exists(part))) await this.create(part, undefined, false, true);
		}
	}

	async exists(path: string): Promise<boolean> {
		const stat = await this.#call<unknown>(`look for ${path}`, (client, _library, done) => {
			client.exists(path, done);
		});
		return Boolean(stat);
	}

	/** @returns undefined where there is no such node */
	async read(path: string): Promise<unknown> {
		const data = await this.#call<Buffer>(
			`read ${path}`,
			(client, _library, done) => {
				client.getData(path, done);
			},
			[NO_NODE],
		);
		return data?.length ? JSON.parse(data.toString()) : undefined;
	}

	/** @returns false where there is no such node */
	async write(path: string, value: unknown): Promise<boolean> {
		const data = Buffer.from(JSON.stringify(value));
		const stat = await this.#call<unknown>(
			`write ${path}`,
			(client, _library, done) => {
				client.setData(path, data, done);
			},
			[NO_NODE],
		);
		return stat !== undefined;
	}

	/** A node that is not there, or has children, is left as it is. */
	async remove(path: string): Promise<void> {
		await this.#call<unknown>(
			`remove ${path}`,
			(client, _library, done) => {
				client.remove(path, (error) => done(error, true));
			},
			[NO_NODE, NOT_EMPTY],
		);
	}

	/**
	 * @param changed called once, when the children change or the node goes
	 * @returns undefined where there is no such node
	 */
	children(path: string, changed: (event: Event) => void): Promise<string[] | undefined> {
		return this.#call<string[]>(
			`list ${path}`,
			(client, _library, done) => {
				client.getChildren(path, changed, done);
			},
			[NO_NODE],
		);
	}

	/** Ends the session, and with it all that is ephemeral. */
	async close(): Promise<void> {
		const client = this.#client;
		if (!client) return;
		const ended = new Promise<void>((resolve) => client.once("disconnected", () => resolve()));
		client.close();
		const timer = setTimeout(() => this.#drop(client), this.#settings.timeout);
		await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 500).unref())]);
		clearTimeout(timer);
		this.#drop(client);
	}

	/** Forgets a session that is of no use any more. */
	#drop(client: Client): void {
		if (this.#client === client) {
			this.#client = undefined;
			this.#connected = undefined;
		}
		client.removeAllListeners();
		// The library goes on connecting for ever after close() of a client that has no connection.
		const { connectionManager: manager } = client as unknown as ClientInternals;
		manager.connect = () => undefined;
		clearTimeout(manager.connectTimeoutHandler ?? undefined);
		manager.socket?.destroy();
	}

	async #open(): Promise<Client> {
		this.#library ??= await loadLibrary();
		const { hosts, sessionTimeoutMs, timeout, login } = this.#settings;
		if (!this.#client || !this.#connected) {
			const client = this.#library.createClient(hosts.join(","), {
				sessionTimeout: sessionTimeoutMs,
				spinDelay: 500,
				retries: 0,
			});
			this.#client = client;
			this.#number++;
			if (login !== undefined) client.addAuthInfo("digest", Buffer.from(login));
			client.once("expired", () => this.#drop(client));
			client.once("authenticationFailed", () => this.#drop(client));
			this.#connected = new Promise((resolve) => client.once("connected", () => resolve()));
			client.connect();
		}
		const client = this.#client;
		await withLimit(this.#connected, timeout, `no connection to ${hosts.join(",")}`);
		return client;
	}

	async #call<T>(
		what: string,
		act: (
			client: Client,
			library: Library,
			done: (error: Error | { code: number } | null, result?: T) => void,
		) => void,
		expected: readonly number[] = [],
	): Promise<T | undefined> {
		let client: Client | undefined;
		try {
			client = await this.#open();
			const opened = client;
			this.#settings.counted();
			const result = new Promise<T | undefined>((resolve, reject) => {
				act(opened, this.#library as Library, (error, value) => {
					if (!error) return resolve(value);
					if (expected.includes(codeOf(error))) return resolve(undefined);
					reject(asError(error));
				});
			});
			return await withLimit(result, this.#settings.timeout, "no answer");
		} catch (error) {
			if (error instanceof LottorError) throw error;
			if ([NO_AUTH, AUTH_FAILED].includes(codeOf(error))) {
				throw new LottorError(
					"LOTTOR_REGISTRY_REFUSED",
					`ZooKeeper does not let this user and password ${what}`,
					{},
					error,
				);
			}
			// The library takes a connection for alive that nothing comes back on. One that it knows to
			// be lost it opens again by itself, maybe within the session.
			const looksAlive = client?.getState() === this.#library?.State.SYNC_CONNECTED;
			if (error instanceof TimeLimit && client && looksAlive) this.#drop(client);
			throw new LottorError(
				"LOTTOR_REGISTRY_UNAVAILABLE",
				`ZooKeeper did not ${what}`,
				{},
				error,
			);
		}
	}

	/** With a digest, others may at most read what is open. */
	#accessList(library: Library, open: boolean): ACL[] {
		const { digest } = this.#settings;
		const { ACL: List, Id, Permission } = library;
		const world = new Id("world", "anyone");
		if (digest === undefined) return [new List(Permission.ALL, world)];
		const own = new List(Permission.ALL, new Id("digest", digest));
		return open ? [own, new List(Permission.READ, world)] : [own];
	}
}

/** Parts of the library's client that have no public name. */
interface ClientInternals {
	connectionManager: {
		connect(): void;
		connectTimeoutHandler: NodeJS.Timeout | null;
		socket?: { destroy(): void };
	};
}

class TimeLimit extends Error {}

async function withLimit<T>(promise: Promise<T>, ms: number, problem: string): Promise<T> {
	let timer: NodeJS.Timeout | undefined;
	const limit = new Promise<never>((_resolve, reject) => {
		timer = setTimeout(() => reject(new TimeLimit(`${problem} within ${ms} ms`)), ms);
	});
	try {
		return await Promise.race([promise, limit]);
	} finally {
		clearTimeout(timer);
	}
}

let loading: Promise<Library> | undefined;

/** Once for all sessions: they may be opened at the same time. */
function loadLibrary(): Promise<Library> {
	loading ??= importLibrary().catch((error: unknown) => {
		loading = undefined;
		throw error;
	});
	return loading;
}

async function importLibrary(): Promise<Library> {
	try {
		const { default: library } = (await import("node-zookeeper-client")) as unknown as {
			default: Library;
		};
		return library;
	} catch (error) {
		const problem =
			(error as { code?: unknown }).code === "ERR_MODULE_NOT_FOUND"
				? "is missing; install it with 'npm install node-zookeeper-client'"
				: "cannot be loaded";
		throw new LottorError(
			"LOTTOR_INVALID_OPTIONS",
			`The package node-zookeeper-client ${problem}`,
			{ field: "registry.discoverer" },
			error,
		);
	}
}

function codeOf(error: unknown): number {
	return typeof error === "object" && error !== null && "code" in error ? Number(error.code) : 0;
}

function asError(error: Error | { code: number }): Error {
	return error instanceof Error ? error : Object.assign(new Error(messageOf(error)), error);
}
