import { LottorError, messageOf } from "./errors.ts";
import { isRecord } from "./items.ts";

/** Values that JSON has no form for, and that a payload may have where the serializer can carry them. */
export type Special = "Date" | "Buffer" | "BigInt";

/** Deepest nesting of a payload: far above any sensible one, far below the end of the stack. */
const DEPTH = 200;

const NONE: ReadonlySet<Special> = new Set();

/** Keys of the objects that stand for special values; a payload's own object of such a key is wrapped in `$literal`. */
const TAGS: ReadonlySet<string> = new Set(["$date", "$binary", "$bigint", "$literal"]);

/**
 * Turns a payload into the text that is stored, shown to operators and sent: JSON, in which a date is
 * `{"$date":"2026-01-31T12:00:00.000Z"}`, a buffer `{"$binary":"aGk="}` and a big integer
 * `{"$bigint":"9007199254740993"}`. What that would change or lose silently is refused; only properties
 * that are `undefined` are left out, as JSON does.
 *
 * @param field where the payload is, for the error: `messages[0].payload`
 * @param specials what the serializer between the services can carry besides JSON
 * @throws LOTTOR_INVALID_PAYLOAD whose `data.field` names the place
 */
export function encodePayload(
	payload: unknown,
	field: string,
	specials: ReadonlySet<Special> = NONE,
): string {
	try {
		const plain = check(payload, field, { specials, parents: new Set() });
		return JSON.stringify(plain ? payload : tagged(payload));
	} catch (error) {
		if (error instanceof LottorError) throw error;
		throw invalidPayload(field, `cannot be read: ${messageOf(error)}`);
	}
}

/**
 * The payload behind a text of {@link encodePayload}.
 * @throws SyntaxError when it is no JSON, RangeError when it is nested too deep
 */
export function decodePayload(text: string): unknown {
	const value: unknown = JSON.parse(text);
	return text.includes('"$') ? untagged(value) : value;
}

interface Walk {
	readonly specials: ReadonlySet<Special>;
	readonly parents: Set<object>;
}

/** @returns whether JSON says it all, without a tag */
function check(value: unknown, field: string, walk: Walk): boolean {
	switch (typeof value) {
		case "string":
		case "boolean":
			return true;
		case "number":
			if (Number.isFinite(value)) return true;
			throw invalidPayload(field, `is ${value}, which JSON cannot carry`);
		case "bigint":
			return allowed("BigInt", "is of type bigint", field, walk);
		case "object":
			if (value === null) return true;
			break;
		default:
			throw invalidPayload(field, `is of type ${typeof value}, which JSON cannot carry`);
	}
	if (isDate(value)) {
		if (Number.isNaN(value.valueOf())) throw invalidPayload(field, "is an invalid date");
		return allowed("Date", "is a Date", field, walk);
	}
	if (value instanceof Uint8Array) return allowed("Buffer", "is a Buffer", field, walk);
	const { parents } = walk;
	if (parents.has(value)) throw invalidPayload(field, "refers back to itself");
	if (parents.size >= DEPTH) throw invalidPayload(field, `is nested deeper than ${DEPTH} levels`);
	parents.add(value);
	const plain = Array.isArray(value)
		? checkArray(value, field, walk)
		: checkObject(value, field, walk);
	parents.delete(value);
	return plain;
}

function checkArray(value: readonly unknown[], field: string, walk: Walk): boolean {
	let plain = true;
	// By index: `forEach` skips holes, which JSON would turn into null.
	for (let i = 0; i < value.length; i++) {
		if (!check(value[i], `${field}[${i}]`, walk)) plain = false;
	}
	return plain;
}

function checkObject(value: object, field: string, walk: Walk): boolean {
	const prototype: unknown = Object.getPrototypeOf(value);
	// Plain: no prototype, or one that has none itself. Not compared with Object.prototype, which
	// is another one in another realm.
	if (isRecord(prototype) && Object.getPrototypeOf(prototype) !== null) {
		const name = prototype.constructor.name;
		throw invalidPayload(field, `is a ${name}, not a plain object`);
	}
	let plain = !isTag(value);
	for (const [key, entry] of Object.entries(value)) {
		if (key === "toJSON" && typeof entry === "function") {
			throw invalidPayload(field, "has a toJSON of its own");
		}
		if (entry !== undefined && !check(entry, `${field}.${key}`, walk)) plain = false;
	}
	return plain;
}

function allowed(special: Special, what: string, field: string, { specials }: Walk): false {
	if (specials.has(special)) return false;
	throw invalidPayload(field, `${what}, which this broker's serializer cannot carry`);
}

function tagged(value: unknown): unknown {
	if (typeof value === "bigint") return { $bigint: String(value) };
	if (typeof value !== "object" || value === null) return value;
	if (isDate(value)) return { $date: value.toISOString() };
	if (value instanceof Uint8Array) {
		const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
		return { $binary: bytes.toString("base64") };
	}
	if (Array.isArray(value)) return value.map(tagged);
	const entries = Object.entries(value).map(([key, entry]) => [key, tagged(entry)] as const);
	const copy: unknown = Object.fromEntries(entries);
	return isTag(value) ? { $literal: copy } : copy;
}

/** Puts the values of tags in their place; the value is fresh from JSON.parse, and nobody else's. */
function untagged(value: unknown): unknown {
	if (typeof value !== "object" || value === null) return value;
	if (Array.isArray(value)) {
		value.forEach((entry, index) => (value[index] = untagged(entry)));
		return value;
	}
	const object = value as Record<string, unknown>;
	if (isTag(object)) {
		const found = tagValue(object);
		if (found !== undefined) return found;
		const literal = object["$literal"];
		if (isRecord(literal) && isTag(literal)) return untaggedEntries(literal);
	}
	return untaggedEntries(object);
}

function untaggedEntries(object: Record<string, unknown>): unknown {
	// Each key is the object's own already, `__proto__` too.
	for (const key of Object.keys(object)) object[key] = untagged(object[key]);
	return object;
}

/** @returns the special value that the object stands for; undefined when it stands for none */
function tagValue(object: Record<string, unknown>): unknown {
	const { $date, $binary, $bigint } = object;
	if (typeof $date === "string") {
		const date = new Date($date);
		return Number.isNaN(date.valueOf()) ? undefined : date;
	}
	if (typeof $binary === "string") return Buffer.from($binary, "base64");
	if (typeof $bigint === "string" && /^-?\d+$/.test($bigint)) return BigInt($bigint);
	return undefined;
}

function isTag(object: object): boolean {
	const keys = Object.keys(object);
	return keys.length === 1 && TAGS.has(keys[0] ?? "");
}

/** By tag: a date of another realm, such as a test runner's, is not `instanceof Date`. */
function isDate(value: object): value is Date {
	return Object.prototype.toString.call(value) === "[object Date]";
}

function invalidPayload(field: string, problem: string): LottorError {
	return new LottorError("LOTTOR_INVALID_PAYLOAD", `${field} ${problem}`, { field });
}
