import type { ClientSession, Collection, MongoClient, ObjectId } from "mongodb";

import type { TxBase } from "../../adapters/participant-store/index.ts";
import type { MongoTx } from "../../adapters/participant-store/mongo.ts";
import type { Documents, DocumentSource } from "./document-adapter.ts";
import type { Document } from "./sqlite-adapter.ts";

interface Stored {
	_id: string;
	/** Rises with each document. */
	place: ObjectId;
	grouped: string | null;
	doc: Document;
}

type MakeId = () => ObjectId;

/** Documents in a collection of MongoDB, inside the transaction that Lottor began. */
export function mongoDocuments(url: string, table: string): DocumentSource {
	let client: MongoClient | undefined;
	let newPlace: MakeId;

	return {
		async connect() {
			const { MongoClient: Client, ObjectId: Id } = await import("mongodb");
			newPlace = () => new Id();
			client ??= new Client(url, { serverSelectionTimeoutMS: 3_000 });
			const collection = client.db().collection(table);
			// One by one: FerretDB 1 ends the connection when asked for two that are there already.
			await collection.createIndex({ place: 1 });
			await collection.createIndex({ grouped: 1, place: 1 });
		},
		async disconnect() {
			const connected = client;
			client = undefined;
			await connected?.close();
		},
		plain() {
			if (!client) throw new Error(`Collection ${table} is not connected`);
			return documents(client.db().collection<Stored>(table), newPlace);
		},
		inside(tx: TxBase & Partial<MongoTx>) {
			if (!("session" in tx) || !tx.session || !tx.db) return undefined;
			return documents(tx.db.collection<Stored>(table), newPlace, tx.session);
		},
	};
}

function documents(
	collection: Collection<Stored>,
	newPlace: MakeId,
	session?: ClientSession,
): Documents {
	const options = session ? { session } : {};
	const columns = (document: Document) => ({
		grouped: (document["group"] as string | undefined) ?? null,
		doc: document,
	});
	return {
		async select({ group, limit, offset = 0 }) {
			const filter = group === undefined ? {} : { grouped: group };
			const found = collection.find(filter, options).sort({ place: 1 }).skip(offset);
			if (limit !== undefined) found.limit(limit);
			return (await found.toArray()).map(({ doc }) => doc);
		},
		async byId(id) {
			return (await collection.findOne({ _id: id }, options))?.doc;
		},
		async add(document) {
			const { _id } = document;
			// Asked first: a write that fails would end the transaction.
			if (await collection.findOne({ _id }, options)) return false;
			await collection.insertOne({ _id, place: newPlace(), ...columns(document) }, options);
			return true;
		},
		async replace(document) {
			await collection.updateOne({ _id: document._id }, { $set: columns(document) }, options);
		},
		async remove(id) {
			await collection.deleteOne({ _id: id }, options);
		},
	};
}
