import { Errors } from "moleculer";

interface Definition {
	/** HTTP status, as MoleculerError's `code`. */
	readonly status: number;
	/** Whether the same call may succeed later. */
	readonly retryable: boolean;
	readonly summary: string;
}

/**
 * Every error that Lottor raises, by its stable code (MoleculerError's `type`).
 * `docs/errors.md` lists the same codes; a test holds the two together.
 */
export const ERRORS = {
	LOTTOR_INVALID_OPTIONS: {
		status: 500,
		retryable: false,
		summary: "An option has a wrong value; `data.field` names it.",
	},
	LOTTOR_INVALID_REQUEST: {
		status: 422,
		retryable: false,
		summary: "An item of a call has a wrong field; `data.field` names it.",
	},
	LOTTOR_INVALID_PAYLOAD: {
		status: 422,
		retryable: false,
		summary:
			"A payload is cyclic or holds what the serializer cannot carry; `data.field` names the place.",
	},
	LOTTOR_PAYLOAD_TOO_LARGE: {
		status: 413,
		retryable: false,
		summary: "A payload, or the whole group, is over its size limit.",
	},
	LOTTOR_TOO_MANY_MESSAGES: {
		status: 413,
		retryable: false,
		summary: "A group has more messages than allowed.",
	},
	LOTTOR_UNKNOWN_TARGET: {
		status: 422,
		retryable: false,
		summary:
			"No service of the target's name was ever seen, and the coordinator refuses such messages.",
	},
	LOTTOR_NO_COORDINATOR: {
		status: 503,
		retryable: true,
		summary: "No living coordinator can be reached.",
	},
	LOTTOR_PREPARE_FAILED: {
		status: 503,
		retryable: true,
		summary: "The group could not be prepared before the deadline; the local work did not run.",
	},
	LOTTOR_GROUP_DIFFERS: {
		status: 409,
		retryable: false,
		summary: "A group of this id exists with other content.",
	},
	LOTTOR_DUPLICATE_REQUEST: {
		status: 409,
		retryable: false,
		summary: "The idempotency key was used before; `data.group` is the group that has it.",
	},
	LOTTOR_GROUP_UNKNOWN: { status: 404, retryable: false, summary: "There is no such group." },
	LOTTOR_MESSAGE_UNKNOWN: { status: 404, retryable: false, summary: "There is no such message." },
	LOTTOR_ILLEGAL_TRANSITION: {
		status: 409,
		retryable: false,
		summary: "The group or message is in a state that does not allow this.",
	},
	LOTTOR_VERSION_CONFLICT: {
		status: 409,
		retryable: false,
		summary: "Somebody changed it since it was read; look again and decide anew.",
	},
	LOTTOR_DECISION_CONFLICT: {
		status: 409,
		retryable: false,
		summary: "A commit met a rollback, or a rollback a commit; the group shows the conflict.",
	},
	LOTTOR_RECEIPT_INVALID: {
		status: 403,
		retryable: false,
		summary:
			"A report does not bring the receipt of the message: it was never sent to the reporter.",
	},
	LOTTOR_SIGNATURE_INVALID: {
		status: 401,
		retryable: false,
		summary: "A call is not signed with this cluster's secret.",
	},
	LOTTOR_OVERLOADED: {
		status: 503,
		retryable: true,
		summary:
			"More groups are to be prepared than the coordinators take, or one node has too many calls under way at a coordinator. Nothing was stored.",
	},
	LOTTOR_STORE_MISMATCH: {
		status: 409,
		retryable: false,
		summary: "The call is for another store than the one behind this service.",
	},
	LOTTOR_PARTITIONED_TARGET: {
		status: 409,
		retryable: true,
		summary:
			"Living instances of one target have different stores, and it does not declare `partitioned`.",
	},
	LOTTOR_FENCED: {
		status: 409,
		retryable: true,
		summary: "The group was rolled back before its local work began; the work did not run.",
	},
	LOTTOR_OUTCOME_UNKNOWN: {
		status: 500,
		retryable: false,
		summary:
			"The local COMMIT did not return and the store cannot tell; check-back will decide.",
	},
	LOTTOR_OUTCOME_CONFLICT: {
		status: 500,
		retryable: false,
		summary:
			"The local work took effect after its group had been rolled back; an operator must decide.",
	},
	LOTTOR_WORK_TIMEOUT: {
		status: 504,
		retryable: true,
		summary: "The local work took longer than its time limit and was rolled back.",
	},
	LOTTOR_TX_CLOSED: {
		status: 500,
		retryable: false,
		summary: "A transaction's handle was used after the transaction had ended.",
	},
	LOTTOR_STORE_BUSY: {
		status: 503,
		retryable: true,
		summary: "The store's lock was not free in time, or the work would have waited for itself.",
	},
	LOTTOR_STORE_UNAVAILABLE: {
		status: 503,
		retryable: true,
		summary:
			"The store cannot be used now; the call may or may not have happened and is safe to repeat.",
	},
	LOTTOR_STORE_UNUSABLE: {
		status: 500,
		retryable: false,
		summary:
			"The store is corrupt, read-only, unsafe or of a newer schema; Lottor refuses to start on it.",
	},
	LOTTOR_HANDLER_MISSING: {
		status: 404,
		retryable: true,
		summary: "The target has no handler for the message's type.",
	},
	LOTTOR_HANDLER_FAILED: {
		status: 500,
		retryable: true,
		summary: "A handler threw something that is not an Error.",
	},
	LOTTOR_HANDLER_TIMEOUT: {
		status: 504,
		retryable: true,
		summary: "A handler took longer than its time limit and was rolled back.",
	},
	LOTTOR_CONSUMER_BUSY: {
		status: 503,
		retryable: true,
		summary: "As many messages as a consumer takes wait there already; it is sent again.",
	},
	LOTTOR_CONSUMER_CRASHED: {
		status: 500,
		retryable: false,
		summary: "The consumer's process ended while it ran the handler, too often to go on.",
	},
	LOTTOR_NO_REPORT: {
		status: 504,
		retryable: true,
		summary: "A target that cannot be asked never answered for the message.",
	},
	LOTTOR_FENCE_BUSY: {
		status: 409,
		retryable: true,
		summary: "The message is running at its target right now; try again when it has ended.",
	},
	LOTTOR_ENVELOPE_INVALID: {
		status: 422,
		retryable: false,
		summary:
			"What came over the broker is no message of Lottor's; it goes to the dead-letter queue.",
	},
	LOTTOR_NODE_ID_TAKEN: {
		status: 409,
		retryable: false,
		summary: "Another living node of the namespace has this nodeID.",
	},
	LOTTOR_REGISTRY_REFUSED: {
		status: 403,
		retryable: false,
		summary: "The registry does not accept the token, user or password, or it lacks a right.",
	},
	LOTTOR_REGISTRY_UNAVAILABLE: {
		status: 503,
		retryable: true,
		summary: "The registry does not answer, or answers with an error; it is tried again.",
	},
	LOTTOR_CHANNEL_UNAVAILABLE: {
		status: 503,
		retryable: true,
		summary: "The message broker cannot take the message now; it was certainly not sent.",
	},
	LOTTOR_CHANNEL_UNCONFIRMED: {
		status: 504,
		retryable: true,
		summary: "The message broker did not confirm the message; it may have been sent.",
	},
	LOTTOR_LOGIN_REQUIRED: {
		status: 401,
		retryable: false,
		summary: "The request brings no session or token that is valid now.",
	},
	LOTTOR_FORBIDDEN: {
		status: 403,
		retryable: false,
		summary: "The caller's role lacks the permission in `data.permission`.",
	},
	LOTTOR_READ_ONLY: {
		status: 403,
		retryable: false,
		summary: "The admin service is set to change nothing.",
	},
	LOTTOR_TOO_MANY_ATTEMPTS: {
		status: 429,
		retryable: true,
		summary: "Too many failed logins from this address; `data.retryAfter` has the seconds.",
	},
	LOTTOR_IDENTITY_UNAVAILABLE: {
		status: 503,
		retryable: true,
		summary: "The identity provider's keys can't be read now.",
	},
	LOTTOR_TOO_MANY_STREAMS: {
		status: 503,
		retryable: true,
		summary: "As many event streams as allowed are open.",
	},
	LOTTOR_JOB_UNKNOWN: {
		status: 404,
		retryable: false,
		summary: "There is no such job here.",
	},
	LOTTOR_TOO_MANY_JOBS: {
		status: 429,
		retryable: true,
		summary: "As many jobs as allowed are running.",
	},
	LOTTOR_STOPPING: {
		status: 503,
		retryable: true,
		summary: "The service is stopping and takes no new work.",
	},
} as const satisfies Record<string, Definition>;

