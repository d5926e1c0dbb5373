import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { ServiceBroker } from "moleculer";
import { type BrowserContext, chromium, type Page } from "playwright-core";

import { resolveCoordinatorStore } from "../adapters/coordinator-store/index.ts";
import { LoopbackTcp } from "../adapters/transporter/loopback-tcp.ts";
import { messageOf, systemRandom } from "../protocol/index.ts";
import { ReliableMessage } from "../mixins/reliable-message/index.ts";
import { authService } from "../samples/auth/auth.service.ts";
import { userService } from "../samples/user/user.service.ts";
import { LottorAdmin, newAdminToken } from "../services/admin/index.ts";
import { Coordinator } from "../services/coordinator/index.ts";
import { setClock } from "./seed-data/clock.ts";
import { seed } from "./seed-data/seed.ts";
import { installBrowser } from "./servers/chromium.ts";
import { freePort } from "./servers/tools.ts";

const OUT = resolve(fileURLToPath(import.meta.url), "../../docs/screenshots");
const GROUPS = 8_000;
const WIDE = { width: 1_440, height: 900 };
const PHONE = { width: 390, height: 844 };

/** Where the pages come from: a cluster of made-up history and a few real services. */
interface Stage {
	readonly url: string;
	readonly token: string;
	stop(): Promise<void>;
}

async function main(): Promise<void> {
	const executablePath = await installBrowser();
	const folder = mkdtempSync(join(tmpdir(), "lottor-screenshots-"));
	const stage = await begin(folder);
	const browser = await chromium.launch({
		executablePath,
		args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
	});
	try {
		await act(stage);
		rmSync(OUT, { recursive: true, force: true });
		mkdirSync(OUT, { recursive: true });
		for (const colorScheme of ["light", "dark"] as const) {
			for (const [size, viewport] of [
				["wide", WIDE],
				["phone", PHONE],
			] as const) {
				const context = await browser.newContext({
					baseURL: stage.url,
					viewport,
					colorScheme,
					locale: "en-GB",
					reducedMotion: "reduce",
				});
				await shoot(context, stage, `${colorScheme}-${size}`);
				await context.close();
			}
		}
	} finally {
		await browser.close();
		await stage.stop();
		rmSync(folder, { recursive: true, force: true });
	}
}

async function begin(folder: string): Promise<Stage> {
	const file = (name: string) => `sqlite:${join(folder, `${name}.db`)}`;
	const now = Date.now();
	const clock = setClock(now);
	const store = resolveCoordinatorStore(file("lottor"), "store", { clock, random: systemRandom });
	await store.open();
	await seed(store, clock, { groups: GROUPS, days: 30, now, random: systemRandom });
	await store.close();

	const admin = newAdminToken("maria", "admin");
	const urls = `tcp://127.0.0.1:${await freePort()}/lottor`;
	const brokers = ["lottor", "shop-1", "auth-1"].map(
		(nodeID) =>
			new ServiceBroker({ nodeID, logger: false, transporter: new LoopbackTcp({ urls }) }),
	);
	const [lottor, shop, auth] = brokers as [ServiceBroker, ServiceBroker, ServiceBroker];
	lottor.createService(Coordinator({ store: file("lottor") }));
	lottor.createService(LottorAdmin({ port: 0, tokens: [admin.entry] }));
	shop.createService(userService(file("user")));
	shop.createService({ name: "basket", mixins: [ReliableMessage({ store: file("basket") })] });
	auth.createService(authService(file("auth")));
	await Promise.all(brokers.map((broker) => broker.start()));
	await shop.waitForServices(["lottor", "auth"]);
	for (const result of ["success", "success", "fail", "consumeFail"]) {
		await shop.call("user.create", { result, name: "Ada" }).catch(() => undefined);
	}

	const { server } = lottor.getLocalService("lottor-admin") as unknown as { server: Server };
	return {
		url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
		token: admin.token,
		stop: async () => {
			await Promise.all(brokers.map((broker) => broker.stop()));
		},
	};
}

/** What a person did before, for the audit log and the histories. */
async function act(stage: Stage): Promise<void> {
	const failed = (await ask(stage, "GET", "/api/messages?states=failed&limit=8")) as {
		items: readonly { id: string }[];
	};
	const [first, second, third] = failed.items.slice(2);
	await ask(stage, "POST", `/api/messages/${first?.id}/discard`, {
		why: "the order was cancelled by phone",
	});
	await ask(stage, "PUT", `/api/messages/${second?.id}/payload`, {
		payload: { order: 480_112, total: { amount: 41.9, currency: "EUR" } },
		why: "the currency was wrong",
	});
	await ask(stage, "POST", `/api/messages/${third?.id}/retry`, {
		why: "the mail server is back",
	});
	const doubt = (await ask(stage, "GET", "/api/groups?states=inDoubt&sort=oldest&limit=1")) as {
		items: readonly { id: string }[];
	};
	await ask(stage, "POST", `/api/groups/${doubt.items[0]?.id}/rollback`, {
		why: "no row in the catalog's database",
	});
}

async function ask(stage: Stage, method: string, path: string, body?: object): Promise<unknown> {
	const response = await fetch(stage.url + path, {
		method,
		headers: {
			Authorization: `Bearer ${stage.token}`,
			...(body && { "Content-Type": "application/json" }),
		},
		...(body && { body: JSON.stringify(body) }),
	});
	return response.json();
}

async function shoot(context: BrowserContext, stage: Stage, kind: string): Promise<void> {
	const page = await context.newPage();
	const shot = async (name: string): Promise<void> => {
		await page.waitForFunction(() => !document.querySelector(".skeleton"));
		await page.waitForTimeout(300);
		await page.screenshot({ path: join(OUT, `${name}-${kind}.png`) });
		console.log(`${name}-${kind}.png`);
	};
	await page.goto("/");
	await page.locator("input[type=password]").waitFor();
	await shot("login");
	await page.locator("input[type=password]").fill(stage.token);
	await page.locator("form button").click();
	await page.locator("canvas").nth(2).waitFor();
	await shot("overview");
	for (const [name, path] of await pagesOf(stage)) {
		await page.goto(path);
		await page.locator("h1").waitFor();
		await shot(name);
	}
	await bulk(page);
	await shot("bulk");
	await page.goto("/groups");
	await page.locator("tbody a").first().waitFor();
	await page.keyboard.press("Control+k");
	await page.keyboard.type("co");
	await shot("palette");
}

async function pagesOf(stage: Stage): Promise<(readonly [name: string, path: string])[]> {
	const failed = (await ask(stage, "GET", "/api/messages?states=failed&target=mail&limit=1")) as {
		items: readonly { group: string }[];
	};
	return [
		["groups", "/groups"],
		[
			"messages",
			"/messages?states=failed,pending,delivering&cols=id,state,target,type,error,attempts,changed,payload.customer.name",
		],
		["group", `/groups/${failed.items[0]?.group}`],
		["failures", "/failures"],
		["in-doubt", "/in-doubt"],
		["clients", "/clients"],
		["coordinators", "/coordinators"],
		["audit", "/audit"],
		["settings", "/settings"],
	];
}

async function bulk(page: Page): Promise<void> {
	await page.goto("/messages?states=failed");
	await page.getByLabel("Choose all that are loaded").click();
	await page.getByRole("toolbar").getByRole("button", { name: "Discard" }).click();
	await page.getByLabel("Reason").fill("These orders were cancelled");
}

await main().catch((error: unknown) => {
	console.error(messageOf(error));
	process.exitCode = 1;
});
