import type {
	AnyBulkWriteOperation,
	Collection,
	Document,
	OptionalUnlessRequiredId,
} from "mongodb";

const DUPLICATE_KEY = 11_000;
/** Another write was faster, in the eyes of the server. */
const WRITE_CONFLICT = 112;

/** What an unordered bulk of writes came to. */
export interface BulkOutcome {
	readonly matched: number;
	/** By place; conflicts with other writes are not among them: these matched nothing. */
	readonly errors: ReadonlyMap<number, Error>;
}

interface WriteError {
	readonly index: number;
	readonly code: number;
	readonly errmsg?: string;
}

interface BulkResult {
	readonly insertedCount?: number;
	readonly matchedCount?: number;
	getWriteConcernError?(): unknown;
}

/** Errors of single writes of a bulk. @throws anything else: then the whole bulk is in question */
function writeErrorsOf(error: unknown): { errors: readonly WriteError[]; result: BulkResult } {
	const { writeErrors, result = {} } = error as {
		writeErrors?: WriteError | readonly WriteError[];
		result?: BulkResult;
	};
	const list = writeErrors === undefined ? [] : [writeErrors].flat();
	if (list.length === 0 || result.getWriteConcernError?.() !== undefined) throw error;
	const errors = list.map(({ index, code, errmsg = "" }) => ({ index, code, errmsg }));
	return { errors, result };
}

/**
 * Inserts documents; those whose key is there already are left as they are.
 *
 * @returns by place, what was not inserted
 */
export async function insertAll<T extends Document>(
	collection: Collection<T>,
	documents: readonly T[],
): Promise<ReadonlyMap<number, "duplicate" | Error>> {
	if (documents.length === 0) return new Map();
	try {
		await collection.insertMany(documents as unknown as OptionalUnlessRequiredId<T>[], {
			ordered: false,
		});
		return new Map();
	} catch (error) {
		const { errors, result } = writeErrorsOf(error);
		// The rest of them was not answered for.
		if ((result.insertedCount ?? 0) + errors.length < documents.length) throw error;
		return new Map(
			errors.map(({ index, code, errmsg = "" }) => [
				index,
				code === DUPLICATE_KEY
					? "duplicate"
					: new Error(`${errmsg} (code ${code})`, { cause: error }),
			]),
		);
	}
}

/** Inserts documents that may be there already. @throws the first error of another kind */
export async function withoutDuplicates<T extends Document>(
	collection: Collection<T>,
	documents: readonly T[],
): Promise<void> {
	for (const error of (await insertAll(collection, documents)).values()) {
		if (error !== "duplicate") throw error;
	}
}

/** Runs single-document updates, each for itself. */
export async function updateAll<T extends Document>(
	collection: Collection<T>,
	operations: readonly AnyBulkWriteOperation<T>[],
): Promise<BulkOutcome> {
	if (operations.length === 0) return { matched: 0, errors: new Map() };
	try {
		const { matchedCount } = await collection.bulkWrite(operations, { ordered: false });
		return { matched: matchedCount, errors: new Map() };
	} catch (error) {
		const { errors, result } = writeErrorsOf(error);
		return {
			matched: result.matchedCount ?? 0,
			errors: new Map(
				errors
					.filter(({ code }) => code !== WRITE_CONFLICT)
					.map(({ index, code, errmsg = "" }) => [
						index,
						new Error(`${errmsg} (code ${code})`, { cause: error }),
					]),
			),
		};
	}
}
