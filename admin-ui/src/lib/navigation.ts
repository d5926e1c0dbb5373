import Boxes from "@lucide/svelte/icons/boxes";
import CircleQuestion from "@lucide/svelte/icons/circle-question-mark";
import Gauge from "@lucide/svelte/icons/gauge";
import Layers from "@lucide/svelte/icons/layers";
import Mail from "@lucide/svelte/icons/mail";
import OctagonAlert from "@lucide/svelte/icons/octagon-alert";
import Plug from "@lucide/svelte/icons/plug";
import ScrollText from "@lucide/svelte/icons/scroll-text";
import Settings from "@lucide/svelte/icons/settings";
import type { Component } from "svelte";

import type { Permission } from "./api/types.ts";
import type { Key } from "./i18n/message.ts";

export interface Place {
	readonly path: string;
	readonly label: Key;
	readonly icon: Component<{ size?: number | string; class?: string }>;
	readonly permission: Permission;
	/** Which figure stands beside it. */
	readonly badge?: "failed" | "inDoubt";
}

/** The pages, in the order of the navigation. */
export const PLACES: readonly { readonly title: Key; readonly places: readonly Place[] }[] = [
	{
		title: "nav.watch",
		places: [
			{ path: "/", label: "nav.overview", icon: Gauge, permission: "read" },
			{ path: "/groups", label: "nav.groups", icon: Layers, permission: "read" },
			{ path: "/messages", label: "nav.messages", icon: Mail, permission: "read" },
		],
	},
	{
		title: "nav.attend",
		places: [
			{
				path: "/failures",
				label: "nav.failures",
				icon: OctagonAlert,
				permission: "read",
				badge: "failed",
			},
			{
				path: "/in-doubt",
				label: "nav.inDoubt",
				icon: CircleQuestion,
				permission: "read",
				badge: "inDoubt",
			},
		],
	},
	{
		title: "nav.system",
		places: [
			{ path: "/clients", label: "nav.clients", icon: Plug, permission: "read" },
			{ path: "/coordinators", label: "nav.coordinators", icon: Boxes, permission: "read" },
			{ path: "/audit", label: "nav.audit", icon: ScrollText, permission: "audit" },
			{ path: "/settings", label: "nav.settings", icon: Settings, permission: "settings" },
		],
	},
];
