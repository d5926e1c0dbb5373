import type { Delivery, Outgoing } from "../../adapters/delivery/index.ts";
import type { ParticipantStore, TxBase } from "../../adapters/participant-store/contract.ts";
import { FAULT, type FaultPoint } from "./words.ts";

/**
 * Where a process of the demo can be made to stop, to be killed there. Each of the product's parts
 * is wrapped from outside; it is not told.
 */
export class Faults {
	readonly #armed = new Set<FaultPoint>();

	/** The next that comes to this point stops there. */
	arm(point: FaultPoint): void {
		this.#armed.add(point);
	}

	/** @returns whether the point was armed; it no longer is */
	take(point: FaultPoint): boolean {
		return this.#armed.delete(point);
	}

	/** Says so and never returns, if the point is armed. */
	async here(point: FaultPoint, group: string): Promise<void> {
		if (!this.take(point)) return;
		console.log(`${FAULT} ${point} ${group}`);
		await new Promise(() => undefined);
	}

	/** A store that stops between the local COMMIT and whatever the producer does next. */
	afterCommit<Tx extends TxBase>(store: ParticipantStore<Tx>): ParticipantStore<Tx> {
		const run: ParticipantStore<Tx>["run"] = async (request, work) => {
			const result = await store.run(request, work);
			await this.here("after-commit", request.id);
			return result;
		};
		return instead(store, { run });
	}

	/** A delivery that stops before it sends, or that sends everything twice. */
	ofDelivery(delivery: Delivery): Delivery {
		const send: Delivery["send"] = async (items, settled) => {
			await this.here("before-send", items[0]?.envelope.group ?? "");
			const sent = [delivery.send(items, settled)];
			if (this.take("send-twice"))
				sent.push(delivery.send(items.map(sentAgain), () => Promise.resolve(false)));
			await Promise.all(sent);
		};
		return instead(delivery, { send });
	}
}

/** A send of its own: a broker that knows its repeats would drop the same one. */
function sentAgain({ envelope, plain }: Outgoing): Outgoing {
	return { plain, envelope: { ...envelope, sentAt: envelope.sentAt + 1 } };
}

/** The object with some of its methods replaced. */
function instead<T extends object>(object: T, methods: Partial<T>): T {
	return new Proxy(object, {
		get(target, name) {
			const value: unknown = Reflect.get(methods, name) ?? Reflect.get(target, name);
			return typeof value === "function" ? (value.bind(target) as unknown) : value;
		},
	});
}
