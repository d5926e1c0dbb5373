import { createHmac, timingSafeEqual } from "node:crypto";
import type { ActionSchema, Context, Middleware, ServiceBroker } from "moleculer";
import {
	COORDINATOR_SERVICE,
	invalidOptions,
	LottorError,
	PARTICIPANT_ACTIONS,
} from "../protocol/index.ts";

/** Options of {@link SignedCalls}. */
export interface SignedCallsOptions {
	/** What all nodes share and nobody else knows: 16 characters or more. */
	readonly secret: string;
}

const HEADER = "x-lottor-signature";
const LEAST_SECRET = 16;
const REFUSED = "moleculer.lottor.calls.refused.total";

type Call = (action: string, params?: unknown, options?: CallOptions) => Promise<unknown>;
type Handler = (ctx: Context) => unknown;
type CallOptions = { readonly headers?: object } & object;

/**
 * A middleware for clusters whose network is not trusted: every call between mixin, coordinator,
 * admin service and REPL carries an HMAC-SHA256 of its action and contents, and a node with this
 * middleware refuses those without. All nodes need it, with one secret. It proves that a call comes
 * from a holder of the secret; it does not hide contents, for which the transporter's TLS is.
 *
 * A call that is repeated by somebody who overheard it changes nothing: all of them are idempotent.
 *
 * @example
 * export default { middlewares: [SignedCalls({ secret: process.env.LOTTOR_SECRET })] };
 *
 * @throws LOTTOR_INVALID_OPTIONS when the secret is missing or too short
 */
export function SignedCalls(options: SignedCallsOptions): Middleware {
	const { secret } = options;
	if (typeof secret !== "string" || secret.length < LEAST_SECRET) {
		throw invalidOptions(
			"SignedCalls.secret",
			`must be a text of ${LEAST_SECRET} characters or more`,
		);
	}

	let broker: ServiceBroker | undefined;

	function refuse(action: string, caller: string | null, given: unknown): never {
		broker
			?.getLogger("lottor-signed-calls")
			.warn(
				`A call of ${action} from node ${caller ?? "?"} was refused: ` +
					`it has ${given === undefined ? "no" : "a wrong"} signature`,
			);
		countRefused(broker);
		throw new LottorError(
			"LOTTOR_SIGNATURE_INVALID",
			`A call of ${action} is not signed by a holder of this cluster's secret`,
		);
	}

	// The types of these hooks do not fit what Moleculer calls them with.
	return {
		name: "LottorSignedCalls",
		created(created: ServiceBroker) {
			broker = created;
		},
		call: (next: Call): Call => {
			return (action, params, callOptions) => {
				if (!isSigned(action)) return next(action, params, callOptions);
				const signature = signatureOf(secret, action, params ?? {});
				const headers = { ...callOptions?.headers, [HEADER]: signature };
				return next(action, params, { ...callOptions, headers });
			};
		},
		localAction: (next: Handler, { name = "" }: ActionSchema): Handler => {
			if (!isSigned(name)) return next;
			return (ctx) => {
				const given: unknown = ctx.headers?.[HEADER];
				if (!fits(signatureOf(secret, name, ctx.params), given)) {
					refuse(name, ctx.nodeID, given);
				}
				return next(ctx);
			};
		},
	} as unknown as Middleware;
}

function isSigned(action: string): boolean {
	return (
		action.startsWith(`${COORDINATOR_SERVICE}.`) ||
		Object.values(PARTICIPANT_ACTIONS).some((name) => action.endsWith(`.${name}`))
	);
}

function signatureOf(secret: string, action: string, params: unknown): string {
	const hmac = createHmac("sha256", secret);
	return hmac.update(`${action}\n${textOf(params)}`).digest("base64url");
}

/** Some serializers turn undefined into null: neither counts. */
function textOf(params: unknown): string {
	return JSON.stringify(params, (_key, value: unknown) => (value === null ? undefined : value));
}

function fits(expected: string, given: unknown): boolean {
	if (typeof given !== "string" || given.length !== expected.length) return false;
	return timingSafeEqual(Buffer.from(given), Buffer.from(expected));
}

function countRefused(broker: ServiceBroker | undefined): void {
	if (!broker?.isMetricsEnabled()) return;
	if (!broker.metrics.hasMetric(REFUSED)) {
		const description = "Calls refused for want of a signature";
		broker.metrics.register({ type: "counter", name: REFUSED, description });
	}
	broker.metrics.increment(REFUSED);
}
