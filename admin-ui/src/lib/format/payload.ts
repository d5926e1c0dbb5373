const PATH = /^[\w$-]+(\.[\w$-]+)*$/;

/** Whether a text can be a path in a payload: names and array places joined by dots, `user.roles.0`. */
export function isPath(text: string): boolean {
	return text.length <= 100 && PATH.test(text);
}

/** A value in one line: texts as they are, all else as JSON; "" for nothing. */
export function jsonText(value: unknown): string {
	if (value === undefined || value === null) return "";
	return typeof value === "string" ? value : JSON.stringify(value);
}

/** Where a text stops being JSON, or its value. */
export type Parsed = { readonly value: unknown } | { readonly problem: string };

export function parseJson(text: string): Parsed {
	try {
		return { value: JSON.parse(text) as unknown };
	} catch (error) {
		return { problem: error instanceof Error ? error.message : String(error) };
	}
}
