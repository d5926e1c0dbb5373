import type { Cluster, Redis } from "ioredis";

import { LottorError } from "../../../protocol/index.ts";
import type { Client, Connection } from "./connection.ts";

/**
 * Reads how durable the server's writes are.
 *
 * @returns what has to be said of them
 * @throws LOTTOR_STORE_UNUSABLE when they may be lost or evicted, LOTTOR_STORE_UNAVAILABLE on a replica
 */
export async function checkSafety(connection: Connection): Promise<string> {
	const said = new Set<string>();
	for (const node of await nodesOf(connection)) {
		said.add(await checkNode(connection, node));
	}
	return [...said].join("; ");
}

async function nodesOf(connection: Connection): Promise<Redis[]> {
	const { client } = connection;
	if (!isCluster(client)) return [client];
	// One that has not connected yet knows of no nodes.
	await connection.call(() => client.info());
	const nodes = client.nodes("master");
	if (nodes.length === 0) throw connection.unavailable("has no masters");
	return nodes;
}

function isCluster(client: Client): client is Cluster {
	return client.isCluster;
}

async function checkNode(connection: Connection, node: Redis): Promise<string> {
	const { place } = connection;
	const info = await connection.call(() => node.info());
	const told = (name: string) => new RegExp(`^${name}:(\\S*)`, "m").exec(info)?.[1];
	const unusable = (problem: string) =>
		new LottorError("LOTTOR_STORE_UNUSABLE", `${place} can't be started on: ${problem}`, {
			place,
		});
	if (told("role") !== "master") throw connection.unavailable("is a replica: use the primary");
	if (told("cluster_enabled") === "1" && !isCluster(connection.client)) {
		throw unusable("it is a node of a cluster: give Lottor an instance of ioredis' `Cluster`");
	}
	if (told("aof_enabled") !== "1") {
		throw unusable("it has no AOF, so a restart loses what it had: set `appendonly yes`");
	}
	const policy = told("maxmemory_policy");
	if (policy !== "noeviction") {
		throw unusable(
			`its maxmemory-policy is ${policy ?? "not told"}, which throws rows away when memory is short: set it to noeviction`,
		);
	}
	switch (await appendfsync(connection, node)) {
		case "always":
			return "appendfsync always";
		case "everysec":
			return "appendfsync everysec: a crash of its machine loses up to the last second";
		case "no":
			throw unusable(
				"its appendfsync is no, so a crash loses what the system had not written: set it to always or everysec",
			);
		default:
			return "appendfsync can't be read: a crash loses what it does not cover";
	}
}

/** Hosted servers often don't allow CONFIG. */
async function appendfsync(connection: Connection, node: Redis): Promise<string | undefined> {
	try {
		const [, value] = (await connection.call(() =>
			node.config("GET", "appendfsync"),
		)) as string[];
		return value;
	} catch (error) {
		if (error instanceof LottorError && error.type === "LOTTOR_STORE_UNUSABLE")
			return undefined;
		if (/unknown command/i.test(String((error as Error).message))) return undefined;
		throw error;
	}
}
