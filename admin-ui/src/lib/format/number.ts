/** A count in full up to 99,999, then shortened: `1.2M`. */
export function formatCount(value: number, locale: string): string {
	if (Math.abs(value) < 100_000) return Math.round(value).toLocaleString(locale);
	return new Intl.NumberFormat(locale, { notation: "compact", maximumFractionDigits: 1 }).format(
		value,
	);
}

/** A rate: two significant digits below ten. */
export function formatRate(value: number, locale: string): string {
	const digits = value > 0 && value < 10 ? 1 : 0;
	return value.toLocaleString(locale, { maximumFractionDigits: digits });
}

const UNITS = ["B", "KiB", "MiB", "GiB"];

export function formatBytes(bytes: number): string {
	let value = bytes;
	let unit = 0;
	while (value >= 1_024 && unit < UNITS.length - 1) {
		value /= 1_024;
		unit++;
	}
	const shown = unit === 0 || value >= 100 ? Math.round(value) : Math.round(value * 10) / 10;
	return `${shown} ${UNITS[unit] ?? ""}`;
}

/** The start and end of an id, which tell ids made close together apart. */
export function shortId(id: string, head = 8, tail = 6): string {
	return id.length <= head + tail + 1 ? id : `${id.slice(0, head)}…${id.slice(-tail)}`;
}
