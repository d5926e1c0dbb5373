import { LottorError, messageOf } from "../../protocol/index.ts";
import { isObject } from "./options.ts";

/** Deepest nesting of a payload: far above any sensible one, far below the end of the stack. */
const DEPTH = 200;

/**
 * Turns a payload into JSON text. What JSON would change or lose silently is refused; only
 * properties that are `undefined` are left out, as JSON does.
 *
 * @param field where the payload is, for the error: `messages[0].payload`
 * @throws LOTTOR_INVALID_PAYLOAD whose `data.field` names the place
 */
export function toJson(payload: unknown, field: string): string {
	let text: string | undefined;
	try {
		check(payload, field, new Set());
		text = JSON.stringify(payload);
	} catch (error) {
		if (error instanceof LottorError) throw error;
		throw invalidPayload(field, `cannot be read: ${messageOf(error)}`);
	}
	return text;
}

/** @returns the value's JSON text, or undefined when it is not plain JSON */
export function jsonOrNothing(value: unknown): string | undefined {
	try {
		return toJson(value, "value");
	} catch {
		return undefined;
	}
}

function check(value: unknown, field: string, parents: Set<object>): void {
	switch (typeof value) {
		case "string":
		case "boolean":
			return;
		case "number":
			if (Number.isFinite(value)) return;
			throw invalidPayload(field, `is ${value}, which JSON cannot carry`);
		case "object":
			if (value === null) return;
			break;
		default:
			throw invalidPayload(field, `is of type ${typeof value}, which JSON cannot carry`);
	}
	if (parents.has(value)) throw invalidPayload(field, "refers back to itself");
	if (parents.size >= DEPTH) throw invalidPayload(field, `is nested deeper than ${DEPTH} levels`);
	parents.add(value);
	if (Array.isArray(value)) {
		// By index: `forEach` skips holes, which JSON would turn into null.
		for (let i = 0; i < value.length; i++) check(value[i], `${field}[${i}]`, parents);
	} else {
		checkObject(value, field, parents);
	}
	parents.delete(value);
}

function checkObject(value: object, field: string, parents: Set<object>): void {
	const prototype: unknown = Object.getPrototypeOf(value);
	// Plain: no prototype, or one that has none itself. Not compared with Object.prototype, which
	// is another one in another realm.
	if (isObject(prototype) && Object.getPrototypeOf(prototype) !== null) {
		const name = prototype.constructor.name;
		throw invalidPayload(field, `is a ${name}, not a plain object`);
	}
	for (const [key, entry] of Object.entries(value)) {
		if (key === "toJSON" && typeof entry === "function") {
			throw invalidPayload(field, "has a toJSON of its own");
		}
		if (entry !== undefined) check(entry, `${field}.${key}`, parents);
	}
}

function invalidPayload(field: string, problem: string): LottorError {
	return new LottorError("LOTTOR_INVALID_PAYLOAD", `${field} ${problem}`, { field });
}
