import type { ServiceSchema } from "moleculer";

import type { DeliverySpec } from "../../../adapters/delivery/index.ts";
import type { SqliteTx } from "../../../adapters/sqlite/index.ts";
import {
	defineMessages,
	type IncomingMessage,
	ReliableMessage,
	type ReliableMessageOptions,
} from "../../../mixins/reliable-message/index.ts";

export interface ConsumerSpec {
	readonly name: string;
	/** Its SQLite file. */
	readonly file: string;
	readonly delivery: DeliverySpec;
}

/** What a consumer's own process is told. */
export interface PeerSpec {
	readonly nodeID: string;
	readonly namespace: string;
	readonly port: number;
	readonly consumer: ConsumerSpec;
	/** `stuck`: no handler ends; `deadly`: one with `{ kill: true }` ends its process. */
	readonly mood: "well" | "stuck" | "deadly";
}

export const EFFECTS = "CREATE TABLE IF NOT EXISTS effects (message TEXT)";

/**
 * A consumer that writes one row for each message, inside the inbox's transaction.
 * @param handler runs after the row is written
 */
export function consumerSchema(
	{ name, file, delivery }: ConsumerSpec,
	handler: (id: string, params: unknown) => unknown,
	options: Partial<ReliableMessageOptions> = {},
): Partial<ServiceSchema> {
	return {
		name,
		mixins: [ReliableMessage({ store: `sqlite:${file}`, delivery, ...options })],
		messages: defineMessages<Record<"t", unknown>, SqliteTx>({
			t: {
				retryPolicy: { retries: 20, delay: 50 },
				async handler(ctx, tx) {
					const { id } = ctx.locals["message"] as IncomingMessage;
					tx.run("INSERT INTO effects VALUES (?)", id);
					await handler(id, ctx.params);
				},
			},
		}),
	};
}
