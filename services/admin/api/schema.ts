/**
 * JSON Schema, as far as this API needs it, that carries the TypeScript type of what it accepts.
 * Nothing here or beside it needs Node: the browser application imports it, too.
 */
export interface JsonSchema {
	/** Becomes a component of its own in the OpenAPI document. */
	readonly title?: string;
	readonly description?: string;
	readonly type?: "string" | "integer" | "number" | "boolean" | "array" | "object" | "null";
	readonly enum?: readonly string[];
	readonly minLength?: number;
	readonly maxLength?: number;
	readonly pattern?: string;
	readonly minimum?: number;
	readonly maximum?: number;
	readonly minItems?: number;
	readonly maxItems?: number;
	readonly items?: JsonSchema;
	readonly properties?: Readonly<Record<string, JsonSchema>>;
	readonly required?: readonly string[];
	/** Objects with `properties` allow no others; maps give the schema of their values. */
	readonly additionalProperties?: false | JsonSchema;
	readonly anyOf?: readonly JsonSchema[];
}

/** A schema and, for the compiler only, the type of its values. */
export interface Schema<T> {
	readonly json: JsonSchema;
	readonly optional?: boolean;
	readonly value?: T;
}

/** The values that a schema accepts. */
export type Static<S> = S extends Schema<infer T> ? T : never;

interface OptionalSchema<T> extends Schema<T> {
	readonly optional: true;
}

type Properties = Readonly<Record<string, Schema<unknown>>>;
type OptionalKeys<P> = { [K in keyof P]: P[K] extends { optional: true } ? K : never }[keyof P];
type Flat<T> = { readonly [K in keyof T]: T[K] };
type ObjectOf<P extends Properties> = Flat<
	{ [K in Exclude<keyof P, OptionalKeys<P>>]: Static<P[K]> } & {
		[K in OptionalKeys<P>]?: Static<P[K]>;
	}
>;

type Rules = Omit<JsonSchema, "type" | "items" | "properties" | "required" | "anyOf">;

export function text(rules: Rules = {}): Schema<string> {
	return { json: { type: "string", ...rules } };
}

export function integer(rules: Rules = {}): Schema<number> {
	return { json: { type: "integer", ...rules } };
}

export function number(rules: Rules = {}): Schema<number> {
	return { json: { type: "number", ...rules } };
}

export function truth(description?: string): Schema<boolean> {
	return { json: { type: "boolean", ...(description !== undefined && { description }) } };
}

/** One of some texts. */
export function oneOf<const T extends string>(values: readonly T[], description?: string) {
	const json: JsonSchema = {
		type: "string",
		enum: values,
		...(description !== undefined && { description }),
	};
	return { json } as Schema<T>;
}

export function list<T>(items: Schema<T>, rules: Rules = {}): Schema<readonly T[]> {
	return { json: { type: "array", items: items.json, ...rules } };
}

/** An object with these fields and no others. */
export function object<const P extends Properties>(properties: P, rules: Rules = {}) {
	const required = Object.keys(properties).filter((name) => !properties[name]?.optional);
	const json: JsonSchema = {
		type: "object",
		properties: Object.fromEntries(
			Object.entries(properties).map(([name, schema]) => [name, schema.json]),
		),
		...(required.length > 0 && { required }),
		additionalProperties: false,
		...rules,
	};
	return { json } as Schema<ObjectOf<P>>;
}

/** An object with any keys. */
export function map<T>(values: Schema<T>, rules: Rules = {}): Schema<Readonly<Record<string, T>>> {
	return { json: { type: "object", additionalProperties: values.json, ...rules } };
}

export function nullable<T>(schema: Schema<T>): Schema<T | null> {
	return { json: { anyOf: [schema.json, { type: "null" }] } };
}

export function either<A, B>(one: Schema<A>, other: Schema<B>): Schema<A | B> {
	return { json: { anyOf: [one.json, other.json] } };
}

/** Any JSON value. */
export function anything(description?: string): Schema<unknown> {
	return { json: description === undefined ? {} : { description } };
}

export function optional<T>(schema: Schema<T>): OptionalSchema<T> {
	return { json: schema.json, optional: true };
}

/** A schema that the OpenAPI document lists by this name. */
export function named<S extends Schema<unknown>>(title: string, schema: S): S {
	return { ...schema, json: { ...schema.json, title } };
}
