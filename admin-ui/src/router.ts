import { createRouter } from "sv-router";

import NotFound from "./pages/NotFound.svelte";

export const router = createRouter({
	"/": () => import("./pages/Overview.svelte"),
	"/groups": () => import("./pages/Groups.svelte"),
	"/groups/:id": () => import("./pages/Group.svelte"),
	"/messages": () => import("./pages/Messages.svelte"),
	"/failures": () => import("./pages/Failures.svelte"),
	"/in-doubt": () => import("./pages/InDoubt.svelte"),
	"/clients": () => import("./pages/Clients.svelte"),
	"/coordinators": () => import("./pages/Coordinators.svelte"),
	"/audit": () => import("./pages/Audit.svelte"),
	"/settings": () => import("./pages/Settings.svelte"),
	"*": NotFound,
});
