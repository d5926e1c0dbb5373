import { describe, expect, test } from "@jest/globals";

import { channelAdapter } from "../../adapters/channels/index.ts";
import { PartitionLog } from "../../adapters/channels/kafka/partition-log.ts";

const record = (offset: number, timestamp = "1") => ({ offset: BigInt(offset), timestamp });

describe("R33 what may be committed of a partition", () => {
	test("only the finished beginning, in whatever order records end", () => {
		const log = new PartitionLog();
		for (const offset of [5, 6, 7]) expect(log.take(record(offset))).toBe(true);
		expect(log.committable()).toBe(5n);
		log.finish(record(6));
		expect(log.committable()).toBe(5n);
		log.finish(record(5));
		expect(log.committable()).toBe(7n);
		log.committed(7n);
		log.finish(record(7));
		expect(log.committable()).toBe(8n);
	});

	test("nothing after the partitions were shared out anew, until records come again", () => {
		const log = new PartitionLog();
		log.take(record(3));
		log.finish(record(3));
		log.reassigned();
		expect(log.committable()).toBeUndefined();
		expect(log.take(record(3))).toBe(false);
		expect(log.committable()).toBe(4n);
	});

	test("R23 whom somebody may have had before: the first ones since, up to the end at that time", () => {
		const log = new PartitionLog();
		log.take(record(3), 5n);
		log.take(record(9), 10n);
		expect([3, 4, 5, 9].map((offset) => log.mayRepeat(BigInt(offset), 10))).toEqual([
			true,
			true,
			false,
			false,
		]);
		expect(log.mayRepeat(4n, 1)).toBe(false);
		log.reassigned();
		log.take(record(9), 12n);
		expect([9, 11, 12].map((offset) => log.mayRepeat(BigInt(offset), 10))).toEqual([
			true,
			true,
			false,
		]);
	});

	test("what is being handled here is not begun again when it is fetched again", () => {
		const log = new PartitionLog();
		log.take(record(1));
		log.take(record(2));
		log.reassigned();
		expect(log.take(record(1))).toBe(false);
		expect(log.take(record(2))).toBe(false);
		expect(log.take(record(3))).toBe(true);
		expect(log.committable()).toBe(1n);
	});

	test("others have got further meanwhile: what was begun before is theirs", () => {
		const log = new PartitionLog();
		log.take(record(1));
		log.reassigned();
		expect(log.take(record(9))).toBe(true);
		log.finish(record(1));
		expect(log.committable()).toBe(9n);
	});

	test("a topic made anew begins anew, also where its offsets were used before", () => {
		const log = new PartitionLog();
		for (const offset of [0, 1, 2]) log.take(record(offset, "old"));
		log.finish(record(2, "old"));
		log.reassigned();
		expect(log.take(record(0, "new"))).toBe(true);
		log.finish(record(0, "old"));
		log.finish(record(1, "old"));
		expect(log.committable()).toBe(0n);
		log.finish(record(0, "new"));
		expect(log.committable()).toBe(1n);
	});
});

describe("channelAdapter", () => {
	test.each([
		["redis://:secret@127.0.0.1:6380/2", "Redis at 127.0.0.1:6380"],
		["amqp://user:secret@host/vhost", "RabbitMQ at host"],
		["kafka://user:secret@a:1,b:2?sasl=scram-sha-256", "Kafka at a:1, b:2"],
		["nats://user:secret@a:1,nats://b:2", "NATS at a:1, b:2"],
	])("makes an adapter of a URL and shows no password", (url, description) => {
		expect(channelAdapter(url).description).toBe(description);
	});

	test("takes the options of a stock adapter", () => {
		const { description } = channelAdapter({ redis: { host: "h", port: 1 }, maxInFlight: 5 });
		expect(description).toBe("Redis at h:1");
	});

	test("takes an adapter as it is", () => {
		const adapter = channelAdapter("nats://localhost:4222");
		expect(channelAdapter(adapter)).toBe(adapter);
	});

	test.each([["http://x"], ["redis:"], ["amqp://user:secret@:x:"], ["kafka://"]])(
		"refuses %s without showing it",
		(url) => {
			let error: unknown;
			try {
				channelAdapter(url, {}, "delivery");
			} catch (thrown) {
				error = thrown;
			}
			expect(error).toMatchObject({
				type: "LOTTOR_INVALID_OPTIONS",
				data: { field: "delivery" },
			});
			expect(JSON.stringify(error) + String(error)).not.toContain("secret");
		},
	);
});
