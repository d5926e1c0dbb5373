import { cpSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { mainPort, type Place, type ServerKind } from "./kind.ts";
import { findProgram, run, talk } from "./tools.ts";

/** Names Kafka and what it needs; Maven fetches it. */
const SOURCE = new URL("./kafka/", import.meta.url).pathname;
const USER = "lottor";
const CLUSTER = "bG90dG9yLWxvdHRvci1sbw";
/** ApiVersions, version 0, without a client name; every broker answers it, before any login. */
const API_VERSIONS =
	"\u0000\u0000\u0000\u000a\u0000\u0012\u0000\u0000\u0000\u0000\u0000\u0001\u0000\u0000";

const libraries = (cache: string) => join(cache, "kafka", "libs");

const JAVA = [
	...["-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"],
	"-Djava.awt.headless=true",
];

function settingsOf(place: Place): Record<string, string | number> {
	const { password } = place;
	const protocol = password ? "SASL_PLAINTEXT" : "PLAINTEXT";
	const address = `127.0.0.1:${mainPort(kafka, place)}`;
	const controller = `127.0.0.1:${String(place.ports["controller"])}`;
	return {
		"process.roles": "broker,controller",
		"node.id": 1,
		"controller.quorum.voters": `1@${controller}`,
		"controller.listener.names": "CONTROLLER",
		listeners: `CLIENTS://${address},CONTROLLER://${controller}`,
		"advertised.listeners": `CLIENTS://${address}`,
		"listener.security.protocol.map": `CLIENTS:${protocol},CONTROLLER:PLAINTEXT`,
		"inter.broker.listener.name": "CLIENTS",
		...(password && {
			"sasl.enabled.mechanisms": "PLAIN",
			"sasl.mechanism.inter.broker.protocol": "PLAIN",
			"listener.name.clients.plain.sasl.jaas.config":
				"org.apache.kafka.common.security.plain.PlainLoginModule required " +
				`username="${USER}" password="${password}" user_${USER}="${password}";`,
		}),
		"log.dirs": join(place.folder, "data"),
		"num.network.threads": 1,
		"num.io.threads": 1,
		"background.threads": 1,
		"num.recovery.threads.per.data.dir": 1,
		"log.cleaner.enable": "false",
		"offsets.topic.num.partitions": 1,
		"offsets.topic.replication.factor": 1,
		"transaction.state.log.num.partitions": 1,
		"transaction.state.log.replication.factor": 1,
		"transaction.state.log.min.isr": 1,
		// A killed server is let in again only when its former session is over.
		"broker.session.timeout.ms": 1_500,
		"broker.heartbeat.interval.ms": 300,
		"group.initial.rebalance.delay.ms": 0,
		"group.min.session.timeout.ms": 1_000,
		"log.flush.interval.messages": 1,
	};
}

export const kafka: ServerKind = {
	name: "kafka",
	variable: "KAFKA_URL",
	ports: ["client", "controller"],
	installed: (cache) => existsSync(libraries(cache)) && findProgram("java") !== undefined,
	async install(cache) {
		if (!findProgram("mvn") || !findProgram("java")) {
			throw new Error("Install Maven and Java 17 or newer first: they fetch and run Kafka");
		}
		const build = join(cache, "kafka", "build");
		rmSync(build, { recursive: true, force: true });
		mkdirSync(build, { recursive: true });
		cpSync(SOURCE, build, { recursive: true });
		const options = ["-DoutputDirectory=libs", "-DincludeScope=runtime"];
		await run("mvn", ["-q", "-B", "-ntp", "dependency:copy-dependencies", ...options], {
			cwd: build,
		});
		renameSync(join(build, "libs"), libraries(cache));
		rmSync(build, { recursive: true });
	},
	async command(place, cache) {
		const file = join(place.folder, "server.properties");
		const lines = Object.entries(settingsOf(place)).map(([name, value]) => `${name}=${value}`);
		writeFileSync(file, `${lines.join("\n")}\n`, { mode: 0o600 });
		const classes = ["-cp", join(libraries(cache), "*")];
		if (!existsSync(join(place.folder, "data"))) {
			const format = ["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", file];
			await run("java", [...JAVA, ...classes, ...format], { cwd: place.folder });
		}
		return { file: "java", args: [...JAVA, ...classes, "kafka.Kafka", file] };
	},
	async ready(place) {
		return (await talk(mainPort(kafka, place), API_VERSIONS)).length > 0;
	},
	url(place) {
		const login = place.password ? `${USER}:${place.password}@` : "";
		return `kafka://${login}127.0.0.1:${mainPort(kafka, place)}`;
	},
};
