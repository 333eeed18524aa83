#!/usr/bin/env node
/** Serves the page, the libraries it imports and one package folder on loopback: node serve.mjs PACKAGE [--port N]. */
import { createReadStream, existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, sep } from "node:path";
import { pipeline } from "node:stream";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const LIBRARIES = ["node_modules/onnxruntime-web/dist/", "node_modules/@huggingface/tokenizers/dist/"];
/** @type {Record<string, string>} */
const TYPES = { ".html": "text/html", ".css": "text/css", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin", // browsers give threads only to pages with this and the next
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src data:",
  "Cache-Control": "no-cache",
};

/** Serve a package folder; port 0 takes a free one. @param {string} folder @param {number} [port] */
export async function serve(folder, port = 0) {
  const manifest = join(folder, "manifest.json");
  if (!existsSync(manifest)) throw new Error(`${folder}: found no manifest.json, expected a package folder`);
  const missing = LIBRARIES.find((library) => !existsSync(join(HERE, library)));
  if (missing) throw new Error(`${HERE}${missing}: found no such folder, expected what npm ci puts there`);
  const root = JSON.parse(readFileSync(manifest, "utf8")).weights?.root ?? folder; // perhaps the checkpoint's folder
  const libraries = LIBRARIES.map((library) => [`/${library}`, join(HERE, library)]);
  const places = [["/package/", folder], ["/package/", root], ["/", join(HERE, "public")], ...libraries];
  const server = createServer(({ method, url = "" }, response) => {
    const file = method === "GET" && locate(url, places);
    if (!file) return response.writeHead(404, HEADERS).end();
    const type = TYPES[extname(file)] ?? "application/octet-stream";
    response.writeHead(200, { ...HEADERS, "Content-Type": type, "Content-Length": statSync(file).size });
    pipeline(createReadStream(file), response, () => {}); // a visitor may leave before the end
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(port, "127.0.0.1", () => resolve(null)));
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  return { url: `http://127.0.0.1:${address.port}/`, close: () => (server.close(), server.closeAllConnections()) };
}

/** Return the file a URL names if, links followed, it lies in a place of that prefix.
 * @param {string} url @param {string[][]} places  prefix and folder */
export function locate(url, places) {
  try {
    const path = decodeURIComponent(url.split("?")[0]).replace(/\/$/, "/index.html");
    for (const [prefix, folder] of places) {
      const file = path.startsWith(prefix) ? join(folder, path.slice(prefix.length)) : "";
      if (!existsSync(file) || !statSync(file).isFile()) continue;
      if (realpathSync(file).startsWith(realpathSync(folder) + sep)) return file;
    }
  } catch {} // a malformed URL names no file
}

/** Run a module's main function where it is the program: its number is the exit code, an error one line and code 2.
 * @param {string} module @param {() => Promise<number | void>} main */
export function program(module, main) {
  if (!process.argv[1] || realpathSync(process.argv[1]) !== fileURLToPath(module)) return;
  main().then((code) => (process.exitCode = code ?? 0), (error) => {
    console.error(error.message.split("\n")[0]);
    process.exit(2);
  });
}

program(import.meta.url, async () => {
  const { values, positionals } = parseArgs({ options: { port: { type: "string" } }, allowPositionals: true });
  if (positionals.length !== 1) throw new Error("usage: node serve.mjs PACKAGE [--port N]");
  console.log((await serve(positionals[0], Number(values.port ?? 0))).url);
});
