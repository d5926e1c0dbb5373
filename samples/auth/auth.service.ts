import { randomUUID } from "node:crypto";
import { type Context, Errors, type ServiceSchema } from "moleculer";
import DbService from "moleculer-db";

import { ReliableMessage } from "../../mixins/reliable-message/index.ts";
import { readSettings } from "../../services/settings.ts";
import { rowsAction } from "../support/rows.ts";
import {
	sampleDatabase,
	sampleSchema,
	type SampleService,
	type SampleTx,
} from "../support/stores.ts";

interface Role {
	readonly _id: string;
	readonly user: string;
	readonly role: string;
	/** The group that granted it. */
	readonly group: string;
}

interface GrantParams {
	user?: string | null;
	role: string;
}

/** The consumer: grants roles in its own database, each once, whatever happens on the way. */
export function authService(url: string, delivery = "direct"): ServiceSchema {
	const { store, adapter } = sampleDatabase<Role>(url, "roles");
	return sampleSchema<Role>({
		name: "auth",
		mixins: [DbService as Partial<ServiceSchema>, ReliableMessage({ store, delivery })],
		adapter,
		messages: {
			"grant-role": {
				params: {
					user: { type: "string", optional: true, nullable: true },
					role: { type: "string", min: 1 },
				},
				retryPolicy: { retries: 2, delay: 200 },
				async handler(this: SampleService<Role>, ctx: Context<GrantParams>, tx: SampleTx) {
					const { user, role } = ctx.params;
					if (!user) throw new SampleUserMissing();
					const row = { _id: randomUUID(), user, role, group: tx.group };
					await this.adapter.withTx(tx).insert(row);
				},
			},
		},
		actions: { rows: rowsAction },
	});
}

/** What a message without a user's id ends in: retryable, as if the user might still come. */
class SampleUserMissing extends Errors.MoleculerRetryableError {
	constructor() {
		super("The role has no user to go to", 422, "SAMPLE_USER_MISSING");
	}
}

const settings = readSettings();

export default authService(settings.authStore, settings.delivery);
