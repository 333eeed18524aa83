import assert from "node:assert/strict";
import { mkdtempSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { serve } from "../serve.mjs";

const above = mkdtempSync(join(tmpdir(), "gptoss-serve-"));
const folder = join(above, "package");
const root = join(above, "checkpoint");
for (const place of [folder, root, join(folder, "golden")]) mkdirSync(place);
writeFileSync(join(above, "secret"), "secret");
writeFileSync(join(folder, "manifest.json"), JSON.stringify({ weights: { root } }));
writeFileSync(join(folder, "golden", "golden.json"), "{}");
writeFileSync(join(root, "model.safetensors"), "weights");
symlinkSync(join(above, "secret"), join(folder, "link"));

/** Send a path as it is, which fetch would normalize; return the status line and the whole answer. */
const raw = (/** @type {string} */ url, /** @type {string} */ path) =>
  new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url);
    let answer = "";
    const socket = connect(Number(port), hostname, () => socket.write(`GET ${path} HTTP/1.0\r\n\r\n`));
    socket.on("data", (data) => (answer += data)).on("end", () => resolve(answer)).on("error", reject);
  });

test("the page, its libraries, the package and the weights it refers to, with headers for threads", async () => {
  const { url, close } = await serve(folder);
  try {
    for (const [path, type] of [
      ["", "text/html"],
      ["worker.mjs", "text/javascript"],
      ["package/golden/golden.json", "application/octet-stream"],
      ["package/model.safetensors", "application/octet-stream"],
      ["node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm", "application/wasm"],
    ]) {
      const response = await fetch(url + path);
      assert.equal(response.status, 200, path);
      assert.equal(response.headers.get("Content-Type"), type, path);
      assert.equal(response.headers.get("Cross-Origin-Opener-Policy"), "same-origin");
      assert.equal(response.headers.get("Cross-Origin-Embedder-Policy"), "require-corp");
      assert.equal((await response.arrayBuffer()).byteLength, Number(response.headers.get("Content-Length")), path);
    }
  } finally {
    close();
  }
});

test("nothing else: no other folder, no link out of one, no malformed path", async () => {
  const { url, close } = await serve(folder);
  try {
    for (const path of [
      "/package/../secret", "/package/%2e%2e/secret", "/package/..%2fsecret", "/package//../../secret", "/package/link",
      "/../serve.mjs", "/%2e%2e/serve.mjs", "/%2e%2e/package.json", "/node_modules/typescript/package.json", "/package",
      "/package/golden", "/package/%", "/package/%00", "/etc/passwd", "//etc/passwd", "",
    ]) {
      const answer = await raw(url, path);
      assert.doesNotMatch(answer, /secret|root:|gptoss-onnx-browser/, path);
      assert.match(answer, /^HTTP\/1.1 40[04]/, path);
    }
    assert.equal((await fetch(url, { method: "POST" })).status, 404);
  } finally {
    close();
  }
});

test("a folder that is no package is refused by name", async () => {
  await assert.rejects(serve(above), /found no manifest.json, expected a package folder/);
});
