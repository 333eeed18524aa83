import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { callEnds, checkManifest, fetchBytes, fetchJson, MOST_WEIGHT_BYTES, slots } from "../public/package.mjs";

/** @type {any} */
const MANIFEST = { format: "gptoss-onnx", format_version: 1, target: "portable", kv_dtype: "float32",
  weights: { files: [{ name: "a", size: 3 }, { name: "b", size: 4 }] } };

/** Answer every request alike, and give its URL to a function. */
const answering = async (/** @type {number} */ status, /** @type {string} */ body, /** @type {any} */ use) => {
  const server = createServer((_, response) => response.writeHead(status).end(body));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(null)));
  try {
    await use(new URL(`http://127.0.0.1:${/** @type {any} */ (server.address()).port}/package/file`));
  } finally {
    server.close();
    server.closeAllConnections();
  }
};

test("full layers hold the capacity, window layers what their ring needs", () => {
  assert.equal(slots("portable", 0, 1000), 1000);
  assert.equal(slots("portable", 128, 5000), 128 + 512 - 1);
  assert.equal(slots("portable", 128, 100), 100);
});

test("window layers of target ort hold the window, however small the capacity", () => {
  assert.equal(slots("ort", 0, 1000), 1000);
  assert.equal(slots("ort", 128, 5000), 128);
  assert.equal(slots("ort", 128, 100), 128);
});

test("calls end with their chunk; those of target ort at wanted positions too", () => {
  assert.deepEqual(callEnds("portable", 1, [0]), [1]);
  assert.deepEqual(callEnds("portable", 1200, [3, 1199]), [512, 1024, 1200]);
  assert.deepEqual(callEnds("ort", 1200, [3, 600, 1199]), [4, 516, 601, 1113, 1200]);
  assert.deepEqual(callEnds("ort", 3, [0, 1, 2]), [1, 2, 3]);
});

test("a manifest that a browser cannot run is refused by its first reason", () => {
  assert.equal(checkManifest(MANIFEST), 7);
  assert.throws(() => checkManifest({ ...MANIFEST, format_version: 2 }), /format_version: found 2, expected 1/);
  assert.throws(() => checkManifest({ ...MANIFEST, target: "cuda" }), /target: found cuda, expected portable or ort/);
  assert.throws(() => checkManifest({ ...MANIFEST, kv_dtype: "bfloat16" }), /kv_dtype: found bfloat16, expected/);
  const files = [{ name: "a", size: MOST_WEIGHT_BYTES }, { name: "b", size: 1 }];
  assert.throws(() => checkManifest({ ...MANIFEST, weights: { files } }), /in bytes: found 1073741825, expected/);
  assert.throws(() => checkManifest(/** @type {any} */ ({})), /format: found undefined/);
});

test("bytes arrive whole, with progress", () =>
  answering(200, "x".repeat(300_000), async (/** @type {URL} */ url) => {
    for (const size of [300_000, undefined]) {
      /** @type {[string, number, number][]} */
      const reports = [];
      const bytes = await fetchBytes(url, { size, onProgress: (...report) => reports.push(report) });
      assert.equal(bytes.length, 300_000);
      assert.ok(bytes.every((byte) => byte === "x".charCodeAt(0)));
      assert.deepEqual(reports.at(-1), ["/package/file", 300_000, 300_000]);
    }
  }));

test("a file of another size than the manifest's is refused", () =>
  answering(200, "12345", async (/** @type {URL} */ url) => {
    for (const size of [4, 6])
      await assert.rejects(fetchBytes(url, { size }), new RegExp(`/file: bytes: found 5, expected ${size}`));
  }));

test("a missing file is named, or replaced where it may be missing", () =>
  answering(404, "", async (/** @type {URL} */ url) => {
    await assert.rejects(fetchJson(url), /\/package\/file: HTTP status: found 404, expected 200/);
    assert.deepEqual(await fetchJson(url, { instead: '{"a": 1}' }), { a: 1 });
  }));

test("what is no JSON is named", () =>
  answering(200, "{", (/** @type {URL} */ url) => assert.rejects(fetchJson(url), /\/package\/file: found no JSON/)));
