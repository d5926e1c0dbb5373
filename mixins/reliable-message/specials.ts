import type { Serializers } from "moleculer";
import type { Special } from "../../protocol/index.ts";

const SAMPLES = {
	Date: new Date("2026-01-31T12:00:00.123Z"),
	Buffer: Buffer.from([0, 1, 254, 255]),
	BigInt: 2n ** 64n + 1n,
} as const satisfies Record<Special, unknown>;

/**
 * What the serializer carries besides JSON, found out by trying: one of the user's own, and a later
 * version of Moleculer's, are judged by what they do.
 */
export function specialsOf(serializer: Serializers.Base | undefined): ReadonlySet<Special> {
	const found = new Set<Special>();
	if (!serializer) return found;
	for (const [name, sample] of Object.entries(SAMPLES)) {
		if (survives(serializer, sample)) found.add(name as Special);
	}
	return found;
}

function survives(serializer: Serializers.Base, sample: unknown): boolean {
	try {
		const { value } = serializer.deserialize(serializer.serialize({ value: sample })) as {
			value: unknown;
		};
		if (typeof sample === "bigint") return value === sample;
		if (Buffer.isBuffer(sample)) return value instanceof Uint8Array && sample.equals(value);
		const time = (date: unknown) => Object.prototype.toString.call(date) + Number(date);
		return time(value) === time(sample);
	} catch {
		return false;
	}
}
