import { invalidField } from "./problem.ts";

/** Turns what a query or a body holds into an action's parameter. */
type Reader = (value: unknown, name: string) => unknown;

/** Reads the allowed fields; one that is not known is refused, so that a misspelt filter is noticed. */
export function fields(
	from: Readonly<Record<string, unknown>>,
	allowed: Readonly<Record<string, Reader>>,
): Record<string, unknown> {
	const read: Record<string, unknown> = {};
	for (const [name, value] of Object.entries(from)) {
		const reader = Object.hasOwn(allowed, name) ? allowed[name] : undefined;
		if (!reader) {
			throw invalidField(
				name,
				`is not known here; known: ${Object.keys(allowed).join(", ")}`,
			);
		}
		read[name] = reader(value, name);
	}
	return read;
}

export function text(value: unknown, name: string): string {
	if (typeof value !== "string" || value === "") throw invalidField(name, "must be a text");
	return value;
}

/** Several values, separated by commas or given repeatedly. */
export function list(value: unknown, name: string): string[] {
	const values = (Array.isArray(value) ? value : [value]) as unknown[];
	return values.flatMap((item) => text(item, name).split(","));
}

export function integer(value: unknown, name: string): number {
	const number = typeof value === "string" && /^\d{1,15}$/.test(value) ? Number(value) : value;
	if (!Number.isSafeInteger(number)) throw invalidField(name, "must be a whole number");
	return number as number;
}

export function truth(value: unknown, name: string): boolean {
	if (value === true || value === "true") return true;
	if (value === false || value === "false") return false;
	throw invalidField(name, "must be true or false");
}
