import { randomUUID } from "node:crypto";
import { type Context, Errors, type ServiceSchema } from "moleculer";
import DbService from "moleculer-db";

import {
	ReliableMessage,
	reliableOf,
	type ResolvedAs,
	type UnresolvedGroup,
} from "../../mixins/reliable-message/index.ts";
import { readSettings } from "../../services/settings.ts";
import { rowsAction } from "../support/rows.ts";
import {
	sampleDatabase,
	sampleSchema,
	type SampleService,
	type SampleTx,
	takeBack,
} from "../support/stores.ts";

/** The messages that this service sends: a wrong target, type or payload does not compile. */
interface Sends {
	auth: { "grant-role": { user: string | null; role: string } };
}

interface User {
	readonly _id: string;
	readonly name: string;
	/** The group whose local transaction made this row. */
	readonly group: string;
}

interface CreateParams {
	name: string;
	/** What the sample is to show. */
	result: "success" | "fail" | "consumeFail";
}

/** The producer: makes users in its own database, and has `auth` grant each a role. */
export function userService(url: string, delivery = "direct"): ServiceSchema {
	const { store, adapter } = sampleDatabase<User>(url, "users");
	return sampleSchema<User>({
		name: "user",
		mixins: [DbService as Partial<ServiceSchema>, ReliableMessage({ store, delivery })],
		adapter,
		actions: {
			create: {
				params: {
					name: { type: "string", min: 1, max: 100, default: "Ada" },
					result: {
						type: "enum",
						values: ["success", "fail", "consumeFail"],
						default: "success",
					},
				},
				async handler(this: SampleService<User>, ctx: Context<CreateParams>) {
					const { name, result } = ctx.params;
					const id = randomUUID();
					const payload = { user: result === "consumeFail" ? null : id, role: "member" };
					const created = await reliableOf<Sends, SampleTx>(this).transaction(
						ctx,
						[{ target: "auth", type: "grant-role", payload }],
						async (tx) => {
							const row = { _id: id, name, group: tx.group };
							const user = await this.adapter.withTx(tx).insert(row);
							if (result === "fail") {
								await takeBack(tx, () => this.adapter.removeById(id));
								throw new SampleWorkFailed();
							}
							return { group: tx.group, user };
						},
					);
					Object.assign(ctx.meta, { $statusCode: 201, $location: `/users/${id}` });
					return created;
				},
			},
			rows: rowsAction,
		},
		methods: {
			/**
			 * How a local transaction ended that its process did not live to tell, where the store
			 * cannot say it itself: the one row that the work inserts is there, or is not.
			 */
			async resolveTransaction(
				this: SampleService<User>,
				group: UnresolvedGroup,
			): Promise<ResolvedAs> {
				const row = await this.adapter.findOne({ group: group.id });
				return row ? "committed" : "rolledBack";
			},
		},
	});
}

/** What `result=fail` throws inside the local transaction, after its insert. */
class SampleWorkFailed extends Errors.MoleculerClientError {
	constructor() {
		super("The local work was asked to fail", 409, "SAMPLE_WORK_FAILED");
	}
}

const settings = readSettings();

export default userService(settings.userStore, settings.delivery);
