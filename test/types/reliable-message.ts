/** Checked by the compiler only: what must be refused, is. */
import type { Context, Service, ServiceSchema } from "moleculer";
import type { SqliteTx } from "../../adapters/sqlite/index.ts";
import {
	defineMessages,
	type Reliable,
	ReliableMessage,
	reliableOf,
} from "../../mixins/reliable-message/index.ts";

interface GrantRole {
	readonly user: string;
	readonly role: "admin" | "user";
}

interface Sends {
	auth: { "grant-role": GrantRole; "revoke-all": { readonly user: string } };
	mail: { welcome: { readonly to: string } };
}

interface UserService extends Service {
	readonly reliable: Reliable<SqliteTx, Sends>;
	insertUser(name: string, tx: SqliteTx): Promise<number>;
}

export async function sending(
	service: UserService,
	ctx: Context<{ name: string }, { user: string }>,
) {
	const payload = { user: ctx.params.name, role: "admin" } as const;
	const id: number = await service.reliable.transaction(
		ctx,
		[
			{ target: "auth", type: "grant-role", payload, delay: "10s" },
			{ target: "mail", type: "welcome", payload: { to: ctx.params.name } },
		],
		async (tx) => service.insertUser(ctx.params.name, tx),
		{ idempotencyKey: "k", timeout: "5s" },
	);

	const work = () => id;
	const { transaction } = reliableOf<Sends>(service);
	const user = ctx.params.name;
	// @ts-expect-error no such target
	await transaction(ctx, [{ target: "user", type: "grant-role", payload }], work);
	// @ts-expect-error no such type of this target
	await transaction(ctx, [{ target: "mail", type: "grant-role", payload }], work);
	// @ts-expect-error a payload without its role
	await transaction(ctx, [{ target: "auth", type: "grant-role", payload: { user } }], work);
	const wrong = { user, role: "root" } as const;
	// @ts-expect-error a wrong value in the payload
	await transaction(ctx, [{ target: "auth", type: "grant-role", payload: wrong }], work);
	// @ts-expect-error no payload at all
	await transaction(null, [{ target: "mail", type: "welcome" }], work);
	// @ts-expect-error an unknown option
	await transaction(null, [], work, { retries: 1 });
	// @ts-expect-error the work gets the handle of this store, which is another
	await service.reliable.transaction(null, [], (tx: { trx: string; group: string }) => tx.trx);
}

export const consumer: ServiceSchema = {
	name: "auth",
	mixins: [ReliableMessage({ store: "sqlite:./auth.db", handlerTimeout: "10s" })],
	messages: defineMessages<Sends["auth"], SqliteTx>({
		"grant-role": {
			params: { user: "string", role: "string" },
			retryPolicy: { retries: 5, delay: 1_000 },
			handler(ctx, tx) {
				tx.run("INSERT INTO roles VALUES (?, ?)", ctx.params.user, ctx.params.role);
				// @ts-expect-error not in the payload
				void ctx.params.email;
			},
		},
		"revoke-all": (ctx, tx) => tx.run("DELETE FROM roles WHERE user = ?", ctx.params.user),
	}),
};

/** Without a map: any target, type and payload; handlers say what they take. */
export const untyped: ServiceSchema = {
	name: "auth",
	mixins: [ReliableMessage({ store: "memory:" })],
	messages: {
		short: (ctx, tx) => [ctx.params, tx.group],
		long: {
			timeout: "1m",
			handler(ctx: Context<{ user: string }>, tx: SqliteTx) {
				tx.run("INSERT INTO roles VALUES (?)", ctx.params.user);
			},
		},
	},
};

defineMessages<Sends["mail"]>({
	welcome: () => undefined,
	// @ts-expect-error a type that nobody sends
	farewell: () => undefined,
});
// @ts-expect-error a type without a handler
defineMessages<Sends["auth"]>({ "grant-role": () => undefined });
// @ts-expect-error the store is missing
ReliableMessage({ prepareTimeout: "5s" });
// @ts-expect-error an unknown option
ReliableMessage({ store: "memory:", timeout: 1 });
