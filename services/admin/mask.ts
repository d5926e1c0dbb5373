/** What a masked value is shown as. */
export const MASK = "•••";

/** Whether the text can be a mask's path: names joined by dots, `*` for any one, `**` for any depth. */
export function isMaskPath(path: unknown): path is string {
	return typeof path === "string" && /^[^.\s]+(\.[^.\s]+)*$/.test(path) && !path.endsWith("**");
}

type Patterns = readonly (readonly string[])[];

/** @returns the payload with what the paths name hidden; a step into a list means each of its items */
export function masked(payload: unknown, paths: readonly string[]): unknown {
	return paths.length === 0 ? payload : mask(payload, split(paths));
}

function mask(value: unknown, patterns: Patterns): unknown {
	if (patterns.some((pattern) => pattern.length === 0)) return MASK;
	if (Array.isArray(value)) return value.map((item: unknown) => mask(item, patterns));
	if (typeof value !== "object" || value === null) return value;
	return Object.fromEntries(
		Object.entries(value).map(([name, item]) => [name, mask(item, stepped(patterns, name))]),
	);
}

/**
 * Puts the stored values back where an edited payload still shows the mask.
 *
 * @returns the payload as it is meant; undefined when a mask stands where nothing is stored
 */
export function unmasked(
	edited: unknown,
	stored: unknown,
	paths: readonly string[],
): { readonly payload: unknown } | undefined {
	return paths.length === 0 ? { payload: edited } : restore(edited, stored, split(paths));
}

function restore(
	value: unknown,
	stored: unknown,
	patterns: Patterns,
): { readonly payload: unknown } | undefined {
	if (patterns.some((pattern) => pattern.length === 0)) {
		if (value !== MASK) return { payload: value };
		return stored === undefined ? undefined : { payload: stored };
	}
	if (Array.isArray(value)) {
		const items = value.map((item: unknown, index) =>
			restore(
				item,
				Array.isArray(stored) ? (stored as unknown[])[index] : undefined,
				patterns,
			),
		);
		if (items.includes(undefined)) return undefined;
		return { payload: items.map((item) => item?.payload) };
	}
	if (typeof value !== "object" || value === null) return { payload: value };
	const result: [string, unknown][] = [];
	for (const [name, item] of Object.entries(value)) {
		const was =
			typeof stored === "object" && stored !== null && Object.hasOwn(stored, name)
				? (stored as Record<string, unknown>)[name]
				: undefined;
		const restored = restore(item, was, stepped(patterns, name));
		if (!restored) return undefined;
		result.push([name, restored.payload]);
	}
	return { payload: Object.fromEntries(result) };
}

function split(paths: readonly string[]): Patterns {
	return paths.map((path) => path.split("."));
}

/** What of the patterns is left below a name. */
function stepped(patterns: Patterns, name: string): Patterns {
	return patterns.flatMap((pattern) => {
		const [first, ...rest] = pattern;
		if (first === "**") return [pattern, ...stepped([rest], name)];
		return first === "*" || first === name ? [rest] : [];
	});
}
