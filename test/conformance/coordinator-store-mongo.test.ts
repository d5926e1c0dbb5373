import { mongodb } from "../../scripts/servers/mongodb.ts";
import { mongoHarness } from "../support/mongo-stores.ts";
import { withServer } from "../support/servers.ts";
import { coordinatorStoreSuite } from "./coordinator-store.ts";

withServer(mongodb, "coordinator store: mongo on DocumentDB", (url) => {
	coordinatorStoreSuite("mongo on DocumentDB, driver 7", () =>
		mongoHarness(url, () => import("mongodb")),
	);
});
