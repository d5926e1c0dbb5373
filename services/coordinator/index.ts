import type { Context, Service, ServiceBroker, ServiceSchema } from "moleculer";
import {
	COORDINATOR_SERVICE,
	type CoordinatorMetadata,
	isGroupId,
	isRecord,
	type ItemAnswer,
	itemsOf,
	LottorError,
	type PrepareAnswer,
	WIRE_VERSION,
} from "../../protocol/index.ts";
import { auditOf } from "./audit.ts";
import { clients } from "./clients.ts";
import { CoordinatorCore } from "./coordinator.ts";
import { coordinators, settingsView, statusOf } from "./coordinators.ts";
import { invalid } from "./intake.ts";
import { checkOptions, type CoordinatorOptions } from "./options.ts";
import {
	checkActivityQuery,
	checkAuditEntry,
	checkAuditQuery,
	groupView,
	type GroupView,
	listGroups,
	listMessages,
} from "./queries.ts";

export type { CoordinatorOptions } from "./options.ts";
export type { Fields, GroupView, Listed } from "./queries.ts";
export type { Client } from "./clients.ts";
export type { CoordinatorStatus, CoordinatorView } from "./coordinators.ts";
export type { OperatorItem } from "./operator.ts";

interface Running {
	core?: CoordinatorCore;
}

/** Cores by service, apart from the schema: Moleculer clones and publishes what a schema holds. */
const running = new WeakMap<Service, Running>();

/**
 * Makes the coordinator service, `lottor`.
 *
 * Calls of producers and consumers: `lottor.prepare`, `commit`, `rollback`, `report`, each with
 * `{ items }` and an answer per item. Queries: `lottor.groups.list`, `groups.get`,
 * `groups.timeline`, `messages.list`, `failures`, `facets`, `activity`, `stats`, `clients`,
 * `coordinators`, `settings`, `audit.list`, `health`. Operator's actions:
 * `lottor.messages.retry`, `messages.edit`, `messages.discard`, `groups.commit`,
 * `groups.rollback`, `groups.recheck`, each written to the audit log; `audit.add` for others.
 * While somebody listens it broadcasts `lottor.changed` with the groups that changed.
 *
 * @param options see {@link CoordinatorOptions}
 * @throws LOTTOR_INVALID_OPTIONS naming the field; at start LOTTOR_STORE_UNUSABLE; a
 *   store that can't be reached is waited for
 */
