import {
	BATCH_BYTES,
	BATCH_ITEMS,
	type ConsumeAnswer,
	type ConsumeCall,
	type Envelope,
	isRecord,
	type ItemError,
	type Owner,
	PARTICIPANT_ACTIONS,
	type SettledReport,
} from "../../protocol/index.ts";
import { callAction } from "./action-call.ts";
import type { Delivery, DeliveryHost, Outgoing, SendResult, TargetInstance } from "./contract.ts";
import { itemError, notReported } from "./results.ts";

/** What the shipped TCP transporter takes as one packet. */
const MAX_BYTES = 16 * 1_024 * 1_024;

interface Queued {
	readonly outgoing: Outgoing;
	readonly settle: (result: SendResult) => Promise<boolean>;
}

/** Acknowledgements kept for an instance's next call; those beyond it asks for itself. */
const SETTLED_KEPT = 2_000;
/** Instances that they are kept for: those that are gone never call for theirs. */
const INSTANCES_KEPT = 500;

/**
 * Delivers by Moleculer calls (R28): to the consume action of one living instance, chosen here,
 * or to a plain action of the target (R25). Not durable: what no process holds is lost, and the
 * coordinator asks and sends again.
 */
export function directDelivery(): Delivery {
	let host: DeliveryHost | undefined;
	/** Items that wait for the end of this tick, by instance and service. */
	const queues = new Map<string, { instance: TargetInstance; items: Queued[] }>();
	/** Items under way, by instance: the least loaded one is chosen. */
	const load = new Map<string, number>();
	/** Stored reports that an instance has not been told of, by instance. */
	const told = new Map<string, SettledReport[]>();

	function choose(instances: readonly TargetInstance[]): TargetInstance | undefined {
		let best: TargetInstance | undefined;
		for (const instance of instances) {
			if (!best || loadOf(instance) < loadOf(best)) best = instance;
		}
		return best;
	}

	function loadOf(instance: TargetInstance): number {
		return load.get(keyOf(instance)) ?? 0;
	}

	function enqueue(instance: TargetInstance, item: Queued): void {
		const key = keyOf(instance);
		load.set(key, (load.get(key) ?? 0) + 1);
		const queue = queues.get(key);
		if (queue) {
			queue.items.push(item);
			return;
		}
		const made = { instance, items: [item] };
		queues.set(key, made);
		setImmediate(() => {
			queues.delete(key);
			for (const batch of batches(made.items)) void call(instance, batch, key);
		});
	}

	async function call(
		instance: TargetInstance,
		items: readonly Queued[],
		key: string,
	): Promise<void> {
		const owner = { nodeID: instance.nodeID, instanceID: instance.instanceID };
		try {
			const settled = told.get(key) ?? [];
			told.delete(key);
			const answers = await started().broker.call<unknown, ConsumeCall>(
				`${instance.service}.${PARTICIPANT_ACTIONS.consume}`,
				{ items: items.map((item) => item.outgoing.envelope), settled },
				{ nodeID: instance.nodeID, timeout: started().callTimeout, retries: 0 },
			);
			const given: readonly unknown[] = Array.isArray(answers) ? answers : [];
			items.forEach((item, place) => {
				const result = resultOf(given[place], owner);
				void item.settle(result).then((stored) => {
					if (stored) tell(key, item.outgoing.envelope);
				});
			});
		} catch (error) {
			const result = notReported(error, owner);
			for (const item of items) void item.settle(result);
		} finally {
			const left = (load.get(key) ?? 0) - items.length;
			if (left > 0) load.set(key, left);
			else load.delete(key);
		}
	}

	function tell(key: string, { id, attempt }: Envelope): void {
		const reports = told.get(key);
		if (reports) {
			if (reports.length < SETTLED_KEPT) reports.push({ id, attempt });
			return;
		}
		told.set(key, [{ id, attempt }]);
		if (told.size <= INSTANCES_KEPT) return;
		for (const oldest of told.keys()) {
			told.delete(oldest);
			break;
		}
	}

	function started(): DeliveryHost {
		if (!host) throw new Error("The delivery adapter was used before start()");
		return host;
	}

	return {
		description: "direct calls",
		durable: false,
		maxBytes: MAX_BYTES,
		available: true,
		start(given) {
			host = given;
			return Promise.resolve();
		},
		stop: () => Promise.resolve(),
		backlog: () => Promise.resolve(undefined),
		async send(items, settled) {
			await Promise.all(
				items.map(
					(outgoing, place) =>
						new Promise<void>((resolve) => {
							const settle = (result: SendResult): Promise<boolean> => {
								resolve();
								return settled(place, result);
							};
							if (outgoing.plain) {
								void callAction(started(), outgoing.envelope).then(settle);
								return;
							}
							const { target, storeId } = outgoing.envelope;
							const instance = choose(started().instances(target, storeId));
							if (instance) enqueue(instance, { outgoing, settle });
							else void settle({ result: "refused", error: nobody(target) });
						}),
				),
			);
		},
	};
}

function keyOf(instance: TargetInstance): string {
	return `${instance.nodeID}|${instance.instanceID}|${instance.service}`;
}

function* batches(items: readonly Queued[]): Generator<Queued[]> {
	let batch: Queued[] = [];
	let bytes = 0;
	for (const item of items) {
		const size = item.outgoing.envelope.content.length + item.outgoing.envelope.context.length;
		if (batch.length > 0 && (batch.length >= BATCH_ITEMS || bytes + size > BATCH_BYTES)) {
			yield batch;
			batch = [];
			bytes = 0;
		}
		batch.push(item);
		bytes += size;
	}
	yield batch;
}

/** What a consumer answers is not believed: its report is checked by whoever stores it. */
function resultOf(given: unknown, instance: Owner): SendResult {
	const answer = isRecord(given) ? (given as Partial<ConsumeAnswer>) : {};
	switch (answer.result) {
		case "reported":
			if (answer.report) return { result: "accepted", instance, report: answer.report };
			break;
		case "accepted":
			return { result: "accepted", instance };
		case "refused":
			if (isRecord(answer.error))
				return { result: "refused", error: itemError(answer.error) };
	}
	const error = itemError(new Error("no answer for the item"));
	return { result: "unknown", instance, error, garbled: true };
}

function nobody(target: string): ItemError {
	return {
		code: "SERVICE_NOT_AVAILABLE",
		message: `No living instance of ${target}`,
		retryable: true,
	};
}
