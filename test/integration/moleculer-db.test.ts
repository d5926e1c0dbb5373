import { randomBytes } from "node:crypto";

import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import type { Context, Service, ServiceBroker, ServiceSchema } from "moleculer";
import DbService from "moleculer-db";
import MongoDbAdapter from "moleculer-db-adapter-mongo";
import { type Document, MongoClient } from "mongodb";

import type { MongoTx } from "../../adapters/participant-store/mongo.ts";
import {
	defineMessages,
	ReliableMessage,
	reliableOf,
} from "../../mixins/reliable-message/index.ts";
import { mongodb } from "../../scripts/servers/mongodb.ts";
import { TestCluster } from "../support/lottor.ts";
import { withServer } from "../support/servers.ts";

interface Sends {
	roles: { grant: { user: string } };
}

/** What a service of moleculer-db on MongoDB has. */
type MongoService = Service & {
	adapter: { collection: { insertOne(document: Document, options: object): Promise<unknown> } };
};

let lottor: TestCluster;
let broker: ServiceBroker;

beforeEach(() => {
	lottor = new TestCluster();
	broker = lottor.broker("node");
	lottor.coordinator(broker);
});

afterEach(() => lottor.stop());

withServer(mongodb, "moleculer-db-adapter-mongo on DocumentDB", (server) => {
	describe.each(["DbService first", "ReliableMessage first"])(
		"moleculer-db-adapter-mongo on DocumentDB, %s in `mixins`",
		(order) => {
			let client: MongoClient;
			let url: string;

			beforeEach(async () => {
				const address = new URL(server);
				address.pathname = `/test_${randomBytes(8).toString("hex")}`;
				url = address.href;
				client = new MongoClient(url);
				await client.db().createCollection("users");
				await client.db().createCollection("roles");
				broker.createService(usersService());
				broker.createService(rolesService());
				await broker.start();
			});

			afterEach(async () => {
				await broker.stop();
				await client.db().dropDatabase();
				await client.close();
			});

			const mixed = () => {
				const mixins: Partial<ServiceSchema>[] = [
					DbService as Partial<ServiceSchema>,
					ReliableMessage({ store: "adapter" }),
				];
				return {
					mixins: order === "DbService first" ? mixins : mixins.reverse(),
					adapter: new MongoDbAdapter(url, { useUnifiedTopology: true }),
				};
			};

			const usersService = () =>
				({
					name: "users",
					...mixed(),
					collection: "users",
					actions: {
						async register(
							this: MongoService,
							ctx: Context<{ name: string; fail?: boolean }>,
						) {
							const { name, fail } = ctx.params;
							const payload = { user: name };
							return reliableOf<Sends, MongoTx>(this).transaction(
								ctx,
								[{ target: "roles", type: "grant", payload }],
								async ({ session, group }) => {
									const { collection } = this.adapter;
									await collection.insertOne({ name, group }, { session });
									if (fail) throw new Error("no");
									return group;
								},
							);
						},
					},
				}) as unknown as ServiceSchema;

			const rolesService = () => {
				let failures = 1;
				return {
					name: "roles",
					...mixed(),
					collection: "roles",
					messages: defineMessages<Sends["roles"], MongoTx>({
						grant: {
							async handler(this: Service, ctx, { session }) {
								const { collection } = (this as MongoService).adapter;
								await collection.insertOne({ user: ctx.params.user }, { session });
								if (failures-- > 0) throw new Error("not yet");
							},
						},
					}),
				} as unknown as ServiceSchema;
			};

			test("R7 R32 rows and their outcome or inbox are one transaction, and its own actions work", async () => {
				for (const name of ["users", "roles"]) {
					expect(broker.getLocalService(name).metadata["lottor"]).toMatchObject({
						guarantee: "transactional",
					});
				}
				const group = await broker.call<string, object>("users.register", { name: "Ada" });
				await lottor.reached(group, "completed");
				await expect(
					broker.call("users.register", { name: "Bob", fail: true }),
				).rejects.toThrow("no");

				const users = await broker.call<Document[]>("users.find");
				expect(users).toMatchObject([{ name: "Ada", group }]);
				// The first attempt wrote its row, and failed: it went along.
				const roles = await broker.call<Document[]>("roles.find");
				expect(roles).toMatchObject([{ user: "Ada" }]);
				const outcomes = client.db().collection<{ _id: string }>("lottor_outcome");
				expect(await outcomes.findOne({ _id: group })).toMatchObject({
					state: "committed",
				});
			});
		},
	);
});

describe("moleculer-db on NeDB", () => {
	test("says at start which guarantee is left", async () => {
		const service = broker.createService({
			name: "users",
			mixins: [DbService as Partial<ServiceSchema>, ReliableMessage({ store: "adapter" })],
		});
		const said: string[] = [];
		service.logger.warn = (text: string) => said.push(text);
		await broker.start();

		expect(said).toEqual([expect.stringContaining("MemoryDbAdapter has no transactions")]);
		expect(said[0]).toContain("guarantee memory");
		expect(service.metadata["lottor"]).toMatchObject({ guarantee: "memory" });
		await broker.call("users.create", { name: "Ada" });
		expect(await broker.call("users.count")).toBe(1);
	});

	test("LOTTOR_STORE_UNUSABLE where there is no adapter at all", async () => {
		broker.createService({ name: "plain", mixins: [ReliableMessage({ store: "adapter" })] });
		await expect(broker.start()).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
			message: expect.stringContaining("DbService"),
		});
	});
});

test("the mixin starts after the others that it may need, and before the service's own part", async () => {
	const order: string[] = [];
	const mixin = (name: string) => ({ started: () => void order.push(name) });
	broker.createService({
		name: "ordered",
		mixins: [mixin("first"), ReliableMessage({ store: "memory:" }), mixin("last")],
		started(this: Service) {
			order.push(this.metadata["lottor"] ? "own, Lottor is there" : "own");
		},
	});
	await broker.start();
	expect(order).toEqual(["last", "first", "own, Lottor is there"]);
});
