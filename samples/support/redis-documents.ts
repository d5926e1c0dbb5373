import type { Redis } from "ioredis";

import type { Documents, DocumentSource } from "./document-adapter.ts";
import type { Document } from "./sqlite-adapter.ts";

/**
 * Documents in Redis: each in a hash, their ids by the order in which they came, all of them and
 * those of each group.
 */
export function redisDocuments(url: string, table: string): DocumentSource {
	let redis: Redis | undefined;
	const address = new URL(url);
	const prefix = address.searchParams.get("prefix");
	address.search = "";

	return {
		async connect() {
			if (redis) return;
			const { Redis: Client } = await import("ioredis");
			const client = new Client(address.href, { lazyConnect: true });
			client.on("error", () => undefined);
			await client.connect();
			redis = client;
		},
		async disconnect() {
			redis?.disconnect();
			redis = undefined;
		},
		plain() {
			if (!redis) throw new Error(`Documents ${table} are not connected`);
			return documents(redis, prefix === null ? `{${table}}` : `{${prefix}:${table}}`);
		},
		// Redis has no transaction that could be Lottor's too.
		inside: () => undefined,
	};
}

function documents(redis: Redis, key: string): Documents {
	const [docs, places, order] = [`${key}:docs`, `${key}:places`, `${key}:order`];
	const ofGroup = (document: Document) => `${key}:group:${String(document["group"])}`;
	return {
		async select({ group, limit, offset = 0 }) {
			const list = group === undefined ? order : `${key}:group:${group}`;
			const last = limit === undefined ? -1 : offset + limit - 1;
			const ids = await redis.zrange(list, offset, last);
			const found = ids.length > 0 ? await redis.hmget(docs, ...ids) : [];
			return found.flatMap((doc) => (doc === null ? [] : [JSON.parse(doc) as Document]));
		},
		async byId(id) {
			const doc = await redis.hget(docs, id);
			return doc === null ? undefined : (JSON.parse(doc) as Document);
		},
		async add(document) {
			if (!(await redis.hsetnx(docs, document._id, JSON.stringify(document)))) return false;
			const place = await redis.incr(places);
			await redis
				.multi()
				.zadd(order, place, document._id)
				.zadd(ofGroup(document), place, document._id)
				.exec();
			return true;
		},
		async replace(document) {
			await redis.hset(docs, document._id, JSON.stringify(document));
		},
		async remove(id) {
			const doc = await redis.hget(docs, id);
			if (doc === null) return;
			await redis
				.multi()
				.hdel(docs, id)
				.zrem(order, id)
				.zrem(ofGroup(JSON.parse(doc) as Document), id)
				.exec();
		},
	};
}
