import { Engine } from "./engine.ts";
import { Gateway } from "./gateway.ts";

/** One process: PostgreSQL with the DocumentDB extension as its child, and the gateway. */
const [root = "", folder = "", enginePort, port] = process.argv.slice(2);
const password = process.env["LOTTOR_MONGODB_PASSWORD"];

const engine = await Engine.start({ root, folder, port: Number(enginePort) });
const { rows } = await engine.pool.query<{ version: string }>(
	"SELECT documentdb_api.binary_version() AS version",
);
const login = password === undefined ? undefined : { user: "lottor", password };
await new Gateway(engine.pool, rows[0]?.version ?? "", login).listen(Number(port));
console.log(`listening on 127.0.0.1:${port}, DocumentDB ${rows[0]?.version}`);

let ending = false;
for (const signal of ["SIGTERM", "SIGINT"] as const) {
	process.once(signal, () => {
		ending = true;
		void engine.stop().then(() => process.exit(0));
	});
}
await engine.ended();
if (!ending) console.error("PostgreSQL has ended");
process.exit(ending ? 0 : 1);
