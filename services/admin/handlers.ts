import type { IncomingMessage, ServerResponse } from "node:http";

import type { Clock } from "../../protocol/index.ts";
import type { Access } from "./access.ts";
import { accessHandlers } from "./access-handlers.ts";
import type { BodyOf, IdOf, QueryOf, ResponseOf, RouteName } from "./api/index.ts";
import { clusterHandlers } from "./cluster.ts";
import type { CallCoordinator } from "./coordinator-calls.ts";
import { figureHandlers } from "./figures.ts";
import { groupHandlers } from "./groups.ts";
import type { Identity } from "./identity.ts";
import type { Jobs } from "./jobs.ts";
import { messageHandlers } from "./messages.ts";
import type { AdminSettings } from "./options.ts";

/** What every handler works with. */
export interface HandlerContext {
	readonly call: CallCoordinator;
	readonly clock: Clock;
	readonly settings: AdminSettings;
	readonly access: Access;
	readonly jobs: Jobs;
	/** Who asks; undefined where anybody may. */
	readonly identity: Identity | undefined;
	readonly req: IncomingMessage;
	readonly res: ServerResponse;
}

/** The checked request of a route: a query or body that it does not have is empty. */
export interface HandlerRequest<Name extends RouteName> {
	readonly id: IdOf<Name> extends string ? string : undefined;
	readonly query: QueryOf<Name> extends undefined ? object : QueryOf<Name>;
	readonly body: BodyOf<Name> extends undefined ? object : BodyOf<Name>;
}

/** Answers a request, or throws what `problem.ts` turns into an answer. */
export type Handler<Name extends RouteName> = (
	context: HandlerContext,
	request: HandlerRequest<Name>,
) => Promise<ResponseOf<Name>>;

/** One handler a route; the event stream is no answer of this kind. */
export type Handlers = { readonly [Name in Exclude<RouteName, "events">]: Handler<Name> };

export const HANDLERS: Handlers = {
	...figureHandlers,
	...groupHandlers,
	...messageHandlers,
	...clusterHandlers,
	...accessHandlers,
};
