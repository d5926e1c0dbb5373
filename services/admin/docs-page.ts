/** The page that shows the API and sends requests to it: files by path, each with its type. */
export const DOCS_PAGE: Readonly<Record<string, readonly [type: string, content: string]>> = {
	"/api/docs": [
		"text/html; charset=utf-8",
		`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lottor: HTTP interface</title>
<link rel="stylesheet" href="/api/docs.css">
<script type="module" src="/api/docs.js"></script>
</head>
<body>
<header>
<h1>Lottor: HTTP interface</h1>
<p>Each request is sent from here with your session, or with a token. The document: <a href="/api/openapi.json">openapi.json</a></p>
<label>Bearer token <input id="token" type="password" autocomplete="off"></label>
</header>
<main id="routes"><p>Loading…</p></main>
</body>
</html>
`,
	],
	"/api/docs.css": [
		"text/css; charset=utf-8",
		`:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText; }
a { color: light-dark(#0b57d0, #a8c7fa); }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; }
h2 { text-transform: capitalize; }
details { border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: 6px; margin: 0.5rem 0; padding: 0.5rem 0.75rem; }
summary { cursor: pointer; overflow-wrap: anywhere; }
summary code { font-weight: 600; }
form { display: grid; gap: 0.5rem; padding: 0.75rem 0; }
label { display: grid; gap: 0.15rem; }
small { opacity: 0.8; }
input, textarea, button { font: inherit; padding: 0.3rem 0.5rem; }
textarea { min-height: 6rem; font-family: ui-monospace, monospace; }
button { justify-self: start; }
pre { overflow: auto; max-height: 24rem; padding: 0.75rem; background: color-mix(in srgb, currentColor 8%, transparent); border-radius: 6px; }
:focus-visible { outline: 2px solid Highlight; outline-offset: 2px; }
`,
	],
	"/api/docs.js": [
		"text/javascript; charset=utf-8",
		`const api = await (await fetch("/api/openapi.json")).json();
const me = await fetch("/api/me").then((answer) => (answer.ok ? answer.json() : {}));
const main = document.getElementById("routes");
main.replaceChildren();

function make(name, properties = {}, ...children) {
	const element = Object.assign(document.createElement(name), properties);
	element.append(...children);
	return element;
}

function resolve(schema) {
	const name = schema.$ref?.split("/").at(-1);
	return name ? api.components.schemas[name] : schema;
}

function example(schema) {
	const { type, enum: values, properties = {}, required = [], items } = resolve(schema);
	if (values) return values[0];
	if (type === "object") {
		const wanted = Object.entries(properties).filter(([name]) => required.includes(name));
		return Object.fromEntries(wanted.map(([name, inner]) => [name, example(inner)]));
	}
	if (type === "array") return [example(items)];
	return { string: "", integer: 0, number: 0, boolean: false }[type] ?? {};
}

function field(label, control, hint) {
	const children = [label, control];
	if (hint) children.push(make("small", { textContent: hint }));
	return make("label", {}, ...children);
}

async function send(method, path, form, output) {
	const query = new URLSearchParams();
	let url = path;
	for (const input of form.querySelectorAll("input")) {
		if (input.dataset.in === "path") url = url.replace("{" + input.name + "}", encodeURIComponent(input.value));
		else if (input.value !== "") query.append(input.name, input.value);
	}
	if (query.size > 0) url += "?" + query;
	const headers = {};
	const token = document.getElementById("token").value;
	if (token) headers.Authorization = "Bearer " + token;
	else if (me.csrf) headers["X-CSRF-Token"] = me.csrf;
	const body = form.querySelector("textarea")?.value;
	if (body !== undefined) headers["Content-Type"] = "application/json";
	try {
		const answer = await fetch(url, { method, headers, body });
		const text = await answer.text();
		let shown = text;
		try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch {}
		output.textContent = method + " " + url + "\\n" + answer.status + "\\n\\n" + shown;
	} catch (error) {
		output.textContent = String(error);
	}
}

function operation(method, path, route) {
	const output = make("pre", { tabIndex: 0, hidden: true });
	const form = make("form");
	for (const { name, in: place, schema, required } of route.parameters ?? []) {
		const { description, enum: values } = resolve(schema);
		const input = make("input", { name, required });
		input.dataset.in = place;
		form.append(field(name, input, values ? values.join(", ") : description));
	}
	const body = route.requestBody?.content["application/json"].schema;
	if (body) {
		const value = JSON.stringify(example(body), null, 2);
		form.append(field("body", make("textarea", { value, spellcheck: false })));
	}
	const stream = Object.values(route.responses).some((one) => one.content?.["text/event-stream"]);
	form.append(make("button", { textContent: "Send", disabled: stream }));
	form.addEventListener("submit", (event) => {
		event.preventDefault();
		output.hidden = false;
		output.textContent = "…";
		send(method, path, form, output);
	});
	const title = make("summary", {}, make("code", { textContent: method + " " + path }), " " + route.summary);
	const needs = route["x-permission"];
	const note = make("small", { textContent: needs ? "Needs the permission " + [needs].flat().join(" or ") + "." : "Open to all." });
	return make("details", {}, title, note, form, output);
}

const byTag = new Map();
for (const [path, methods] of Object.entries(api.paths)) {
	for (const [method, route] of Object.entries(methods)) {
		const tag = route.tags[0];
		if (!byTag.has(tag)) byTag.set(tag, make("section", {}, make("h2", { textContent: tag })));
		byTag.get(tag).append(operation(method.toUpperCase(), path, route));
	}
}
main.append(...byTag.values());
`,
	],
};
