import { setTimeout as sleep } from "node:timers/promises";

import { kafka } from "../../../scripts/servers/kafka.ts";
import type { ServerKind } from "../../../scripts/servers/kind.ts";
import { mongodb } from "../../../scripts/servers/mongodb.ts";
import { nats } from "../../../scripts/servers/nats.ts";
import { rabbitmq } from "../../../scripts/servers/rabbitmq.ts";
import { redis } from "../../../scripts/servers/redis.ts";
import { PrivateServer } from "../../support/private-server.ts";

/** Brokers that a run can have; one line each. */
export const BROKERS: readonly ServerKind[] = [redis, nats, rabbitmq, kafka];

/** Servers that can be the coordinators' store; one line each. */
export const STORES: readonly ServerKind[] = [mongodb];

/** A broker or a store of a run: a server of its own, which fails. */
export class ChaosServer {
	readonly #server: PrivateServer;
	#outages: Promise<void> = Promise.resolve();

	private constructor(server: PrivateServer) {
		this.#server = server;
	}

	static async start(kind: ServerKind): Promise<ChaosServer> {
		return new ChaosServer(await PrivateServer.start(kind));
	}

	get url(): string {
		return this.#server.url;
	}

	/** SIGKILL; starts it again, on its data, after `ms`. One outage after the other. */
	outage(ms: number): Promise<void> {
		this.#outages = this.#outages.then(async () => {
			await this.#server.kill();
			await sleep(ms);
			await this.#server.start();
		});
		return this.#outages;
	}

	dispose(): Promise<void> {
		return this.#server.dispose();
	}
}
