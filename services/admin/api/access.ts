/** Who may do what. A role has all that the ones before it have. */
export const ROLES = ["viewer", "operator", "admin"] as const;
export type Role = (typeof ROLES)[number];

/** What a route needs, and the least role that has it unless the options say otherwise. */
export const PERMISSIONS = {
	/** Groups, messages, figures, clients. */
	read: "viewer",
	/** Asks a producer again how its transaction ended. */
	recheck: "operator",
	retry: "operator",
	/** Gives a failed message another payload. */
	edit: "operator",
	discard: "operator",
	/** Commits or rolls back a group in doubt. */
	decide: "operator",
	/** Who did what. */
	audit: "operator",
	/** The effective configuration, without secrets. */
	settings: "admin",
} as const satisfies Record<string, Role>;

export type Permission = keyof typeof PERMISSIONS;
export const PERMISSION_NAMES = Object.keys(PERMISSIONS) as Permission[];

/** @returns whether the role is the least one or above it */
export function reaches(role: Role, least: Role): boolean {
	return ROLES.indexOf(role) >= ROLES.indexOf(least);
}

/** Permissions to look; all others change something. */
export const LOOKING: readonly Permission[] = ["read", "audit", "settings"];
