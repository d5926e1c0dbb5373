export default {
	testEnvironment: "node",
	testMatch: ["<rootDir>/test/**/*.test.ts"],
	testTimeout: 20_000,
	extensionsToTreatAsEsm: [".ts"],
	transform: { "\\.ts$": "<rootDir>/test/strip.mjs" },
	modulePathIgnorePatterns: ["<rootDir>/dist/"],
	reporters: ["default", "<rootDir>/test/tally.mjs"],
};
