import type { JWTVerifyGetKey } from "jose";

import { hasCode, LottorError, messageOf } from "../../protocol/index.ts";
import { reaches, type Role, ROLES } from "./api/index.ts";
import type { Identity } from "./identity.ts";
import type { AdminOidc } from "./options.ts";
import { valuesAt } from "../payload-paths.ts";

/** Only signatures by a key pair: with a shared secret the provider's clients could make tokens. */
const ALGORITHMS = [
	"RS256",
	"RS384",
	"RS512",
	"PS256",
	"PS384",
	"PS512",
	"ES256",
	"ES384",
	"EdDSA",
];
/** jose's errors about the provider's keys. The generic one: they were answered by no 200, or no JSON. */
const OF_THE_PROVIDER = [
	"ERR_JOSE_GENERIC",
	"ERR_JWKS_TIMEOUT",
	"ERR_JWKS_INVALID",
	"ERR_JWK_INVALID",
];
const CLOCK_TOLERANCE_S = 5;
const FETCH_TIMEOUT_MS = 5_000;

/** A token that the provider did sign lets nobody in here: it is over, or for somebody else. Not a guess. */
export class SignedTokenRefused extends LottorError {
	constructor(message: string, cause?: unknown) {
		super("LOTTOR_LOGIN_REQUIRED", message, {}, cause);
	}
}

/** Checks bearer tokens of an OpenID provider. */
export class OidcVerifier {
	readonly #oidc: AdminOidc;
	#keys: Promise<JWTVerifyGetKey> | undefined;

	constructor(oidc: AdminOidc) {
		this.#oidc = oidc;
	}

	/**
	 * @throws LOTTOR_LOGIN_REQUIRED for a token that is none, over, or of somebody without a role
	 * @throws LOTTOR_IDENTITY_UNAVAILABLE when that can't be told now
	 */
	async verify(token: string): Promise<Identity> {
		const { issuer, audience } = this.#oidc;
		const { jwtVerify, errors } = await jose();
		// What has no form of a token is refused before anybody is asked for keys.
		const keys: JWTVerifyGetKey = async (...asked) => (await this.#keySet())(...asked);
		try {
			const { payload } = await jwtVerify(token, keys, {
				issuer,
				audience,
				algorithms: ALGORITHMS,
				clockTolerance: CLOCK_TOLERANCE_S,
				requiredClaims: ["exp"],
			});
			const role = this.#roleOf(payload);
			if (!role) {
				throw new SignedTokenRefused("The identity provider's token has no role here");
			}
			const expiresAt = (payload.exp as number) * 1_000;
			return { name: this.#nameOf(payload), role, via: "oidc", expiresAt, csrf: null };
		} catch (error) {
			if (error instanceof LottorError) throw error;
			const message = "The identity provider's token is not accepted";
			// Claims are looked at once the signature is known to be right.
			if (error instanceof errors.JWTExpired) {
				throw new SignedTokenRefused("The token is over", error);
			}
			if (error instanceof errors.JWTClaimValidationFailed) {
				throw new SignedTokenRefused(message, error);
			}
			if (error instanceof errors.JOSEError && !OF_THE_PROVIDER.includes(error.code)) {
				throw new LottorError("LOTTOR_LOGIN_REQUIRED", message, {}, error);
			}
			throw unavailable(error);
		}
	}

	#keySet(): Promise<JWTVerifyGetKey> {
		this.#keys ??= this.#fetchKeys().catch((error: unknown) => {
			this.#keys = undefined;
			throw hasCode(error, "LOTTOR_INVALID_OPTIONS") ? error : unavailable(error);
		});
		return this.#keys;
	}

	async #fetchKeys(): Promise<JWTVerifyGetKey> {
		const { createRemoteJWKSet } = await jose();
		const uri = this.#oidc.jwksUri ?? (await this.#discover());
		return createRemoteJWKSet(new URL(uri), { timeoutDuration: FETCH_TIMEOUT_MS });
	}

	async #discover(): Promise<string> {
		const url = `${this.#oidc.issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
		const response = await fetch(url, { signal: AbortSignal.timeout(FETCH_TIMEOUT_MS) });
		const { jwks_uri: uri } = (await response.json()) as { jwks_uri?: unknown };
		if (typeof uri !== "string") throw new Error(`${url} names no jwks_uri`);
		return uri;
	}

	/** The highest of the roles that the claim means. */
	#roleOf(claims: object): Role | undefined {
		const { roleClaim = "roles", roles } = this.#oidc;
		const meanings: Readonly<Record<string, Role>> =
			roles ?? Object.fromEntries(ROLES.map((role) => [role, role]));
		let highest: Role | undefined;
		for (const value of valuesAt(claims, roleClaim)) {
			const role =
				typeof value === "string" && Object.hasOwn(meanings, value)
					? meanings[value]
					: undefined;
			if (role && (!highest || reaches(role, highest))) highest = role;
		}
		return highest;
	}

	#nameOf(claims: Readonly<Record<string, unknown>>): string {
		const { nameClaim } = this.#oidc;
		const names =
			nameClaim === undefined ? ["email", "preferred_username", "sub"] : [nameClaim];
		const name = names.map((claim) => claims[claim]).find((value) => typeof value === "string");
		if (name === undefined) {
			throw new SignedTokenRefused("The identity provider's token names nobody");
		}
		return name.slice(0, 255);
	}
}

function unavailable(cause: unknown): LottorError {
	const message = "The identity provider's keys can't be read now";
	return new LottorError("LOTTOR_IDENTITY_UNAVAILABLE", message, {}, cause);
}

async function jose() {
	try {
		return await import("jose");
	} catch (error) {
		throw new LottorError(
			"LOTTOR_INVALID_OPTIONS",
			`Option LottorAdmin.oidc needs the package "jose": npm install jose (${messageOf(error)})`,
			{ field: "LottorAdmin.oidc" },
		);
	}
}
