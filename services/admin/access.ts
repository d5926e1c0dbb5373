import { timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";

import { hasCode, LottorError } from "../../protocol/index.ts";
import {
	ANYBODY,
	changes,
	demand,
	type Identity,
	type Needed,
	ownerOf,
	secret,
} from "./identity.ts";
import { LoginLimiter } from "./limiter.ts";
import { OidcVerifier, SignedTokenRefused } from "./oidc.ts";
import type { AdminSettings } from "./options.ts";
import { Sessions } from "./sessions.ts";

/** How long a login link that is logged works, in milliseconds. */
const LINK_LASTS_MS = 60 * 60_000;

/** Who a request is from, and how one logs in. */
export class Access {
	readonly #settings: AdminSettings;
	readonly #sessions: Sessions;
	readonly #limiter: LoginLimiter;
	readonly #oidc: OidcVerifier | undefined;
	/** Codes of login links by their end. */
	readonly #codes = new Map<string, number>();

	/** @param ended told of a session that ends before its time */
	constructor(settings: AdminSettings, ended: (identity: Identity) => void) {
		const { clock, random, sessionFor: lasts, secureCookie: secure, oidc } = settings;
		this.#settings = settings;
		this.#sessions = new Sessions({ clock, random, lasts, secure, ended });
		this.#limiter = new LoginLimiter(clock);
		this.#oidc = oidc && new OidcVerifier(oidc);
	}

	/**
	 * Finds out who asks, and whether they may.
	 *
	 * @throws LOTTOR_LOGIN_REQUIRED, LOTTOR_FORBIDDEN, LOTTOR_READ_ONLY, LOTTOR_TOO_MANY_ATTEMPTS
	 */
	async admit(req: IncomingMessage, needed: Needed): Promise<Identity> {
		const identity = await this.identify(req);
		demand(identity, needed, this.#settings);
		// A browser sends the cookie by itself, so a change must show that our page asked for it.
		if (identity.via === "session" && changes(needed)) refuseForged(req, identity);
		return identity;
	}

	/** @throws LOTTOR_LOGIN_REQUIRED, LOTTOR_TOO_MANY_ATTEMPTS */
	async identify(req: IncomingMessage): Promise<Identity> {
		const bearer = /^Bearer +(\S+)$/i.exec(req.headers.authorization ?? "")?.[1];
		if (bearer !== undefined) return this.#byToken(bearer, addressOf(req));
		const session = this.#sessions.find(req.headers.cookie);
		if (session) return session;
		if (this.#settings.open) return ANYBODY;
		throw new LottorError("LOTTOR_LOGIN_REQUIRED", "Log in first, or send a bearer token");
	}

	/** @throws LOTTOR_LOGIN_REQUIRED, LOTTOR_TOO_MANY_ATTEMPTS */
	async login(req: IncomingMessage, token: string) {
		return this.#sessions.begin(await this.#byToken(token, addressOf(req)));
	}

	/** Begins an administrator's session by the code of a login link, which works once. */
	loginByCode(req: IncomingMessage, code: string) {
		const end = this.#codes.get(code);
		this.#codes.delete(code);
		if (end === undefined || end <= this.#settings.clock.now()) {
			this.#limiter.failed(addressOf(req));
			throw new LottorError(
				"LOTTOR_LOGIN_REQUIRED",
				"This link was used or is over; a new one is logged at start, or made by `lottor login`",
			);
		}
		return this.#sessions.begin({ name: "local", role: "admin", expiresAt: null });
	}

	logout(req: IncomingMessage): string {
		return this.#sessions.end(req.headers.cookie);
	}

	/** @returns the code of a new login link; former ones stop working */
	newCode(): string {
		const { clock, random } = this.#settings;
		this.#codes.clear();
		const code = secret(random);
		this.#codes.set(code, clock.now() + LINK_LASTS_MS);
		return code;
	}

	async #byToken(token: string, address: string): Promise<Identity> {
		const owner = ownerOf(token, this.#settings.tokens);
		if (owner) return owner;
		try {
			if (this.#oidc && token.split(".").length === 3) return await this.#oidc.verify(token);
			throw new LottorError("LOTTOR_LOGIN_REQUIRED", "The token is not known");
		} catch (error) {
			const guessed =
				hasCode(error, "LOTTOR_LOGIN_REQUIRED") && !(error instanceof SignedTokenRefused);
			if (guessed) this.#limiter.failed(address);
			throw error;
		}
	}
}

/** Who really sent it: `X-Forwarded-For` is what anybody likes. */
export function addressOf(req: IncomingMessage): string {
	return req.socket.remoteAddress ?? "";
}

function refuseForged(req: IncomingMessage, { csrf }: Identity): void {
	const sent = Buffer.from(String(req.headers["x-csrf-token"] ?? ""));
	const wanted = Buffer.from(csrf ?? "");
	if (sent.length === wanted.length && timingSafeEqual(sent, wanted)) return;
	throw new LottorError(
		"LOTTOR_FORBIDDEN",
		"A session's change needs X-CSRF-Token, which GET /api/me tells",
		{ field: "X-CSRF-Token" },
	);
}
