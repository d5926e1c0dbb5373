import { ApiError, call, useCsrfToken, watchCalls } from "./api/client.ts";
import type { Me, Permission } from "./api/types.ts";

export type SessionState =
	| { readonly kind: "loading" }
	| { readonly kind: "anonymous" }
	| { readonly kind: "unreachable"; readonly error: ApiError }
	/** `expired`: the server knows the session no more; what the person was about to do is still there. */
	| { readonly kind: "open"; readonly me: Me; readonly expired: boolean };

const state = $state<{ session: SessionState; reachable: boolean; coordinator: boolean }>({
	session: { kind: "loading" },
	/** Whether the last call was answered at all. */
	reachable: true,
	/** Whether the server could ask a coordinator, the last time it needed one. */
	coordinator: true,
});

/** Who is logged in, and whether the server and the coordinator behind it answer. */
export const session = {
	get state(): SessionState {
		return state.session;
	},
	get reachable(): boolean {
		return state.reachable;
	},
	get coordinator(): boolean {
		return state.coordinator;
	},
	async load(): Promise<void> {
		try {
			const me = await call<Me>("GET", "/api/me");
			useCsrfToken(me.csrf);
			state.session = { kind: "open", me, expired: false };
		} catch (error) {
			if (!(error instanceof ApiError)) throw error;
			if (error.status !== 401) state.session = { kind: "unreachable", error };
		}
	},
	async logIn(token: string): Promise<void> {
		await call("POST", "/api/login", { body: { token } });
		await session.load();
	},
	async logOut(): Promise<void> {
		await call("POST", "/api/logout", { body: {} });
		state.session = { kind: "anonymous" };
	},
	/** Shows the login, where reading needs none. */
	askLogin(): void {
		state.session = { kind: "anonymous" };
	},
	/** Whether the person may do it; the server decides again. */
	may(permission: Permission): boolean {
		if (state.session.kind !== "open") return false;
		const { me } = state.session;
		const changes = !READING.includes(permission);
		return !(changes && me.readOnly) && me.permissions.includes(permission);
	},
	get me(): Me | undefined {
		return state.session.kind === "open" ? state.session.me : undefined;
	},
	/** Whether nothing can be asked for until the person has logged in again. */
	get expired(): boolean {
		return state.session.kind === "open" && state.session.expired;
	},
};

const READING: readonly Permission[] = ["read", "audit", "settings"];
const COORDINATOR_GONE = ["LOTTOR_NO_COORDINATOR", "LOTTOR_STORE_UNAVAILABLE"];

watchCalls(({ ok, error }) => {
	state.reachable = ok || error?.code !== "UNREACHABLE";
	if (ok) state.coordinator = true;
	else if (error && COORDINATOR_GONE.includes(error.code)) state.coordinator = false;
	if (error?.status === 401) {
		state.session =
			state.session.kind === "open"
				? { ...state.session, expired: true }
				: { kind: "anonymous" };
	}
});
