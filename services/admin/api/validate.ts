import type { JsonSchema, Schema } from "./schema.ts";

/** What is wrong, and where: `messages.0.id`, or "" for the value itself. */
export interface Fault {
	readonly field: string;
	readonly problem: string;
}

/** @returns the first thing that does not fit, or undefined */
export function faultOf(schema: JsonSchema, value: unknown, field = ""): Fault | undefined {
	if (schema.anyOf) {
		const faults = schema.anyOf.map((one) => faultOf(one, value, field));
		return faults.some((fault) => fault === undefined) ? undefined : faults[0];
	}
	const wrong = (problem: string): Fault => ({ field, problem });
	switch (schema.type) {
		case undefined:
			return value === undefined ? wrong("is missing") : undefined;
		case "null":
			return value === null ? undefined : wrong("must be null");
		case "boolean":
			return typeof value === "boolean" ? undefined : wrong("must be true or false");
		case "string":
			return textFault(schema, value, wrong);
		case "integer":
		case "number":
			return numberFault(schema, value, wrong);
		case "array":
			return arrayFault(schema, value, field);
		case "object":
			return objectFault(schema, value, field);
	}
}

type Wrong = (problem: string) => Fault;

function textFault(schema: JsonSchema, value: unknown, wrong: Wrong): Fault | undefined {
	if (typeof value !== "string") return wrong("must be a text");
	if (schema.enum && !schema.enum.includes(value)) {
		return wrong(`must be one of ${schema.enum.join(", ")}`);
	}
	const { minLength = 0, maxLength = Infinity, pattern } = schema;
	if (value.length < minLength) {
		return wrong(
			minLength === 1 ? "must not be empty" : `must have ${minLength} characters or more`,
		);
	}
	if (value.length > maxLength) return wrong(`must have ${maxLength} characters or fewer`);
	if (pattern !== undefined && !new RegExp(pattern, "u").test(value)) {
		return wrong(
			schema.description ? `must be ${schema.description}` : `must match ${pattern}`,
		);
	}
	return undefined;
}

function numberFault(schema: JsonSchema, value: unknown, wrong: Wrong): Fault | undefined {
	if (typeof value !== "number" || !Number.isFinite(value)) return wrong("must be a number");
	if (schema.type === "integer" && !Number.isSafeInteger(value)) {
		return wrong("must be a whole number");
	}
	const { minimum = -Infinity, maximum = Infinity } = schema;
	if (value < minimum) return wrong(`must be ${minimum} or more`);
	if (value > maximum) return wrong(`must be ${maximum} or less`);
	return undefined;
}

function arrayFault(schema: JsonSchema, value: unknown, field: string): Fault | undefined {
	if (!Array.isArray(value)) return { field, problem: "must be a list" };
	const { items = {}, minItems = 0, maxItems = Infinity } = schema;
	if (value.length < minItems || value.length > maxItems) {
		const most = maxItems === Infinity ? "" : ` and ${maxItems} at most`;
		return { field, problem: `must have ${minItems} entries at least${most}` };
	}
	for (const [index, item] of (value as unknown[]).entries()) {
		const fault = faultOf(items, item, below(field, String(index)));
		if (fault) return fault;
	}
	return undefined;
}

function objectFault(schema: JsonSchema, value: unknown, field: string): Fault | undefined {
	if (typeof value !== "object" || value === null || Array.isArray(value)) {
		return { field, problem: "must be an object" };
	}
	const { properties = {}, required = [], additionalProperties } = schema;
	for (const name of required) {
		if (!Object.hasOwn(value, name))
			return { field: below(field, name), problem: "is missing" };
	}
	for (const [name, item] of Object.entries(value)) {
		const known = Object.hasOwn(properties, name) ? properties[name] : undefined;
		const schemaOfItem = known ?? (additionalProperties || undefined);
		if (!schemaOfItem) {
			const names = Object.keys(properties).join(", ");
			const problem =
				names === "" ? "is not known here" : `is not known here; known: ${names}`;
			return { field: below(field, name), problem };
		}
		const fault = faultOf(schemaOfItem, item, below(field, name));
		if (fault) return fault;
	}
	return undefined;
}

function below(field: string, name: string): string {
	return field === "" ? name : `${field}.${name}`;
}

/**
 * Turns the texts of a query string into what the schema asks for: numbers, truth values, and
 * lists given as `a,b` or repeatedly. What can't be turned stays as it is, and is then refused.
 */
export function queryValues(
	schema: Schema<unknown>,
	query: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
	const { properties = {} } = schema.json;
	return Object.fromEntries(
		Object.entries(query).map(([name, value]) => {
			const wanted = Object.hasOwn(properties, name) ? properties[name] : undefined;
			return [name, wanted ? valueOf(wanted, value) : value];
		}),
	);
}

function valueOf(schema: JsonSchema, value: unknown): unknown {
	if (schema.type === "array") {
		const values = (Array.isArray(value) ? value : [value]) as unknown[];
		return values.flatMap((item) => (typeof item === "string" ? item.split(",") : [item]));
	}
	if (typeof value !== "string") return value;
	if (schema.type === "integer" && /^-?\d{1,16}$/.test(value)) return Number(value);
	if (schema.type === "boolean" && (value === "true" || value === "false")) {
		return value === "true";
	}
	return value;
}
