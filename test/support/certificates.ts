import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { run } from "../../scripts/servers/tools.ts";

/** Files in PEM of an authority of the test's own, of a server on 127.0.0.1 and of a client. */
export interface Certificates {
	readonly files: Readonly<Record<"ca" | "serverCert" | "serverKey", string>>;
	readonly ca: string;
	readonly cert: string;
	readonly key: string;
}

/** Makes them by openssl, for a day. */
export async function makeCertificates(folder: string): Promise<Certificates> {
	const openssl = (...args: string[]) => run("openssl", args, { cwd: folder });
	const fresh = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
	await openssl(
		...["req", "-x509", ...fresh, "-days", "1", "-subj", "/CN=Lottor test authority"],
		...["-keyout", "ca.key", "-out", "ca.pem"],
	);
	for (const name of ["server", "client"]) {
		const usage = `subjectAltName=IP:127.0.0.1\nextendedKeyUsage=${name}Auth\n`;
		writeFileSync(join(folder, `${name}.ext`), usage);
		await openssl(
			...["req", ...fresh, "-subj", `/CN=${name}`],
			...["-keyout", `${name}.key`, "-out", `${name}.csr`],
		);
		await openssl(
			...["x509", "-req", "-days", "1", "-in", `${name}.csr`, "-extfile", `${name}.ext`],
			...["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", `${name}.pem`],
		);
	}
	const read = (name: string) => readFileSync(join(folder, name), "utf8");
	return {
		files: {
			ca: join(folder, "ca.pem"),
			serverCert: join(folder, "server.pem"),
			serverKey: join(folder, "server.key"),
		},
		ca: read("ca.pem"),
		cert: read("client.pem"),
		key: read("client.key"),
	};
}
