const ID_PREFIX = /^[0-7][0-9a-hjkmnp-tv-z]{3,25}(\.\d{0,4})?$/;

/**
 * @returns the begin of a group's id, where what was typed can be one: of a group, or a message's whole id
 */
export function groupPrefix(typed: string): string | undefined {
	const text = typed.trim().toLowerCase();
	return ID_PREFIX.test(text) ? text.split(".")[0] : undefined;
}
