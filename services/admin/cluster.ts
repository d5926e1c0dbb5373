import { LottorError } from "../../protocol/index.ts";
import type { Client, CoordinatorView } from "../coordinator/index.ts";
import type { Handlers } from "./handlers.ts";

export const clusterHandlers = {
	async clients({ call }) {
		const clients = await call<Client[]>("clients", {});
		return {
			items: clients.map(({ services, ...client }) => ({
				...client,
				services: services.map((one) => ({
					service: one.service,
					roles: one.roles,
					types: one.types,
					aliases: one.aliases,
					storeId: one.storeId,
					guarantee: one.guarantee,
					partitioned: one.partitioned,
					running: one.status?.running ?? null,
					queued: one.status?.queued ?? null,
					unconfirmed: one.status?.unconfirmed ?? null,
					unreported: one.status?.unreported ?? null,
				})),
			})),
		};
	},

	async coordinators({ call }) {
		const found = await call<CoordinatorView[]>("coordinators", {});
		return {
			items: found.map(({ nodeID, status, lastHeartbeat, latency }) => ({
				nodeID,
				host: status?.host ?? null,
				version: status?.version ?? null,
				ready: status?.ready ?? false,
				storeId: status?.storeId ?? null,
				store: status?.store ?? null,
				delivery: status?.delivery ?? null,
				startedAt: status?.startedAt ?? null,
				share: status?.share ?? null,
				lag: status?.lag ?? null,
				inFlight: status?.inFlight ?? null,
				lastHeartbeat,
				latency,
			})),
		};
	},

	healthz: async () => ({ status: "ok" }),

	async readyz({ call }) {
		const health = await call<{ readonly ready: boolean }>("health", {});
		if (!health.ready) {
			throw new LottorError(
				"LOTTOR_STORE_UNAVAILABLE",
				"The coordinator's store does not work now",
			);
		}
		return { status: "ready" };
	},
} satisfies Partial<Handlers>;
