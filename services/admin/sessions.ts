import type { Clock, Random } from "../../protocol/index.ts";
import { type Identity, secret } from "./identity.ts";

const COOKIE = "lottor_session";
/** Sessions kept at once; the oldest ends for a new one. */
const MOST_SESSIONS = 1_000;

/** Who is logged in: kept in this process only, so a restart logs everybody out. */
export class Sessions {
	readonly #sessions = new Map<string, Identity>();
	readonly #clock: Clock;
	readonly #random: Random;
	readonly #lasts: number;
	readonly #secure: boolean;
	readonly #ended: (identity: Identity) => void;

	constructor(options: {
		readonly clock: Clock;
		readonly random: Random;
		/** Milliseconds. */
		readonly lasts: number;
		/** The cookie goes over HTTPS only. */
		readonly secure: boolean;
		/** Told of a session that ends before its time. */
		readonly ended: (identity: Identity) => void;
	}) {
		this.#clock = options.clock;
		this.#random = options.random;
		this.#lasts = options.lasts;
		this.#secure = options.secure;
		this.#ended = options.ended;
	}

	/** Begins a session, which ends with what the login itself rests on at the latest. */
	begin({ name, role, expiresAt }: Pick<Identity, "name" | "role" | "expiresAt">): {
		readonly identity: Identity;
		readonly cookie: string;
	} {
		const end = Math.min(this.#clock.now() + this.#lasts, expiresAt ?? Infinity);
		const csrf = secret(this.#random);
		const identity: Identity = { name, role, via: "session", expiresAt: end, csrf };
		const id = secret(this.#random);
		for (const oldest of this.#sessions.keys()) {
			if (this.#sessions.size < MOST_SESSIONS) break;
			this.#drop(oldest);
		}
		this.#sessions.set(id, identity);
		const age = Math.floor((end - this.#clock.now()) / 1_000);
		return { identity, cookie: this.#cookie(id, age) };
	}

	/** The session that a request's Cookie header names, unless it is over. */
	find(header: string | undefined): Identity | undefined {
		const id = idOf(header);
		const identity = id === undefined ? undefined : this.#sessions.get(id);
		if (id === undefined || !identity) return undefined;
		if ((identity.expiresAt ?? 0) > this.#clock.now()) return identity;
		this.#sessions.delete(id);
		return undefined;
	}

	/** Ends the session. @returns the cookie that clears the browser's */
	end(header: string | undefined): string {
		const id = idOf(header);
		if (id !== undefined) this.#drop(id);
		return this.#cookie("", 0);
	}

	#drop(id: string): void {
		const identity = this.#sessions.get(id);
		this.#sessions.delete(id);
		if (identity) this.#ended(identity);
	}

	#cookie(id: string, age: number): string {
		const secure = this.#secure ? "; Secure" : "";
		return `${COOKIE}=${id}; Path=/; HttpOnly; SameSite=Strict; Max-Age=${age}${secure}`;
	}
}

function idOf(header: string | undefined): string | undefined {
	for (const pair of (header ?? "").split(";")) {
		const [name, value] = pair.trim().split("=", 2);
		if (name === COOKIE && value) return value;
	}
	return undefined;
}
