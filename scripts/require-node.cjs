// Says in one line that Node is too old, where otherwise the first .ts file would fail with a parse error.
// Written for any Node: no syntax here is newer than ES5.
//
// The package itself runs on Node 22.13; this is for a clone, which runs the .ts sources.
"use strict";

if (!process.features.typescript) {
	console.error(
		"Lottor's sources need Node 22.18 or newer (Node 24 is installed with `npm ci`); this is " +
			process.version,
	);
	process.exit(1);
}
