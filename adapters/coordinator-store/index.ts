import { type Clock, invalidOptions, type Random } from "../../protocol/index.ts";
import type { CoordinatorStore } from "./contract.ts";
import { sqliteCoordinatorStore } from "./sqlite.ts";

export * from "./contract.ts";
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

/** What follows the scheme, to a store; each kind's client library is loaded by its `open()`. */
const KINDS: Readonly<
	Record<string, (rest: string, surroundings: StoreSurroundings) => CoordinatorStore>
> = {
	sqlite: (file, surroundings) => sqliteCoordinatorStore({ file, ...surroundings }),
};

/**
 * Turns the value of an option into a coordinator store, not opened yet.
 *
 * @param spec `sqlite:<file>` (`sqlite:./lottor.db`, `sqlite:///var/lib/lottor.db`), or a store
 * @param field the option's full name, for the error
 * @throws LOTTOR_INVALID_OPTIONS naming `field` and the kinds of stores that exist
 */
export function resolveCoordinatorStore(
	spec: string | CoordinatorStore,
	field: string,
	surroundings: StoreSurroundings,
): CoordinatorStore {
	if (isStore(spec)) return spec;
	const [, scheme = "", rest = ""] =
		typeof spec === "string" ? (SCHEME.exec(spec.trim()) ?? []) : [];
	const kind = Object.hasOwn(KINDS, scheme) ? KINDS[scheme] : undefined;
	if (kind && rest !== "") return kind(rest, surroundings);
	const kinds = Object.keys(KINDS)
		.map((name) => `"${name}:…"`)
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
