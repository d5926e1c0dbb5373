import { type Clock, invalidOptions, type Random } from "../../protocol/index.ts";
import type { CoordinatorStore } from "./contract.ts";
import { mongoCoordinatorStore } from "./mongo.ts";
import { sqliteCoordinatorStore } from "./sqlite.ts";

export * from "./contract.ts";
export {
	mongoCoordinatorStore,
	MongoCoordinatorStore,
	type MongoCoordinatorStoreOptions,
} from "./mongo.ts";
export {
	sqliteCoordinatorStore,
	SqliteCoordinatorStore,
	type SqliteCoordinatorStoreOptions,
} from "./sqlite.ts";

/** What stores are made with. */
export interface StoreSurroundings {
	readonly clock: Clock;
	readonly random: Random;
}

const SCHEME = /^([a-z][a-z0-9+]*):(?:\/\/)?(.*)$/s;

/** Makes a store of a URL, of which `rest` follows the scheme; client libraries are loaded by `open()`. */
type Maker = (rest: string, surroundings: StoreSurroundings, url: string) => CoordinatorStore;

const mongo: Maker = (_rest, { random }, url) => mongoCoordinatorStore({ url, random });

/** Schemes, each with what follows in a URL as an error shows it. */
const KINDS: Readonly<Record<string, { readonly make: Maker; readonly example: string }>> = {
	sqlite: {
		make: (file, surroundings) => sqliteCoordinatorStore({ file, ...surroundings }),
		example: "sqlite:…",
	},
	mongodb: { make: mongo, example: "mongodb://…" },
	"mongodb+srv": { make: mongo, example: "mongodb+srv://…" },
};

/**
 * Turns the value of an option into a coordinator store, not opened yet.
 *
 * @param spec `sqlite:<file>` (`sqlite:./lottor.db`, `sqlite:///var/lib/lottor.db`),
 *   `mongodb://…`, or a store
 * @param field the option's full name, for the error
 * @throws LOTTOR_INVALID_OPTIONS naming `field` and the kinds of stores that exist
 */
export function resolveCoordinatorStore(
	spec: string | CoordinatorStore,
	field: string,
	surroundings: StoreSurroundings,
): CoordinatorStore {
	if (isStore(spec)) return spec;
	const [url = "", scheme = "", rest = ""] =
		typeof spec === "string" ? (SCHEME.exec(spec.trim()) ?? []) : [];
	const kind = Object.hasOwn(KINDS, scheme) ? KINDS[scheme] : undefined;
	if (kind && rest !== "") return kind.make(rest, surroundings, url);
	const kinds = Object.values(KINDS)
		.map(({ example }) => `"${example}"`)
		.join(", ");
	throw invalidOptions(
		field,
		`must be a coordinator store or a URL of one (${kinds}), got ${typeof spec === "string" ? JSON.stringify(hidePassword(spec)) : typeof spec}`,
	);
}

function isStore(spec: unknown): spec is CoordinatorStore {
	return (
		typeof spec === "object" &&
		spec !== null &&
		["open", "close", "insert", "decide", "claim", "apply"].every(
			(method) => typeof (spec as Record<string, unknown>)[method] === "function",
		)
	);
}

function hidePassword(url: string): string {
	return url.replace(/:[^:@/]*@/, ":***@");
}
