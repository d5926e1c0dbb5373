import { mount } from "svelte";

import "./app.css";
import App from "./App.svelte";
import { preferredLocale, useLocale } from "./lib/i18n/index.svelte.ts";
import { startPreferences } from "./lib/preferences.svelte.ts";

async function start(): Promise<void> {
	startPreferences();
	await useLocale(preferredLocale());
	const target = document.getElementById("app");
	if (target) mount(App, { target });
}

// The router takes every click on a link; one that asks for a new tab is the browser's own.
document.addEventListener(
	"click",
	(event) => {
		if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey)
			event.stopPropagation();
	},
	{ capture: true },
);

void start();
