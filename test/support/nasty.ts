import fc from "fast-check";

/** Texts that break parsers, queries, patterns and pages, and can be sent in a URL. */
export const NASTY_QUERIES = [
	"",
	"0",
	"-1",
	"1e999",
	"NaN",
	"null",
	"' OR 1=1 --",
	'{"$gt":""}',
	"$where",
	"(a+)+$",
	".*[",
	"%",
	"_",
	"\\",
	"\u0000",
	"\ud83d\ude00",
	"ﷺ",
	"<script>alert(1)</script>",
	"../../etc/passwd",
	"__proto__",
	"constructor",
	"x".repeat(300),
	"WyJhIiwiYiJd",
	"99999999999999999999",
] as const;

/** Texts that break keys and envelopes, too. */
export const NASTY_TEXTS = [
	...NASTY_QUERIES,
	"%E0%A4%A",
	"a\u0000b",
	"\ud800",
	"toString",
	"x".repeat(70_000),
] as const;

const MORE_THAN_ANY_BATCH = 12_000;

/** Values that no caller with good intentions sends; made anew each time, since some are changed by reading. */
const NASTY_VALUES: readonly (() => unknown)[] = [
	() => undefined,
	() => null,
	() => true,
	() => Number.NaN,
	() => Number.POSITIVE_INFINITY,
	() => Number.NEGATIVE_INFINITY,
	() => -0,
	() => -1,
	() => 0.5,
	() => 2 ** 31,
	() => Number.MAX_SAFE_INTEGER,
	() => 2 ** 53,
	() => 1e308,
	() => 10n ** 30n,
	() => Symbol("nasty"),
	() => () => "nasty",
	() => new Date(),
	() => new Date(Number.NaN),
	() => Buffer.from("nasty"),
	() => new Uint8Array(3),
	() => new Map([["id", 1]]),
	() => [],
	() => ({}),
	() => Object.create(null) as object,
	() => JSON.parse('{"__proto__":{"id":"polluted","state":"polluted"}}') as object,
	() => ({ constructor: { prototype: { state: "polluted" } } }),
	() => ({ toString: 5, valueOf: null, toJSON: 5 }),
	() =>
		named("a getter that throws", {
			get id() {
				throw new Error(GETTER);
			},
		}),
	() => {
		const cyclic: Record<string, unknown> = {};
		cyclic["self"] = cyclic;
		return cyclic;
	},
	() => nested(20_000, (inner) => ({ inner })),
	() => nested(20_000, (inner) => [inner]),
	() => Array.from({ length: 4 }),
	// A hole is no undefined: some loops pass over it.
	// eslint-disable-next-line no-sparse-arrays
	() => [{ id: "a" }, , { id: "b" }],
	() => Array.from({ length: MORE_THAN_ANY_BATCH }, () => ({})),
];

/** What a getter of ours throws: a caller's own error, which may come back to it. */
export const GETTER = "a getter that throws";

/** Gives a value a text of its own: fast-check would end its stack, or a getter, by printing it. */
function named(name: string, value: object): object {
	return Object.defineProperty(value, fc.toStringMethod, { value: () => name });
}

function nested(depth: number, wrap: (inner: unknown) => object): object {
	let value = wrap(1);
	for (let level = 1; level < depth; level++) value = wrap(value);
	return named(`nested ${depth} deep`, value);
}

/** Anything, wrong types first. */
export const nastyValue: fc.Arbitrary<unknown> = fc.oneof(
	{ arbitrary: fc.constantFrom(...NASTY_VALUES).map((make) => make()), weight: 4 },
	{ arbitrary: fc.constantFrom<string>(...NASTY_TEXTS), weight: 3 },
	{ arbitrary: fc.string({ unit: "binary", maxLength: 40 }), weight: 1 },
	{ arbitrary: fc.jsonValue(), weight: 1 },
);

type Path = readonly (string | number)[];

/** A valid value in which up to three places hold something else, are missing, or are new. */
export function mutated(valid: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
	const mutation = fc.record({
		place: fc.nat(),
		kind: fc.constantFrom("set", "set", "set", "delete", "add"),
		key: fc.constantFrom("__proto__", "constructor", "extra"),
		value: nastyValue,
	});
	return fc.tuple(valid, fc.array(mutation, { maxLength: 3 })).map(([value, mutations]) => {
		let result: unknown = clone(value);
		for (const { place, kind, key, value: given } of mutations) {
			const paths = pathsOf(result);
			const path = paths[place % paths.length] ?? [];
			result = changed(result, path, (found) => {
				if (kind !== "add") return kind === "set" ? given : undefined;
				if (typeof found !== "object" || found === null) return given;
				// An array with a constructor of its own comes from no network.
				Object.defineProperty(found, Array.isArray(found) ? "extra" : key, {
					value: given,
					enumerable: true,
					configurable: true,
					writable: true,
				});
				return found;
			});
		}
		return result;
	});
}

function clone(value: unknown): unknown {
	if (Array.isArray(value)) return value.map(clone);
	if (typeof value !== "object" || value === null || !isPlain(value)) return value;
	return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, clone(entry)]));
}

function isPlain(value: object): boolean {
	const prototype: unknown = Object.getPrototypeOf(value);
	return prototype !== null && Object.getPrototypeOf(prototype) === null;
}

/** Every place in the value, without those inside of something nasty. */
function pathsOf(value: unknown, at: Path = [], depth = 0): Path[] {
	if (typeof value !== "object" || value === null || depth > 5 || !isPlain(value)) {
		if (!Array.isArray(value) || depth > 5 || value.length > 10) return [at];
	}
	const paths: Path[] = [at];
	for (const key of Object.keys(value)) {
		const descriptor = Object.getOwnPropertyDescriptor(value, key);
		if (!descriptor || !("value" in descriptor)) continue;
		const entry: unknown = descriptor.value;
		if (entry !== value) paths.push(...pathsOf(entry, [...at, key], depth + 1));
	}
	return paths;
}

function changed(value: unknown, path: Path, change: (found: unknown) => unknown): unknown {
	const [key, ...rest] = path;
	if (key === undefined) return change(value);
	const parent = value as Record<string | number, unknown>;
	const made = changed(parent[key], rest, change);
	if (made === undefined && rest.length === 0) Reflect.deleteProperty(parent, key);
	else
		Object.defineProperty(parent, key, {
			value: made,
			enumerable: true,
			configurable: true,
			writable: true,
		});
	return value;
}
