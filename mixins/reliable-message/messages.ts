import type { Service, ServiceBroker, ServiceSchema } from "moleculer";
import { Errors } from "moleculer";
import type { TxBase } from "../../adapters/participant-store/contract.ts";
import { invalidOptions, isRecord, type RetryTimes, toMs } from "../../protocol/index.ts";
import { positiveInteger, type Settings } from "./options.ts";
import type { MessagesSchema, RetryPolicy } from "./types.ts";

/** A message type that is ready to be handled. */
export interface MessageType {
	readonly type: string;
	readonly timeout: number;
	/** Own limit of handlers at once; unset: shares the service's. */
	readonly concurrency: number | undefined;
	readonly policy: RetryTimes | undefined;
	readonly check: ((error: unknown) => boolean) | undefined;
	/** @throws ValidationError */
	validate(params: unknown): Promise<void>;
	readonly handler: (this: Service, ctx: unknown, tx: TxBase) => unknown;
}

const FIELDS = new Set(["params", "retryPolicy", "timeout", "concurrency", "handler"]);
const POLICY_FIELDS = new Set(["enabled", "retries", "delay", "factor", "maxDelay", "check"]);

/**
 * The `messages` of a schema and of all its mixins, the schema's own first. Moleculer itself keeps
 * only the last whole section, since it does not know it.
 */
export function mergedMessages(schema: Partial<ServiceSchema>): MessagesSchema {
	const mixins = Array.isArray(schema.mixins) ? schema.mixins : [schema.mixins];
	const merged: MessagesSchema = {};
	for (const mixin of mixins.toReversed()) {
		if (mixin) Object.assign(merged, mergedMessages(mixin));
	}
	return Object.assign(merged, schema.messages);
}

/**
 * Checks the schema's `messages` and makes them ready to be handled.
 *
 * @throws LOTTOR_INVALID_OPTIONS that names the field, e.g. `auth.messages.grant-role.timeout`
 */
export function readMessageTypes(
	service: Service,
	settings: Settings,
): ReadonlyMap<string, MessageType> {
	const schema: unknown = service.schema.messages ?? {};
	const field = `${service.fullName}.messages`;
	if (!isRecord(schema)) throw invalidOptions(field, "must be an object");
	const types = new Map<string, MessageType>();
	for (const [type, definition] of Object.entries(schema)) {
		const read = readType(type, definition, `${field}.${type}`, service.broker, settings);
		types.set(type, read);
	}
	return types;
}

function readType(
	type: string,
	given: unknown,
	field: string,
	broker: ServiceBroker,
	settings: Settings,
): MessageType {
	const definition = typeof given === "function" ? { handler: given } : given;
	if (!isRecord(definition)) throw invalidOptions(field, "must be a function or an object");
	refuseUnknown(definition, FIELDS, field);
	const { params, timeout, concurrency, handler, retryPolicy } = definition;
	if (typeof handler !== "function")
		throw invalidOptions(`${field}.handler`, "must be a function");
	if (params !== undefined && !isRecord(params)) {
		throw invalidOptions(`${field}.params`, "must be a fastest-validator schema");
	}
	const policy = readPolicy(retryPolicy, `${field}.retryPolicy`);
	return {
		type,
		timeout:
			timeout === undefined
				? settings.handlerTimeout
				: toMs(timeout as number | string, `${field}.timeout`),
		concurrency:
			concurrency === undefined
				? undefined
				: positiveInteger(concurrency, `${field}.concurrency`),
		policy: policy?.times,
		check: policy?.check,
		validate: makeValidate(broker, params, `${field}.params`),
		handler: handler as MessageType["handler"],
	};
}

function readPolicy(
	given: unknown,
	field: string,
): { times: RetryTimes; check: ((error: unknown) => boolean) | undefined } | undefined {
	if (given === undefined) return undefined;
	if (!isRecord(given)) throw invalidOptions(field, "must be an object");
	refuseUnknown(given, POLICY_FIELDS, field);
	const policy = given as RetryPolicy;
	const { enabled = true, retries = 11, factor = 2, check } = policy;
	if (typeof enabled !== "boolean") throw invalidOptions(`${field}.enabled`, "must be a boolean");
	if (!Number.isSafeInteger(retries) || retries < 0) {
		throw invalidOptions(`${field}.retries`, "must be a whole number from 0");
	}
	if (typeof factor !== "number" || !(factor >= 1) || !Number.isFinite(factor)) {
		throw invalidOptions(`${field}.factor`, "must be a number from 1");
	}
	if (check !== undefined && typeof check !== "function") {
		throw invalidOptions(`${field}.check`, "must be a function");
	}
	const delay = toMs(policy.delay ?? "1s", `${field}.delay`);
	const maxDelay = toMs(policy.maxDelay ?? "5m", `${field}.maxDelay`);
	return { times: { retries: enabled ? retries : 0, delay, factor, maxDelay }, check };
}

function makeValidate(
	broker: ServiceBroker,
	params: Record<string, unknown> | undefined,
	field: string,
): MessageType["validate"] {
	if (!params || !broker.validator) return async () => undefined;
	let check;
	try {
		check = broker.validator.compile(params);
	} catch (error) {
		throw invalidOptions(field, `is no valid schema: ${String(error)}`);
	}
	return async (payload) => {
		// As Moleculer's own validator does for actions.
		const result: unknown = await check((payload ?? {}) as Record<string, unknown>);
		if (result === true) return;
		const errors = Array.isArray(result) ? (result as { message?: string }[]) : [];
		const why = errors.map(({ message }) => message).join(" ");
		throw new Errors.ValidationError(
			`Parameters validation error! ${why}`,
			"VALIDATION_ERROR",
			errors,
		);
	};
}

function refuseUnknown(object: object, known: ReadonlySet<string>, field: string): void {
	for (const key of Object.keys(object)) {
		if (!known.has(key)) throw invalidOptions(`${field}.${key}`, "is not known");
	}
}
