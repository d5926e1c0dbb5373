import {
	type ActionEndpoint,
	type ActionSchema,
	type Context,
	Errors,
	type Middleware,
	type ServiceBroker,
} from "moleculer";
import {
	type Clock,
	Complaints,
	COORDINATOR_SERVICE,
	type Duration,
	invalidOptions,
	isRecord,
	LottorError,
	messageOf,
	newStoreId,
	PARTICIPANT_ACTIONS,
	Signer,
	signWith,
	systemClock,
	systemRandom,
	toMs,
} from "../protocol/index.ts";
import { ReplayGuard } from "./replay-guard.ts";

/** Options of {@link SignedCalls}. */
export interface SignedCallsOptions {
	/** What all nodes share and nobody else knows: 16 characters or more. */
	readonly secret: string;
	/**
	 * How old a call may be when it arrives, by the receiver's clock. Clocks of two nodes must not
	 * differ by more. @default "10m"
	 */
	readonly maxAge?: Duration;
	/** For tests. @default the machine's */
	readonly clock?: Clock;
}

const HEADER = "x-lottor-signature";
const LEAST_SECRET = 16;
const REFUSED = "moleculer.lottor.calls.refused.total";

type Call = (action: string, params?: unknown, options?: CallOptions) => Promise<unknown>;
type Handler = (ctx: Context) => unknown;
type CallOptions = {
	readonly headers?: object;
	readonly nodeID?: string;
	readonly retries?: number;
} & object;

/** A handler's result on its way back. */
interface SignedAnswer {
	readonly result?: unknown;
	readonly signature: string;
}

/**
 * A middleware for clusters whose network is not trusted: every call between mixin, coordinator,
 * admin service and REPL, every answer to one, and every message over a broker carries an
 * HMAC-SHA256, and a node with this middleware refuses those without. All nodes need it, with one
 * secret. It proves that something comes from a holder of the secret; it does not hide contents,
 * for which the TLS of transporter and broker is.
 *
 * A call's signature holds for one caller, one process start of one node, one action and one
 * content, and for one time: a call that is repeated by somebody who overheard it is refused, and
 * so is one that was held back for longer than `maxAge`. An answer's holds for its call.
 *
 * @example
 * export default { middlewares: [SignedCalls({ secret: process.env.LOTTOR_SECRET })] };
 *
 * @throws LOTTOR_INVALID_OPTIONS when the secret is missing or too short
 */