/** A stable error code. */
export type ErrorCode = keyof typeof ERRORS;

/** What an error carries across nodes besides its message. */
export interface ErrorData {
	/** The group concerned. */
	group?: string;
	/** The message concerned. */
	message?: string;
	/** The option or field concerned, by its full name. */
	field?: string;
	/** The state that stands. */
	state?: string;
	/** The cause's own message. */
	cause?: string;
	[key: string]: unknown;
}

/** An error of Lottor. `type` is one of {@link ERRORS}; `code` the HTTP status. */
export class LottorError extends Errors.MoleculerError {
	declare readonly cause?: unknown;

	constructor(type: ErrorCode, message: string, data: ErrorData = {}, cause?: unknown) {
		const { status, retryable } = ERRORS[type];
		const why = cause === undefined ? {} : { cause: messageOf(cause) };
		super(message, status, type, { ...data, ...why });
		this.name = "LottorError";
		this.retryable = retryable;
		if (cause !== undefined) {
			Object.defineProperty(this, "cause", { value: cause, enumerable: false });
		}
	}
}

/** @returns a LOTTOR_INVALID_OPTIONS error that names the field */
export function invalidOptions(field: string, problem: string): LottorError {
	return new LottorError("LOTTOR_INVALID_OPTIONS", `Option ${field} ${problem}`, { field });
}

/** @returns whether the error, also one that came from another node, has this code */
export function hasCode(error: unknown, type: ErrorCode): boolean {
	return typeof error === "object" && error !== null && "type" in error && error.type === type;
}

/** @returns the text of whatever was thrown */
export function messageOf(thrown: unknown): string {
	if (typeof thrown === "object" && thrown !== null && "message" in thrown) {
		return String(thrown.message);
	}
	return String(thrown);
}
