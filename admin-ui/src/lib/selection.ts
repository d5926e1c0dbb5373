/** A choice of ids with these added or taken away. */
export function withChosen(
	chosen: ReadonlySet<string>,
	ids: readonly string[],
	on: boolean,
): ReadonlySet<string> {
	const next = new Set(chosen);
	for (const id of ids) {
		if (on) next.add(id);
		else next.delete(id);
	}
	return next;
}
