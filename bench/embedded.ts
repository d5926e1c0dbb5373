import { join } from "node:path";

import { ServiceBroker, type ServiceSchema } from "moleculer";
import {
	type CoordinatorStore,
	sqliteCoordinatorStore,
} from "../adapters/coordinator-store/index.ts";
import { openSqliteFile, type SqliteFile, type SqliteTx } from "../adapters/sqlite/index.ts";
import { defineMessages, ReliableMessage, reliableOf } from "../mixins/reliable-message/index.ts";
import { Coordinator } from "../services/coordinator/index.ts";

interface Sends {
	auth: { "grant-role": { user: string; role: string } };
}

/** A whole embedded Lottor in this process: coordinator, producer and consumer, a file each. */
export interface Embedded {
	/** One transaction; resolves when its group is stored as completed. */
	once(): Promise<void>;
	/** Rows of the producer and of the consumer. */
	rows(): Promise<{ users: number; roles: number }>;
	close(): Promise<void>;
}

/** Starts it on new files in `folder`. */
export async function embedded(folder: string): Promise<Embedded> {
	const waiting = new Map<string, () => void>();
	const early = new Set<string>();
	const store = watched(sqliteCoordinatorStore({ file: join(folder, "lottor.db") }), (id) => {
		const resolve = waiting.get(id);
		if (!resolve) early.add(id);
		waiting.delete(id);
		resolve?.();
	});
	const files = { users: join(folder, "user.db"), roles: join(folder, "auth.db") };
	const broker = new ServiceBroker({ nodeID: "bench", logger: false });
	broker.createService(Coordinator({ store, maxInFlight: 10_000 }));
	const user = broker.createService({
		name: "user",
		mixins: [ReliableMessage({ store: `sqlite:${files.users}` })],
	});
	broker.createService({
		name: "auth",
		mixins: [ReliableMessage({ store: `sqlite:${files.roles}` })],
		messages: defineMessages<Sends["auth"], SqliteTx>({
			"grant-role": (ctx, tx) => {
				tx.run(
					"INSERT INTO roles (user, role) VALUES (?, ?)",
					ctx.params.user,
					ctx.params.role,
				);
			},
		}),
	} as ServiceSchema);
	const users = await openSqliteFile(files.users);
	const roles = await openSqliteFile(files.roles);
	await users.write((tx) => tx.run("CREATE TABLE users (name TEXT)"));
	await roles.write((tx) => tx.run("CREATE TABLE roles (user TEXT, role TEXT)"));
	await broker.start();

	const reliable = reliableOf<Sends, SqliteTx>(user);
	const payload = { user: "u".repeat(100), role: "admin" };
	const messages = [{ target: "auth", type: "grant-role", payload }] as const;
	return {
		async once() {
			const id = await reliable.transaction(null, messages, (tx) => {
				tx.run("INSERT INTO users (name) VALUES (?)", payload.user);
				return tx.group;
			});
			if (early.delete(id)) return;
			await new Promise<void>((resolve) => waiting.set(id, resolve));
		},
		async rows() {
			const count = async (one: SqliteFile, table: string) => {
				const row = await one.read((db) => db.get(`SELECT count(*) AS n FROM ${table}`));
				return Number(row?.["n"]);
			};
			return { users: await count(users, "users"), roles: await count(roles, "roles") };
		},
		async close() {
			await broker.stop();
			await users.close();
			await roles.close();
		},
	};
}

/** The store, which also tells of each group that it stored as completed. */
function watched(store: CoordinatorStore, completed: (id: string) => void): CoordinatorStore {
	const apply: CoordinatorStore["apply"] = async (changes) => {
		const results = await store.apply(changes);
		for (const result of results) {
			if (result.result === "done" && result.group.state === "completed") {
				completed(result.group.id);
			}
		}
		return results;
	};
	return new Proxy(store, {
		get(target, name) {
			if (name === "apply") return apply;
			const value: unknown = Reflect.get(target, name, target);
			return typeof value === "function" ? (value.bind(target) as unknown) : value;
		},
	});
}
