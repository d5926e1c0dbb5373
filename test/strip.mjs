import { stripTypeScriptTypes } from "node:module";

/**
 * The jest transform: types become blanks, as when Node itself runs a .ts file. Every statement
 * keeps its line and column, so stack traces are right without a source map.
 */
export default {
	process(source, file) {
		return { code: stripTypeScriptTypes(source, { mode: "strip", sourceUrl: file }) };
	},
};
