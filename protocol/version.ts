/** The package's version, as in package.json. */
export const LOTTOR_VERSION = "0.1.0";
