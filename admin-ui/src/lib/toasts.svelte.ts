export interface Toast {
	readonly id: number;
	readonly tone: "good" | "bad";
	readonly text: string;
	readonly detail?: string;
}

const GONE_AFTER = { good: 4_000, bad: 10_000 };

const state = $state<{ toasts: readonly Toast[] }>({ toasts: [] });
let last = 0;

/** Short news about what the user just did. */
export const toasts = {
	get list(): readonly Toast[] {
		return state.toasts;
	},
	show(tone: Toast["tone"], text: string, detail?: string): void {
		const id = ++last;
		state.toasts = [
			...state.toasts,
			{ id, tone, text, ...(detail !== undefined && { detail }) },
		];
		setTimeout(() => toasts.dismiss(id), GONE_AFTER[tone]);
	},
	dismiss(id: number): void {
		state.toasts = state.toasts.filter((toast) => toast.id !== id);
	},
};
