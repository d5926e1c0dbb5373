import type { ServerResponse } from "node:http";

/** Scripts, styles and requests of our own only; Svelte's templates go through its one policy. */
const CONTENT_SECURITY_POLICY = [
	"default-src 'none'",
	"script-src 'self'",
	"style-src 'self'",
	"style-src-attr 'unsafe-inline'",
	"img-src 'self' data:",
	"font-src 'self'",
	"connect-src 'self'",
	"manifest-src 'self'",
	"base-uri 'none'",
	"form-action 'self'",
	"frame-ancestors 'none'",
	"require-trusted-types-for 'script'",
	"trusted-types svelte-trusted-html",
].join("; ");

/** Sets what every answer has, pages and errors included. */
export function setSecurityHeaders(res: ServerResponse, https: boolean): void {
	res.setHeader("Content-Security-Policy", CONTENT_SECURITY_POLICY);
	res.setHeader("X-Content-Type-Options", "nosniff");
	res.setHeader("X-Frame-Options", "DENY");
	res.setHeader("Referrer-Policy", "no-referrer");
	res.setHeader("Cross-Origin-Opener-Policy", "same-origin");
	res.setHeader("Cross-Origin-Resource-Policy", "same-origin");
	res.setHeader("Permissions-Policy", "camera=(), geolocation=(), microphone=()");
	if (https) res.setHeader("Strict-Transport-Security", "max-age=31536000");
}
