import type { en } from "./en.ts";

export type Key = keyof typeof en;
/** A text, or one for a single thing and one for all other counts. */
export type Text = string | { readonly one: string; readonly other: string };
export type Catalogue = Readonly<Record<Key, Text>>;
export type Params = Readonly<Record<string, string | number>>;

/**
 * @param params what `{name}` in the text stands for; `count` also chooses the plural form
 * @returns the text of the key
 */
export function fill(catalogue: Catalogue, key: Key, params: Params, locale: string): string {
	const text = catalogue[key];
	const template = typeof text === "string" ? text : text[pluralOf(params["count"], locale)];
	return template.replace(/\{(\w+)\}/g, (whole, name: string) => {
		const value = params[name];
		if (value === undefined) return whole;
		return typeof value === "number" ? value.toLocaleString(locale) : value;
	});
}

function pluralOf(count: string | number | undefined, locale: string): "one" | "other" {
	if (typeof count !== "number") return "other";
	return new Intl.PluralRules(locale).select(count) === "one" ? "one" : "other";
}
