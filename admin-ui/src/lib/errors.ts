import type { ApiError } from "./api/client.ts";
import { known, t } from "./i18n/index.svelte.ts";

/** What an error means, in the reader's language where its code is known. */
export function errorTitle(error: ApiError): string {
	const key = `error.${error.code}`;
	if (known(key)) return t(key);
	return error.status >= 500 || error.status === 0 ? t("error.server") : t("error.request");
}
