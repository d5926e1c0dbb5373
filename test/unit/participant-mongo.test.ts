import { describe, expect, it } from "@jest/globals";

import { resolveParticipantStore } from "../../adapters/participant-store/index.ts";
import { mongoParticipantStore } from "../../adapters/participant-store/mongo.ts";
import { systemClock, systemRandom } from "../../protocol/index.ts";

type Document = Record<string, unknown>;
type Answer = (command: Document, session?: object) => Document;

const PRIMARY = { isWritablePrimary: true, localTime: new Date(), ok: 1 };

/** A client of a server that answers as the test says; all else as an empty replica set would. */
function clientOf(answer: Answer, more: object = {}) {
	const stored: Document[] = [];
	const command = async (sent: Document, options: { session?: object } = {}) => {
		const given = answer(sent, options.session);
		if (Object.keys(given).length > 0) return given;
		if ("hello" in sent) return PRIMARY;
		if (sent["insert"] === "lottor_participant" && !options.session)
			stored.push(...(sent["documents"] as Document[]));
		if ("find" in sent) return { cursor: { firstBatch: "filter" in sent ? named(sent) : [] } };
		return { ok: 1, n: 1 };
	};
	const named = (sent: Document) =>
		stored.filter(({ _id }) => _id === (sent["filter"] as Document)["_id"]);
	return {
		connect: async () => undefined,
		close: async () => undefined,
		db: () => ({ databaseName: "own", command }),
		startSession: () => ({
			startTransaction: () => undefined,
			commitTransaction: async () => undefined,
			abortTransaction: async () => undefined,
			endSession: async () => undefined,
			inTransaction: () => true,
		}),
		...more,
	};
}

const fault = (code: number, message = "no") =>
	Object.assign(new Error(message), { name: "MongoServerError", code });

const throwing = (match: (sent: Document, session?: object) => boolean, error: Error): Answer => {
	return (sent, session) => {
		if (match(sent, session)) throw error;
		return {};
	};
};

describe("what a MongoDB is refused for at start", () => {
	it.each<[string, Answer, object]>([
		[
			"a storage engine that keeps everything in memory",
			(sent) => ("serverStatus" in sent ? { storageEngine: { persistent: false } } : {}),
			{ type: "LOTTOR_STORE_UNUSABLE", message: expect.stringContaining("WiredTiger") },
		],
		[
			"no reads of what a majority has",
			throwing((sent) => "find" in sent, fault(148)),
			{
				type: "LOTTOR_STORE_UNUSABLE",
				message: expect.stringContaining("enableMajorityReadConcern"),
			},
		],
		[
			"no journal",
			throwing((sent) => "writeConcern" in sent, fault(2, "no journaling enabled")),
			{
				type: "LOTTOR_STORE_UNUSABLE",
				message: expect.stringContaining("no journaling enabled"),
			},
		],
		[
			"a login that fails",
			throwing(() => true, fault(18)),
			{ type: "LOTTOR_STORE_UNUSABLE", message: expect.stringContaining("login") },
		],
		[
			"a user without rights",
			throwing((sent) => "createIndexes" in sent, fault(13)),
			{ type: "LOTTOR_STORE_UNUSABLE", message: expect.stringContaining("readWrite") },
		],
		[
			"documents of a newer version",
			(sent) =>
				sent["find"] === "lottor_participant" && "filter" in sent
					? { cursor: { firstBatch: [{ _id: "store", version: 99 }] } }
					: {},
			{ type: "LOTTOR_STORE_UNUSABLE", message: expect.stringContaining("version 99") },
		],
		[
			"a secondary, which may become the primary",
			(sent) => ("hello" in sent ? { isWritablePrimary: false } : {}),
			{ type: "LOTTOR_STORE_UNAVAILABLE", message: expect.stringContaining("secondary") },
		],
		[
			"a majority that is not there",
			(sent) =>
				"insert" in sent ? { writeConcernError: { code: 64, errmsg: "waited" } } : {},
			{ type: "LOTTOR_STORE_UNAVAILABLE", message: expect.stringContaining("majority") },
		],
		[
			"no primary to be found",
			throwing(() => true, Object.assign(new Error("none"), { name: "MongoNetworkError" })),
			{ type: "LOTTOR_STORE_UNAVAILABLE" },
		],
	])("%s", async (_what, answer, expected) => {
		const store = mongoParticipantStore(clientOf(answer));
		await expect(store.open()).rejects.toMatchObject(expected);
	});

	it("no transactions, if they were asked for: a standalone server", async () => {
		const text = "Transaction numbers are only allowed on a replica set member or mongos";
		const client = clientOf(throwing((_, session) => session !== undefined, fault(20, text)));
		const store = mongoParticipantStore(client, { guarantee: "transactional" });
		await expect(store.open()).rejects.toMatchObject({ type: "LOTTOR_STORE_UNUSABLE" });

		const recorded = await mongoParticipantStore(client).open();
		expect(recorded).toMatchObject({
			guarantee: "recorded",
			notice: expect.stringContaining(text),
		});
	});

	it("nothing, where all is well", async () => {
		const opened = await mongoParticipantStore(clientOf(() => ({}))).open();
		expect(opened).toEqual({
			storeId: expect.stringMatching(/^[0-9a-f]{32}$/),
			guarantee: "transactional",
		});
	});

	it("a primary that goes away while its transactions are tried is waited for", async () => {
		const client = clientOf(throwing((_, session) => session !== undefined, fault(10_107)));
		await expect(mongoParticipantStore(client).open()).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNAVAILABLE",
		});
	});
});

