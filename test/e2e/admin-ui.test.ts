import { afterAll, beforeAll, beforeEach, describe, expect, jest, test } from "@jest/globals";
import { AxeBuilder } from "@axe-core/playwright";
import type { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core";

import { type AdminWorld, adminWorld } from "../support/admin-world.ts";
import { launch, withBrowser } from "../support/browser.ts";
import { deferred } from "../support/mixin-node.ts";

const WIDE = { width: 1_440, height: 900 };
const PHONE = { width: 360, height: 780 };
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
const MANY = 1_000;
/** The coordinator's `maxPayload`, unless told otherwise. */
const LARGEST = 512 * 1_024;

jest.setTimeout(180_000);

withBrowser("the admin UI", (path) => {
	let world: AdminWorld;
	let browser: Browser;
	/** What no page may do: say something in the console, or ask another host. */
	const complaints: string[] = [];

	beforeAll(async () => {
		[world, browser] = await Promise.all([adminWorld(), launch(path)]);
	});
	afterAll(async () => {
		await browser?.close();
		await world?.stop();
	});
	beforeEach(() => {
		complaints.length = 0;
	});

	async function context(options: BrowserContextOptions = {}): Promise<BrowserContext> {
		const made = await browser.newContext({
			baseURL: world.url,
			viewport: WIDE,
			locale: "en-GB",
			reducedMotion: "reduce",
			...options,
		});
		made.setDefaultTimeout(20_000);
		made.on("console", (message) => {
			// A refusal that a test provokes is in the browser's console, too.
			if (
				message.type() === "error" &&
				!message.text().startsWith("Failed to load resource")
			) {
				complaints.push(message.text());
			}
		});
		made.on("weberror", (error) => complaints.push(error.error().message));
		made.on("request", (request) => {
			if (!request.url().startsWith(world.url)) complaints.push(request.url());
		});
		return made;
	}

	/** Logs in as a person would. */
	async function logIn(token: string, options: BrowserContextOptions = {}): Promise<Page> {
		const page = await (await context(options)).newPage();
		await page.goto("/");
		await page.locator("input[type=password]").fill(token);
		await page.locator("form button").click();
		await page.getByRole("navigation").or(page.locator("header.h-12")).first().waitFor();
		return page;
	}

	describe("an operator", () => {
		let page: Page;
		beforeAll(async () => {
			page = await logIn(world.tokens.operator);
		});
		afterAll(() => page.context().close());

		test("is asked for a token, and a wrong one is refused in words", async () => {
			const other = await (await context()).newPage();
			await other.goto("/groups?states=failed");
			await other.getByLabel("Access token").fill("wrong");
			await other.getByRole("button", { name: "Log in" }).click();
			await other.getByRole("alert").getByText("You are not logged in").waitFor();
			await other.getByLabel("Access token").fill(world.tokens.operator);
			await other.getByRole("button", { name: "Log in" }).click();
			await other.getByRole("heading", { name: "Groups" }).waitFor();
			expect(other.url()).toContain("/groups?states=failed");
			await other.context().close();
		});

		test("sees the three outcomes of the sample as they happen, a script in a payload as text", async () => {
			await page.goto("/groups");
			await page.getByText("Nothing here yet").waitFor();
			await page.locator("[data-live=open]").waitFor();
			await world.sample("success");
			await page.getByRole("row").filter({ hasText: "Completed" }).waitFor();
			await world.sample("fail");
			await page.getByRole("row").filter({ hasText: "Rolled back" }).waitFor();
			await world.sample("consumeFail");
			await page.getByRole("row").filter({ hasText: "Committed" }).waitFor();
			expect(await page.getByRole("row").count()).toBe(4);
			expect(complaints).toEqual([]);
		});

		test("filters, opens what failed, edits its payload and retries it until it is completed", async () => {
			await page.goto("/messages");
			await page.getByRole("button", { name: "State" }).click();
			await page.getByRole("menuitemcheckbox", { name: "Failed" }).click();
			await page.waitForURL(/states=failed/);
			await page.keyboard.press("Escape");
			// The rows of the unfiltered list stay until the others have come.
			await page.locator("tbody a").nth(1).waitFor({ state: "detached" });
			await page.getByRole("cell", { name: "SAMPLE_USER_MISSING" }).waitFor();
			await page.locator("tbody a").click();

			const article = page.getByRole("article");
			await article.getByText("The role has no user to go to", { exact: true }).waitFor();
			await article.getByText("Stack", { exact: true }).click();
			await article.getByText("SampleUserMissing: The role").waitFor();
			await page.getByRole("button", { name: "Edit payload" }).click();
			const dialog = page.getByRole("dialog");
			const payload = '{ "user": "<img src=x onerror=alert(1)>", "role": "member" }';
			await dialog.getByLabel("Payload").fill(payload.slice(0, -1));
			await dialog.getByText("Not JSON yet").waitFor();
			await dialog.getByLabel("Payload").fill(payload);
			await dialog.getByLabel("Reason").fill("the user was missing");
			await dialog.getByRole("button", { name: "Save and retry" }).click();
			await page.locator("main header").getByText("Completed").waitFor();
			await article.getByText("<img src=x onerror=alert(1)>").waitFor();

			await page.getByRole("tab", { name: "List" }).click();
			const edited = page.getByRole("row").filter({ hasText: "Payload edited" });
			await edited.getByText("the user was missing").waitFor();
			await edited.getByText("olga").waitFor();
			expect(complaints).toEqual([]);
		});

		test("finds a group by the begin of its id with Ctrl-K", async () => {
			const id = new URL(page.url()).pathname.split("/").at(-1) ?? "";
			await page.goto("/");
			await page.getByRole("heading", { name: "Overview" }).waitFor();
			await page.keyboard.press("Control+k");
			// By its focus only once that is there.
			await page.getByRole("dialog").getByRole("combobox").fill(id.slice(0, 14));
			await page.getByRole("option").filter({ hasText: id }).waitFor();
			await page.keyboard.press("Enter");
			await page.waitForURL(`**/groups/${id}`);
		});

		test("keeps a filter and a column out of the payload as a view", async () => {
			await page.goto("/messages?states=consumed");
			await page.getByRole("button", { name: "Columns" }).click();
			await page.getByLabel("Path in the payload").fill("role");
			await page.keyboard.press("Enter");
			await page.getByRole("cell", { name: "member" }).first().waitFor();
			await page.keyboard.press("Escape");
			await page.getByRole("button", { name: "Views" }).click();
			await page.getByLabel("Name of this view").fill("With roles");
			await page.keyboard.press("Enter");
			await page.goto("/messages");
			await page.getByRole("button", { name: "Views" }).click();
			await page.getByRole("button", { name: "With roles", exact: true }).click();
			await page.getByRole("columnheader", { name: "role" }).waitFor();
			expect(page.url()).toContain("states=consumed");
		});

		test(`retries ${MANY} messages at once and sees them on their way`, async () => {
			await page.goto("/failures");
			await page.getByText("Nothing has failed").waitFor();
			await world.failMany(MANY);
			await page.getByText("SMTP_DOWN").waitFor();
			// Of messages in every state no action is for all.
			await page.goto("/messages?target=mail");
			await page.getByLabel("Choose all that are loaded").click();
			await page.getByRole("toolbar").waitFor();
			expect(await page.getByRole("button", { name: "that match" }).count()).toBe(0);
			await page.goto("/messages?target=mail&states=failed,pending");
			await page.getByLabel("Choose all that are loaded").click();
			await page.getByRole("button", { name: "Choose all 1,000 that match" }).click();
			const toolbar = page.getByRole("toolbar");
			await toolbar.getByRole("button", { name: "Discard" }).waitFor();
			expect(await toolbar.getByRole("button", { name: "Retry" }).count()).toBe(0);
			await page.goto("/failures");
			await page.getByRole("link", { name: "Show 1,000 messages" }).click();
			await page.getByLabel("Choose all that are loaded").click();
			await page.getByRole("button", { name: "Choose all 1,000 that match" }).click();
			world.heal();
			await toolbar.getByRole("button", { name: "Retry" }).click();
			await page.getByRole("dialog").getByRole("button", { name: "Retry" }).click();
			await page.getByRole("progressbar", { name: "Progress" }).waitFor();
			await page
				.locator("[data-job=done]")
				.getByText("1,000 of 1,000 · refused: 0")
				.waitFor();
			await page.getByText("Nothing matches").waitFor();
			await page.locator("[data-job=done]").getByRole("button", { name: "Close" }).click();
		});

		test("decides a group in doubt, with a reason that stays", async () => {
			world.heal();
			const id = await world.doubt();
			await page.goto("/in-doubt");
			const card = page.getByRole("article", { name: id });
			await card.getByText("import-1").waitFor();
			await card.getByRole("button", { name: "Commit" }).click();
			const dialog = page.getByRole("dialog");
			expect(await dialog.getByRole("button", { name: "Commit" }).isDisabled()).toBe(true);
			await dialog.getByLabel("Reason").fill("its row is in the old database");
			await dialog.getByRole("button", { name: "Commit" }).click();
			await page.getByText("The group is committed").waitFor();
			await page.getByText("Nothing is in doubt").waitFor();

			await page.goto(`/groups/${id}`);
			await page.locator("main header").getByText("Completed").waitFor();
			await page.getByRole("tab", { name: "List" }).click();
			await page.getByRole("cell", { name: "its row is in the old database" }).waitFor();
			await page.goto("/audit");
			await page.getByRole("cell", { name: "its row is in the old database" }).waitFor();
		});

		test("is told when somebody else was first", async () => {
			await world.sample("consumeFail");
			await openFailed(page);
			await page.getByRole("button", { name: "Discard" }).click();
			const id = await page.getByRole("article").getAttribute("id");
			const discarded = await fetch(`${world.url}/api/messages/${id}/discard`, {
				method: "POST",
				headers: {
					"Content-Type": "application/json",
					Authorization: `Bearer ${world.tokens.admin}`,
				},
				body: JSON.stringify({ why: "a duplicate" }),
			});
			expect(discarded.status).toBe(200);
			await page.getByRole("article").getByText("Discarded").waitFor();
		});

		test("is told in the dialog when somebody else edited the payload meanwhile, and nothing is lost", async () => {
			await world.sample("consumeFail");
			await openFailed(page);
			const id = (await page.getByRole("article").getAttribute("id")) ?? "";
			await page.getByRole("button", { name: "Edit payload" }).click();
			const dialog = page.getByRole("dialog");
			const mine = '{ "user": "Mine", "role": "member" }';
			await dialog.getByLabel("Payload").fill(mine);
			await dialog.getByLabel("Reason").fill("as the ticket says");

			const authorization = { Authorization: `Bearer ${world.tokens.admin}` };
			const theirs = await fetch(`${world.url}/api/messages/${id}/payload`, {
				method: "PUT",
				headers: { "Content-Type": "application/json", ...authorization },
				body: JSON.stringify({ payload: { user: "Theirs" }, why: "the other ticket" }),
			});
			expect(theirs.status).toBe(200);

			await dialog.getByRole("button", { name: "Save and retry" }).click();
			await dialog
				.getByRole("alert")
				.getByText("Somebody else changed it meanwhile")
				.waitFor();
			expect(await dialog.getByLabel("Payload").inputValue()).toBe(mine);
			await dialog.getByRole("button", { name: "Cancel" }).click();
			await page.getByRole("article").getByText('"Theirs"').waitFor();
		});

		test("edits a payload up to the largest size, and is told in the dialog what is over it", async () => {
			await world.sample("consumeFail");
			await openFailed(page);
			await page.getByRole("button", { name: "Edit payload" }).click();
			const dialog = page.getByRole("dialog");
			await dialog.getByLabel("Reason").fill("all of it");
			await dialog.getByLabel("Payload").fill(payloadOf(LARGEST + 1));
			await dialog.getByRole("button", { name: "Save and retry" }).click();
			await dialog.getByRole("alert").getByText("The payload is too large").waitFor();
			await dialog.getByLabel("Payload").fill(payloadOf(LARGEST));
			await dialog.getByRole("button", { name: "Save and retry" }).click();
			await page.locator("main header").getByText("Completed").waitFor();
			const article = page.getByRole("article");
			await article.getByText("512 KiB").waitFor();
			expect(await article.getByRole("region").first().textContent()).toContain("<b>end</b>");
			expect(complaints).toEqual([]);
		});

		test("knows when live updates are paused, and when the coordinator is gone and back", async () => {
			await page.goto("/groups");
			await page.locator("[data-live=open]").waitFor();
			await page.locator("[data-live=open]").click();
			await page.locator("[data-live=paused]").getByText("Paused").waitFor();
			await page.locator("[data-live=paused]").click();
			await page.locator("[data-live=open]").waitFor();

			await world.coordinatorGone();
			await page.getByRole("alert").getByText("No coordinator answers").waitFor();
			await world.coordinatorBack();
			await page.getByRole("alert").waitFor({ state: "detached" });
			await world.sample("success", "After the break");
		});

		test("is told when a proxy refuses live updates, has them back by itself, and what was missed with them", async () => {
			await world.sample("success", "Before the break");
			await page.route("**/api/events", (route) => route.fulfill({ status: 502 }));
			await page.goto("/groups");
			await page.locator("[data-live=reconnecting]").getByText("Reconnecting").waitFor();
			await page.locator("tbody tr").first().waitFor();
			const rows = await page.locator("tbody tr").count();
			await world.sample("success", "During the break");
			await page.unroute("**/api/events");
			await page.locator("[data-live=open]").waitFor();
			await page.locator("tbody tr").nth(rows).waitFor();
			expect(complaints).toEqual([]);
		});

		test("misses no change that comes while the list is loading", async () => {
			await page.goto("/groups");
			await page.locator("[data-live=open]").waitFor();
			await page.locator("tbody tr").first().waitFor();
			const rows = await page.locator("tbody tr").count();
			const read = deferred();
			const held = deferred();
			await page.route(
				/\/api\/groups\?/,
				async (route) => {
					const response = await route.fetch();
					read.resolve();
					await held.promise;
					await route.fulfill({ response });
				},
				{ times: 1 },
			);
			await world.sample("success", "Before it was read");
			await read.promise;
			await world.sample("success", "After it was read");
			// The page asks for the list again a second after it has heard of it.
			await page.waitForTimeout(2_500);
			held.resolve();
			await page
				.locator("tbody tr")
				.nth(rows + 1)
				.waitFor();
			expect(complaints).toEqual([]);
		});

		test("is asked whether to search on, where the server stopped looking before it found anything", async () => {
			for (let made = 0; made < 8; made++) await world.sample("success");
			// The real list, row by row, as if the filter did not match the first seven of them.
			const places = new Map<string | null, number>([[null, 0]]);
			await page.route(/\/api\/groups\?/, async (route) => {
				const url = new URL(route.request().url());
				const place = places.get(url.searchParams.get("cursor")) ?? 7;
				if (place === 7) return route.continue();
				url.searchParams.set("limit", "1");
				const answer = await route.fetch({ url: url.href });
				const body = (await answer.json()) as { next: string | null };
				places.set(body.next, place + 1);
				const total = url.searchParams.has("cursor") ? null : { count: 0, exact: false };
				return route.fulfill({ json: { ...body, items: [], total } });
			});
			await page.goto("/groups?states=completed");
			await page.getByText("Nothing found so far").waitFor();
			await page.getByText("0 loaded").waitFor();
			expect(await page.getByText("Nothing matches").count()).toBe(0);
			expect(await violations(page)).toEqual([]);
			await page.getByRole("button", { name: "Search on" }).click();
			await page.getByRole("row").filter({ hasText: "Completed" }).first().waitFor();
			expect(complaints).toEqual([]);
			await page.unroute(/\/api\/groups\?/);
		});

		test("has one event stream in all tabs", async () => {
			const streams: string[] = [];
			const tabs = await context({ storageState: await page.context().storageState() });
			tabs.on("request", (request) => {
				if (request.url().endsWith("/api/events")) streams.push(request.url());
			});
			const [first, second] = [await tabs.newPage(), await tabs.newPage()];
			for (const tab of [first, second]) {
				await tab.goto("/groups");
				await tab.locator("[data-live=open]").waitFor();
			}
			expect(streams).toHaveLength(1);
			await first.close();
			await second.locator("[data-live=open]").waitFor();
			await tabs.close();
		});

		test("is asked to log in again when the session is over, and goes on at the same page", async () => {
			await page.goto("/clients");
			await page.getByRole("heading", { name: "node-1" }).waitFor();
			await page.context().clearCookies();
			await page.getByText("Your session has ended").waitFor();
			await page.getByLabel("Access token").fill(world.tokens.operator);
			await page.getByRole("button", { name: "Log in" }).click();
			await page.getByRole("heading", { name: "node-1" }).waitFor();
		});
	});

	test("a session that ends under way: what was typed waits behind the login, for the same person only", async () => {
		const page = await logIn(world.tokens.operator);
		const again = async (token: string) => {
			await page.getByText("Your session has ended").waitFor();
			await page.getByLabel("Access token").fill(token);
			await page.getByRole("button", { name: "Log in" }).click();
			await page.getByLabel("Access token").waitFor({ state: "detached" });
		};
		await world.sample("consumeFail");
		await openFailed(page);
		await page.getByRole("button", { name: "Edit payload" }).click();
		const dialog = page.getByRole("dialog");
		await dialog.getByLabel("Payload").fill('{ "user": "Typed", "role": "member" }');
		await dialog.getByLabel("Reason").fill("typed with care");
		await page.context().clearCookies();
		await dialog.getByRole("button", { name: "Save and retry" }).click();
		await page.getByLabel("Access token").waitFor();
		expect(await violations(page)).toEqual([]);
		await page.keyboard.press("Escape");
		await again(world.tokens.operator);
		expect(await dialog.getByRole("alert").count()).toBe(0);
		expect(await dialog.getByLabel("Reason").inputValue()).toBe("typed with care");
		await dialog.getByRole("button", { name: "Save and retry" }).click();
		await page.locator("main header").getByText("Completed").waitFor();
		await page.locator("[data-live=open]").waitFor();

		await world.sample("consumeFail");
		await openFailed(page);
		await page.getByRole("button", { name: "Discard" }).click();
		await dialog.getByLabel("Reason").fill("of somebody else");
		// It is the click that finds the session ended, not what the page loads again by itself.
		await page.route("**/api/groups/*", (route) => route.abort());
		await page.context().clearCookies();
		await dialog.getByRole("button", { name: "Discard" }).click();
		await page.unroute("**/api/groups/*");
		await again(world.tokens.viewer);
		await page.getByRole("article").waitFor();
		expect(await dialog.count()).toBe(0);
		expect(await page.getByRole("button", { name: "Discard" }).count()).toBe(0);
		expect(complaints).toEqual([]);
		await page.context().close();
	});

	test("a viewer can look and not act, here and at the server", async () => {
		await world.sample("consumeFail");
		const page = await logIn(world.tokens.viewer);
		await page.goto("/messages?states=failed");
		await page.locator("tbody a").first().waitFor();
		expect(await page.getByRole("checkbox").count()).toBe(0);
		await page.locator("tbody a").first().click();
		await page.getByRole("article").first().waitFor();
		for (const name of ["Retry", "Edit payload", "Discard"]) {
			expect([name, await page.getByRole("button", { name }).count()]).toEqual([name, 0]);
		}
		for (const name of ["Audit", "Settings"]) {
			expect([name, await page.getByRole("link", { name }).count()]).toEqual([name, 0]);
		}
		const refused = await page.evaluate(async () => {
			const { csrf } = (await (await fetch("/api/me")).json()) as { csrf: string };
			const answer = await fetch("/api/messages/retry", {
				method: "POST",
				headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
				body: '{"filter":{}}',
			});
			return answer.status;
		});
		expect(refused).toBe(403);
		await page.context().close();
	});

	test("a bulk action that somebody else began is seen, is still there after a reload, and can be cancelled", async () => {
		await world.sample("consumeFail");
		const page = await logIn(world.tokens.operator);
		await page.goto("/messages?states=failed");
		await page.locator("tbody a").first().waitFor();
		await page.locator("[data-live=open]").waitFor();
		const release = world.holdRetries();
		const begun = await fetch(`${world.url}/api/messages/retry`, {
			method: "POST",
			headers: {
				"Content-Type": "application/json",
				Authorization: `Bearer ${world.tokens.admin}`,
			},
			body: '{"filter":{}}',
		});
		expect(begun.status).toBe(202);
		const job = page.locator("[data-job=running]");
		await job.getByText("begun by adam").waitFor();
		await page.reload();
		await job.getByText("begun by adam").waitFor();
		expect(await violations(page)).toEqual([]);

		const watching = await logIn(world.tokens.viewer, { viewport: PHONE, colorScheme: "dark" });
		const seen = watching.locator("[data-job=running]");
		await seen.getByText("begun by adam").waitFor();
		expect(await seen.getByRole("button").count()).toBe(0);
		expect(await violations(watching)).toEqual([]);
		expect(await tooWide(watching)).toBe(false);
		await watching.context().close();

		await Promise.all([
			page.waitForResponse(/\/cancel$/),
			job.getByRole("button", { name: "Cancel" }).click(),
		]);
		release();
		await page.locator("[data-job=cancelled]").getByText("Retrying was cancelled").waitFor();
		expect(complaints).toEqual([]);
		await page.context().close();
	});

	test("in Chinese, every page speaks Chinese", async () => {
		const page = await logIn(world.tokens.admin, { locale: "zh-CN" });
		await page.getByRole("heading", { name: "概览" }).waitFor();
		expect(await page.evaluate(() => document.documentElement.lang)).toBe("zh-CN");
		for (const name of [
			"事务组",
			"事务消息",
			"失败",
			"存疑",
			"客户端",
			"协调器",
			"审计",
			"设置",
		]) {
			await page.getByRole("navigation").getByRole("link", { name }).click();
			await page.getByRole("heading", { level: 1, name }).waitFor();
		}
		expect(complaints).toEqual([]);
		await page.context().close();
	});

	test.each([
		["light, wide", { viewport: WIDE, colorScheme: "light" }],
		["dark, 360 px", { viewport: PHONE, colorScheme: "dark" }],
		["in Chinese", { viewport: WIDE, colorScheme: "dark", locale: "zh-CN" }],
	] as const)(
		"axe finds nothing on any page, nor is one wider than the window: %s",
		async (_, options) => {
			await world.doubt();
			const page = await logIn(world.tokens.admin, options);
			const { items } = (await (
				await page.request.get("/api/groups?states=committed&limit=1")
			).json()) as { items: { id: string }[] };
			const pages = [
				"/",
				"/groups",
				"/messages",
				`/groups/${items[0]?.id}`,
				"/failures",
				"/in-doubt",
				"/clients",
				"/coordinators",
				"/audit",
				"/settings",
				"/nowhere",
			];
			const found: string[] = [];
			for (const path of pages) {
				await page.goto(path);
				await page.locator("h1").waitFor();
				await page.waitForFunction(() => !document.querySelector(".skeleton"));
				found.push(...(await violations(page)).map((one) => `${path}: ${one}`));
				if (await tooWide(page)) found.push(`${path} is too wide`);
			}
			await page.context().clearCookies();
			await page.reload();
			await page.locator("input[type=password]").waitFor();
			found.push(...(await violations(page)).map((one) => `login: ${one}`));
			expect(found).toEqual([]);
			expect(complaints).toEqual([]);
			await page.context().close();
		},
	);

	test.each([
		["light, wide", { viewport: WIDE, colorScheme: "light" }],
		["dark, 360 px", { viewport: PHONE, colorScheme: "dark" }],
	] as const)(
		"axe finds nothing in any menu, dialog or tab, nor in the page to try the API: %s",
		async (_, options) => {
			await world.sample("consumeFail");
			const page = await logIn(world.tokens.admin, options);
			await page.goto("/messages?states=failed");
			const link = (await page.locator("tbody a").first().getAttribute("href")) ?? "";
			const group = link.split("#")[0] ?? "";
			const found: string[] = [];
			const scan = async (name: string) => {
				found.push(...(await violations(page)).map((one) => `${name}: ${one}`));
				if (await tooWide(page)) found.push(`${name} is too wide`);
			};
			for (const [name, path, open] of PARTS) {
				await page.goto(path === "group" ? group : path);
				await page.locator("h1").waitFor();
				await page.waitForFunction(() => !document.querySelector(".skeleton"));
				await open(page);
				await scan(name);
			}

			await page.goto("/api/docs");
			const route = page.locator("details").filter({ hasText: "GET /api/groups" }).first();
			await route.locator("summary").click();
			await route.getByLabel("states").fill("completed,committed");
			await route.getByLabel("limit").fill("1");
			await route.getByRole("button", { name: "Send" }).click();
			await route.getByText('"total"').waitFor();
			expect(await route.locator("pre").textContent()).toMatch(
				/^GET \/api\/groups\?\S*states=completed%2Ccommitted\S*\n200\n/,
			);
			await scan("docs");
			expect(found).toEqual([]);
			expect(complaints).toEqual([]);
			await page.context().close();
		},
	);
});

/** Everything that opens over a page or within it, and how. */
const PARTS: readonly (readonly [
	name: string,
	path: string,
	open: (page: Page) => Promise<void>,
])[] = [
	["palette", "/", (page) => page.keyboard.press("Control+k")],
	["columns", "/messages", (page) => page.getByRole("button", { name: "Columns" }).click()],
	["views", "/messages", (page) => page.getByRole("button", { name: "Views" }).click()],
	[
		"states",
		"/messages",
		async (page) => {
			const folded = page.getByRole("button", { name: "Filter", exact: true });
			if (await folded.isVisible()) await folded.click();
			await page.getByRole("button", { name: "State" }).click();
		},
	],
	[
		"preferences",
		"/",
		async (page) => {
			const folded = page.getByRole("button", { name: "Open navigation" });
			if (await folded.isVisible()) await folded.click();
			await page.getByRole("button", { name: "Preferences and session" }).click();
		},
	],
	["history", "group", (page) => page.getByRole("tab", { name: "List" }).click()],
	["raw", "group", (page) => page.getByRole("tab", { name: "Raw JSON" }).click()],
	["edit", "group", (page) => page.getByRole("button", { name: "Edit payload" }).click()],
	["reason", "group", (page) => page.getByRole("button", { name: "Discard" }).click()],
];

async function tooWide(page: Page): Promise<boolean> {
	return page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
}

/** Opens the group of the newest message that failed. */
async function openFailed(page: Page): Promise<void> {
	await page.goto("/messages?states=failed");
	await page.locator("[data-live=open]").waitFor();
	await page.locator("tbody a").first().click();
}

/** @returns JSON of exactly so many bytes, once it is written without spaces */
function payloadOf(bytes: number): string {
	const payload = (user: string) => JSON.stringify({ user, role: "member" });
	const end = "<b>end</b>";
	return payload("x".repeat(bytes - payload(end).length) + end);
}

/** @returns what axe finds against the page as it is */
async function violations(page: Page): Promise<string[]> {
	const builder = new AxeBuilder({ page }).options({
		resultTypes: ["violations"],
		iframes: false,
	});
	// A list's rows are alike, and each takes its time.
	const result = await builder.withTags(RULES).exclude("tbody tr:nth-child(n+6)").analyze();
	return result.violations.map(({ id, nodes }) => `${id} ${nodes[0]?.html ?? ""}`);
}
