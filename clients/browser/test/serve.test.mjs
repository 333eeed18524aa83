import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { serve } from "../serve.mjs";
import { GRAPH, manifestOf, safetensors, WEIGHTS } from "./small-package.mjs";

const above = mkdtempSync(join(tmpdir(), "gptoss-serve-"));
after(() => rmSync(above, { recursive: true }));
writeFileSync(join(above, "secret"), "secret");
let made = 0;

/** Write a package folder that can be served. @param {object} [changes]  of the manifest */
function packageOf(changes = {}) {
  const folder = join(above, `package${made++}`);
  mkdirSync(join(folder, "golden"), { recursive: true });
  writeFileSync(join(folder, "manifest.json"), JSON.stringify(manifestOf(changes)));
  writeFileSync(join(folder, "model.onnx"), GRAPH);
  writeFileSync(join(folder, "model.safetensors"), WEIGHTS.file);
  writeFileSync(join(folder, "tokenizer.json"), "{}");
  writeFileSync(join(folder, "golden", "golden.json"), "{}");
  writeFileSync(join(folder, "notes.txt"), "secret");
  return folder;
}

/**
 * Write a package of mode reference and its checkpoint.
 * @param {string} name
 * @param {Uint8Array} content
 */
function referring(name, content) {
  const root = join(above, `checkpoint${made++}`);
  mkdirSync(join(root, "sub"), { recursive: true });
  writeFileSync(join(root, name), content);
  writeFileSync(join(root, "other.safetensors"), WEIGHTS.file);
  const files = [{ ...manifestOf().weights.files[0], name }];
  return { root, folder: packageOf({ weights: { mode: "reference", root, files } }) };
}

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

const other = safetensors(
  { first: { data_offsets: [0, 4] }, second: { data_offsets: [8, 12] } },
  12,
).file;
/** @type {[string, () => string, RegExp][]} */
const REFUSED = [
  ["no manifest", () => above, /: found no manifest.json, expected a package folder$/],
  ["no folder", () => join(above, "none"), /none: found no such folder, expected a package/],
  ["a file", () => join(above, "secret"), /found no manifest.json, expected a package folder/],
  [
    "a manifest that is no JSON",
    () => spoilt("manifest.json", (file) => writeFileSync(file, "{")),
    /found no JSON/,
  ],
  [
    "a manifest that is nested",
    () => spoilt("manifest.json", (file) => writeFileSync(file, "[".repeat(1e5))),
    /100 deep/,
  ],
  ["a manifest without an end", () => spoilt("manifest.json", endless), /bytes: found 1000000000/],
  [
    "a manifest that is a FIFO",
    () => spoilt("manifest.json", fifo),
    /manifest.json: found a FIFO or a device/,
  ],
  [
    "a manifest that leads out",
    () => spoilt("manifest.json", linked),
    /manifest.json: found a link to .*secret/,
  ],
  ["a manifest of another target", () => packageOf({ target: "cuda" }), /target: found cuda/],
  [
    "an absolute graph",
    () => packageOf({ graph: "/etc/passwd" }),
    /graph: found \/etc\/passwd, expected a plain/,
  ],
  [
    "a graph above",
    () => packageOf({ graph: "../secret" }),
    /graph: found ..\/secret, expected a plain/,
  ],
  [
    "no graph",
    () => spoilt("model.onnx", () => {}),
    /model.onnx: found no such file, expected one, as manifest.json/,
  ],
  [
    "a graph that leads out",
    () => spoilt("model.onnx", linked),
    /model.onnx: found a link to .*secret/,
  ],
  [
    "a graph that is a FIFO",
    () => spoilt("model.onnx", fifo),
    /model.onnx: found a FIFO or a device/,
  ],
  [
    "a graph that is a folder",
    () => spoilt("model.onnx", (file) => mkdirSync(file)),
    /model.onnx: found a folder/,
  ],
  [
    "a device",
    () => spoilt("tokenizer.json", (file) => symlinkSync("/dev/zero", file)),
    /found a link to \/dev\/zero/,
  ],
  [
    "golden vectors that lead out",
    () => spoilt("golden/golden.json", linked),
    /golden.json: found a link to/,
  ],
  ["a folder of golden vectors that leads out", outerGolden, /golden.json: found a link to/],
  [
    "weights that are cut off",
    () => spoilt("model.safetensors", (file) => writeFileSync(file, "short")),
    /bytes: found 5/,
  ],
  [
    "other weights",
    () => spoilt("model.safetensors", (file) => writeFileSync(file, other)),
    /sha256 of the header: found/,
  ],
  [
    "a root outside of mode reference",
    () => packageOf({ weights: { ...manifestOf().weights, root: "/" } }),
    /weights.root/,
  ],
  [
    "any file below the root",
    () => referring("x", Buffer.from("secret".repeat(40))).folder,
    /bytes: found 240/,
  ],
  [
    "another file of that size",
    () => referring("x", Buffer.alloc(WEIGHTS.file.length, "s")).folder,
    /safetensors header/,
  ],
  [
    "other tensors below the root",
    () => referring("x", other).folder,
    /sha256 of the header: found/,
  ],
  [
    "a link out of the root",
    linkedWeights,
    /x: found a link to .*, expected a file in .*checkpoint/,
  ],
  [
    "a root that is not there",
    () => spoiltRoot(),
    /found no such folder, expected a package or its checkpoint/,
  ],
];

/**
 * Return a package in which something else is in the place of a file.
 * @param {string} name
 * @param {(file: string) => void} put
 */
function spoilt(name, put) {
  const folder = packageOf();
  unlinkSync(join(folder, name));
  put(join(folder, name));
  return folder;
}

function endless(/** @type {string} */ file) {
  writeFileSync(file, "");
  truncateSync(file, 1e9);
}

function fifo(/** @type {string} */ file) {
  execFileSync("mkfifo", [file]);
}

function linked(/** @type {string} */ file) {
  symlinkSync(join(above, "secret"), file);
}

function outerGolden() {
  const folder = packageOf();
  const outside = join(above, `golden${made++}`);
  renameSync(join(folder, "golden"), outside);
  symlinkSync(outside, join(folder, "golden"));
  return folder;
}

function linkedWeights() {
  const { folder, root } = referring("x", WEIGHTS.file);
  renameSync(join(root, "x"), join(above, "weights"));
  symlinkSync(join(above, "weights"), join(root, "x"));
  return folder;
}

function spoiltRoot() {
  const { folder, root } = referring("x", WEIGHTS.file);
  rmSync(root, { recursive: true });
  return folder;
}

for (const [what, make, message] of REFUSED)
  test(`refused in one line: ${what}`, async () => {
    await assert.rejects(serve(make()), { name: "ClientError", message });
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