describe("mongoParticipantStore", () => {
	const machine = { clock: systemClock, random: systemRandom };
	const description = (spec: unknown) =>
		resolveParticipantStore(spec, "Service.store", machine).description;

	it("takes URLs, clients and adapters, and shows no secret", () => {
		expect(description("mongodb://user:secret@a:1,b:2/own?replicaSet=r")).toBe(
			"mongodb://a:1,b:2/own",
		);
		expect(description("mongodb+srv://host/own")).toBe("mongodb+srv://host/own");
		const s = { url: "mongodb://user:secret@host:1/own" };
		expect(description(clientOf(() => ({}), { s }))).toBe("mongodb://host:1/own");
		const client = clientOf(() => ({}), { s });
		expect(description({ client, dbName: "other" })).toBe("mongodb://host:1/other");
		class MongoDbAdapter {
			uri = "mongodb://user:secret@host/own";
		}
		expect(description(new MongoDbAdapter())).toBe("the MongoDB of the service's adapter");
	});

	it.each<[unknown, object]>([
		["mongodb://host", {}],
		["mongodb://", {}],
		["mongodb://host/own?w=0", {}],
		["mongodb://host/own?guarantee=perfect", {}],
		[clientOf(() => ({}), { writeConcern: { w: 0 } }), {}],
		[clientOf(() => ({})), { database: "a b" }],
		[clientOf(() => ({})), { guarantee: "memory" }],
		[clientOf(() => ({})), { colour: "red" }],
		[{}, {}],
		[7, {}],
	])("LOTTOR_INVALID_OPTIONS for %p with %p", (from, options) => {
		expect(() => mongoParticipantStore(from, options, "Service.store")).toThrow(
			expect.objectContaining({
				type: "LOTTOR_INVALID_OPTIONS",
				data: { field: expect.stringMatching(/^Service\.store/) },
			}),
		);
	});

	it("LOTTOR_STORE_UNUSABLE for settings that the driver refuses", async () => {
		const store = mongoParticipantStore("mongodb://host/own?colour=red");
		await expect(store.open()).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
			message: expect.stringContaining("colour"),
		});
	});

	it("gives no work a turn before it is open", async () => {
		const store = mongoParticipantStore("mongodb://host/own");
		const request = { id: "g", owner: { nodeID: "n", instanceID: "i" }, coordinator: "c" };
		let ran = false;
		const work = async () => void (ran = true);
		expect(await store.run({ ...request, timeout: 1 }, work)).toMatchObject({
			state: "rolledBack",
			error: { type: "LOTTOR_STORE_UNAVAILABLE" },
		});
		await expect(store.resolve(["g"])).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNAVAILABLE",
		});
		expect(ran).toBe(false);
	});
});
