import { createHash } from "node:crypto";

import { LottorError, type Random } from "../../protocol/index.ts";
import { LOOKING, type Permission, PERMISSION_NAMES, reaches, type Role } from "./api/index.ts";
import type { AdminSettings, AdminToken } from "./options.ts";

/** Who sends a request. */
export interface Identity {
	readonly name: string;
	readonly role: Role;
	/** How that is known. `open`: nobody logged in, and reading needs no login. */
	readonly via: "open" | "session" | "token" | "oidc";
	/** When it stops being known, milliseconds since 1970. */
	readonly expiresAt: number | null;
	/** What a session's changes must bring as X-CSRF-Token. */
	readonly csrf: string | null;
}

/** Whoever reads without a login on this machine. */
export const ANYBODY: Identity = {
	name: "anybody",
	role: "viewer",
	via: "open",
	expiresAt: null,
	csrf: null,
};

const TOKEN_BYTES = 32;

/**
 * Makes a token for the option `tokens`. The token itself is kept nowhere: hand it to its person.
 *
 * @param name who it is for
 * @param role what they may do
 */
export function newAdminToken(
	name: string,
	role: Role,
	random: Random,
): { readonly token: string; readonly entry: AdminToken } {
	const token = secret(random);
	return { token, entry: { name, role, hash: hashOf(token) } };
}

export function secret(random: Random): string {
	return Buffer.from(random.bytes(TOKEN_BYTES)).toString("base64url");
}

export function hashOf(token: string): string {
	return createHash("sha256").update(token).digest("hex");
}

/**
 * The token's owner. Only hashes are compared, so that the time it takes tells nothing of use.
 */
export function ownerOf(token: string, tokens: readonly AdminToken[]): Identity | undefined {
	const hash = hashOf(token);
	const found = tokens.find((one) => one.hash === hash);
	return (
		found && { name: found.name, role: found.role, via: "token", expiresAt: null, csrf: null }
	);
}

/** @returns every permission that the identity has */
export function permissionsOf(
	{ role, via }: Identity,
	{ permissions, readOnly }: AdminSettings,
): Permission[] {
	return PERMISSION_NAMES.filter(
		(name) =>
			reaches(role, permissions[name]) &&
			(LOOKING.includes(name) || (!readOnly && via !== "open")),
	);
}

/** A permission, or several of which one is enough. */
export type Needed = Permission | readonly Permission[];

/** @returns whether it takes a permission to change something */
export function changes(needed: Needed): boolean {
	return ![needed].flat().every((permission) => LOOKING.includes(permission));
}

/** @throws LOTTOR_READ_ONLY, LOTTOR_LOGIN_REQUIRED or LOTTOR_FORBIDDEN */
export function demand(identity: Identity, needed: Needed, settings: AdminSettings): void {
	const held = permissionsOf(identity, settings);
	const wanted = [needed].flat();
	if (wanted.some((permission) => held.includes(permission))) return;
	const data = { permission: needed };
	if (settings.readOnly && changes(needed)) {
		throw new LottorError("LOTTOR_READ_ONLY", "Nothing can be changed here", data);
	}
	if (identity.via === "open") {
		throw new LottorError("LOTTOR_LOGIN_REQUIRED", "Log in to do this", data);
	}
	throw new LottorError(
		"LOTTOR_FORBIDDEN",
		`Role ${identity.role} lacks the permission "${wanted.join('" or "')}"`,
		{ ...data, role: identity.role },
	);
}
