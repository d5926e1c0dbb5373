import { en } from "./en.ts";
import { type Catalogue, type Key, type Params, fill } from "./message.ts";

export const LOCALES = ["en", "zh"] as const;
export type Locale = (typeof LOCALES)[number];

const STORED = "lottor.locale";

const state = $state<{ locale: Locale; catalogue: Catalogue }>({ locale: "en", catalogue: en });

/** What the browser or the user asked for. */
export function preferredLocale(): Locale {
	const stored = localStorage.getItem(STORED);
	if (LOCALES.some((locale) => locale === stored)) return stored as Locale;
	return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** Loads the catalogue, then shows it; English is always there. */
export async function useLocale(locale: Locale): Promise<void> {
	const catalogue = locale === "zh" ? (await import("./zh.ts")).zh : en;
	Object.assign(state, { locale, catalogue });
	document.documentElement.lang = locale === "zh" ? "zh-CN" : "en";
	localStorage.setItem(STORED, locale);
}

export function locale(): Locale {
	return state.locale;
}

/** The text of a key, in the language that is shown; `count` chooses between one and other. */
export function t(key: Key, params: Params = {}): string {
	return fill(state.catalogue, key, params, state.locale);
}

/** Whether a text of this name exists: for names that come from the server. */
export function known(key: string): key is Key {
	return Object.hasOwn(en, key);
}
