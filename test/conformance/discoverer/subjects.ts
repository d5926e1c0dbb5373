import { Etcd3 } from "etcd3";
import { Redis } from "ioredis";

import { ZooKeeperSession } from "../../../adapters/discoverer/zookeeper-session.ts";
import { consul } from "../../../scripts/servers/consul.ts";
import { etcd } from "../../../scripts/servers/etcd.ts";
import { eureka } from "../../../scripts/servers/eureka.ts";
import type { ServerKind } from "../../../scripts/servers/kind.ts";
import { redis } from "../../../scripts/servers/redis.ts";
import { zookeeper } from "../../../scripts/servers/zookeeper.ts";
import type { CaseName } from "./cases.ts";

/** A discoverer under test, and what the suite has to know of its registry. */
export interface Subject {
	readonly name: string;
	readonly kind: ServerKind;
	/** Cases that Moleculer's own discoverers are known not to pass. The suite says when they do. */
	readonly limits: readonly CaseName[];
	/** Whether nodes hear of each other from the registry alone, so that they lose each other without it. */
	readonly livesByRegistry?: boolean;
	/** Characters that its node names must not have. */
	readonly unfitFor?: RegExp;
	/** @returns the URL with a secret in it */
	withSecret(url: string, secret: string): string;
	/** What a node says that was refused. */
	readonly refusal: RegExp;
	/** @returns the nodeIDs that the registry has, as a program without Moleculer reads it */
	members(url: string, namespace: string): Promise<string[]>;
	/** Removes everything from the registry. */
	wipe(url: string): Promise<void>;
}

const httpOf = (url: string) => url.replace(/^\w+:/, "http:");
const plain = (name: string) => decodeURIComponent(name.replaceAll("~", "%"));

async function json<T>(url: string, empty: T): Promise<T> {
	const response = await fetch(url, { headers: { Accept: "application/json" } });
	if (response.status === 404) return empty;
	if (!response.ok) throw new Error(`${url} answered ${response.status}`);
	return (await response.json()) as T;
}

async function put(url: string): Promise<void> {
	const response = await fetch(url, { method: "PUT" });
	if (!response.ok) throw new Error(`${url} answered ${response.status}`);
}

const consulSubject: Subject = {
	name: "Consul",
	kind: consul,
	limits: [],
	withSecret: (url, secret) => url.replace("://", `://:${secret}@`),
	refusal: /Consul does not let the token open a session.*(ACL not found|Permission denied)/,
	async members(url, namespace) {
		const folder = `moleculer/${namespace}/nodes/`;
		const keys = await json<string[]>(`${httpOf(url)}/v1/kv/${folder}?keys`, []);
		return keys.map((key) => plain(key.slice(folder.length))).sort();
	},
	async wipe(url) {
		const base = `${httpOf(url)}/v1`;
		for (const { ID } of await json<{ ID: string }[]>(`${base}/session/list`, [])) {
			await put(`${base}/session/destroy/${ID}`);
		}
		await fetch(`${base}/kv/?recurse`, { method: "DELETE" });
		for (const id of Object.keys(await json<object>(`${base}/agent/services`, {}))) {
			await put(`${base}/agent/service/deregister/${encodeURIComponent(id)}`);
		}
	},
};

async function withZooKeeper<T>(
	url: string,
	act: (session: ZooKeeperSession) => Promise<T>,
): Promise<T> {
	const session = new ZooKeeperSession({
		hosts: [url.replace("zookeeper://", "")],
		sessionTimeoutMs: 5_000,
		timeout: 3_000,
		login: undefined,
		digest: undefined,
		counted: () => undefined,
	});
	try {
		return await act(session);
	} finally {
		await session.close();
	}
}

async function removeTree(session: ZooKeeperSession, path: string): Promise<void> {
	for (const child of (await session.children(path, () => undefined)) ?? []) {
		if (path !== "/" || child !== "zookeeper") {
			await removeTree(session, `${path === "/" ? "" : path}/${child}`);
		}
	}
	if (path !== "/") await session.remove(path);
}

