import { Discoverers } from "moleculer";

import { messageOf } from "../../protocol/index.ts";
import { readUrl } from "./options.ts";

/** Between a failure to write to etcd and the next attempt, in ms. */
const PAUSE = 1_000;

type Write = "beat" | "info";

/**
 * Moleculer's discoverer for etcd, which stands still for as long as etcd is away: a lease that it
 * cannot get counts as lost, and for a lost one it asks again at once, before anything else in the
 * process has its turn. Here one attempt is under way at a time, and a failed one is followed by a
 * pause. Nor does a node whose INFO cannot be read end the process by an unhandled rejection.
 *
 * @example
 * export default { transporter: "nats://localhost:4222", registry: { discoverer: new Etcd3Discoverer("etcd3://localhost:2379") } };
 */
export class Etcd3Discoverer extends Discoverers.Etcd3 {
	readonly #running = new Map<Write, Promise<void>>();
	/** Asked for while one was under way. */
	readonly #wanted = new Set<Write>();
	readonly #timers = new Map<Write, NodeJS.Timeout>();

	/** @param url `etcd3://user:password@a:2379,b:2379` */
	constructor(url: string) {
		const { user, password, hosts } = readUrl(url, ["etcd3"], 2_379, "registry.discoverer");
		// Moleculer's own takes hosts from a URL, but no user.
		const auth = user === "" ? {} : { auth: { username: user, password } };
		super({ etcd: { hosts: [...hosts], ...auth } });
	}

	override sendHeartbeat(): Promise<void> {
		return this.#once("beat", () => super.sendHeartbeat());
	}

	override sendLocalNodeInfo(nodeID?: string): Promise<void> {
		return this.#once("info", () => super.sendLocalNodeInfo(nodeID));
	}

	override async discoverNode(nodeID: string): ReturnType<Discoverers.Etcd3["discoverNode"]> {
		try {
			return await super.discoverNode(nodeID);
		} catch (error) {
			// Its next heartbeat makes it be asked for again.
			this.logger.warn(`INFO of node '${nodeID}' was not read: ${messageOf(error)}`);
		}
	}

	override stop(): Promise<void> {
		for (const timer of this.#timers.values()) clearTimeout(timer);
		this.#timers.clear();
		return super.stop();
	}

	#once(write: Write, act: () => Promise<void>): Promise<void> {
		const running = this.#running.get(write);
		if (running) {
			this.#wanted.add(write);
			return running;
		}
		const run = act().finally(() => {
			this.#running.delete(write);
			if (this.#wanted.delete(write)) this.#again(write);
		});
		this.#running.set(write, run);
		return run;
	}

	#again(write: Write): void {
		const { leaseBeat, leaseInfo } = this as unknown as Record<string, object | null>;
		const holds = write === "beat" ? leaseBeat : leaseInfo;
		clearTimeout(this.#timers.get(write));
		const timer = setTimeout(
			() => {
				if (!(this.transit as unknown as { connected: boolean }).connected) return;
				void (write === "beat" ? this.sendHeartbeat() : this.sendLocalNodeInfo());
			},
			holds ? 0 : PAUSE,
		).unref();
		this.#timers.set(write, timer);
	}
}
