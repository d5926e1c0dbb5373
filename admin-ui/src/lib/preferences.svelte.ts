import { TIME_MODES, type TimeMode } from "./format/time.ts";

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

const THEME = "lottor.theme";
const TIME = "lottor.time";

const state = $state<{ theme: Theme; time: TimeMode; now: number; dark: boolean }>({
	theme: stored(THEME, THEMES, "system"),
	time: stored(TIME, TIME_MODES, "relative"),
	now: Date.now(),
	dark: false,
});

const system = matchMedia("(prefers-color-scheme: dark)");

/** The user's choices, kept in this browser, and the clock that relative times follow. */
export const preferences = {
	get theme(): Theme {
		return state.theme;
	},
	set theme(theme: Theme) {
		state.theme = theme;
		localStorage.setItem(THEME, theme);
		applyTheme();
	},
	/** Whether what is shown is dark, chosen or by the system. */
	get dark(): boolean {
		return state.dark;
	},
	get time(): TimeMode {
		return state.time;
	},
	set time(mode: TimeMode) {
		state.time = mode;
		localStorage.setItem(TIME, mode);
	},
	/** Moves on each second, while the page is seen. */
	get now(): number {
		return state.now;
	},
};

/** Applies the stored theme and starts the clock. */
export function startPreferences(): void {
	applyTheme();
	system.addEventListener("change", applyTheme);
	setInterval(() => {
		if (!document.hidden) state.now = Date.now();
	}, 1_000);
}

function applyTheme(): void {
	const { theme } = state;
	state.dark = theme === "dark" || (theme === "system" && system.matches);
	if (theme === "system") delete document.documentElement.dataset["theme"];
	else document.documentElement.dataset["theme"] = theme;
}

function stored<T extends string>(name: string, allowed: readonly T[], otherwise: T): T {
	const value = localStorage.getItem(name);
	return allowed.find((one) => one === value) ?? otherwise;
}
