import type { Collection, Db, Document, IndexDescription } from "mongodb";

import { newStoreId, type Random } from "../../../protocol/index.ts";
import type { ActivityDocument, KindDocument } from "./activity.ts";
import type { AuditDocument } from "./audit.ts";
import type { CountersDocument } from "./counters.ts";
import { type Address, type Driver, faultOf, unusable } from "./connection.ts";
import type { EntryDocument, GroupDocument, PayloadDocument } from "./documents.ts";

const KEY_BYTES = 32;
const IDENTITY = "identity";
const DUPLICATE_KEY = 11_000;
/** Of another index with the same name, or the same keys with another name or other options. */
const INDEX_CONFLICTS = new Set([67, 85, 86]);

/** The version of the collections and their documents. */
export const SCHEMA = 2;

/** What brings a database from schema n to n + 1, at place n - 1; each may be run again. */
const MIGRATIONS: readonly ((db: Db) => Promise<void>)[] = [
	// Counters and an index by creation, both made at every start; lists of version 1 would not find
	// the groups that are stored from now on.
	async () => undefined,
];

/** Indexes of the groups, besides the one on `_id`. Lists and claims name them as hints. */
export const INDEXES = {
	due: { key: { "due.kind": 1, "due.at": 1, slot: 1 }, sparse: true },
	facets: { key: { facets: 1, createdAt: -1, _id: -1 } },
	created: { key: { createdAt: -1, _id: -1 } },
	wakes: {
		key: { wakes: 1, checkAt: 1 },
		partialFilterExpression: { wakes: { $exists: true } },
	},
	purge: { key: { "purge.state": 1, "purge.since": 1 }, sparse: true },
} as const satisfies Record<string, Omit<IndexDescription, "name">>;

const AUDIT_INDEXES = {
	who: { key: { who: 1, _id: -1 } },
	action: { key: { action: 1, _id: -1 } },
} as const satisfies Record<string, Omit<IndexDescription, "name">>;

/** Who holds an idempotency key. */
export interface KeyDocument {
	/** The source and its key, as JSON. */
	readonly _id: string;
	readonly group: string;
	/** Whether the group is stored for certain. */
	readonly settled: boolean;
}

interface IdentityDocument {
	readonly _id: string;
	readonly storeId: string;
	readonly key: { readonly buffer: Uint8Array };
	readonly schema: number;
}

/** Groups whose satellites are being deleted. */
export interface PurgeDocument {
	readonly _id: string;
	readonly ids: readonly string[];
}

export interface Collections {
	readonly groups: Collection<GroupDocument>;
	readonly payloads: Collection<PayloadDocument>;
	readonly timeline: Collection<EntryDocument>;
	readonly keys: Collection<KeyDocument>;
	readonly purges: Collection<PurgeDocument>;
	readonly activity: Collection<ActivityDocument>;
	readonly kinds: Collection<KindDocument>;
	readonly audit: Collection<AuditDocument>;
	readonly counters: Collection<CountersDocument>;
}

export function collectionsOf(db: Db): Collections {
	return {
		groups: db.collection("lottor_groups"),
		payloads: db.collection("lottor_payloads"),
		timeline: db.collection("lottor_timeline"),
		keys: db.collection("lottor_keys"),
		purges: db.collection("lottor_purges"),
		activity: db.collection("lottor_activity"),
		kinds: db.collection("lottor_kinds"),
		audit: db.collection("lottor_audit"),
		counters: db.collection("lottor_counters"),
	};
}

/** What the store keeps about itself. */
export interface Identity {
	readonly storeId: string;
	readonly schema: number;
	readonly key: Uint8Array;
}

/**
 * Makes or migrates the collections, their indexes and the store's identity.
 *
 * @throws LOTTOR_STORE_UNUSABLE when a newer version of Lottor has written it, its indexes are
 *   others, or the server lacks what the store needs
 */
export async function prepareDatabase(
	db: Db,
	driver: Driver,
	address: Address,
	random: Random,
): Promise<Identity> {
	const own = db.collection<IdentityDocument>("lottor_coordinator");
	const key = new driver.Binary(random.bytes(KEY_BYTES));
	const fresh = { storeId: newStoreId(random), key, schema: SCHEMA };
	await own
		.updateOne({ _id: IDENTITY }, { $setOnInsert: fresh }, { upsert: true })
		.catch((error: unknown) => {
			// Another coordinator was faster.
			if ((error as { code?: unknown }).code !== DUPLICATE_KEY) throw error;
		});
	const found = await own.findOne({ _id: IDENTITY });
	if (!found) throw faultOf(address, new Error("its identity can't be read back"));
	if (found.schema > SCHEMA) {
		throw unusable(
			address,
			`it has schema ${found.schema}, this version of Lottor knows ${SCHEMA}: install the version that wrote it, or a newer one`,
		);
	}
	for (const [place, migrate] of MIGRATIONS.entries()) {
		const schema = place + 1;
		if (found.schema > schema) continue;
		await migrate(db);
		await own.updateOne({ _id: IDENTITY, schema }, { $set: { schema: schema + 1 } });
	}
	await probe(own, address);
	const { groups, audit } = collectionsOf(db);
	await makeIndexes(groups, INDEXES, address);
	await makeIndexes(audit, AUDIT_INDEXES, address);
	return { storeId: found.storeId, schema: SCHEMA, key: Uint8Array.from(found.key.buffer) };
}

/** Writes as every later step does, so that a server which can't do it is found at start. */
async function probe(own: Collection<IdentityDocument>, address: Address): Promise<void> {
	const now = { $toLong: "$$NOW" };
	const filter = { _id: IDENTITY, $expr: { $lte: [0, now] } };
	const update = [{ $set: { openedAt: now, absent: "$$REMOVE" } }];
	const { matchedCount } = await own.updateOne(filter, update).catch((error: unknown) => {
		const { code } = error as { code?: unknown };
		if (typeof code !== "number") throw error;
		const lack = "it lacks updates by pipeline with $$NOW, which MongoDB has since 4.2";
		throw unusable(address, lack, error);
	});
	if (matchedCount !== 1) throw unusable(address, "it does not find what it has stored");
}

async function makeIndexes<T extends Document>(
	collection: Collection<T>,
	indexes: Readonly<Record<string, Omit<IndexDescription, "name">>>,
	address: Address,
): Promise<void> {
	const { collectionName } = collection;
	const wanted = Object.entries(indexes).map(([name, index]) => ({ name, ...index }));
	await collection.createIndexes(wanted).catch((error: unknown) => {
		const { code } = error as { code?: unknown };
		if (typeof code !== "number" || !INDEX_CONFLICTS.has(code)) throw error;
		const advice = `${collectionName} has other indexes of the same names or fields: drop them`;
		throw unusable(address, advice, error);
	});
	const found = await collection.indexes();
	const missing = wanted.find(
		({ name, key }) =>
			!found.some(
				(index) => index.name === name && JSON.stringify(index.key) === JSON.stringify(key),
			),
	);
	if (missing) {
		throw unusable(address, `index ${missing.name} of ${collectionName} could not be made`);
	}
}

/** The server's time, for {@link StoreClock}. */
export async function serverTime(db: Db): Promise<number> {
	const [told] = await db
		.collection<IdentityDocument>("lottor_coordinator")
		.aggregate<{ now: number }>([
			{ $match: { _id: IDENTITY } },
			{ $project: { now: { $toLong: "$$NOW" } } },
		])
		.toArray();
	if (!told) throw new Error("its identity is gone");
	return Number(told.now);
}
