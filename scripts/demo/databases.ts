import { join } from "node:path";

import { makePlace, type PlaceOnServer } from "../places.ts";

/** Everything of the demo that has a database of its own. */
const OWNERS = ["lottor", "user", "auth", "shop", "bank", "stock", "mail", "points"] as const;
export type DatabaseOwner = (typeof OWNERS)[number];

/** Where each of them keeps its data; as JSON, handed to each process. */
export type Databases = Readonly<Record<DatabaseOwner, string>>;

/** The environment variable that has it; not an argument, which everybody on the machine can read. */
export const DATABASES = "LOTTOR_DEMO_DATABASES";

/** Servers to play on; a file of SQLite each where they are left out. */
export interface Servers {
	readonly coordinator?: string | undefined;
	readonly participants?: string | undefined;
}

/** The databases of one run of the demo. */
export interface OwnDatabases {
	readonly urls: Databases;
	/** Removes what was made on servers. */
	remove(): Promise<void>;
}

/** Makes a database for everybody who has one: on the servers, or in the folder. */
export async function makeDatabases(folder: string, servers: Servers): Promise<OwnDatabases> {
	const places: PlaceOnServer[] = [];
	const urls: Partial<Record<DatabaseOwner, string>> = {};
	for (const owner of OWNERS) {
		const server = owner === "lottor" ? servers.coordinator : servers.participants;
		if (server === undefined) urls[owner] = `sqlite:${join(folder, `${owner}.db`)}`;
		else {
			const place = await makePlace(server, `lottor_demo_${owner}`);
			places.push(place);
			urls[owner] = place.url;
		}
	}
	urls.bank = recorded(urls.bank ?? "");
	return {
		urls: urls as Databases,
		async remove() {
			await Promise.all(places.map((place) => place.remove()));
		},
	};
}

/** The same database with only a record kept beside the work. Redis has no other way. */
function recorded(url: string): string {
	if (/^rediss?:/.test(url)) return url;
	return `${url}${url.includes("?") ? "&" : "?"}guarantee=recorded`;
}
