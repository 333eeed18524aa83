// Requests to the server: what is handed out, to whom, and nothing else.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { symlinkSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { serve } from "../serve.mjs";
import { above, packageOf, referring } from "./served.mjs";
import { safetensors, WEIGHTS } from "./small-package.mjs";

/**
 * Serve a folder while something is done with its URL.
 * @param {string} folder
 * @param {(url: string) => Promise<void>} use
 * @param {object} [options]
 */
async function serving(folder, use, options) {
  const { url, close } = await serve(folder, options);
  try {
    await use(url);
  } finally {
    close();
  }
}

/**
 * Send a request as it is, which fetch would normalize; return the whole answer.
 * @param {string} url
 * @param {string} path
 * @param {string} [host]
 * @param {string} [method]
 * @returns {Promise<string>}
 */
function raw(url, path, host = new URL(url).host, method = "GET") {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url);
    let answer = "";
    const header = host === "" ? "" : `Host: ${host}\r\n`;
    const socket = connect(Number(port), hostname, () =>
      socket.write(`${method} ${path} HTTP/1.0\r\n${header}\r\n`),
    );
    socket
      .on("data", (data) => (answer += data))
      .on("end", () => resolve(answer))
      .on("error", reject);
  });
}

test("the page, its libraries and the files of the package, with headers for threads", () =>
  serving(packageOf(), async (url) => {
    for (const [path, type] of [
      ["", "text/html"],
      ["index.html", "text/html"],
      ["worker.mjs", "text/javascript"],
      ["style.css?version=2", "text/css"],
      ["package/manifest.json", "application/json"],
      ["package/golden/golden.json", "application/json"],
      ["package/tokenizer.json", "application/json"],
      ["package/model.onnx", "application/octet-stream"],
      ["package/model.safetensors", "application/octet-stream"],
      ["node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm", "application/wasm"],
      ["node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs", "text/javascript"],
    ]) {
      const response = await fetch(url + path);
      assert.equal(response.status, 200, path);
      assert.equal(response.headers.get("Content-Type"), type, path);
      assert.equal(response.headers.get("Cross-Origin-Opener-Policy"), "same-origin");
      assert.equal(response.headers.get("Cross-Origin-Embedder-Policy"), "require-corp");
      const length = Number(response.headers.get("Content-Length"));
      assert.equal((await response.arrayBuffer()).byteLength, length, path);
      const head = await fetch(url + path, { method: "HEAD" });
      assert.equal(Number(head.headers.get("Content-Length")), length);
      assert.equal((await head.text()).length, 0);
    }
    // A package need not have one.
    assert.equal((await fetch(`${url}package/generation_config.json`)).status, 404);
  }));

test("nothing else: no other file, no other folder, no path that means another one", () =>
  serving(packageOf(), async (url) => {
    const manifest = "package/manifest.json";
    for (const path of [
      "/package/notes.txt",
      "/package/../secret",
      "/package/%2e%2e/secret",
      "/package/..%2fsecret",
      "/package/%2fetc/passwd",
      "/package//../../secret",
      "/package/golden",
      "/package/golden/",
      "/package/golden/../manifest.json",
      "/package",
      "/package/",
      "/package/%6danifest.json",
      "/package/golden%2fgolden.json",
      "/package/manifest.json%00",
      "/package/%00",
      "/package/%",
      "/package/manifest.json/",
      `/${manifest}/../../${manifest}`,
      `//${manifest}`,
      `/./${manifest}`,
      "/../serve.mjs",
      "/%2e%2e/serve.mjs",
      "/serve.mjs",
      "/package.json",
      "/node_modules/typescript/package.json",
      "/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs",
      "/node_modules/onnxruntime-web/package.json",
      "/etc/passwd",
      "//etc/passwd",
      `http://localhost/${manifest}`,
      "*",
    ]) {
      const answer = await raw(url, path);
      assert.doesNotMatch(answer, /secret|root:|gptoss-onnx/, path);
      assert.match(answer, /^HTTP\/1.1 40[04] /, path);
    }
  }));

test("only reading", () =>
  serving(packageOf(), async (url) => {
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"]) {
      const response = await fetch(url, { method });
      assert.equal(response.status, 405, method);
      assert.equal(response.headers.get("Allow"), "GET, HEAD");
    }
  }));

