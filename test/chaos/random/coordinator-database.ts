import { type Collection, MongoClient } from "mongodb";

import {
	type CoordinatorData,
	type OpenGroup,
	type StoredGroup,
	type StoredMessage,
} from "./coordinator-file.ts";

/** What this reads of a message in its group's document. */
interface MessageDocument {
	readonly target: string;
	readonly state: string;
	readonly error: { readonly code: string } | null;
}

/** What this reads of a group's document. */
interface GroupDocument {
	readonly _id: string;
	readonly version: number;
	readonly state: string;
	readonly source: string;
	readonly createdAt: number;
	readonly conflict: string | null;
	/** By place. */
	readonly messages: Readonly<Record<string, MessageDocument>>;
}

/** The coordinators' database on a server of MongoDB's protocol, whose clock is this machine's. */
export class CoordinatorDatabase implements CoordinatorData {
	readonly isFile = false;
	readonly #connect: () => MongoClient;
	readonly #name: string;
	#client: MongoClient;

	constructor(url: string) {
		this.#connect = () => new MongoClient(url, { serverSelectionTimeoutMS: 2_000 });
		this.#name = new URL(url).pathname.slice(1) || "lottor";
		this.#client = this.#connect();
	}

	close(): Promise<void> {
		return this.#client.close();
	}

	leasedBy(node: string, soon: number): Promise<OpenGroup[]> {
		const until = Date.now() + soon;
		return this.#open({ leaseOwner: { $regex: `^${node}[|]` }, "due.at": { $lt: until } });
	}

	preparedBy(node: string): Promise<OpenGroup[]> {
		return this.#open({ state: "prepared", "owner.nodeID": node });
	}

	async one(id: string): Promise<OpenGroup | undefined> {
		const [found] = await this.#open({ _id: id });
		return found;
	}

	async busy(): Promise<number> {
		const undecided = await this.#open({ state: { $in: ["prepared", "committed"] } });
		const leased = await this.#open({
			leaseOwner: { $ne: null },
			due: { $exists: true },
			leaseUntil: { $gt: Date.now() },
		});
		return new Set([...undecided, ...leased].map(({ id }) => id)).size;
	}

	async states(): Promise<Record<string, number>> {
		const states: Record<string, number> = {};
		for (const { state } of await this.groups()) states[state] = (states[state] ?? 0) + 1;
		return states;
	}

	async groups(): Promise<StoredGroup[]> {
		const documents = await this.#find({});
		return documents.map(({ _id, state, conflict }) => ({ id: _id, state, conflict }));
	}

	async messages(): Promise<StoredMessage[]> {
		const documents = await this.#find({});
		return documents.flatMap(({ _id, messages }) =>
			Object.entries(messages).map(([index, { target, state, error }]) => ({
				id: `${_id}.${index}`,
				target,
				state,
				error: error?.code ?? null,
			})),
		);
	}

	async #open(filter: object): Promise<OpenGroup[]> {
		const documents = await this.#find(filter);
		return documents.map(({ _id, version, state, source, createdAt }) => ({
			id: _id,
			version,
			state,
			source,
			createdAt,
		}));
	}

	async #find(filter: object): Promise<GroupDocument[]> {
		const client = this.#client;
		const groups: Collection<GroupDocument> = client.db(this.#name).collection("lottor_groups");
		try {
			return await groups.find(filter).toArray();
		} catch (error) {
			// A client may never find a server again that was killed while it looked (driver 7.9).
			if (client === this.#client) {
				this.#client = this.#connect();
				client.close().catch(() => undefined);
			}
			throw error;
		}
	}
}
