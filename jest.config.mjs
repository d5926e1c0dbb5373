export default {
	testEnvironment: "node",
	testMatch: ["<rootDir>/test/**/*.test.ts"],
	testTimeout: 20_000,
	// Of the discoverers' cases, which take turns among themselves.
	maxConcurrency: 100,
	extensionsToTreatAsEsm: [".ts"],
	transform: { "\\.ts$": "<rootDir>/test/strip.mjs" },
	modulePathIgnorePatterns: ["<rootDir>/dist/"],
	// Moleculer's own discoverers leave clients open when their registry was cut off as they stopped.
	forceExit: true,
	reporters: ["default", "<rootDir>/test/tally.mjs"],
};
