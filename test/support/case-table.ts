/** What came of each case, by case and subject; empty where it did not run. */
export type CaseTable<Name extends string> = Map<Name, Map<string, string>>;

/**
 * @param subjects names of the columns, in their order
 * @param absent what stands for a case that a subject did not play
 * @returns the table as text, in aligned columns
 */
export function renderCases<Name extends string>(
	table: CaseTable<Name>,
	subjects: readonly string[],
	absent = "-",
): string {
	const rows = [
		["", ...subjects],
		...[...table].map(([name, cells]) => [
			name,
			...subjects.map((one) => cells.get(one) ?? absent),
		]),
	];
	const widths = rows[0]?.map((_, column) => {
		return Math.max(...rows.map((row) => (row[column] ?? "").length));
	});
	return rows
		.map((row) => row.map((cell, column) => cell.padEnd(widths?.[column] ?? 0)).join("  "))
		.join("\n");
}