export function Coordinator(options: CoordinatorOptions = {}): ServiceSchema {
	const settings = checkOptions(options);

	function coreOf(service: Service): CoordinatorCore {
		const core = running.get(service)?.core;
		if (!core) throw new LottorError("LOTTOR_STOPPING", "This coordinator is not running");
		core.assertRunning();
		return core;
	}

	function batch(
		run: (
			core: CoordinatorCore,
			items: readonly unknown[],
			caller: string,
		) => Promise<ItemAnswer[] | PrepareAnswer[]>,
	) {
		return {
			visibility: "public" as const,
			async handler(this: Service, ctx: Context<object>) {
				const core = coreOf(this);
				const items = itemsOf(ctx.params);
				const caller = ctx.nodeID ?? this.broker.nodeID;
				return core.serve(() => run(core, items, caller), caller);
			},
		};
	}

	/** An operator's action: what came of it goes to the audit log. */
	function order(
		action: string,
		run: (core: CoordinatorCore, items: readonly unknown[]) => Promise<ItemAnswer[]>,
	) {
		return batch(async (core, items) => {
			const answers = await run(core, items);
			await core.engine.store
				.record([auditOf(action, items, answers)])
				.catch((error: unknown) => {
					core.engine.logger.error(`The audit log missed a ${action}`, error);
				});
			return answers;
		});
	}

	function query<T>(run: (core: CoordinatorCore, params: object) => Promise<T>) {
		return {
			visibility: "public" as const,
			async handler(this: Service, ctx: Context<object>) {
				const core = coreOf(this);
				const params = isRecord(ctx.params) ? ctx.params : {};
				return core.serve(() => run(core, params), ctx.nodeID ?? this.broker.nodeID);
			},
		};
	}

	return {
		name: COORDINATOR_SERVICE,
		actions: {
			prepare: batch((core, items, caller) => core.intake.prepare(items, caller)),
			commit: batch((core, items, caller) => core.intake.decide("committed", items, caller)),
			rollback: batch((core, items, caller) =>
				core.intake.decide("rolledBack", items, caller),
			),
			report: batch((core, items, caller) => core.intake.report(items, caller)),

			"messages.retry": order("retry", (core, items) =>
				core.operator.messages("retry", items),
			),
			"messages.edit": order("edit", (core, items) => core.operator.messages("edit", items)),
			"messages.discard": order("discard", (core, items) =>
				core.operator.messages("discard", items),
			),
			"groups.commit": order("commit", (core, items) =>
				core.operator.decide("committed", items),
			),
			"groups.rollback": order("rollback", (core, items) =>
				core.operator.decide("rolledBack", items),
			),
			"groups.recheck": order("recheck", (core, items) => core.operator.recheck(items)),

			"groups.list": query((core, params) => listGroups(core.engine.store, params)),
			"messages.list": query((core, params) => listMessages(core.engine.store, params)),
			failures: query((core) => core.engine.store.failures()),
			facets: query((core) => core.engine.store.facets()),
			activity: query((core, params) => {
				const { step, since, until } = checkActivityQuery(params);
				return core.engine.store.activity(step, since, until);
			}),
			"audit.list": query((core, params) => {
				const { filter, page } = checkAuditQuery(params);
				return core.engine.store.audits(filter, page);
			}),
			"audit.add": query((core, params) =>
				core.engine.store.record(itemsOf(params).map(checkAuditEntry)),
			),
			clients: query((core) => {
				core.registryChanged();
				return clients(core.engine);
			}),
			coordinators: query((core) => {
				core.registryChanged();
				return coordinators(core.engine);
			}),
			settings: query(async (core) => settingsView(core.engine.settings)),
			health: query(async (core) => statusOf(core)),
			"groups.get": query(async (core, params): Promise<GroupView> => {
				const id = idOf(params);
				const view = await groupView(core.engine.store, id);
				if (!view) throw unknownGroup(id);
				return view;
			}),
			"groups.timeline": query(async (core, params) => {
				const { store } = core.engine;
				const id = idOf(params);
				const [group] = await store.get([id]);
				if (!group) throw unknownGroup(id);
				return store.timeline(id);
			}),
			stats: query(async ({ engine }) => {
				const stored = await engine.store.stats();
				const backlog = stored.backlog.map((one) => ({
					...one,
					living:
						engine.view.serves(one.target) ||
						engine.view.instances(one.target, null).length > 0,
				}));
				return {
					...stored,
					backlog,
					sinceStart: engine.meters.totals(),
					inFlight: engine.flights.size,
				};
			}),
		},

		events: {
			"$node.connected": registryChanged,
			"$node.updated": registryChanged,
			"$node.disconnected": registryChanged,
			"$services.changed": registryChanged,
		},

		created(this: Service) {
			running.set(this, {});
		},

		async started(this: Service) {
			const core = await CoordinatorCore.start(this.broker, this.logger, settings);
			running.set(this, { core });
			const said: CoordinatorMetadata = {
				wire: WIRE_VERSION,
				roles: ["coordinator"],
				storeId: core.engine.storeId,
				instanceID: this.broker.instanceID,
				ready: true,
			};
			this.metadata.lottor = said;
			this.logger.info(
				`Coordinator ready on ${settings.store.description}, delivery by ${settings.delivery.description}`,
			);
		},

		async stopped(this: Service) {
			await running.get(this)?.core?.stop();
			running.delete(this);
		},
	};

	function registryChanged(this: Service): void {
		running.get(this)?.core?.registryChanged();
	}
}

/**
 * Does all that is due now, as the coordinator's timers would; for tests with a clock of their own.
 *
 * @param broker the broker that runs the coordinator
 */
export async function runDue(broker: ServiceBroker): Promise<void> {
	const service = broker.getLocalService(COORDINATOR_SERVICE);
	await running.get(service)?.core?.runDue();
}

function idOf(params: unknown): string {
	const id = isRecord(params) ? params["id"] : undefined;
	if (!isGroupId(id)) throw invalid("id", "must be a group id");
	return id;
}

function unknownGroup(id: string): LottorError {
	return new LottorError("LOTTOR_GROUP_UNKNOWN", `No group ${id}`, { group: id });
}
