#!/usr/bin/env node
/**
 * Server: hands out the page, the libraries it imports and the files of one package, and nothing
 * else.
 */
import { existsSync, readdirSync, realpathSync } from "node:fs";
import { createServer } from "node:http";
import { basename, dirname, extname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { openServed, packageFiles } from "./files.mjs";
import { misused, program, wholeNumber } from "./program.mjs";
import { ClientError, messageOf } from "./public/errors.mjs";
import { fileUrl } from "./public/fetch.mjs";

/**
 * @typedef {import("./files.mjs").ServedFile} ServedFile
 * @typedef {{port?: number, address?: string, hostNames?: string[]}} ServeOptions
 * @typedef {import("node:http").IncomingMessage} Request
 * @typedef {import("node:http").ServerResponse} Response
 */

const USAGE = `usage: node serve.mjs PACKAGE [--port N] [--host-name NAME]... [--address ADDRESS]
Serves a package folder and the page that runs it, and prints the URL.
  --port N           the port; 0, the default, takes a free one
  --host-name NAME   answer requests to this name as well, such as a proxy's; may be repeated
  --address ADDRESS  where to listen; the default is 127.0.0.1, which other machines cannot reach`;

const HERE = fileURLToPath(new URL(".", import.meta.url));
const LIBRARIES = [
  "node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
  "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
  "node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs",
];
const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];
const ANY_ADDRESS = ["0.0.0.0", "::"]; // to listen on, but not to go to
const LONGEST_SILENCE = 120_000; // milliseconds until a connection on which nothing moves is closed
/** @type {Record<string, string>} */
const TYPES = {
  ".html": "text/html",
  ".css": "text/css",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};
const HEADERS = {
  // Browsers give threads only to pages with this and the next.
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Content-Security-Policy":
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src data:",
  "X-Content-Type-Options": "nosniff",
  "Cache-Control": "no-cache",
};

/**
 * Serve a package folder. Throws a ClientError where it is not a whole package.
 * @param {string} folder
 * @param {ServeOptions} [options]
 */
export async function serve(folder, { port = 0, address = "127.0.0.1", hostNames = [] } = {}) {
  const places = routes(await packageFiles(folder));
  /** @type {Set<string>} */
  const hosts = new Set();
  const server = createServer(async (request, response) => {
    try {
      await answer(request, response, places, hosts);
    } catch {
      // The visitor left, or the file broke off after its first bytes: too late for an answer.
      response.destroy();
    }
  });
  server.setTimeout(LONGEST_SILENCE);
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, address, () => resolve(null));
  });
  const bound = /** @type {import("node:net").AddressInfo} */ (server.address()).port;
  // No other site has an address for a name, so the address may be used as well.
  const own = address.includes(":") ? `[${address}]` : address;
  for (const name of [...LOOPBACK, own, ...hostNames]) hosts.add(`${name}:${bound}`.toLowerCase());
  // Browsers leave the port out where it is the usual one: here, or at a proxy.
  for (const name of bound === 80 ? [...LOOPBACK, own, ...hostNames] : hostNames)
    hosts.add(name.toLowerCase());
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://${ANY_ADDRESS.includes(address) ? "127.0.0.1" : own}:${bound}/`, close };
}

/**
 * Return the file behind each path, written as a browser sends it: a path that is not among these
 * names no file, so there is nothing to decode or to normalize.
 * @param {ServedFile[]} files  of the package
 */
function routes(files) {
  /** @type {Map<string, ServedFile>} */
  const places = new Map();
  places.set("/", ownFile("public/index.html"));
  for (const name of readdirSync(join(HERE, "public")))
    if (extname(name) in TYPES) places.set(`/${name}`, ownFile(`public/${name}`));
  for (const path of LIBRARIES) places.set(`/${path}`, ownFile(path));
  const root = new URL("http://localhost/package/");
  for (const file of files) places.set(fileUrl(file.name, root).pathname, file);
  return places;
}

/**
 * Return a file of this client, which may well be a link.
 * @param {string} path  relative to the client's folder
 * @returns {ServedFile}
 */
function ownFile(path) {
  if (!existsSync(join(HERE, path)))
    throw new ClientError(`${HERE}${path}: found no such file, expected it; run npm ci`);
  const real = realpathSync(join(HERE, path));
  return { folder: dirname(real), name: basename(real), weights: null };
}

/**
 * @param {Request} request
 * @param {Response} response
 * @param {Map<string, ServedFile>} places
 * @param {Set<string>} hosts
 */
async function answer(request, response, places, hosts) {
  // A page of another site can have its own name lead to this machine; then the browser would
  // let it read the answers as its own.
  const host = request.headers.host?.toLowerCase() ?? "";
  if (!hosts.has(host))
    return refuse(response, 421, "unknown host name; see --host-name of serve.mjs");
  if (request.method !== "GET" && request.method !== "HEAD")
    return refuse(response, 405, "only GET and HEAD");
  const file = places.get((request.url ?? "").split("?")[0]);
  if (!file) return refuse(response, 404, "no such file");
  const opened = await openServed(file).catch((error) => messageOf(error));
  if (opened === null) return refuse(response, 404, "no such file");
  if (typeof opened === "string") return refuse(response, 403, opened);
  const { handle, size } = opened;
  const type = TYPES[extname(file.name)] ?? "application/octet-stream";
  response.writeHead(200, { ...HEADERS, "Content-Type": type, "Content-Length": size });
  if (request.method === "HEAD" || size === 0) {
    await handle.close();
    response.end();
    return;
  }
  const content = handle.createReadStream({ start: 0, end: size - 1 });
  await pipeline(content, response); // reads on as the visitor does, and closes the file
  // A file that was cut off meanwhile leaves the visitor waiting for the rest.
  if (content.bytesRead < size) request.socket.destroy();
}

/** @param {Response} response @param {number} status @param {string} reason */
function refuse(response, status, reason) {
  const headers = { ...HEADERS, "Content-Type": "text/plain; charset=utf-8", Connection: "close" };
  response
    .writeHead(status, status === 405 ? { ...headers, Allow: "GET, HEAD" } : headers)
    .end(`${reason}\n`);
}

const TEXT = /** @type {const} */ ({ type: "string" });
const TEXTS = /** @type {const} */ ({ type: "string", multiple: true });
const OPTIONS = { port: TEXT, address: TEXT, "host-name": TEXTS };

program(import.meta.url, USAGE, OPTIONS, async (values, positionals) => {
  if (positionals.length !== 1) misused(USAGE);
  const port = wholeNumber("--port", values.port ?? "0", 65535);
  const { url } = await serve(positionals[0], {
    port,
    address: values.address,
    hostNames: values["host-name"],
  });
  console.log(url);
});
