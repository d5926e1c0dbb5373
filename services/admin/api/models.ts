import { GROUP_STATES, GUARANTEES, MESSAGE_STATES } from "../../../protocol/records.ts";
import { PERMISSION_NAMES, ROLES } from "./access.ts";
import {
	anything,
	either,
	integer,
	list,
	map,
	named,
	number,
	nullable,
	object,
	oneOf,
	optional,
	type Static,
	text,
	truth,
} from "./schema.ts";

const time = (description: string) =>
	integer({ description: `${description}, milliseconds since 1970`, minimum: 0 });
const count = (description?: string) =>
	integer({ minimum: 0, ...(description !== undefined && { description }) });

export const GROUP_ID = text({
	pattern: "^[0-9a-hjkmnp-tv-z]{26}$",
	description: "a group id",
});
export const MESSAGE_ID = text({
	pattern: "^[0-9a-hjkmnp-tv-z]{26}\\.(0|[1-9][0-9]{0,3})$",
	description: "a message id: the group's id, a dot, the message's place",
});
export const GROUP_STATE = oneOf(GROUP_STATES);
export const MESSAGE_STATE = oneOf(MESSAGE_STATES);

const OWNER = object({ nodeID: text(), instanceID: text() });

const FAILURE = named(
	"Failure",
	object({ code: text(), message: text(), stack: optional(text()), retryable: truth() }),
);

const MESSAGE_FIELDS = {
	id: text(),
	index: count(),
	target: text(),
	type: text(),
	state: MESSAGE_STATE,
	version: count("rises with each change; send back the one you saw"),
	revision: count("rises with each edit of the payload"),
	bytes: count("of the current payload"),
	delay: count("milliseconds between commit and first delivery"),
	maxAttempts: nullable(count()),
	orderingKey: nullable(text()),
	plain: either(
		truth("a target without the mixin"),
		text({ description: "the channel, where such a target has one" }),
	),
	nextAt: nullable(integer({ description: "when it is due" })),
	parked: truth("waits for its target to come alive"),
	waiting: nullable(text({ description: "why it waits" })),
	sends: count(),
	attempts: count("failures reported"),
	budgetFrom: count(),
	storeId: nullable(text()),
	instance: nullable(OWNER),
	asks: count(),
	vanished: count(),
	fenced: count(),
	consumedRevision: nullable(count()),
	consumedAfterDiscard: truth(),
	error: nullable(FAILURE),
	entries: count("timeline entries, the uncut number"),
	stateAt: time("when it was last in another state"),
};

const GROUP_FIELDS = {
	id: text(),
	version: count(),
	epoch: count(),
	state: GROUP_STATE,
	source: text(),
	storeId: text(),
	guarantee: oneOf(GUARANTEES),
	owner: OWNER,
	hash: text(),
	idempotencyKey: nullable(text()),
	createdAt: time("when it was prepared"),
	stateAt: time("when it was last in another state"),
	checkAt: nullable(integer({ description: "when the next check-back is due" })),
	checks: count("check-backs so far"),
	unknowns: count("check-backs answered unknown"),
	waiting: nullable(text()),
	conflict: nullable(text({ description: "two sound decisions that contradict each other" })),
	leaseOwner: nullable(text()),
	leaseUntil: integer(),
};

const PAYLOAD_FIELDS = optional(
	map(anything(), { description: "values of the payload fields that were asked for, by path" }),
);

export const MESSAGE = named("Message", object(MESSAGE_FIELDS));

export const GROUP_ROW = named(
	"GroupRow",
	object({ ...GROUP_FIELDS, messages: list(MESSAGE), fields: PAYLOAD_FIELDS }),
);

export const MESSAGE_ROW = named(
	"MessageRow",
	object({
		...MESSAGE_FIELDS,
		group: text(),
		groupState: GROUP_STATE,
		source: text(),
		createdAt: time("when its group was prepared"),
		fields: PAYLOAD_FIELDS,
	}),
);

export const TIMELINE_ENTRY = named(
	"TimelineEntry",
	object({
		group: text(),
		message: nullable(text({ description: "null for the group itself" })),
		at: time("when"),
		version: count(),
		place: count(),
		event: text(),
		from: nullable(text()),
		to: nullable(text()),
		by: text(),
		why: nullable(text()),
		data: nullable(map(anything())),
	}),
);

export const GROUP = named(
	"Group",
	object({
		...GROUP_FIELDS,
		messages: list(
			named(
				"MessageDetail",
				object({
					...MESSAGE_FIELDS,
					payload: anything("the current one"),
					revisions: list(object({ revision: count(), payload: anything() }), {
						description: "every payload it ever had",
					}),
				}),
			),
		),
		context: anything("what the caller's context was"),
		timeline: list(TIMELINE_ENTRY),
		trace: nullable(text({ description: "link to the trace of the caller's request" })),
	}),
);

