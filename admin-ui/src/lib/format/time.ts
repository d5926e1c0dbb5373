export const TIME_MODES = ["relative", "local", "utc"] as const;
/** How moments are shown. */
export type TimeMode = (typeof TIME_MODES)[number];

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A moment as the reader wants it. Within a second of now counts as now. */
export function formatTime(at: number, mode: TimeMode, now: number, locale: string): string {
	if (mode === "utc") return utc(at);
	if (mode === "local") return localTime(at, now, locale);
	const [amount, unit] = inUnits(at - now);
	return new Intl.RelativeTimeFormat(locale, { numeric: "auto", style: "narrow" }).format(
		amount,
		unit,
	);
}

/** Every form of a moment at once, for a tooltip: exact to the millisecond. */
export function fullTime(at: number, locale: string): string {
	const local = new Intl.DateTimeFormat(locale, {
		dateStyle: "medium",
		timeStyle: "medium",
	}).format(at);
	return `${local}.${String(at % SECOND).padStart(3, "0")}\n${new Date(at).toISOString()}`;
}

/** Time of day with milliseconds, for a history where entries lie close together. */
export function exactTime(at: number, mode: TimeMode, locale: string): string {
	return new Intl.DateTimeFormat(locale, {
		hour: "2-digit",
		minute: "2-digit",
		second: "2-digit",
		fractionalSecondDigits: 3,
		hourCycle: "h23",
		...(mode === "utc" && { timeZone: "UTC" }),
	}).format(at);
}

function utc(at: number): string {
	return new Date(at).toISOString().slice(0, 19).replace("T", " ") + "Z";
}

function localTime(at: number, now: number, locale: string): string {
	const sameYear = new Date(at).getFullYear() === new Date(now).getFullYear();
	return new Intl.DateTimeFormat(locale, {
		...(!sameYear && { year: "numeric" }),
		month: "short",
		day: "numeric",
		hour: "2-digit",
		minute: "2-digit",
		second: "2-digit",
		hourCycle: "h23",
	}).format(at);
}

function inUnits(ms: number): [number, Intl.RelativeTimeFormatUnit] {
	const size = Math.abs(ms);
	if (size < MINUTE) return [Math.trunc(ms / SECOND) || 0, "second"];
	if (size < HOUR) return [Math.trunc(ms / MINUTE), "minute"];
	if (size < DAY) return [Math.trunc(ms / HOUR), "hour"];
	return [Math.trunc(ms / DAY), "day"];
}

/** A span of time in at most two units: `850 ms`, `4.2 s`, `3 min 20 s`, `2 d 4 h`. */
export function formatSpan(ms: number): string {
	if (ms < 0) return `-${formatSpan(-ms)}`;
	if (ms < SECOND) return `${Math.round(ms)} ms`;
	if (ms < 10 * SECOND) return `${trimmed(ms / SECOND)} s`;
	if (ms < MINUTE) return `${Math.floor(ms / SECOND)} s`;
	if (ms < HOUR) return two(ms, MINUTE, "min", SECOND, "s");
	if (ms < DAY) return two(ms, HOUR, "h", MINUTE, "min");
	return two(ms, DAY, "d", HOUR, "h");
}

function two(ms: number, big: number, bigName: string, small: number, smallName: string): string {
	const rest = Math.floor((ms % big) / small);
	const first = `${Math.floor(ms / big)} ${bigName}`;
	return rest === 0 ? first : `${first} ${rest} ${smallName}`;
}

function trimmed(value: number): string {
	return (Math.floor(value * 10) / 10).toString();
}
