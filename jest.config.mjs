export default {
	testEnvironment: "node",
	testMatch: ["<rootDir>/test/**/*.test.ts"],
	testTimeout: 20_000,
	// Most of the time goes by waiting for servers, time-outs and killed processes.
	maxWorkers: 2,
	// Of the discoverers' cases, which take turns among themselves.
	maxConcurrency: 100,
	extensionsToTreatAsEsm: [".ts"],
	transform: { "\\.ts$": "<rootDir>/test/strip.mjs" },
	modulePathIgnorePatterns: ["<rootDir>/dist/"],
	// Moleculer's own discoverers leave clients open when their registry was cut off as they stopped.
	forceExit: true,
	reporters: ["default", "<rootDir>/test/tally.mjs"],
};