export const TOTAL = named(
	"Total",
	object({
		count: count(),
		exact: truth("false: there are at least that many"),
	}),
);

const NEXT = nullable(
	text({ description: "cursor of the next page; a page that has one may be short" }),
);

export const GROUP_PAGE = named(
	"GroupPage",
	object({ items: list(GROUP_ROW), next: NEXT, total: nullable(TOTAL) }),
);
export const MESSAGE_PAGE = named(
	"MessagePage",
	object({ items: list(MESSAGE_ROW), next: NEXT, total: nullable(TOTAL) }),
);

const BACKLOG = list(
	object({
		target: text(),
		messages: count("pending and delivering"),
		since: time("since when the oldest waits"),
		living: truth("whether an instance of it lives"),
	}),
);

const ACTIVITY_COUNTS = {
	prepared: count(),
	committed: count(),
	rolledBack: count(),
	inDoubt: count(),
	completed: count(),
	consumed: count("messages"),
	failed: count("messages that failed for good"),
};

const LATENCY = nullable(
	object({
		p50: integer({ description: "milliseconds from prepare to completed, rounded up" }),
		p95: integer(),
	}),
);

export const OVERVIEW = named(
	"Overview",
	object({
		at: time("when the figures were read"),
		groups: object(
			Object.fromEntries(GROUP_STATES.map((state) => [state, count()])) as {
				[State in (typeof GROUP_STATES)[number]]: ReturnType<typeof count>;
			},
		),
		messages: object(
			Object.fromEntries(MESSAGE_STATES.map((state) => [state, count()])) as {
				[State in (typeof MESSAGE_STATES)[number]]: ReturnType<typeof count>;
			},
		),
		conflicts: count("groups with two decisions that contradict each other"),
		oldestPrepared: nullable(time("when the oldest undecided group was prepared")),
		oldestInDoubt: nullable(time("when the oldest group in doubt was prepared")),
		backlog: BACKLOG,
		inFlight: count("messages under way from the coordinator that answered"),
		lastHour: object({ ...ACTIVITY_COUNTS, latency: LATENCY }),
	}),
);

export const RATES = named(
	"Rates",
	object({
		step: integer({ description: "milliseconds that each point stands for" }),
		points: list(object({ at: time("begin"), ...ACTIVITY_COUNTS, latency: LATENCY })),
	}),
);

export const DAILY = named(
	"Daily",
	object({
		days: list(
			object({
				day: text({ description: "of UTC, such as 2026-11-25" }),
				at: time("its begin"),
				...ACTIVITY_COUNTS,
			}),
		),
	}),
);

export const SERVICES = named(
	"Services",
	object({
		since: time("begin of the span"),
		sources: list(
			object({
				source: text(),
				prepared: count(),
				committed: count(),
				rolledBack: count(),
				inDoubt: count(),
				completed: count(),
			}),
		),
		targets: list(object({ target: text(), consumed: count(), failed: count() })),
	}),
);

export const FACETS = named(
	"Facets",
	object({
		sources: list(text()),
		targets: list(text()),
		types: list(text()),
		errorCodes: list(text()),
	}),
);

export const FAILURES = named(
	"Failures",
	object({
		items: list(
			object({
				target: text(),
				type: text(),
				errorCode: text(),
				messages: count("that failed like this"),
				newest: object({
					id: text(),
					message: text({ description: "text of its error" }),
					stateAt: time("when it failed"),
				}),
			}),
		),
	}),
);

export const DONE = named(
	"Done",
	object({ id: text(), result: oneOf(["ok", "already"]), state: optional(text()) }),
);

export const JOB = named(
	"Job",
	object({
		id: text(),
		action: oneOf(["retry", "discard"]),
		state: oneOf(["running", "done", "cancelled", "failed"]),
		total: TOTAL,
		done: count("handled so far"),
		ok: count(),
		already: count(),
		refused: count("in a state that does not allow it, changed meanwhile, or unknown"),
		errors: list(object({ id: text(), code: text(), message: text() }), {
			description: "of those that were refused, the first 50",
		}),
		by: text(),
		why: nullable(text()),
		startedAt: time("begin"),
		endedAt: nullable(integer()),
	}),
);

export const JOBS = named("Jobs", object({ items: list(JOB) }));

export const CLIENTS = named(
	"Clients",
	object({
		items: list(
			object({
				nodeID: text(),
				instanceID: text(),
				host: nullable(text()),
				ips: list(text()),
				roles: list(text()),
				services: list(
					object({
						service: text(),
						roles: list(text()),
						types: list(text()),
						aliases: list(text()),
						storeId: text(),
						guarantee: text(),
						partitioned: truth(),
						running: nullable(count()),
						queued: nullable(count()),
						unconfirmed: nullable(count()),
						unreported: nullable(count()),
					}),
				),
				version: nullable(text({ description: "of Lottor; null: it did not answer" })),
				moleculer: nullable(text()),
				serializer: nullable(text()),
				transporter: nullable(text()),
				lastHeartbeat: integer(),
				latency: nullable(integer({ description: "milliseconds there and back" })),
				running: count("handlers that run there now"),
			}),
		),
	}),
);

