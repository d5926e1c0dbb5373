/** What the store needs of the driver, the same in 3.7 and 4 to 7. */
export interface MongoClientLike {
	connect(): Promise<unknown>;
	close(): Promise<unknown>;
	db(name?: string): MongoDbLike;
	startSession(options?: { readonly causalConsistency?: boolean }): MongoSessionLike;
	/** Driver 3.7 only. */
	readonly isConnected?: unknown;
	/** Undefined until it was told to connect. */
	readonly topology?: unknown;
}

export interface MongoDbLike {
	readonly databaseName: string;
	command(command: Document, options?: CommandOptions): Promise<Document>;
	/** Driver 5 and newer. */
	readonly client?: unknown;
}

export interface MongoSessionLike {
	startTransaction(options: Document): void;
	commitTransaction(): Promise<unknown>;
	abortTransaction(): Promise<unknown>;
	endSession(): Promise<unknown>;
	inTransaction(): boolean;
}

export type Document = Record<string, unknown>;

interface CommandOptions {
	readonly session?: MongoSessionLike;
	readonly readPreference?: string;
}

/** @returns whether the value is a MongoClient of any driver */
export function isMongoClient(value: unknown): value is MongoClientLike {
	return hasMethods(value, ["connect", "close", "db", "startSession"]);
}

/** @returns whether the value is a database that tells its client */
export function isMongoDb(value: unknown): value is MongoDbLike & { client: MongoClientLike } {
	return (
		hasMethods(value, ["command", "collection"]) &&
		isMongoClient((value as unknown as MongoDbLike).client)
	);
}

function hasMethods(value: unknown, names: readonly string[]): value is object {
	if (typeof value !== "object" || value === null) return false;
	return names.every((name) => typeof (value as Document)[name] === "function");
}
