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
	#isUp = true;

	private constructor(server: PrivateServer) {
		this.#server = server;
	}

	static async start(kind: ServerKind): Promise<ChaosServer> {
		return new ChaosServer(await PrivateServer.start(kind));
	}

	get url(): string {
		return this.#server.url;
	}

	get port(): number {
		return this.#server.port;
	}

	/** Whether it runs. */
	get isUp(): boolean {
		return this.#isUp;
	}

	/** SIGKILL; starts it again, on its data, after `ms`. It must run. */
	async outage(ms: number): Promise<void> {
		this.#isUp = false;
		await this.#server.kill();
		await sleep(ms);
		await this.#server.start();
		this.#isUp = true;
	}

	dispose(): Promise<void> {
		return this.#server.dispose();
	}
}
