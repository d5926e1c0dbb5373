/** The admin API: its routes, models and roles. Needs neither Node nor a browser. */
export * from "./access.ts";
export { ApiError, apiClient, type ApiClient, type ApiClientOptions, urlOf } from "./client.ts";
export * from "./models.ts";
export * from "./openapi.ts";
export * from "./routes.ts";
export { type JsonSchema, type Schema, type Static } from "./schema.ts";
export { type Fault, faultOf, queryValues } from "./validate.ts";