export function SignedCalls(options: SignedCallsOptions): Middleware {
	const { secret, clock = systemClock } = options;
	if (typeof secret !== "string" || secret.length < LEAST_SECRET) {
		throw invalidOptions(
			"SignedCalls.secret",
			`must be a text of ${LEAST_SECRET} characters or more`,
		);
	}
	const maxAge = toMs(options.maxAge ?? "10m", "SignedCalls.maxAge");
	const signer = new Signer(secret);
	const guard = new ReplayGuard(clock, maxAge);
	/** This process start, as the sender of numbered calls. */
	const sender = newStoreId(systemRandom);
	let broker: ServiceBroker;
	let complaints: Complaints;
	let calls = 0;

	function refuse(what: string, peer: string, why: string): never {
		complaints.say("warn", what, peer, () => `${what} of node ${peer} was refused: ${why}`);
		countRefused(broker);
		throw new LottorError("LOTTOR_SIGNATURE_INVALID", `${what} was refused: ${why}`);
	}

	/** The parts of a call's header, without its signature. */
	function ticketTo(nodeID: string): string {
		return [sender, ++calls, clock.now(), instanceOf(broker, nodeID)].join(".");
	}

	function callSignature(action: string, from: string, to: string, ticket: string, text: string) {
		return signer.sign("call", action, from, to, ticket, text);
	}

	async function call(next: Call, action: string, params: unknown, given: CallOptions) {
		const nodeID = given.nodeID ?? chosenFor(broker, action, params, given);
		// Moleculer says better than we could that nobody offers the action.
		if (nodeID === undefined) return next(action, params, given);
		const ticket = ticketTo(nodeID);
		const signature = callSignature(
			action,
			broker.nodeID,
			nodeID,
			ticket,
			textOf(params ?? {}, action),
		);
		const headers = { ...given.headers, [HEADER]: `${ticket}.${signature}` };
		// Moleculer's own retry would send the same signature again, which holds once.
		const answer = await next(action, params, { ...given, nodeID, headers, retries: 0 });
		return resultOf(answer, action, nodeID, signature);
	}

	function resultOf(answer: unknown, action: string, nodeID: string, request: string): unknown {
		const what = `An answer to ${action}`;
		if (!isRecord(answer) || !("signature" in answer)) refuse(what, nodeID, "it is not signed");
		const { result, signature } = answer;
		const expected = signer.sign("answer", action, request, textOf(result, action));
		if (!signer.fits(expected, signature)) refuse(what, nodeID, "its signature is wrong");
		return result;
	}

	async function answer(next: Handler, action: string, ctx: Context): Promise<SignedAnswer> {
		const what = `A call of ${action}`;
		const from = ctx.nodeID ?? "?";
		const given: unknown = ctx.headers?.[HEADER];
		if (typeof given !== "string") refuse(what, from, "it is not signed");
		const end = given.lastIndexOf(".");
		const ticket = given.slice(0, Math.max(end, 0));
		const signature = given.slice(end + 1);
		const text = textOf(ctx.params, action);
		if (!signer.fits(callSignature(action, from, broker.nodeID, ticket, text), signature)) {
			refuse(what, from, "its signature is wrong");
		}
		const [who = "", number, time, instance = ""] = ticket.split(".");
		if (instance !== "" && instance !== broker.instanceID) {
			refuse(what, from, "it was made for another process start of this node");
		}
		const stale = guard.refuses(who, Number(number), Number(time));
		if (stale !== undefined) refuse(what, from, stale);
		const result = await next(ctx);
		return {
			result,
			signature: signer.sign("answer", action, signature, textOf(result, action)),
		};
	}

	// The types of these hooks do not fit what Moleculer calls them with.
	return {
		name: "LottorSignedCalls",
		created(created: ServiceBroker) {
			broker = created;
			complaints = new Complaints(clock, created.getLogger("lottor-signed-calls"));
			signWith(created, signer);
		},
		call: (next: Call): Call => {
			return (action, params, callOptions = {}) =>
				isSigned(action)
					? call(next, action, params, callOptions)
					: next(action, params, callOptions);
		},
		localAction: (next: Handler, { name = "" }: ActionSchema): Handler => {
			return isSigned(name) ? (ctx) => answer(next, name, ctx) : next;
		},
	} as unknown as Middleware;
}

function isSigned(action: unknown): boolean {
	return (
		typeof action === "string" &&
		(action.startsWith(`${COORDINATOR_SERVICE}.`) ||
			Object.values(PARTICIPANT_ACTIONS).some((name) => action.endsWith(`.${name}`)))
	);
}

/** The node that Moleculer would call; a signature is for one node. */
function chosenFor(
	broker: ServiceBroker,
	action: string,
	params: unknown,
	options: object,
): string | undefined {
	const ctx = broker.ContextFactory.create(broker, undefined as never, params as object, options);
	const found: unknown = broker.findNextActionEndpoint(action, options, ctx);
	return found instanceof Error ? undefined : (found as ActionEndpoint).id;
}

/** The process start of a node; "" where it is not known yet. */
function instanceOf(broker: ServiceBroker, nodeID: string): string {
	if (nodeID === broker.nodeID) return broker.instanceID;
	const node = broker.registry.nodes.get(nodeID) as unknown as
		{ instanceID?: string } | undefined;
	return node?.instanceID ?? "";
}

/**
 * Some serializers turn undefined into null: neither counts.
 * @throws ValidationError where the params can't be written as JSON
 */
function textOf(value: unknown, action: string): string {
	try {
		const written: unknown = JSON.stringify(value, (_key, entry: unknown) =>
			typeof entry === "bigint" ? String(entry) : entry === null ? undefined : entry,
		);
		return typeof written === "string" ? written : "";
	} catch (error) {
		throw new Errors.ValidationError(
			`${action} can't be signed: ${messageOf(error)}`,
			"VALIDATION_ERROR",
			{},
		);
	}
}

function countRefused(broker: ServiceBroker): void {
	if (!broker.isMetricsEnabled()) return;
	if (!broker.metrics.hasMetric(REFUSED)) {
		const description = "Calls and answers refused for want of a signature";
		broker.metrics.register({ type: "counter", name: REFUSED, description });
	}
	broker.metrics.increment(REFUSED);
}
