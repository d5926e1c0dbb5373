import type { Step } from "./explorer.ts";
import { NAMES } from "./writes.ts";

/** Which messages go out with the commit itself: those whose targets can be sent to. */
export const TARGETS = [0, 1, 2, 3] as const;

/** @returns a step for each message */
export function each(text: string): readonly Step[] {
	return [0, 1].map((index) => ({ name: `${text} message ${index}` }));
}

/** @returns a step for each coordinator */
export function byEach(text: string): readonly Step[] {
	return NAMES.map((name) => ({ name: `${name} ${text}` }));
}

/** @returns a step for each coordinator and message */
export function byEachOf(text: string): readonly (readonly Step[])[] {
	return NAMES.map((name) => each(`${name} ${text}`));
}

/** @returns a step for each coordinator and choice of {@link TARGETS} */
export function byEachTo(text: string): readonly (readonly Step[])[] {
	return NAMES.map((name) =>
		TARGETS.map((targets) => {
			const sends =
				targets === 0
					? ""
					: `, to send ${targets === 3 ? "all" : `message ${targets - 1}`}`;
			return { name: `${name} ${text}${sends}` };
		}),
	);
}
