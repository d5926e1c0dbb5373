import { PROBLEM } from "./models.ts";
import { type RouteDefinition, ROUTES } from "./routes.ts";
import type { JsonSchema } from "./schema.ts";

type Json = Readonly<Record<string, unknown>>;

/** @returns the API as an OpenAPI 3.1 document, made of the same schemas that requests are checked by */
export function openApi(version: string): Json {
	const components = new Map<string, Json>();
	const paths: Record<string, Record<string, Json>> = {};
	for (const [name, route] of Object.entries<RouteDefinition>(ROUTES)) {
		const path = route.path.replace(/:(\w+)/g, "{$1}");
		(paths[path] ??= {})[route.method.toLowerCase()] = operation(name, route, components);
	}
	return {
		openapi: "3.1.0",
		info: {
			title: "Lottor",
			version,
			description: "Transaction groups: see them, find what is stuck, act on it.",
			license: { name: "MIT", identifier: "MIT" },
		},
		servers: [{ url: "/" }],
		security: [{ bearer: [] }, { session: [] }],
		paths,
		components: {
			schemas: Object.fromEntries([...components].sort(([a], [b]) => (a < b ? -1 : 1))),
			securitySchemes: {
				bearer: {
					type: "http",
					scheme: "bearer",
					description: "A token of the configuration, or one of the identity provider",
				},
				session: {
					type: "apiKey",
					in: "cookie",
					name: "lottor_session",
					description:
						"Begun by POST /api/login; changes need X-CSRF-Token of GET /api/me",
				},
			},
		},
	};
}

function operation(name: string, route: RouteDefinition, components: Map<string, Json>): Json {
	const schema = (json: JsonSchema) => reference(json, components);
	const parameters = [
		...(route.id
			? [{ name: "id", in: "path", required: true, schema: schema(route.id.json) }]
			: []),
		...Object.entries(route.query?.json.properties ?? {}).map(([key, json]) => ({
			name: key,
			in: "query",
			required: false,
			...(json.type === "array" && { style: "form", explode: false }),
			schema: schema(json),
		})),
	];
	const problem = {
		description: "What is wrong, with a stable code",
		content: { "application/json": { schema: schema(PROBLEM.json) } },
	};
	return {
		operationId: name,
		tags: [route.tag],
		summary: route.summary,
		...(route.permission === null && { security: [] }),
		...(route.permission !== null && { "x-permission": route.permission }),
		...(parameters.length > 0 && { parameters }),
		...(route.body && {
			requestBody: {
				required: (route.body.json.required ?? []).length > 0,
				content: { "application/json": { schema: schema(route.body.json) } },
			},
		}),
		responses: {
			[route.status ?? 200]: {
				description: "Done",
				content: {
					[route.mediaType ?? "application/json"]: {
						schema: schema(route.mediaType ? { type: "string" } : route.response.json),
					},
				},
			},
			default: problem,
		},
	};
}

/** @returns the schema as the document has it: a named one by reference */
function reference(schema: JsonSchema, components: Map<string, Json>): Json {
	const { title } = schema;
	if (title === undefined) return written(schema, components);
	if (!components.has(title)) {
		components.set(title, {});
		components.set(title, written(schema, components));
	}
	return { $ref: `#/components/schemas/${title}` };
}

function written(schema: JsonSchema, components: Map<string, Json>): Json {
	const { items, properties, additionalProperties, anyOf, ...rest } = schema;
	const inner = (one: JsonSchema) => reference(one, components);
	return {
		...rest,
		title: undefined,
		...(items && { items: inner(items) }),
		...(properties && {
			properties: Object.fromEntries(
				Object.entries(properties).map(([name, one]) => [name, inner(one)]),
			),
		}),
		...(additionalProperties !== undefined && {
			additionalProperties: additionalProperties && inner(additionalProperties),
		}),
		...(anyOf && { anyOf: anyOf.map(inner) }),
	};
}