export const COORDINATORS = named(
	"Coordinators",
	object({
		items: list(
			object({
				nodeID: text(),
				host: nullable(text()),
				version: nullable(text({ description: "of Lottor; null: it did not answer" })),
				ready: truth("its store works"),
				storeId: nullable(text()),
				store: nullable(text()),
				delivery: nullable(text()),
				startedAt: nullable(integer()),
				share: nullable(
					number({ description: "part of the groups it looks after, 0 to 1" }),
				),
				lag: nullable(
					integer({ description: "milliseconds that due work waited at most" }),
				),
				inFlight: nullable(count()),
				lastHeartbeat: integer(),
				latency: nullable(integer()),
			}),
		),
	}),
);

export const AUDIT_ENTRY = named(
	"AuditEntry",
	object({
		id: text(),
		at: time("when"),
		who: text(),
		action: text(),
		result: text({ description: "ok, refused, or what came of it" }),
		why: nullable(text()),
		subject: nullable(text({ description: "a group, message or job" })),
		data: nullable(map(anything())),
	}),
);

export const AUDIT_PAGE = named(
	"AuditPage",
	object({ items: list(AUDIT_ENTRY), next: nullable(text()) }),
);

export const ME = named(
	"Me",
	object({
		name: text(),
		role: oneOf(ROLES),
		permissions: list(oneOf(PERMISSION_NAMES)),
		via: oneOf(["open", "session", "token", "oidc"], "open: reading needs no login here"),
		readOnly: truth("nobody can change anything"),
		csrf: nullable(text({ description: "X-CSRF-Token of a session's changes" })),
		expiresAt: nullable(integer({ description: "when the session ends" })),
	}),
);

export const SETTINGS = named(
	"Settings",
	object({
		coordinator: map(anything()),
		admin: map(anything()),
	}),
);

export const PROBLEM = named(
	"Problem",
	object({
		code: text({ description: "stable: a LOTTOR_ code, or one of HTTP itself" }),
		message: text(),
		data: map(anything()),
	}),
);

export const STATUS = named("Status", object({ status: text() }));

/** What the stream of `GET /api/events` sends: the event's name and its data. */
export const EVENTS = {
	/** The figures at a glance, when they changed; `lastHour` left out. */
	counts: named(
		"CountsEvent",
		object({
			at: time("when"),
			groups: map(count()),
			messages: map(count()),
			conflicts: count(),
			oldestPrepared: nullable(integer()),
			oldestInDoubt: nullable(integer()),
			backlog: BACKLOG,
			inFlight: count(),
		}),
	),
	/** Groups that changed. */
	groups: named(
		"GroupsEvent",
		object({
			changed: list(object({ id: text(), state: GROUP_STATE })),
			more: truth("others changed, too, that are not listed"),
		}),
	),
	/** A bulk job's progress. */
	job: JOB,
	/** What was missed can't be sent again: load everything anew. */
	reset: named("ResetEvent", object({})),
	/** Whether the coordinator answers. */
	coordinator: named("CoordinatorEvent", object({ available: truth() })),
} as const;

export type GroupRow = Static<typeof GROUP_ROW>;
export type MessageRow = Static<typeof MESSAGE_ROW>;
export type Group = Static<typeof GROUP>;
export type TimelineEntry = Static<typeof TIMELINE_ENTRY>;
export type GroupPage = Static<typeof GROUP_PAGE>;
export type MessagePage = Static<typeof MESSAGE_PAGE>;
export type Overview = Static<typeof OVERVIEW>;
export type Rates = Static<typeof RATES>;
export type Daily = Static<typeof DAILY>;
export type Services = Static<typeof SERVICES>;
export type Facets = Static<typeof FACETS>;
export type Failures = Static<typeof FAILURES>;
export type Done = Static<typeof DONE>;
export type Job = Static<typeof JOB>;
export type Clients = Static<typeof CLIENTS>;
export type Coordinators = Static<typeof COORDINATORS>;
export type AuditEntry = Static<typeof AUDIT_ENTRY>;
export type AuditPage = Static<typeof AUDIT_PAGE>;
export type Me = Static<typeof ME>;
export type AdminSettingsView = Static<typeof SETTINGS>;
export type Problem = Static<typeof PROBLEM>;
export type EventName = keyof typeof EVENTS;
export type EventData<Name extends EventName> = Static<(typeof EVENTS)[Name]>;
