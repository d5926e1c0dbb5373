import { systemRandom } from "../../protocol/index.ts";
import {
	LottorAdmin,
	type LottorAdminOptions,
	newAdminToken,
	type Role,
} from "../../services/admin/index.ts";
import type { CoordinatorOptions } from "../../services/coordinator/index.ts";
import { reportOf, type Scripted, scripted, TestCoordinator } from "./coordinator.ts";
import { type Answer, http, portOf, type Sent } from "./http.ts";

export type Send = (line: string, sent?: Sent) => Promise<Answer>;

/** A coordinator with its HTTP side, and three people who may use it. */
export interface TestAdmin {
	readonly lottor: TestCoordinator;
	readonly auth: Scripted;
	readonly port: number;
	/** Without any login. */
	readonly send: Send;
	/** With the token of somebody who has the role; named as the role. */
	readonly as: (role: Role) => Send;
	/** A group whose messages, one unless said, `auth` has refused for good. */
	readonly failed: (content?: string, count?: number) => Promise<string>;
	/** A group that nobody could decide. */
	readonly inDoubt: () => Promise<string>;
	readonly stop: () => Promise<void>;
}

const PEOPLE = (["viewer", "operator", "admin"] as const).map((role) =>
	newAdminToken(role, role, systemRandom),
);

/** Options that let the three people in. */
export const withTokens: LottorAdminOptions = { tokens: PEOPLE.map(({ entry }) => entry) };

/** The token of the person with the role. */
export function tokenOf(role: Role): string {
	return PEOPLE.find(({ entry }) => entry.role === role)?.token ?? "";
}

export async function startAdmin(
	options: LottorAdminOptions = withTokens,
	coordinator: CoordinatorOptions = {},
): Promise<TestAdmin> {
	const auth = scripted("auth");
	const lottor = await TestCoordinator.start(
		coordinator,
		auth.schema,
		scripted("user").schema,
		LottorAdmin({ port: 0, ...options }),
	);
	const port = portOf(lottor.broker, "lottor-admin");
	const send: Send = (line, sent) => http(port, line, sent);
	return {
		lottor,
		auth,
		port,
		send,
		as: (role) => (line, sent) =>
			send(line, {
				...sent,
				headers: { Authorization: `Bearer ${tokenOf(role)}`, ...sent?.headers },
			}),
		async failed(content = '{"role":"amdin"}', count = 1) {
			const consume = auth.consume;
			auth.consume = (envelope) => ({
				result: "reported",
				report: reportOf(envelope, {
					code: "E_ROLE",
					message: "no such role",
					retryable: false,
				}),
			});
			const group = await lottor.prepare(Array.from({ length: count }, () => ({ content })));
			await lottor.commit(group);
			auth.consume = consume;
			return group;
		},
		async inDoubt() {
			const group = await lottor.prepare([{}], { storeId: "gone", guarantee: "recorded" });
			for (let hour = 0; hour < 3; hour++) await lottor.due(3_600_000);
			const { state } = await lottor.group(group);
			if (state !== "inDoubt") throw new Error(`Group ${group} is ${state}`);
			return group;
		},
		stop: () => lottor.stop(),
	};
}
