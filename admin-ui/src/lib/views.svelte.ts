import { parseViews, type SavedView } from "./views.ts";

const STORED = "lottor.views";

const state = $state<{ views: readonly SavedView[] }>({
	views: parseViews(localStorage.getItem(STORED)),
});

/** Filters that the user has kept under a name, in this browser. */
export const savedViews = {
	of(page: string): readonly SavedView[] {
		return state.views.filter((view) => view.page === page);
	},
	/** Keeps it; one of the same name on the same page is replaced. */
	save(view: SavedView): void {
		store([...without(view), view]);
	},
	remove(view: SavedView): void {
		store(without(view));
	},
};

function without({ page, name }: SavedView): SavedView[] {
	return state.views.filter((view) => view.page !== page || view.name !== name);
}

function store(views: readonly SavedView[]): void {
	state.views = views;
	localStorage.setItem(STORED, JSON.stringify(views));
}
