import type { Failure, Guarantee } from "../../protocol/index.ts";

/** One kind of business transaction of the made-up shop. */
export interface Business {
	readonly source: string;
	readonly guarantee: Guarantee;
	/** How often it happens, against the others. */
	readonly weight: number;
	readonly messages: readonly (readonly [target: string, type: string])[];
}

export const BUSINESS: readonly Business[] = [
	{
		source: "shop.order",
		guarantee: "transactional",
		weight: 9,
		messages: [
			["warehouse", "reserve-stock"],
			["billing", "create-invoice"],
			["mail", "send-receipt"],
		],
	},
	{
		source: "user",
		guarantee: "transactional",
		weight: 5,
		messages: [["auth", "grant-role"]],
	},
	{
		source: "v2.payment",
		guarantee: "transactional",
		weight: 4,
		messages: [
			["v2.ledger", "book"],
			["loyalty", "add-points"],
		],
	},
	{
		source: "catalog.import",
		guarantee: "recorded",
		weight: 1,
		messages: [
			["search", "index-product"],
			["search", "index-product"],
			["search", "index-product"],
			["mail", "send-summary"],
		],
	},
];

/** What goes wrong, by target; the stacks are what such an error brings. */
export const FAILURES: Readonly<Record<string, Failure>> = {
	mail: {
		code: "SMTP_TIMEOUT",
		message: "Connection to smtp.internal:587 timed out after 10000 ms",
		retryable: true,
		stack: stack(
			"Error: Connection timed out",
			"send-receipt",
			"services/mail.service.ts:58:11",
		),
	},
	billing: {
		code: "VALIDATION_ERROR",
		message: "Parameters validation error! The 'currency' field must be one of EUR, GBP, CHF",
		retryable: false,
		stack: stack(
			"ValidationError: Parameters validation error!",
			"create-invoice",
			"services/billing.service.ts:33:5",
		),
	},
	"v2.ledger": {
		code: "LOTTOR_HANDLER_TIMEOUT",
		message: "Handler book of v2.ledger took longer than 30000 ms",
		retryable: true,
	},
	warehouse: {
		code: "OUT_OF_STOCK",
		message: "Article A-1004 has 0 left, 2 wanted",
		retryable: false,
		stack: stack(
			"StockError: Article A-1004 has 0 left, 2 wanted",
			"reserve-stock",
			"services/warehouse.service.ts:71:9",
		),
	},
};

function stack(first: string, handler: string, place: string): string {
	return [
		first,
		`    at Service.${handler} (${place})`,
		"    at runHandler (node_modules/moleculer-lottor/dist/mixins/reliable-message/handlers.js:44:22)",
		"    at process.processTicksAndRejections (node:internal/process/task_queues:105:5)",
	].join("\n");
}

const NAMES = ["Ann Becker", "Li Wei", "José Ruiz", "Mira Novak", "Oluwaseun Ade", "Kim Ji-woo"];
const CITIES = ["Lyon", "Gdańsk", "Porto", "Leipzig", "成都", "Utrecht"];

/** A payload as such a business would send it. @param n tells one from another */
export function payloadOf(n: number): Readonly<Record<string, unknown>> {
	return {
		order: 480_000 + n,
		customer: { id: 1_000 + (n % 700), name: NAMES[n % NAMES.length], city: CITIES[n % 5] },
		total: { amount: ((n * 37) % 90_000) / 100, currency: n % 11 === 0 ? "USD" : "EUR" },
		items: [
			{ sku: "A-1004", quantity: 1 + (n % 3) },
			...(n % 2 === 0 ? [{ sku: "B-0077", quantity: 1 }] : []),
		],
	};
}