test("only for the loopback's names, and those given", async () => {
  const folder = packageOf();
  const statusOf = async (/** @type {string} */ url, /** @type {string} */ host) =>
    Number((await raw(url, "/package/manifest.json", host)).split(" ")[1]);
  await serving(folder, async (url) => {
    const { port } = new URL(url);
    for (const host of [
      `localhost:${port}`,
      `LOCALHOST:${port}`,
      `127.0.0.1:${port}`,
      `[::1]:${port}`,
    ])
      assert.equal(await statusOf(url, host), 200, host);
    for (const host of [
      "",
      "evil.example",
      `evil.example:${port}`,
      `localhost.evil.example:${port}`,
      `localhost:${Number(port) + 1}`,
      "localhost",
      `127.0.0.1.nip.io:${port}`,
      `evil@localhost:${port}`,
      `0.0.0.0:${port}`,
      `demo.example:${port}`,
    ])
      assert.equal(await statusOf(url, host), 421, host);
  });
  await serving(
    folder,
    async (url) => {
      const { port } = new URL(url);
      for (const host of ["demo.example", `Demo.Example:${port}`, `127.0.0.1:${port}`])
        assert.equal(await statusOf(url, host), 200, host);
      for (const host of ["demo.example:1", "x.demo.example"])
        assert.equal(await statusOf(url, host), 421, host);
    },
    { hostNames: ["demo.example"] },
  );
});

test("a file that is replaced while it is served obeys the rule as well", async () => {
  const folder = packageOf();
  await serving(folder, async (url) => {
    const graph = join(folder, "model.onnx");
    unlinkSync(graph);
    assert.equal((await fetch(`${url}package/model.onnx`)).status, 404);
    symlinkSync(join(above, "secret"), graph);
    const linked = await fetch(`${url}package/model.onnx`);
    assert.equal(linked.status, 403);
    assert.match(await linked.text(), /model.onnx: found a link to .*, expected a file in/);
    unlinkSync(graph);
    execFileSync("mkfifo", [graph]);
    assert.equal((await fetch(`${url}package/model.onnx`)).status, 403);
    truncateSync(join(folder, "model.safetensors"), 20);
    assert.equal((await fetch(`${url}package/model.safetensors`)).status, 403);
  });
});

test("in mode reference, the weight file described, and nothing else below the root", async () => {
  const { folder } = referring("sub/model.safetensors", WEIGHTS.file);
  await serving(folder, async (url) => {
    const response = await fetch(`${url}package/sub/model.safetensors`);
    assert.equal((await response.arrayBuffer()).byteLength, WEIGHTS.file.length);
    assert.equal((await fetch(`${url}package/other.safetensors`)).status, 404);
    assert.equal((await fetch(`${url}package/model.safetensors`)).status, 404);
  });
});

test("a visitor who reads nothing is not read for, and one who leaves is forgotten", async () => {
  const size = 200e6;
  const { file, hash } = safetensors({ first: { data_offsets: [0, 8] } }, 8);
  const files = [{ name: "model.safetensors", origin: "checkpoint", size, header_sha256: hash }];
  const folder = packageOf({ weights: { mode: "copy", root: null, files } });
  writeFileSync(join(folder, "model.safetensors"), file);
  truncateSync(join(folder, "model.safetensors"), size); // sparse
  await serving(folder, async (url) => {
    const before = process.memoryUsage().rss;
    const visitors = Array.from({ length: 8 }, () =>
      request(`${url}package/model.safetensors`).end(),
    );
    const answers = await Promise.all(
      visitors.map(
        (visitor) =>
          new Promise((resolve) => visitor.on("response", (answer) => resolve(answer.pause()))),
      ),
    );
    assert.equal(answers.length, 8);
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.ok(process.memoryUsage().rss - before < size, "the file was read into memory");
    for (const visitor of visitors) visitor.destroy();
    assert.equal((await fetch(`${url}package/manifest.json`)).status, 200);
  });
});

test("the command line: help, and one line for what is wrong", () => {
  const run = (/** @type {string[]} */ ...words) =>
    spawnSync("node", ["serve.mjs", ...words], { encoding: "utf8" });
  const help = run("--help");
  assert.equal(help.status, 0);
  assert.match(help.stdout, /^usage: node serve.mjs PACKAGE/);
  assert.match(help.stdout, /--host-name NAME/);
  assert.equal(help.stderr, "");
  const escape = packageOf({ target: "\u001b[31mred\nline" });
  for (const [words, says] of /** @type {[string[], RegExp][]} */ ([
    [[], /^usage: /],
    [["a", "b"], /^usage: /],
    [["--nonsense"], /^Unknown option '--nonsense'/],
    [[above, "--port", "x"], /^--port: found x, expected an integer, 0 to 65535$/],
    [[above, "--port", "65536"], /^--port: found 65536/],
    [[above, "--port", ""], /^--port: found nothing/],
    [[above], /found no manifest.json, expected a package folder$/],
    [[escape], /target: found \\u001b\[31mred\\u000aline, expected portable or ort$/],
  ])) {
    const { status, stdout, stderr } = run(...words);
    assert.equal(status, 2, words.join(" "));
    assert.equal(stdout, "");
    assert.match(stderr.trimEnd(), says);
    assert.equal(stderr.trimEnd().split("\n").length, 1, stderr);
  }
});
