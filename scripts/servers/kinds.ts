import { consul } from "./consul.ts";
import { etcd } from "./etcd.ts";
import { eureka } from "./eureka.ts";
import { ferretdb } from "./ferretdb.ts";
import { kafka } from "./kafka.ts";
import type { ServerKind } from "./kind.ts";
import { mongodb } from "./mongodb.ts";
import { mysql } from "./mysql.ts";
import { nats } from "./nats.ts";
import { postgres } from "./postgres.ts";
import { rabbitmq } from "./rabbitmq.ts";
import { redis } from "./redis.ts";
import { zookeeper } from "./zookeeper.ts";

/** Every kind of server that tests and benchmarks can have; one line each. */
export const KINDS: readonly ServerKind[] = [
	redis, //
	nats,
	rabbitmq,
	kafka,
	etcd,
	consul,
	zookeeper,
	eureka,
	postgres,
	mysql,
	mongodb,
	ferretdb,
];