const zookeeperSubject: Subject = {
	name: "ZooKeeper",
	kind: zookeeper,
	limits: [],
	withSecret: (url, secret) => url.replace("://", `://lottor:${secret}@`),
	refusal: /ZooKeeper does not let this user and password/,
	members(url, namespace) {
		return withZooKeeper(url, async (session) => {
			const path = `/moleculer/${namespace}/nodes`;
			return ((await session.children(path, () => undefined)) ?? []).map(plain).sort();
		});
	},
	wipe: (url) => withZooKeeper(url, (session) => removeTree(session, "/")),
};

interface EurekaApps {
	applications: {
		application: { name: string; instance: { instanceId: string }[] }[];
	};
}

const eurekaSubject: Subject = {
	name: "Eureka",
	kind: eureka,
	limits: [],
	withSecret: (url, secret) => url.replace(/:\/\/(.*@)?/, `://eureka:${secret}@`),
	refusal: /Eureka does not let this user and password.*401/,
	async members(url, namespace) {
		const app = `MOLECULER-${namespace.toUpperCase()}`;
		const { application } = await json(`${httpOf(url)}/apps/${app}`, {
			application: { instance: [] as { instanceId: string }[] },
		});
		return application.instance.map(({ instanceId }) => plain(instanceId)).sort();
	},
	async wipe(url) {
		const { applications } = await json<EurekaApps>(`${httpOf(url)}/apps`, {
			applications: { application: [] },
		});
		for (const { name, instance } of applications.application) {
			for (const { instanceId } of instance) {
				await fetch(`${httpOf(url)}/apps/${name}/${instanceId}`, { method: "DELETE" });
			}
		}
	},
};

async function withEtcd<T>(url: string, act: (client: Etcd3) => Promise<T>): Promise<T> {
	const client = new Etcd3({ hosts: url.replace("etcd3://", "") });
	try {
		return await act(client);
	} finally {
		client.close();
	}
}

const etcdSubject: Subject = {
	name: "Etcd3",
	kind: etcd,
	limits: ["registry wiped clean", "duplicate nodeID refused"],
	livesByRegistry: true,
	unfitFor: /\//g,
	withSecret: (url, secret) => url.replace("://", `://root:${secret}@`),
	refusal: /user name is empty|authentication|invalid auth|permission denied/i,
	members(url, namespace) {
		return withEtcd(url, async (client) => {
			const folder = `moleculer-${namespace}/discovery/info/`;
			const keys = await client.getAll().prefix(folder).keys();
			return keys.map((key) => key.slice(folder.length)).sort();
		});
	},
	wipe: (url) =>
		withEtcd(url, async (client) => {
			await client.delete().all();
		}),
};

async function withRedis<T>(url: string, act: (client: Redis) => Promise<T>): Promise<T> {
	const client = new Redis(url);
	try {
		return await act(client);
	} finally {
		client.disconnect();
	}
}

const redisSubject: Subject = {
	name: "Redis",
	kind: redis,
	// It logs the password with the command that was refused.
	limits: ["registry wiped clean", "duplicate nodeID refused", "wrong token or password"],
	livesByRegistry: true,
	withSecret: (url, secret) => url.replace(/:\/\/(.*@)?/, `://:${secret}@`),
	refusal: /WRONGPASS|NOAUTH|invalid password/,
	members(url, namespace) {
		return withRedis(url, async (client) => {
			const prefix = `MOL-${namespace}-DSCVR-INFO:`;
			return (await client.keys(`${prefix}*`)).map((key) => key.slice(prefix.length)).sort();
		});
	},
	wipe: (url) =>
		withRedis(url, async (client) => {
			await client.flushall();
		}),
};

export const SUBJECTS: readonly Subject[] = [
	consulSubject,
	zookeeperSubject,
	eurekaSubject,
	etcdSubject,
	redisSubject,
];
