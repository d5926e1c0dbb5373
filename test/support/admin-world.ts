import { Errors } from "moleculer";

import { authService } from "../../samples/auth/auth.service.ts";
import { userService } from "../../samples/user/user.service.ts";
import { LottorAdmin, newAdminToken, type Role } from "../../services/admin/index.ts";
import { prepareItem } from "./groups.ts";
import { portOf } from "./http.ts";
import { TestCluster } from "./lottor.ts";
import { until } from "./until.ts";

/** Messages of one group; so that a thousand are not a thousand commits. */
const A_GROUP = 100;

interface ShopSends {
	mail: { "send-welcome": { user: { id: number; name: string } } };
	[target: string]: { [type: string]: unknown };
}

/** Everything that the admin UI shows, running in this process on files of its own. */
export interface AdminWorld {
	/** Address of the admin service. */
	readonly url: string;
	/** A token for each role. */
	readonly tokens: Readonly<Record<Role, string>>;
	/** Runs the sample once. @returns when its transaction is over */
	sample(result: "success" | "fail" | "consumeFail", name?: string): Promise<void>;
	/** Has so many messages to `mail` fail for good; `heal` lets later attempts succeed. */
	failMany(count: number): Promise<void>;
	heal(): void;
	/** Has retries wait until what it returns is called. */
	holdRetries(): () => void;
	/** A group whose producer is gone for good, already in doubt. @returns its id */
	doubt(): Promise<string>;
	/** Ends the coordinator, and starts it again. */
	coordinatorGone(): Promise<void>;
	coordinatorBack(): Promise<void>;
	stop(): Promise<void>;
}

/** Starts coordinator, admin service and sample services in one node. */
export async function adminWorld(): Promise<AdminWorld> {
	const cluster = new TestCluster();
	let held: Promise<void> | undefined;
	const broker = cluster.broker("node-1", {
		middlewares: [
			{
				localAction(next, { name }) {
					if (name !== "lottor.messages.retry") return next;
					return async function (ctx) {
						await held;
						return next.call(this, ctx) as unknown;
					};
				},
			},
		],
	});
	const made = {
		viewer: newAdminToken("vera", "viewer"),
		operator: newAdminToken("olga", "operator"),
		admin: newAdminToken("adam", "admin"),
	};
	const startCoordinator = () => cluster.coordinator(broker, { doubtAfter: 1 });
	const file = (name: string) => `sqlite:${cluster.folder}/${name}.db`;
	let broken = true;

	startCoordinator();
	broker.createService(
		LottorAdmin({ port: 0, tokens: Object.values(made).map(({ entry }) => entry) }),
	);
	broker.createService(userService(file("user")));
	broker.createService(authService(file("auth")));
	const shop = cluster.participant(broker, "shop");
	cluster.participant(broker, "mail", {
		"send-welcome": () => {
			if (broken) {
				throw new Errors.MoleculerClientError(
					"No route to smtp.internal",
					400,
					"SMTP_DOWN",
				);
			}
		},
	});
	await broker.start();

	const failed = async () =>
		(await broker.call<{ messages: { failed: number } }>("lottor.stats")).messages.failed;
	return {
		url: `http://127.0.0.1:${portOf(broker, "lottor-admin")}`,
		tokens: {
			viewer: made.viewer.token,
			operator: made.operator.token,
			admin: made.admin.token,
		},
		async sample(result, name = "Ada") {
			await broker.call("user.create", { result, name }).catch((error: unknown) => {
				if (result !== "fail") throw error;
			});
		},
		async failMany(count) {
			const before = await failed();
			const reliable = cluster.reliable<ShopSends>(shop);
			for (let made = 0; made < count; made += A_GROUP) {
				const messages = Array.from(
					{ length: Math.min(A_GROUP, count - made) },
					(_, at) => ({
						target: "mail",
						type: "send-welcome",
						payload: { user: { id: made + at, name: `User ${made + at}` } },
					}),
				);
				await reliable.transaction(null, messages, () => undefined);
			}
			await until(async () => (await failed()) === before + count);
		},
		heal() {
			broken = false;
		},
		holdRetries() {
			let release = () => undefined as void;
			held = new Promise((done) => (release = done));
			return release;
		},
		async doubt() {
			const item = prepareItem({
				source: "legacy.import",
				storeId: "lost-store",
				guarantee: "recorded",
				owner: { nodeID: "import-1", instanceID: "gone" },
				checkAfter: 1,
				messages: [{ target: "mail", type: "send-welcome", content: "{}" }],
			});
			await broker.call("lottor.prepare", { items: [item] });
			await cluster.reached(item.id, "inDoubt");
			return item.id;
		},
		async coordinatorGone() {
			await broker.destroyService("lottor");
		},
		async coordinatorBack() {
			startCoordinator();
			await broker.waitForServices("lottor");
		},
		stop: () => cluster.stop(),
	};
}
