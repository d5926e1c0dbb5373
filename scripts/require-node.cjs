// Says in one line that Node is too old, where otherwise the first .ts file would fail with a parse error.
// Written for any Node: no syntax here is newer than ES5.
"use strict";

var NEEDED = [22, 13];
var have = process.versions.node.split(".").map(Number);

if (have[0] < NEEDED[0] || (have[0] === NEEDED[0] && have[1] < NEEDED[1])) {
	console.error(
		"Lottor needs Node " +
			NEEDED.join(".") +
			" or newer (Node 24 is installed with `npm ci`); this is " +
			process.version,
	);
	process.exit(1);
}
